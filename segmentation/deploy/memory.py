"""Measure the peak memory of the process tree while a job runs, and return free memory."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from types import TracebackType

_INTERVAL_SECONDS = 0.1


class PeakMemory:
    """Sample the total resident memory of this process and its descendants, bytes.

    Shared pages count once per process, so the total is an overestimate. It is at least the peak
    that the kernel records for this process, also between samples.

    Examples
    --------
    >>> with PeakMemory() as memory:
    ...     peak = memory.bytes
    >>> peak > 0
    True
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
        return max(self._peak, _read_own_peak(), self._sample())

    @property
    def now(self) -> int:
        """The memory in use at this moment."""
        return self._sample()

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


def trim_memory() -> None:
    """Release memory that allocators hold but don't use."""
    from segmentation.datasets.partitions import release_buffers

    release_buffers()
    # glibc keeps freed memory; Dask's documentation recommends this call.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


async def trim_memory_async() -> None:
    """Trim memory: a coroutine, as ``Client.run`` accepts nothing else with ``wait=False``."""
    trim_memory()


def peak_rss(pid: int | str = "self") -> int:
    """Return the peak memory of one process without children, bytes; 0 if not available."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return 0


def _read_own_peak() -> int:
    # getrusage is the fallback, because after a fork it starts with the parent's size.
    unit = 1 if sys.platform == "darwin" else 1024
    return peak_rss() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
