"""Peers of the estimators: each finds clusters that are far apart, for any seed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from segmentation.benchmark import estimator_peers


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Five clusters at the corners of a cube, and their means."""
    rng = np.random.default_rng(0)
    corners = 100.0 * np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 1]])
    labels = np.repeat(np.arange(5), [40, 50, 60, 70, 80])
    X = (corners[labels] + rng.normal(size=(300, 3))).astype(np.float32)
    means = np.array([X[labels == k].mean(axis=0, dtype=np.float64) for k in range(5)])
    return X[rng.permutation(300)], means


def open_or_skip(name: str, X: np.ndarray):
    module = estimator_peers.find_missing_module(name)
    if module:
        pytest.skip(f"{module} is not installed; `make benchmark` installs the peers")
    return estimator_peers.PEERS[name].open(X)


@pytest.mark.parametrize("name", ["ours", "sklearn-10", "faiss", "dask-ml"])
def test_k_means_finds_separate_clusters(name: str, blobs) -> None:
    X, means = blobs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_or_skip(name, X) as fit:
            centers = np.asarray(fit(3))
    assert centers.shape == means.shape
    nearest = ((centers[:, None] - means[None]) ** 2).sum(axis=2).argmin(axis=1)
    # faiss and dask-ml start once; a poor start may leave two centres in one cluster.
    if name in ("ours", "sklearn-10"):
        assert sorted(nearest) == [0, 1, 2, 3, 4]
        np.testing.assert_allclose(centers, means[nearest], atol=1e-3)


@pytest.mark.parametrize("name", sorted(estimator_peers.PCA))
def test_pca_peers_return_no_centers(name: str, blobs) -> None:
    with open_or_skip(name, blobs[0]) as fit:
        assert fit(0) is None


def test_a_missing_module_is_named(monkeypatch) -> None:
    peer = estimator_peers.EstimatorPeer("Absent", "no_such_module", estimator_peers.open_sum)
    monkeypatch.setitem(estimator_peers.PEERS, "absent", peer)
    assert estimator_peers.find_missing_module("absent") == "no_such_module"
    assert estimator_peers.find_missing_module("ours") is None
