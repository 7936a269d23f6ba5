"""Draw figures in a process of their own while the job computes its last results.

A thread would gain nothing: matplotlib and the job's own threads compete for the interpreter lock.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

from segmentation.reporting.figures import draw_figures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from typing import Self

    from segmentation.reporting.figures import FigureData

#: Memory that must be free to start the process, in bytes: it takes 110 MB, and the job takes
#: 180 MB for what it computes meanwhile.
REQUIRED_MEMORY = 320 << 20
#: Drawing takes a second or two. After this long the process is killed and the job draws.
TIMEOUT_SECONDS = 60


class FigureRenderer:
    """Draw a run's figures, in another process where possible.

    Call :meth:`start` while the job has work for one thread only: the process imports matplotlib
    then. The figures are the same whichever process draws them. If the other one can't be started,
    dies, hangs or fails, the job's own process draws. Leaving the context kills a process that is
    still running.
    """

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None
        self._future: Future[dict[str, bytes]] | None = None
        self._data: FigureData | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def start(self) -> None:
        """Start the process and let it import matplotlib."""
        if not sys.executable:
            return  # An embedded interpreter; there is no executable to start.
        try:
            self._executor = ProcessPoolExecutor(
                max_workers=1,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_prepare_process,
            )
            with _interrupts_blocked(), _main_module_hidden():
                self._executor.submit(os.getpid)  # The executor starts its process on demand.
        except Exception:
            # A daemonic process may not have children, some platforms lack semaphores, …: whatever
            # the reason, figures can be drawn here.
            self._kill()

    def submit(self, data: FigureData) -> None:
        """Start drawing, and return at once."""
        self._data = data
        if self._executor is not None:
            try:
                self._future = self._executor.submit(draw_figures, data)
            except RuntimeError:  # The process has died already.
                self._kill()

    def result(self) -> dict[str, bytes]:
        """Wait for the figures of :meth:`submit`; return PNGs by name."""
        if self._data is None:
            raise RuntimeError("call submit before result")
        if self._future is not None:
            try:
                return self._future.result(TIMEOUT_SECONDS)
            except Exception:  # Whatever went wrong there, figures can be drawn here.
                self._kill()
        return draw_figures(self._data)

    def _kill(self) -> None:
        executor, self._executor, self._future = self._executor, None, None
        if executor is not None:
            # ProcessPoolExecutor.kill_workers is new in Python 3.14.
            for process in list((executor._processes or {}).values()):
                process.kill()
            executor.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Let a process that is started here inherit a mask that blocks SIGINT.

    Ctrl-C reaches every process of the terminal's group. It is for the job alone, which kills the
    process; setting a handler in the process would leave a gap while the interpreter starts.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep a spawned process from importing ``__main__``, which it has no use for.

    A script that calls the job outside of ``if __name__ == "__main__"`` would start the job again.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _prepare_process() -> None:
    """Initialize the process: print nothing, end with the parent, and import matplotlib."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # For one, matplotlib reports that it builds its font cache.
        os.dup2(null, descriptor)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    import matplotlib.backends.backend_agg  # noqa: F401 - imported before there is work


def _exit_with_parent() -> None:
    """Exit when the parent does: a killed parent leaves its executor's processes waiting."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
