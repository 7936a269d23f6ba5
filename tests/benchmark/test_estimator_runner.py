"""The runner of the estimators' peers: processes that fit on request, failures with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segmentation.benchmark import estimator_peers, estimator_runner
from segmentation.benchmark.estimator_runner import time_estimators


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    path = tmp_path / "matrix.npy"
    np.save(path, np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32))
    return path


def ignore(line: str) -> None:
    pass


def test_a_process_fits_once_per_round(matrix: Path) -> None:
    lines: list[str] = []
    (times,) = time_estimators(["sklearn-1"], matrix, 3, lines.append)
    assert times.failure is None
    assert len(times.seconds) == len(times.centers) == 3
    assert times.median == sorted(times.seconds)[1]
    assert times.peak_memory_bytes > 10_000_000
    # Every round has its own seed, so K-Means does not start at the same place three times.
    assert times.centers[0] != times.centers[1] or times.centers[1] != times.centers[2]
    assert lines[0].startswith("scikit-learn, n_init=1: ready, first fit ")
    assert lines[1:] == ["round 1 of 3", "round 2 of 3", "round 3 of 3"]


def test_a_failing_peer_has_the_reason(matrix: Path, monkeypatch) -> None:
    np.save(matrix, np.full((30, 2), np.nan, np.float32))
    peer = estimator_peers.EstimatorPeer("Absent", "no_such_module", estimator_peers.open_sum)
    monkeypatch.setitem(estimator_peers.PEERS, "absent", peer)
    absent, broken = time_estimators(["absent", "sklearn-1"], matrix, 1, ignore)
    assert absent.failure == "no_such_module is not installed"
    assert broken.failure is not None
    assert "NaN" in broken.failure
    assert broken.failure.endswith("(status 1)")
    assert absent.median is broken.median is None


def test_a_process_that_does_not_start_has_the_reason(tmp_path: Path) -> None:
    (times,) = time_estimators(["sklearn-1"], tmp_path / "none.npy", 1, ignore)
    assert times.failure is not None
    assert "none.npy" in times.failure
    assert times.seconds == []


def test_a_slow_peer_is_timed_once(matrix: Path, monkeypatch) -> None:
    monkeypatch.setattr(estimator_runner, "_LONG_SECONDS", 0.0)
    (times,) = time_estimators(["sklearn-1"], matrix, 3, ignore)
    assert len(times.seconds) == 1


def test_a_hanging_peer_is_killed(matrix: Path, monkeypatch) -> None:
    monkeypatch.setattr(estimator_runner, "_TIMEOUT_SECONDS", 0.01)
    (times,) = time_estimators(["sklearn-1"], matrix, 1, ignore)
    assert times.failure == "no output (status -9)"


def test_the_order_rotates(matrix: Path, monkeypatch) -> None:
    fits: list[str] = []

    class FakeProcess:
        def __init__(self, name: str, matrix: Path) -> None:
            self.name = name

        def __enter__(self):
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def wait_until_ready(self) -> None:
            pass

        def fit(self, seed: int) -> dict[str, object]:
            fits.append(f"{self.name} {seed}")
            return {"seconds": 1.0, "centers": None, "peak_memory_bytes": 1}

    monkeypatch.setattr(estimator_runner, "PeerProcess", FakeProcess)
    time_estimators(["ours", "sklearn-1"], matrix, 2, ignore)
    assert fits[2:] == ["ours 0", "sklearn-1 0", "sklearn-1 1", "ours 1"]
