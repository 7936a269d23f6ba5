"""What every job shares: options, and how errors become a line and an exit status."""

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

from jobs.signals import Terminated, lasting_interrupts
from segmentation.errors import SegmentationError

INTERRUPTED, TERMINATED = 130, 143
WRONG_USAGE = 2
DEFECT = 1

Job = Callable[[argparse.Namespace], None]


class OneLineParser(argparse.ArgumentParser):
    """A parser that tells what is wrong in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the options, and end with the status of wrong usage."""
        self.exit(WRONG_USAGE, f"error: {' '.join(message.split())}: see {self.prog} --help\n")


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every job has."""
    made = OneLineParser(
        prog=f"segmentation {name}",
        description=description,
        epilog="Exit status: 0 done, 1 a defect of ours, 2 wrong usage, 3 the data can't be used, "
        "4 the cluster can't be used, 130 interrupted.",
        allow_abbrev=False,
    )
    made.add_argument("--quiet", action="store_true", help="show no progress")
    made.add_argument(
        "--debug", action="store_true", help="on an error, show the traceback as well"
    )
    return made


def run(made: argparse.ArgumentParser, job: Job, argv: Sequence[str] | None) -> int:
    """Parse, call, and turn what goes wrong into one line and an exit status."""
    # What is left when the interpreter ends goes with the process; to look through it for cycles
    # first takes 0.3 s. Registered before the libraries, so it comes after what they do at the end.
    atexit.register(gc.freeze)
    try:
        return _run(made, job, argv)
    finally:
        _let_go_of_stderr()


def _let_go_of_stderr() -> None:
    """Keep what nobody reads any more from failing once again when the interpreter ends."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _run(made: argparse.ArgumentParser, job: Job, argv: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        # A terminal or file of another encoding shows what it lacks as an escape.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = resumable = False
    try:
        with lasting_interrupts():
            arguments = made.parse_args(argv)
            debug, resumable = arguments.debug, hasattr(arguments, "resume")
            job(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt as stop:
        _say(
            "interrupted: nothing that reads as a result is left"
            + ("; --resume goes on if a stage was finished" if resumable else "")
        )
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); the interpreter must not complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SegmentationError as error:
        if debug:
            traceback.print_exc()
        _say(f"error: {error.render({field: _option(field) for field in error.fields})}")
        return error.exit_status
    except Exception as error:
        if debug:
            traceback.print_exc()
        _say(
            f"error: a defect of this program: {type(error).__name__}: {error}: "
            + ("please report it" if debug else "run again with --debug and report it")
        )
        return DEFECT
    return 0


def _option(field: str) -> str:
    return "--partition-size" if field == "partition_bytes" else f"--{field.replace('_', '-')}"


def _say(message: str) -> None:
    # What a file held may be in it: nothing of that may steer the terminal.
    line = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in " ".join(message.split()))
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)
