"""Metrics against scikit-learn and direct formulas."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import sklearn.metrics

from segmentation import KMeans
from segmentation.estimators import metrics
from tests import oracles
from tests.estimators.test_kmeans import blobs, dask_rows


@pytest.mark.parametrize("chunk", [1, 77, 600])
def test_against_scikit_learn(chunk: int) -> None:
    X = blobs(n=600, k=5)
    model = KMeans(4, random_state=0, tol=0).fit(dask_rows(X, 600))
    centers, labels = model.cluster_centers_, model.labels_.compute()
    result = metrics.evaluate_clustering(dask_rows(X, chunk), centers)
    assert result["sizes"] == np.bincount(labels).tolist()
    assert result["inertia"] == pytest.approx(oracles.inertia(X, centers))
    assert result["calinski_harabasz"] == pytest.approx(
        sklearn.metrics.calinski_harabasz_score(X, labels)
    )
    assert result["davies_bouldin"] == pytest.approx(
        sklearn.metrics.davies_bouldin_score(X, labels)
    )
    distances = np.sort(np.sqrt(((X[:, None] - centers[None]) ** 2).sum(axis=2)), axis=1)
    silhouettes = 1 - distances[:, 0] / distances[:, 1]
    assert result["simplified_silhouette"] == pytest.approx(silhouettes.mean())
    assert result["simplified_silhouettes"] == pytest.approx(
        [silhouettes[labels == c].mean() for c in range(4)]
    )


def test_calinski_harabasz_is_exact_for_centres_off_their_means() -> None:
    X = blobs(n=300, k=4)
    centers = X[:3] + 0.1
    labels = ((X[:, None] - centers[None]) ** 2).sum(axis=2).argmin(axis=1)
    result = metrics.evaluate_clustering(dask_rows(X, 50), centers)
    assert result["calinski_harabasz"] == pytest.approx(
        sklearn.metrics.calinski_harabasz_score(X, labels)
    )


def test_silhouette_of_all_rows_and_of_a_sample() -> None:
    X = blobs(n=400)
    model = KMeans(3, random_state=0).fit(dask_rows(X, 100))
    value, n_sampled = metrics.silhouette_score(dask_rows(X, 90), model.cluster_centers_, seed=1)
    labels = model.labels_.compute()
    assert n_sampled == 400
    assert value == pytest.approx(sklearn.metrics.silhouette_score(X, labels))
    value, n_sampled = metrics.silhouette_score(
        dask_rows(X, 90), model.cluster_centers_, 1, size=100
    )
    assert n_sampled == 100
    assert value == metrics.silhouette_score(dask_rows(X, 7), model.cluster_centers_, 1, 100)[0]


def test_a_single_cluster_has_no_neighbours() -> None:
    X = da.ones((10, 2), chunks=(5, 2))
    result = metrics.evaluate_clustering(X, np.ones((1, 2)))
    assert result["davies_bouldin"] is None
    assert result["calinski_harabasz"] is None
    assert result["simplified_silhouette"] is None
    assert metrics.silhouette_score(X, np.ones((1, 2)), 0) == (None, 10)


def test_several_clusterings_in_one_pass() -> None:
    X = dask_rows(blobs(n=300, k=4), 70)
    sets = [KMeans(k, random_state=0).fit(X).cluster_centers_ for k in (3, 1, 5)]
    for result, centers in zip(metrics.evaluate_clusterings(X, sets), sets, strict=True):
        assert result == metrics.evaluate_clustering(X, centers)
    values, n_sampled = metrics.silhouette_scores(X, sets, 0, size=120)
    assert n_sampled == 120
    assert values == [metrics.silhouette_score(X, centers, 0, 120)[0] for centers in sets]


def test_weights_are_copies() -> None:
    X = blobs(n=200, k=3)
    counts = np.random.default_rng(0).integers(0, 4, 200)
    centers = X[[0, 50, 100]]
    weighted = metrics.evaluate_clustering(dask_rows(X, 60), centers, sample_weight=counts)
    copied = metrics.evaluate_clustering(dask_rows(np.repeat(X, counts, axis=0), 60), centers)
    for name, value in copied.items():
        assert weighted[name] == pytest.approx(value), name


def test_silhouette_with_copies_and_clusters_of_one_or_no_row() -> None:
    X = np.concatenate([np.zeros((3, 2)), np.ones((4, 2)), [[9.0, 9.0]]])
    centers = np.array([[0.0, 0.0], [1.0, 1.0], [9.0, 9.0], [50.0, 50.0]])
    value, _ = metrics.silhouette_score(dask_rows(X, 3), centers, 0)
    labels = np.array([0] * 3 + [1] * 4 + [2])
    assert value == pytest.approx(sklearn.metrics.silhouette_score(X, labels))
