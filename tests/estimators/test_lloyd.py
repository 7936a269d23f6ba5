"""Lloyd passes over blocks: sums, convergence of several sets together, and empty clusters."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import sklearn.cluster

from segmentation.estimators import TooFewDistinctRowsError, _lloyd
from segmentation.estimators._blockwise import split_rows
from segmentation.estimators._sampling import FeatureStatistics
from tests import oracles
from tests.estimators.test_kmeans import blobs, dask_rows


def test_a_pass_by_hand() -> None:
    X = da.from_array(np.array([[0.0], [1.0], [4.0], [9.0]]), chunks=(3, 1))
    rows = split_rows(X, np.array([1.0, 1.0, 2.0, 1.0]))
    sums, counts, inertia = _lloyd.lloyd_pass(rows, [np.array([[0.0], [5.0]]), np.array([[1.0]])])
    assert sums.ravel().tolist() == [1.0, 17.0, 18.0]
    assert counts.tolist() == [2.0, 3.0, 5.0]
    assert inertia.tolist() == [1.0 + 2.0 + 16.0, 1.0 + 18.0 + 64.0]


def test_sets_converge_together_as_alone() -> None:
    X = blobs(n=500, k=5)
    rows = split_rows(dask_rows(X, 90))
    sets = [X[:2], X[:5], X[10:13]]
    centers, n_iter = _lloyd.run_lloyd_passes(rows, sets, 0.0, 300)
    for start, end, passes in zip(sets, centers, n_iter, strict=True):
        alone, (alone_passes,) = _lloyd.run_lloyd_passes(rows, [start], 0.0, 300)
        np.testing.assert_allclose(end, alone[0], atol=1e-12)
        assert passes == alone_passes
        theirs = sklearn.cluster.KMeans(len(start), init=start, n_init=1, tol=0).fit(X)
        np.testing.assert_allclose(end, theirs.cluster_centers_, atol=1e-9)


def test_a_set_that_is_behind_stops() -> None:
    """The second set starts with two centres in one cluster and can't leave that optimum."""
    rng = np.random.default_rng(0)
    X = 50.0 * np.eye(3)[rng.integers(3, size=600)] + rng.normal(size=(600, 3))
    good, bad = 50.0 * np.eye(3), np.array([[50.0, 0, 0], [50, 0.1, 0], [0, 25, 25]])
    rows = split_rows(dask_rows(X, 200))
    _, n_iter = _lloyd.run_lloyd_passes(rows, [good, bad], 0.0, 300)
    _, in_group = _lloyd.run_lloyd_passes(rows, [good, bad], 0.0, 300, group_sizes=[2])
    _, in_two_groups = _lloyd.run_lloyd_passes(rows, [good, bad], 0.0, 300, group_sizes=[1, 1])
    assert n_iter == in_two_groups
    assert in_group[0] == n_iter[0]
    assert in_group[1] == 2 < n_iter[1]


def test_farthest_rows_by_hand() -> None:
    centers = np.array([[0.0], [10.0]])
    one = _lloyd.find_farthest_rows(
        np.array([[1.0], [4.0], [13.0]]), np.array([1.0, 1.0, 0.0]), 5, centers, 2
    )
    other = _lloyd.find_farthest_rows(np.array([[6.0]]), np.empty(0), 0, centers, 2)
    merged = _lloyd.merge_farthest([one, other], 2)
    # Both are 4 from their centre: the smaller value first. The row of weight 0 is never taken.
    assert [(row.distance, row.number, row.label) for row in merged] == [(4, 6, 0), (4, 0, 1)]


def test_empty_clusters_take_distinct_rows() -> None:
    X = np.array([[0.0], [0.0], [1.0], [8.0], [8.0], [8.0]])
    init = np.array([[0.0], [100.0], [200.0]])
    rows = split_rows(dask_rows(X, 4))
    (centers,), _ = _lloyd.run_lloyd_passes(rows, [init], 0.0, 50)
    assert sorted(centers.ravel()) == [0.0, 1.0, 8.0]
    assert oracles.inertia(X, centers) == 0.0


def test_more_centres_than_distinct_rows() -> None:
    rows = split_rows(dask_rows(np.zeros((4, 1)), 2))
    with pytest.raises(TooFewDistinctRowsError) as error:
        _lloyd.run_lloyd_passes(rows, [np.array([[0.0], [1.0]])], 0.0, 50)
    assert (error.value.n_distinct, error.value.n_clusters) == (1, 2)


@pytest.mark.parametrize(
    ("dtype", "deviation", "max_abs", "expected"),
    [
        (np.float64, 1.0, 1.0, np.float64),
        (np.float32, 1.0, 10.0, np.float32),
        (np.float32, 1.0, 1e4, np.float64),
        (np.float32, 1e16, 1e16, np.float64),
        (np.float32, 1e-16, 1e-16, np.float64),
    ],
)
def test_precision_of_distances(dtype, deviation: float, max_abs: float, expected: type) -> None:
    features = FeatureStatistics(1.0, np.zeros(2), np.full(2, deviation**2), max_abs)
    assert _lloyd.choose_distance_dtype(np.dtype(dtype), features) is expected


def test_distances_and_labels_of_a_block() -> None:
    X, centers = np.array([[0.0, 0.0], [3.0, 4.0]], np.float32), np.array([[0.0, 0.0], [6.0, 8.0]])
    assert _lloyd.compute_distances(X, centers).tolist() == [[0.0, 10.0], [5.0, 5.0]]
    assert _lloyd.label_block(X, centers).tolist() == [0, 0]
    for function in (_lloyd.compute_distances, _lloyd.label_block):
        with pytest.raises(ValueError, match="NaN or infinity in the input"):
            function(np.array([[np.nan, 0.0]]), centers)
