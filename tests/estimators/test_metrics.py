"""Quality figures against scikit-learn and direct formulas."""

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
    found = metrics.evaluate_clustering(dask_rows(X, chunk), centers)
    assert found["sizes"] == np.bincount(labels).tolist()
    assert found["inertia"] == pytest.approx(oracles.inertia(X, centers))
    assert found["calinski_harabasz"] == pytest.approx(
        sklearn.metrics.calinski_harabasz_score(X, labels)
    )
    assert found["davies_bouldin"] == pytest.approx(sklearn.metrics.davies_bouldin_score(X, labels))
    distances = np.sort(np.sqrt(((X[:, None] - centers[None]) ** 2).sum(axis=2)), axis=1)
    each = 1 - distances[:, 0] / distances[:, 1]
    assert found["simplified_silhouette"] == pytest.approx(each.mean())
    assert found["simplified_silhouettes"] == pytest.approx(
        [each[labels == c].mean() for c in range(4)]
    )


def test_calinski_harabasz_is_exact_for_centres_off_their_means() -> None:
    X = blobs(n=300, k=4)
    centers = X[:3] + 0.1
    labels = ((X[:, None] - centers[None]) ** 2).sum(axis=2).argmin(axis=1)
    found = metrics.evaluate_clustering(dask_rows(X, 50), centers)
    assert found["calinski_harabasz"] == pytest.approx(
        sklearn.metrics.calinski_harabasz_score(X, labels)
    )


def test_silhouette_on_a_sample() -> None:
    X = blobs(n=400)
    model = KMeans(3, random_state=0).fit(dask_rows(X, 100))
    value, rows = metrics.silhouette_score(dask_rows(X, 90), model.cluster_centers_, seed=1)
    labels = model.labels_.compute()
    assert rows == 400
    assert value == pytest.approx(sklearn.metrics.silhouette_score(X, labels))
    value, rows = metrics.silhouette_score(dask_rows(X, 90), model.cluster_centers_, 1, size=100)
    assert rows == 100
    assert value == metrics.silhouette_score(dask_rows(X, 7), model.cluster_centers_, 1, 100)[0]


def test_a_single_cluster_has_no_neighbours() -> None:
    X = da.ones((10, 2), chunks=(5, 2))
    found = metrics.evaluate_clustering(X, np.ones((1, 2)))
    assert found["davies_bouldin"] is None
    assert found["calinski_harabasz"] is None
    assert found["simplified_silhouette"] is None
    assert metrics.silhouette_score(X, np.ones((1, 2)), 0) == (None, 10)


def test_several_clusterings_in_one_pass_as_alone() -> None:
    X = dask_rows(blobs(n=300, k=4), 70)
    sets = [KMeans(k, random_state=0).fit(X).cluster_centers_ for k in (3, 1, 5)]
    for together, centers in zip(metrics.evaluate_clusterings(X, sets), sets, strict=True):
        assert together == metrics.evaluate_clustering(X, centers)
    values, rows = metrics.silhouette_scores(X, sets, 0, size=120)
    assert rows == 120
    assert values == [metrics.silhouette_score(X, centers, 0, 120)[0] for centers in sets]


def test_weights_count_like_copies() -> None:
    X = blobs(n=200, k=3)
    times = np.random.default_rng(0).integers(0, 4, 200)
    centers = X[[0, 50, 100]]
    weighted = metrics.evaluate_clustering(dask_rows(X, 60), centers, sample_weight=times)
    copied = metrics.evaluate_clustering(dask_rows(np.repeat(X, times, axis=0), 60), centers)
    for name, value in copied.items():
        assert weighted[name] == pytest.approx(value), name


def test_silhouette_with_a_cluster_of_one_row_and_copies() -> None:
    X = np.concatenate([np.zeros((3, 2)), np.ones((4, 2)), [[9.0, 9.0]]])
    centers = np.array([[0.0, 0.0], [1.0, 1.0], [9.0, 9.0], [50.0, 50.0]])
    value, _ = metrics.silhouette_score(dask_rows(X, 3), centers, 0)
    labels = np.array([0] * 3 + [1] * 4 + [2])
    assert value == pytest.approx(sklearn.metrics.silhouette_score(X, labels))
