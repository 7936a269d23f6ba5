"""Translate errors of Dask and the operating system into one line with a remedy."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from segmentation.errors import ClusterError, DataError, format_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def translate_errors(out: Path, *, can_resume: bool = True) -> Iterator[None]:
    """Turn failures of workers, connections and disks into errors with a remedy.

    Parameters
    ----------
    out
        The run's folder, reported if an OSError names no file.
    can_resume
        Whether the job can continue from finished stages.

    Raises
    ------
    ClusterError
        If workers died repeatedly on one task, the scheduler was lost, a request timed out, a
        shuffle failed, or memory ran out.
    DataError
        If a file can't be read or written, or a worker's disk is full.
    """
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.client import ClosedClientError, FutureCancelledError
    from distributed.comm import CommClosedError
    from distributed.shuffle._exceptions import P2POutOfDiskError

    again, fields = ("run again with {resume}", ("resume",)) if can_resume else ("run again", ())
    try:
        yield
    except KilledWorker as error:
        raise ClusterError(
            "workers died {attempts} times on task {task!r}: see a worker's log; if it ran out of "
            "memory, give workers more in the cluster's file or lower {partition_bytes}; then "
            + again,
            "partition_bytes",
            *fields,
            attempts=error.allowed_failures + 1,
            task=error.task,
        ) from error
    except (CommClosedError, ClosedClientError, FutureCancelledError, CancelledError) as error:
        raise _lost_cluster(error, again, fields) from error
    except TimeoutError as error:
        raise ClusterError(
            "timed out ({reason}): see the logs of the scheduler and workers; if workers lack "
            "memory, raise memory_limit in the cluster's file; then " + again,
            *fields,
            reason=format_error(error),
        ) from error
    except MemoryError as error:
        raise ClusterError(
            "out of memory: lower {partition_bytes} or use a larger machine, then " + again,
            "partition_bytes",
            *fields,
        ) from error
    except P2POutOfDiskError as error:
        raise DataError(
            "no space left on the disk of a worker during the shuffle: free some, or set another "
            "local directory, then " + again,
            *fields,
        ) from error
    except RuntimeError as error:
        if not _is_shuffle_error(error):
            raise
        cause = f": {format_error(error.__cause__)}" if error.__cause__ is not None else ""
        raise ClusterError(
            "rows could not be shuffled ({reason}): " + again,
            *fields,
            reason=format_error(error) + cause,
        ) from error
    except OSError as error:
        if error.errno is None and "://" in str(error):
            # Dask raises an OSError without errno whose message names the scheduler's address.
            raise _lost_cluster(error, again, fields) from error
        raise _disk_failure(error, out, again, fields) from error


def _lost_cluster(error: BaseException, again: str, fields: tuple[str, ...]) -> ClusterError:
    return ClusterError(
        "the connection to the cluster was lost ({reason}): start the cluster again, then " + again,
        *fields,
        reason=format_error(error),
    )


def _is_shuffle_error(error: RuntimeError) -> bool:
    """Return whether a P2P shuffle failed: Dask has no type for it, but a prefix."""
    return str(error).startswith("P2P ") or type(error).__name__.startswith("P2P")


def _disk_failure(error: OSError, out: Path, again: str, fields: tuple[str, ...]) -> DataError:
    place = error.filename or out
    if error.errno in _NO_SPACE:
        return DataError(
            "{place}: no space left on the disk: free some, then " + again,
            *fields,
            place=place,
        )
    return DataError(
        "{place}: {reason}: fix that, then " + again,
        *fields,
        place=place,
        reason=error.strerror or format_error(error),
    )
