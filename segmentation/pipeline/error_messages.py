"""What the engine or the operating system raises → one line that a person can act on."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from segmentation.errors import ClusterError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_GO_ON = "then run again with --resume"


@contextmanager
def translate_errors(out: Path) -> Iterator[None]:
    """Turn failures of workers, connections and disks into errors with a remedy.

    Raises
    ------
    ClusterError
        If workers died again and again on one task, or the scheduler is gone.
    DataError
        If a file can't be read or written while the run is under way.
    """
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.client import ClosedClientError, FutureCancelledError
    from distributed.comm import CommClosedError

    try:
        yield
    except KilledWorker as error:
        raise ClusterError(
            f"workers died {error.allowed_failures + 1} times on task {error.task!r}, most likely "
            f"of too little memory: give workers more in the cluster's file, or lower "
            f"--partition-size, {_GO_ON}"
        ) from error
    except (CommClosedError, ClosedClientError, FutureCancelledError, CancelledError) as error:
        raise ClusterError(
            f"the cluster was lost during the work ({_one_line(error)}): start it anew, {_GO_ON}"
        ) from error
    except TimeoutError as error:
        raise ClusterError(
            f"no worker takes the work ({_one_line(error)}), most likely for want of memory: raise "
            f"memory_limit in the cluster's file, {_GO_ON}"
        ) from error
    except MemoryError as error:
        raise ClusterError(
            f"out of memory: lower --partition-size or use a larger machine, {_GO_ON}"
        ) from error
    except RuntimeError as error:
        # Dask's own for whatever befell a shuffle that starting it anew didn't mend.
        if not (str(error).startswith("P2P ") or type(error).__name__.startswith("P2P")):
            raise
        cause = error.__cause__
        told = _one_line(error) + (f": {_one_line(cause)}" if cause is not None else "")
        raise ClusterError(f"rows could not be shuffled ({told}): {_GO_ON}") from error
    except OSError as error:
        if type(error).__name__ == "P2POutOfDiskError":
            raise DataError(
                "no space left on a worker's disk to shuffle rows on: make room, or give its "
                f"local directory another place, {_GO_ON}"
            ) from error
        if error.errno is None and "://" in str(error):
            # Dask's own, which has no number and names an address.
            raise ClusterError(
                f"the cluster was lost during the work ({_one_line(error)}): start it anew, "
                f"{_GO_ON}"
            ) from error
        place = error.filename or out
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"{place}: no space left on the disk: make room, {_GO_ON}") from error
        raise DataError(
            f"{place}: {error.strerror or _one_line(error)}: mend that, {_GO_ON}"
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
