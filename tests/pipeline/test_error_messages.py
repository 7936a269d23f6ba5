"""Failures of the engine and of the disk become one line with a remedy."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from segmentation.errors import ClusterError, DataError, SegmentationError
from segmentation.pipeline.error_messages import translate_errors


def raised(error: BaseException, tmp_path: Path) -> SegmentationError:
    with pytest.raises(SegmentationError) as caught, translate_errors(tmp_path):
        raise error
    assert "resume" in caught.value.fields
    return caught.value


def test_engine(tmp_path: Path) -> None:
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError
    from distributed.scheduler import WorkerState

    worker = WorkerState.__new__(WorkerState)
    found = raised(KilledWorker("read-ratings-7", worker, 3), tmp_path)
    assert isinstance(found, ClusterError)
    assert "workers died 4 times on task 'read-ratings-7'" in str(found)
    for error in (CommClosedError("gone"), FutureCancelledError("key", "lost"), MemoryError()):
        assert isinstance(raised(error, tmp_path), ClusterError)


def test_shuffle(tmp_path: Path) -> None:
    from distributed.shuffle._exceptions import P2POutOfDiskError

    def failed() -> None:
        try:
            raise ConnectionError("no answer")
        except ConnectionError as cause:
            raise RuntimeError("P2P abc failed during transfer phase") from cause

    with pytest.raises(ClusterError, match=r"shuffled \(P2P abc .* phase: no answer\)"):
        with translate_errors(tmp_path):
            failed()
    full = raised(P2POutOfDiskError(), tmp_path)
    assert isinstance(full, DataError)
    assert "no space left on the disk of a worker" in str(full)
    with pytest.raises(RuntimeError, match="a defect"), translate_errors(tmp_path):
        raise RuntimeError("a defect")


def test_disk(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/x/y")
    found = raised(full, tmp_path)
    assert isinstance(found, DataError)
    assert str(found).startswith("/x/y: no space left on the disk")
    gone = raised(FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/b"), tmp_path)
    assert str(gone).startswith("/a/b: No such file or directory")
    assert str(tmp_path) in str(raised(OSError("odd"), tmp_path))


def test_errors_of_this_package_pass_through(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="as it was"), translate_errors(tmp_path):
        raise DataError("as it was")
