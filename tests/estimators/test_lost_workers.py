"""What later tasks need survives the loss of the worker that holds it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster, wait

from segmentation.estimators import metrics, stability

pytestmark = pytest.mark.cluster

ROWS = np.random.default_rng(0).normal(size=(400, 3)) + np.repeat([[0.0], [9.0]], 200, axis=0)
CENTER_SETS = [np.array([[0.0] * 3, [9.0] * 3]), np.array([[0.0] * 3, [8.0] * 3, [10.0] * 3])]


@pytest.fixture
def two_workers() -> Iterator[Client]:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 10}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def persist_rows() -> da.Array:
    X = da.from_array(ROWS, chunks=(100, 3)).persist()
    wait(X)
    return X


def kill_holders(client: Client, keys: set[str]) -> int:
    """Kill the workers that hold one of the keys; return how many there were."""
    holders = {
        worker for key, workers in client.who_has().items() if key in keys for worker in workers
    }
    pids = client.run(os.getpid)
    for worker in holders:
        os.kill(pids[worker], signal.SIGKILL)
    return len(holders)


def test_stability_when_the_sample_is_lost(two_workers: Client) -> None:
    expected = stability.measure_stabilities(ROWS, CENTER_SETS, 0, size=200)
    X = persist_rows()
    keys = set(two_workers.who_has())
    n_killed = []

    def kill_after_the_first(done: int, total: int) -> None:
        if done == 1:
            # Not the results of the first clustering, which are about to be released.
            sample = {k for k in two_workers.who_has() if k not in keys and "_refit" not in str(k)}
            n_killed.append(kill_holders(two_workers, sample))

    results = stability.measure_stabilities(
        X, CENTER_SETS, 0, size=200, callback=kill_after_the_first
    )
    assert n_killed[0] >= 1
    for result, reference in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.resampled, reference.resampled)
        np.testing.assert_array_equal(result.jaccard, reference.jaccard)


def test_silhouette_when_the_sample_is_lost(
    two_workers: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = metrics.silhouette_scores(ROWS, CENTER_SETS, 0, size=200)
    X = persist_rows()
    score_sample, marker = metrics._score_sample, tmp_path / "killed"

    def kill_once(sample: np.ndarray, center_sets: list[np.ndarray]) -> list[float | None]:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return score_sample(sample, center_sets)

    monkeypatch.setattr(metrics, "_score_sample", kill_once)
    assert metrics.silhouette_scores(X, CENTER_SETS, 0, size=200) == expected
    assert marker.exists()
