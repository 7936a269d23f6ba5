"""What every job shares: its parser, its exit status, and errors in one line."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from jobs.options import option_names
from jobs.signals import Terminated, persistent_interrupts
from segmentation.errors import SegmentationError

DEFECT, WRONG_USAGE = 1, 2
INTERRUPTED, TERMINATED = 130, 143

Job = Callable[[argparse.Namespace], None]


class OneLineParser(argparse.ArgumentParser):
    """A parser that reports what is wrong in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with the status of wrong usage."""
        self.exit(WRONG_USAGE, f"error: {' '.join(message.split())}: see {self.prog} --help\n")


def new_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every job has."""
    parser = OneLineParser(
        prog=f"segmentation {name}",
        description=description,
        epilog="Exit status: 0 done, 1 a defect of ours, 2 wrong usage, 3 the data can't be used, "
        "4 the cluster can't be used, 130 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--debug", action="store_true", help="on an error, show the traceback as well"
    )
    return parser


def run_job(parser: argparse.ArgumentParser, job: Job, argv: Sequence[str] | None) -> int:
    """Parse the arguments and call the job; return its exit status.

    An error is printed as one line on stderr.
    """
    # A last search for cycles would take 0.3 s, and the process ends anyway. Registered before the
    # libraries are loaded, it runs after their own exit handlers.
    atexit.register(gc.freeze)
    try:
        return _run(parser, job, argv)
    finally:
        _detach_closed_stderr()


def _detach_closed_stderr() -> None:
    """Keep a stderr that nobody reads from failing again when the interpreter ends."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _run(parser: argparse.ArgumentParser, job: Job, argv: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        # What a terminal's or file's encoding lacks is shown as an escape.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = resumable = False
    try:
        with persistent_interrupts():
            arguments = parser.parse_args(argv)
            debug, resumable = arguments.debug, hasattr(arguments, "resume")
            job(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        hint = "; --resume continues if a stage was finished" if resumable else ""
        _print_error(f"interrupted: nothing that reads as a result is left{hint}")
        return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); the interpreter must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SegmentationError as error:
        if debug:
            traceback.print_exc()
        _print_error(f"error: {error.render(option_names(error.fields))}")
        return error.exit_status
    except Exception as error:
        if debug:
            traceback.print_exc()
        remedy = "please report it" if debug else "run again with --debug and report it"
        _print_error(f"error: a defect of this program: {type(error).__name__}: {error}: {remedy}")
        return DEFECT
    return 0


def _print_error(message: str) -> None:
    # The message may quote a file's content, which must not control the terminal.
    line = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in " ".join(message.split()))
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)
