"""Progress per stage: records of what finished, and callbacks while a stage runs.

:class:`Progress` times the stages and reports nothing. :class:`TerminalProgress` redraws a line on
a terminal, and :class:`LogProgress` writes lines with time and level for a log.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from segmentation.redaction import make_printable, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger("segmentation")
_REDRAW_SECONDS = 0.1
_LOG_SECONDS = 10.0


@dataclass(frozen=True)
class StageRecord:
    """A finished stage: its wall-clock seconds, and what was counted in it."""

    name: str
    seconds: float
    counts: dict[str, int] = field(default_factory=dict)


class Stage:
    """A running stage; ``note`` is shown with its time when it ends."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._title = title
        self.started = time.monotonic()
        self.note = ""

    def update(self, done: int, total: int, unit: str, rows: int | None = None) -> None:
        """Report that ``done`` of ``total`` units are finished, and with them ``rows`` rows."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        parts = [f"{done:,}/{total:,} {unit}"]
        if rows is not None:
            parts += [f"{rows:,} rows", f"{_format_rate(rows / elapsed)} rows/s"]
        if 0 < done < total:
            parts.append(f"{_format_seconds(elapsed * (total - done) / done)} left")
        self._progress.show(f"  {self._title}: {' · '.join(parts)}")


class Progress:
    """The stages of a run, timed; every callback does nothing.

    Attributes
    ----------
    stages : list of StageRecord
        The stages that ended without an error.
    live : bool
        Whether someone watches a terminal.
    counter : callable or None
        Returns running totals; a stage's counts are the differences over it.
    """

    live = False

    def __init__(self) -> None:
        self.stages: list[StageRecord] = []
        self.counter: Callable[[], dict[str, int]] | None = None

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[Stage]:
        """Time a stage, and record it if it ends without an error."""
        stage = Stage(self, title)
        before = self.counter() if self.counter else {}
        logger.info("%s: begins", title)
        self.begin(title)
        try:
            yield stage
        except BaseException:
            self.clear()
            raise
        seconds = time.monotonic() - stage.started
        note = f": {stage.note}" if stage.note else ""
        self.end(name, title, seconds, stage.note)
        logger.info("%s: done in %.2f s%s", title, seconds, redact(note))
        after = self.counter() if self.counter else {}
        counts = {key: value - before.get(key, 0) for key, value in after.items()}
        self.stages.append(StageRecord(name, seconds, counts))

    def begin(self, title: str) -> None:
        """Report that a stage begins."""

    def end(self, name: str, title: str, seconds: float, note: str) -> None:
        """Report that a stage is done, with its time and what it did."""
        text = f": {note}" if note else ""
        self.say(f"  {title}{text} ({_format_seconds(seconds)})")

    def show(self, line: str) -> None:
        """Report how far a stage is; called often."""

    def say(self, line: str) -> None:
        """Report a line that is worth keeping."""

    def warn(self, line: str) -> None:
        """Report a line that the user must see."""

    def clear(self) -> None:
        """Take back what :meth:`show` has left on the screen."""


class TerminalProgress(Progress):
    """Progress on a text stream.

    Parameters
    ----------
    stream
        Where to write; None for nowhere, as Python has no stderr where the caller closed it.
    quiet
        Write warnings only.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        super().__init__()
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self.live = not quiet and self._stream is not None and self._stream.isatty()
        self._n_drawn = 0
        self._last_shown = 0.0

    def begin(self, title: str) -> None:
        """Draw the stage's line on a terminal."""
        self._last_shown = time.monotonic()
        if self.live:
            self._draw(f"  {title} ...")

    def show(self, line: str) -> None:
        """Redraw the stage's line on a terminal; write a line now and then elsewhere."""
        now = time.monotonic()
        if self._quiet or now - self._last_shown < (_REDRAW_SECONDS if self.live else _LOG_SECONDS):
            return
        self._last_shown = now
        if self.live:
            self._draw(line)
        else:
            self.say(line)

    def say(self, line: str) -> None:
        """Write a line that stays, unless quiet."""
        if not self._quiet:
            self.warn(line)

    def warn(self, line: str) -> None:
        """Write a line that stays."""
        self.clear()
        self._write(make_printable(line) + "\n")

    def clear(self) -> None:
        """Erase the line that was drawn last."""
        if self.live and self._n_drawn:
            self._write("\r" + " " * self._n_drawn + "\r")
            self._n_drawn = 0

    def _draw(self, line: str) -> None:
        """Write a line that the next one replaces."""
        width = shutil.get_terminal_size((100, 24)).columns
        line = make_printable(line)
        line = line if len(line) < width else line[: width - 2] + "…"
        self._write("\r" + line + " " * max(0, self._n_drawn - len(line)))
        self._n_drawn = len(line)

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # The reader is gone; the work goes on without it.
            self._stream = None
            self.live = False


class LogProgress(TerminalProgress):
    """Progress as log lines: each with its time and level, as text or as a JSON object.

    Parameters
    ----------
    stream
        Where to write; None for Python's stderr.
    as_json
        Whether each line is a JSON object, or text.
    quiet
        Write warnings, errors and the last line only.
    """

    def __init__(
        self, stream: TextIO | None = None, *, as_json: bool = False, quiet: bool = False
    ) -> None:
        super().__init__(stream, quiet=quiet)
        self.live = False
        self._as_json = as_json

    def end(self, name: str, title: str, seconds: float, note: str) -> None:
        """Write the line of a finished stage."""
        if not self._quiet:
            message = f"{title}: {note}" if note else title
            self.write("info", "stage", message, stage=name, seconds=round(seconds, 3))

    def say(self, line: str) -> None:
        """Write a line, unless quiet."""
        if not self._quiet:
            self.write("info", "message", line)

    def warn(self, line: str) -> None:
        """Write a warning."""
        self.write("warning", "warning", line.strip().removeprefix("warning: "))

    def write(self, level: str, event: str, message: str, **fields: Any) -> None:
        """Write one line.

        Parameters
        ----------
        level
            ``info``, ``warning`` or ``error``.
        event
            What the line is about: ``stage``, ``message``, ``warning``, ``error`` or ``done``.
        fields
            Further values of the event.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = make_printable(redact(" ".join(message.split())))
        if self._as_json:
            record = {"time": now, "level": level, "event": event, "message": message, **fields}
            self._write(json.dumps(record, ensure_ascii=False) + "\n")
            return
        values = "".join(f" {name}={value}" for name, value in fields.items())
        self._write(f"{now} {level.upper():7} {message}{values}\n")


def _format_rate(per_second: float) -> str:
    if per_second >= 1e6:
        return f"{per_second / 1e6:.1f} M"
    return f"{per_second / 1e3:.0f} k" if per_second >= 1e4 else f"{per_second:.0f}"


def _format_seconds(value: float) -> str:
    if value >= 90:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
