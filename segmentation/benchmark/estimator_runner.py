"""Contestants in processes of their own take turns, so that the machine's moods hit all alike."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from segmentation.benchmark import estimator_peers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: A fit that takes longer than this is not repeated: five of them would tell no more.
_LONG_SECONDS = 60.0
#: One that takes longer than this has hung.
_PATIENCE_SECONDS = 1_800.0
#: What libraries read that would otherwise take every core.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class Times:
    """What was measured of one contestant: a figure a round."""

    name: str
    title: str
    seconds: list[float] = field(default_factory=list)
    centers: list[Any] = field(default_factory=list)
    peak_memory_bytes: int = 0
    failure: str | None = None

    @property
    def median(self) -> float | None:
        """Seconds of the middle round; None where there was none."""
        return statistics.median(self.seconds) if self.seconds else None


def race(
    names: Sequence[str], matrix: Path, rounds: int, told: Callable[[str], None]
) -> list[Times]:
    """Let every contestant fit ``rounds`` times, after one fit to warm up, in a rotating order.

    Each round has a seed of its own, the same for all. One that fails, or whose module isn't
    installed, is kept with the reason.
    """
    times = [Times(name, estimator_peers.ALL[name][0]) for name in names]
    with contextlib.ExitStack() as stack:
        running: dict[str, _Process] = {}
        for entry in times:
            module = estimator_peers.missing(entry.name)
            if module is not None:
                entry.failure = f"{module} is not installed"
                continue
            try:
                running[entry.name] = stack.enter_context(_Process(entry.name, matrix))
                # To warm up: compiled code is loaded, a JVM has seen the loop.
                warm = running[entry.name].fit(seed=1_000)
            except RuntimeError as error:
                entry.failure = str(error)
                _end(running, entry.name)
                continue
            told(f"{entry.title}: ready, first fit {warm['seconds']:.2f} s")
            if warm["seconds"] > _LONG_SECONDS:
                _add(entry, warm)
                _end(running, entry.name)
        for number in range(rounds):
            order = [times[(i + number) % len(times)] for i in range(len(times))]
            for entry in order:
                if entry.name not in running:
                    continue
                try:
                    _add(entry, running[entry.name].fit(seed=number))
                except RuntimeError as error:
                    entry.failure = str(error)
                    _end(running, entry.name)
            told(f"round {number + 1} of {rounds}")
    return times


def _end(running: dict[str, _Process], name: str) -> None:
    """Let one go that takes no further part, with all that it holds."""
    process = running.pop(name, None)
    if process is not None:
        process.close()


def _add(entry: Times, answer: dict[str, Any]) -> None:
    entry.seconds.append(answer["seconds"])
    entry.centers.append(answer["centers"])
    entry.peak_memory_bytes = answer["peak_memory_bytes"]


class _Process:
    """A contestant's process: started, asked a fit at a time, ended with the block."""

    def __init__(self, name: str, matrix: Path) -> None:
        # A file, since nobody reads a pipe while an answer is waited for, and a full one blocks.
        self._words = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-m", "segmentation.benchmark.estimator_peers", name, str(matrix)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            env={**os.environ, **dict.fromkeys(_THREADS, str(estimator_peers.THREADS))},
        )

    def __enter__(self) -> Self:
        try:
            self._answer()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            # Nobody waits for an answer any more, least of all whoever pressed Ctrl-C.
            self._process.kill()
        self.close()

    def close(self) -> None:
        """End the process; once is enough, twice does no harm."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._words.close()

    def fit(self, seed: int) -> dict[str, Any]:
        """Ask for one fit and wait for it.

        Raises
        ------
        RuntimeError
            If the process ended instead, with the last that it said.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps({"seed": seed}) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        # A limit for what hangs: without its process the line is empty.
        limit = threading.Timer(_PATIENCE_SECONDS, self._process.kill)
        limit.start()
        line = self._process.stdout.readline()
        limit.cancel()
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                return answer
        self._process.kill()
        status = self._process.wait()
        self._words.seek(0)
        words = self._words.read().strip().splitlines() or ["ended without a word"]
        raise RuntimeError(f"{words[-1][:200]} (status {status})")
