"""Ctrl-C and SIGTERM that can't get lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. If that is a callback of
the garbage collector or a finalizer, the interpreter prints and drops it, and the job would go on.
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
    """SIGTERM; it is handled like Ctrl-C."""


@contextmanager
def persistent_interrupts() -> Iterator[None]:
    """Raise an interrupt again until the main thread is seen to handle it."""
    main = threading.main_thread()
    if threading.current_thread() is not main:
        yield
        return
    ended = threading.Event()
    received: list[int] = []

    def repeat_until_handled() -> None:
        while not ended.wait(_CHECK_SECONDS):
            if _handles_interrupt(main.ident):
                return
            # The same signal again, since it decides the exit status.
            signal.pthread_kill(main.ident or 0, received[-1])

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        name = repeat_until_handled.__name__
        if not any(thread.name == name for thread in threading.enumerate()):
            threading.Thread(target=repeat_until_handled, name=name, daemon=True).start()
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before_int = signal.getsignal(signal.SIGINT)
    if before_int is not signal.default_int_handler:
        # The caller (nohup, a notebook, a test) handles interrupts in its own way.
        yield
        return
    signal.signal(signal.SIGINT, on_interrupt)
    before_term = signal.signal(signal.SIGTERM, on_interrupt)
    before_hook = sys.unraisablehook

    def hide_dropped_interrupts(dropped: sys.UnraisableHookArgs) -> None:
        # Where an interrupt broke off the callback at the start of a collection, distributed's
        # assertion at its end fails.
        is_sequel = bool(received) and "_gc_callback" in repr(dropped.object)
        if not (is_sequel or isinstance(dropped.exc_value, KeyboardInterrupt)):
            before_hook(dropped)

    sys.unraisablehook = hide_dropped_interrupts
    try:
        yield
    finally:
        ended.set()
        sys.unraisablehook = before_hook
        signal.signal(signal.SIGINT, before_int)
        signal.signal(signal.SIGTERM, before_term)


def _handles_interrupt(thread: int | None) -> bool:
    error = sys._current_exceptions().get(thread or 0)
    # Python 3.11 gives (type, value, traceback), later versions the value.
    value = error[1] if isinstance(error, tuple) else error
    while value is not None:
        if isinstance(value, KeyboardInterrupt):
            return True
        value = value.__context__
    return False
