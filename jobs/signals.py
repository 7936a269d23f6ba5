"""Ctrl-C that can't get lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. Within a callback of the
garbage collector or a finalizer the interpreter prints and drops it, and the job would go on.
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

_LOOK_AGAIN_SECONDS = 0.3


class Terminated(KeyboardInterrupt):
    """SIGTERM: the same way out as Ctrl-C."""


@contextmanager
def lasting_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt again while the main thread is seen not to be handling it."""
    main = threading.main_thread()
    if threading.current_thread() is not main:
        yield
        return
    over = threading.Event()

    def look_again() -> None:
        while not over.wait(_LOOK_AGAIN_SECONDS):
            if _handles_interrupt(main.ident):
                return
            # As it came, since what it was decides the exit status.
            signal.pthread_kill(main.ident or 0, came[-1])

    came: list[int] = []

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if not any(thread.name == look_again.__name__ for thread in threading.enumerate()):
            threading.Thread(target=look_again, name=look_again.__name__, daemon=True).start()
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        # Somebody (nohup, a notebook, a test) has settled this otherwise.
        yield
        return
    signal.signal(signal.SIGINT, on_interrupt)
    before_term = signal.signal(signal.SIGTERM, on_interrupt)
    hook = sys.unraisablehook

    def unraisable(dropped: sys.UnraisableHookArgs) -> None:
        # Where the callback at a collection's start was broken off, distributed's assertion at
        # its end fails.
        is_sequel = bool(came) and "_gc_callback" in repr(dropped.object)
        if not (is_sequel or isinstance(dropped.exc_value, KeyboardInterrupt)):
            hook(dropped)

    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        over.set()
        sys.unraisablehook = hook
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, before_term)


def _handles_interrupt(thread: int | None) -> bool:
    error = sys._current_exceptions().get(thread or 0)
    # Python 3.11 gives (type, value, traceback), later ones the value.
    value = error[1] if isinstance(error, tuple) else error
    while value is not None:
        if isinstance(value, KeyboardInterrupt):
            return True
        value = value.__context__
    return False
