"""Shared by all jobs: the parser, the exit status, and one-line errors."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import io
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from jobs.options import option_names, read_config
from jobs.signals import Terminated, persistent_interrupts
from segmentation.errors import DataError, SegmentationError
from segmentation.progress import LogProgress, TerminalProgress
from segmentation.redaction import make_printable, redact

DEFECT, WRONG_USAGE = 1, 2
INTERRUPTED, TERMINATED = 130, 143

#: What a job does with its arguments; it returns an exit status, or None for 0.
Job = Callable[[argparse.Namespace], int | None]


class OneLineParser(argparse.ArgumentParser):
    """A parser that prints usage errors in one line, like all other errors."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all arguments; the job's own parser reports those that it does not know."""
        args = _join_negative_values(sys.argv[1:] if args is None else args)
        arguments, unknown = self.parse_known_args(args, namespace)
        if not unknown and arguments.config is not None:
            # After the job's name, and before the options, which win.
            options = list(args)
            place = 1 if hasattr(arguments, "parser") else 0
            options[place:place] = read_config(arguments.config)
            arguments, unknown = self.parse_known_args(options, namespace)
        if unknown:
            parser = getattr(arguments, "parser", self)
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        return arguments

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with the status of wrong usage."""
        line = " ".join(make_printable(message).split())
        self.exit(WRONG_USAGE, f"error: {line}: see {self.prog} --help\n")


def _join_negative_values(args: Sequence[str]) -> list[str]:
    """Join options and values that begin with a minus sign, which argparse takes for options.

    Examples
    --------
    >>> _join_negative_values(["--unrated", "-1,0", "--scale", "-10:10", "--quiet"])
    ['--unrated=-1,0', '--scale=-10:10', '--quiet']
    """
    joined: list[str] = []
    for arg in args:
        if joined and re.match(r"-[0-9.]", arg) and re.fullmatch(r"--[a-z-]+", joined[-1]):
            joined[-1] += f"={arg}"
        else:
            joined.append(arg)
    return joined


def new_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every job has."""
    parser = OneLineParser(
        prog=f"segmentation {name}",
        description=description,
        epilog="Exit status: 0 done, 1 a defect of ours, 2 wrong usage, 3 the data can't be used, "
        "4 the cluster can't be used, 5 done, with more drift than --fail-on allows, 130 "
        "interrupted, 143 terminated.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="a TOML file with any of these options; those on the command line win",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--log-format",
        choices=("terminal", "text", "json"),
        default="terminal",
        help="progress and errors for a terminal, or as log lines with time and level, in text or "
        "as one JSON object each (default: terminal)",
    )
    parser.add_argument(
        "--debug", action="store_true", help="on an error, show the traceback as well"
    )
    return parser


def make_progress(arguments: argparse.Namespace) -> TerminalProgress:
    """Return the progress that the options ask for, on stderr."""
    if arguments.log_format == "terminal":
        return TerminalProgress(sys.stderr, quiet=arguments.quiet)
    as_json = arguments.log_format == "json"
    return LogProgress(sys.stderr, as_json=as_json, quiet=arguments.quiet)


def run_job(parser: argparse.ArgumentParser, job: Job, argv: Sequence[str] | None) -> int:
    """Parse the arguments and call the job; return its exit status.

    An error is printed as one line on stderr.
    """
    # Skip the last garbage collection, which would take 0.3 s before the process ends anyway. Exit
    # handlers run in reverse order: registered before the libraries are loaded, this one runs last.
    atexit.register(gc.freeze)
    try:
        return _run(parser, job, argv)
    finally:
        _detach_closed_stderr()


def _detach_closed_stderr() -> None:
    """Redirect a stderr without a reader, so that the interpreter does not fail to flush it."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _run(parser: argparse.ArgumentParser, job: Job, argv: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        # Characters that the stream's encoding lacks are written as escapes.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = resumable = False
    log: LogProgress | None = None
    received: list[int] = []
    started = time.monotonic()

    message, status = "", 0
    try:
        with persistent_interrupts() as received:
            arguments = parser.parse_args(argv)
            debug, resumable = arguments.debug, hasattr(arguments, "resume")
            progress = make_progress(arguments)
            log = progress if isinstance(progress, LogProgress) else None
            status = job(arguments) or 0
        if sys.stdout is not None:
            with _name_stdout():
                sys.stdout.flush()
    except BrokenPipeError:
        # Nothing reads our output any more (`| head`): redirect it, or the flush at exit fails.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except _OutputError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        message = f"error: stdout: {error}: the results are in their files"
        status = DataError.exit_status
    except SegmentationError as error:
        _print_traceback(log, debug=debug)
        message, status = f"error: {error.render(option_names(error.fields))}", error.exit_status
    except (KeyboardInterrupt, Exception) as error:
        if received or isinstance(error, KeyboardInterrupt):
            # A library that is interrupted in the middle may raise anything.
            hint = "; --resume continues if a stage was finished" if resumable else ""
            message = f"interrupted: no new result was left{hint}"
            is_terminated = isinstance(error, Terminated) or received[-1:] == [signal.SIGTERM]
            status = TERMINATED if is_terminated else INTERRUPTED
        else:
            _print_traceback(log, debug=debug)
            remedy = "please report it" if debug else "run again with --debug and report it"
            message = f"error: a defect of this program: {type(error).__name__}: {error}: {remedy}"
            status = DEFECT
    if message and log is None:
        _print_error(message)
    elif log is not None and message:
        log.write("error", "error", message.removeprefix("error: "), status=status)
    elif log is not None:
        out = {} if getattr(arguments, "out", None) is None else {"out": redact(arguments.out)}
        seconds = round(time.monotonic() - started, 3)
        log.write("info", "done", "done", status=status, seconds=seconds, **out)
    return status


def _print_traceback(log: LogProgress | None, *, debug: bool) -> None:
    """Print the traceback of the error that is being handled, if it was asked for."""
    if debug and log is not None:
        log.write("debug", "traceback", repr(traceback.format_exc()))
    elif debug:
        _print_lines(traceback.format_exc())


def _print_error(message: str) -> None:
    _print_lines(" ".join(message.split()))


def _print_lines(text: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(make_printable(text), file=sys.stderr, flush=True)


def print_result(text: str = "") -> None:
    """Print a result on stdout, without the control characters that a quoted file may hold."""
    with _name_stdout():
        print(make_printable(text))


class _OutputError(Exception):
    """Stdout can't be written, though something reads it."""


@contextlib.contextmanager
def _name_stdout() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _OutputError(error.strerror or error) from error
