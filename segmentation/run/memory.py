"""Peak memory of the whole process tree, sampled while a job runs."""

from __future__ import annotations

import contextlib
import resource
import sys
import threading
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from types import TracebackType

_INTERVAL_SECONDS = 0.1


class PeakMemory:
    """Samples the resident memory of this process and all its children, summed, in bytes.

    Pages that processes share are counted once each, so the figure errs upwards. What one process
    peaked at between two samples is known exactly from the kernel and is the least that is said.
    """

    def __init__(self) -> None:
        self._peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        """The peak so far."""
        unit = 1 if sys.platform == "darwin" else 1024
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return max(self._peak, own, self._sample())

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL_SECONDS):
            self._peak = max(self._peak, self._sample())

    @staticmethod
    def _sample() -> int:
        process = psutil.Process()
        total = 0
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
        return total
