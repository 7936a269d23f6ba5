"""Deliver Ctrl-C and SIGTERM reliably.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a finalizer or a callback
of the garbage collector, the interpreter prints the exception and drops it, and the job goes on.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_CHECK_SECONDS = 0.3


class Terminated(KeyboardInterrupt):
    """SIGTERM was received; handled like Ctrl-C."""


@contextmanager
def persistent_interrupts() -> Iterator[list[int]]:
    """Repeat Ctrl-C and SIGTERM until the main thread handles them; yield those received.

    This does nothing outside the main thread, or if the caller handles SIGINT itself.
    """
    main = threading.main_thread()
    received: list[int] = []
    if threading.current_thread() is not main:
        yield received
        return
    ended, sending = threading.Event(), threading.Lock()

    def repeat_until_handled() -> None:
        while not ended.wait(_CHECK_SECONDS):
            if _handles_interrupt(main.ident):
                return
            with sending:
                if not ended.is_set():
                    # Repeat the same signal, since it determines the exit status.
                    signal.pthread_kill(main.ident or 0, received[-1])

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        name = repeat_until_handled.__name__
        if not any(thread.name == name for thread in threading.enumerate()):
            threading.Thread(target=repeat_until_handled, name=name, daemon=True).start()
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    previous_sigint = signal.getsignal(signal.SIGINT)
    if previous_sigint is not signal.default_int_handler:
        # The caller (nohup, a notebook, a test) handles interrupts itself.
        yield received
        return
    signal.signal(signal.SIGINT, on_interrupt)
    previous_sigterm = signal.signal(signal.SIGTERM, on_interrupt)
    previous_hook = sys.unraisablehook

    def hide_dropped_interrupts(dropped: sys.UnraisableHookArgs) -> None:
        # An interrupt in distributed's callback at the start of a collection makes an assertion in
        # its callback at the end fail.
        is_consequence = bool(received) and "_gc_callback" in repr(dropped.object)
        if not (is_consequence or isinstance(dropped.exc_value, KeyboardInterrupt)):
            previous_hook(dropped)

    sys.unraisablehook = hide_dropped_interrupts
    try:
        yield received
    finally:
        # Signals sent from now on are ignored, and none is sent to the handlers after these.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        with sending:
            ended.set()
        sys.unraisablehook = previous_hook
        signal.signal(signal.SIGINT, previous_sigint)
        signal.signal(signal.SIGTERM, previous_sigterm)


def _handles_interrupt(thread_id: int | None) -> bool:
    """Return whether a thread is handling KeyboardInterrupt, or an error raised meanwhile."""
    handled = sys._current_exceptions().get(thread_id or 0)
    # Python 3.11 returns (type, value, traceback), later versions the value.
    error = handled[1] if isinstance(handled, tuple) else handled
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False
