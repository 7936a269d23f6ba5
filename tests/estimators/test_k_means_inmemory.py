"""K-Means in memory against NumPy, scikit-learn and a case by hand."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.cluster
from hypothesis import given
from hypothesis import strategies as st

from segmentation.estimators import _k_means_inmemory
from tests import naive
from tests.estimators.test_kmeans import blobs


@given(n=st.integers(1, 40), d=st.integers(1, 4), k=st.integers(1, 6), seed=st.integers(0, 99))
def test_against_numpy(n: int, d: int, k: int, seed: int) -> None:
    k = min(k, n)
    rng = np.random.default_rng(seed)
    # Whole numbers: distances are exact, so that ties are ties for both.
    rows = np.rint(rng.normal(0, 2, (n, d)))
    weights = rng.integers(0, 3, n).astype(float)
    weights[rng.integers(n)] = 1.0
    uniforms = rng.random((k, 3))
    chosen = [np.empty(k, np.int64), np.empty(k, np.int64)]
    _k_means_inmemory.choose_plus_plus(rows, weights, uniforms, chosen[0])
    naive.choose_plus_plus(rows, weights, uniforms, chosen[1])
    np.testing.assert_array_equal(*chosen)
    centers = [rows[chosen[0]], rows[chosen[0]]]
    inertia = _k_means_inmemory.run_lloyd(rows, weights, centers[0], 0.0, 1)
    expected = naive.run_lloyd(rows, weights, centers[1], 0.0, 1)
    np.testing.assert_allclose(*centers)
    assert inertia == pytest.approx(expected)


def test_lloyd_ends_where_scikit_learn_does() -> None:
    X = blobs(n=500, k=6)
    weights = np.random.default_rng(0).integers(1, 4, 500).astype(float)
    centers = X[:5].copy()
    expected = sklearn.cluster.KMeans(5, init=centers, n_init=1, tol=0, max_iter=300).fit(
        X, sample_weight=weights
    )
    inertia = _k_means_inmemory.run_lloyd(X, weights, centers, 0.0, 300)
    np.testing.assert_allclose(centers, expected.cluster_centers_, atol=1e-9)
    assert inertia == pytest.approx(expected.inertia_, rel=1e-12)


def test_plus_plus_draws_by_weight_and_squared_distance() -> None:
    """Cumulated weights are 1, 3, 4 and 4; then weight times distance² is 0, 2, 9 and 0."""
    rows = np.array([[0.0], [1.0], [3.0], [100.0]])
    weights = np.array([1.0, 2.0, 1.0, 0.0])
    chosen = np.empty(2, np.int64)
    for uniforms, expected in (((0.2, 0.15), [0, 1]), ((0.2, 0.2), [0, 2]), ((0.9, 0.9), [2, 1])):
        _k_means_inmemory.choose_plus_plus(rows, weights, np.array(uniforms)[:, None], chosen)
        assert chosen.tolist() == expected


def test_an_empty_cluster_moves_to_the_farthest_row() -> None:
    rows, centers = np.array([[0.0], [1.0], [2.0], [30.0]]), np.array([[0.5], [1000.0]])
    assert _k_means_inmemory.run_lloyd(rows, np.ones(4), centers, 0.0, 20) == 2.0
    assert centers.ravel().tolist() == [1.0, 30.0]
