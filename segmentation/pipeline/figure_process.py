"""Figures drawn by a process of their own, while the job goes on with what it computes last.

matplotlib and the job's own threads both want the interpreter, so a thread gains nothing.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from segmentation.reporting import figure_data

if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Self

    from segmentation.reporting.figure_data import FigureData

#: What has to be free for it: 110 MB were seen in the process, and 180 MB for what the job computes
#: meanwhile.
ROOM = 320 << 20
#: Drawing takes a second or two; who takes so many is stopped, and another way is taken.
PATIENCE_SECONDS = 60
_CODE = (
    "import sys; sys.path[:] = sys.argv[1:]; from segmentation.pipeline import figure_process; "
    "figure_process.draw_what_is_asked_for()"
)


class FigureRenderer:
    """Draws a run's figures, beside the job where it can.

    Its process is started while the job has work for one thread alone, and loads its libraries
    then. The figures are the same whoever draws them: where no process can be had, or it fails,
    this one draws. On leaving the context a process that nobody waits for any more is ended.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = ThreadPoolExecutor(1, "figures")
        self._answer: Future[dict[str, bytes] | None] | None = None
        self._wanted: FigureData | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            if self._answer is None:
                self._process.communicate()
        self._thread.shutdown()

    def start(self) -> None:
        """Start the process that will draw."""
        if not sys.executable:
            return
        with contextlib.suppress(OSError):
            # A group of its own: Ctrl-C is for the job, which ends it.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )

    def begin(self, wanted: FigureData) -> None:
        """Begin to draw."""
        self._wanted = wanted
        if self._process is not None:
            # On a thread, since a pipe takes no more than the other end reads.
            self._answer = self._thread.submit(_answer, self._process, wanted)

    def figures(self) -> dict[str, bytes]:
        """Wait for the figures that were begun; return them by name."""
        assert self._wanted is not None
        found = self._answer.result() if self._answer is not None else None
        return self._wanted.draw() if found is None else found


def _answer(process: subprocess.Popen[bytes], wanted: FigureData) -> dict[str, bytes] | None:
    """Hand over what is wanted; return the figures, None if they didn't come."""
    with process:
        try:
            content, _ = process.communicate(wanted.to_bytes(), timeout=PATIENCE_SECONDS)
            return figure_data.unpacked_figures(content) if process.returncode == 0 else None
        except (subprocess.TimeoutExpired, OSError, ValueError, EOFError, BadZipFile):
            return None
        finally:
            process.kill()


def draw_what_is_asked_for() -> None:
    """Read what is wanted from standard input, and write the figures to standard output."""
    import matplotlib.backends.backend_agg  # noqa: F401 - loaded before there is anything to draw

    wanted = figure_data.FigureData.from_bytes(sys.stdin.buffer.read())
    sys.stdout.buffer.write(figure_data.packed_figures(wanted.draw()))
    sys.stdout.buffer.flush()
