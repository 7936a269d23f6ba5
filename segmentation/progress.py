"""Progress a stage: one line that is redrawn on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Beneath Dask's own, whose settings say where lines go and which.
logger = logging.getLogger("distributed.segmentation")
_REDRAW_SECONDS = 0.1
_LOG_SECONDS = 10.0


@dataclass(frozen=True)
class StageRecord:
    """A finished stage and the wall-clock seconds it took."""

    name: str
    seconds: float
    counts: dict[str, int] = field(default_factory=dict)


class Stage:
    """One running stage; ``update`` reports how far it is."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._title = title
        self._began = time.monotonic()
        self._said = self._began
        self.note = ""

    def update(self, done: int, total: int, unit: str, rows: int | None = None) -> None:
        """Say that ``done`` of ``total`` units are finished, and with them ``rows`` rows."""
        now = time.monotonic()
        every = _REDRAW_SECONDS if self._progress.live else _LOG_SECONDS
        if now - self._said < every:
            return
        self._said = now
        elapsed = max(now - self._began, 1e-9)
        parts = [f"{done:,}/{total:,} {unit}"]
        if rows is not None:
            parts += [f"{rows:,} rows", f"{_rate(rows / elapsed)} rows/s"]
        if 0 < done < total:
            parts.append(f"{_seconds(elapsed * (total - done) / done)} left")
        self._progress.draw(f"  {self._title}: {' · '.join(parts)}")

    def finish(self) -> float:
        """Close the stage's line and return its seconds."""
        elapsed = time.monotonic() - self._began
        note = f": {self.note}" if self.note else ""
        self._progress.say(f"  {self._title}{note} ({_seconds(elapsed)})")
        return elapsed


class Progress:
    """Writes progress to a stream, or nowhere; remembers every stage's seconds."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        # Python has no stderr where the caller has closed it.
        self._stream: TextIO | None = stream if stream is not None else sys.stderr
        self._quiet = quiet or self._stream is None
        self.live = not self._quiet and self._stream is not None and self._stream.isatty()
        self._drawn = 0
        self.stages: list[StageRecord] = []
        #: What a stage's counts are the difference of; None where nobody counts.
        self.counter: Callable[[], dict[str, int]] | None = None

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[Stage]:
        """Time a stage; it is remembered only if it ends without an error."""
        stage = Stage(self, title)
        before = self.counter() if self.counter else {}
        logger.info("%s: begins", title)
        if self.live:
            self.draw(f"  {title} ...")
        try:
            yield stage
        except BaseException:
            self._clear()
            raise
        seconds = stage.finish()
        logger.info("%s: done in %.2f s%s", title, seconds, f": {stage.note}" if stage.note else "")
        after = self.counter() if self.counter else {}
        counts = {key: value - before.get(key, 0) for key, value in after.items()}
        self.stages.append(StageRecord(name, seconds, counts))

    def say(self, line: str) -> None:
        """Write a line that stays."""
        if not self._quiet:
            self._clear()
            self._write(line + "\n")

    def warn(self, line: str) -> None:
        """Write a line that stays, even where no progress is shown."""
        self._clear()
        self._write(line + "\n")

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # Nobody reads it any more; the work goes on.
            self._stream = None
            self.live = False

    def draw(self, line: str) -> None:
        """Write a line that the next one replaces, where the stream is a terminal."""
        if self._quiet:
            return
        if not self.live:
            self.say(line)
            return
        width = _terminal_width()
        line = line if len(line) < width else line[: width - 2] + "…"
        self._write("\r" + line + " " * max(0, self._drawn - len(line)))
        self._drawn = len(line)

    def _clear(self) -> None:
        if self.live and self._drawn:
            self._write("\r" + " " * self._drawn + "\r")
            self._drawn = 0


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns


def _rate(per_second: float) -> str:
    if per_second >= 1e6:
        return f"{per_second / 1e6:.1f} M"
    return f"{per_second / 1e3:.0f} k" if per_second >= 1e4 else f"{per_second:.0f}"


def _seconds(value: float) -> str:
    if value >= 90:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
