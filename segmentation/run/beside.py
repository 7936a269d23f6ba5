"""Figures drawn by a process of their own, while the job goes on with what it computes last.

matplotlib and the job's own threads both want the interpreter, so a thread gains nothing.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from segmentation.insight import gallery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from segmentation.insight.gallery import Gallery

#: What has to be free for it: 110 MB were seen in the process, and 180 MB for what the job computes
#: meanwhile.
ROOM = 320 << 20
#: Drawing takes a second or two; who takes so many is stopped, and another way is taken.
PATIENCE_SECONDS = 60
_CODE = (
    "import sys; sys.path[:] = sys.argv[1:]; from segmentation.insight import gallery; "
    "gallery.main()"
)


@contextmanager
def drawn(wanted: Gallery, *, alone: bool) -> Iterator[Callable[[], dict[str, bytes]]]:
    """Begin to draw; yield what waits for the figures and returns them by name.

    The figures are the same whoever draws them. Where another process can't be had, or fails, this
    one draws; a process that nobody waits for any more is ended.

    Parameters
    ----------
    alone
        Whether to draw in this process, and only when asked to.
    """
    process = None if alone else _started()
    if process is None:
        yield wanted.draw
        return
    # On a thread, since a pipe takes no more than the other end reads.
    with ThreadPoolExecutor(1, "figures") as thread:
        answer = thread.submit(_answer, process, wanted)
        try:
            yield lambda: answer.result() or wanted.draw()
        finally:
            process.kill()


def _started() -> subprocess.Popen[bytes] | None:
    if not sys.executable:
        return None
    with contextlib.suppress(OSError):
        # A group of its own: Ctrl-C is for the job, which ends it.
        return subprocess.Popen(
            [sys.executable, "-c", _CODE, *sys.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            process_group=0,
        )  # fmt: skip
    return None


def _answer(process: subprocess.Popen[bytes], wanted: Gallery) -> dict[str, bytes] | None:
    """Hand over what is wanted; return the figures, None if they didn't come."""
    with process:
        try:
            content, _ = process.communicate(wanted.to_bytes(), timeout=PATIENCE_SECONDS)
            return gallery.unpacked_figures(content) if process.returncode == 0 else None
        except (subprocess.TimeoutExpired, OSError, ValueError, EOFError, BadZipFile):
            return None
        finally:
            process.kill()
