"""Stability: clear clusters recur, arbitrary ones do not, and a weak one stands out."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from segmentation import KMeans
from segmentation.estimators.stability import (
    adjusted_rand_score,
    contingency_matrix,
    measure_stability,
)
from tests.estimators.test_kmeans import dask_rows


def test_adjusted_rand_of_fractions_is_the_limit_of_many_copies() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.integers(3, size=40), rng.integers(4, size=40)
    counts = rng.integers(1, 6, 40).astype(float)
    # The same proportions, once as fractions, once as a thousand times as many copies.
    many = adjusted_rand_score(one, other, counts * 1_000)
    assert adjusted_rand_score(one, other, counts / counts.sum()) == pytest.approx(many, abs=1e-4)
    assert adjusted_rand_score(one, one, counts / 7) == 1.0


@given(
    labels=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(1, 3)), min_size=1, max_size=40
    )
)
def test_adjusted_rand_of_copies_is_that_of_scikit_learn(labels) -> None:
    one, other, counts = (np.array(column) for column in zip(*labels, strict=True))
    expected = sklearn.metrics.adjusted_rand_score(np.repeat(one, counts), np.repeat(other, counts))
    assert adjusted_rand_score(one, other, counts.astype(float)) == pytest.approx(
        expected, abs=1e-12
    )


def test_contingency_by_hand() -> None:
    table = contingency_matrix(np.array([0, 0, 1]), np.array([1, 1, 0]), np.array([1.0, 2.0, 4.0]))
    np.testing.assert_array_equal(table, [[0, 3], [4, 0]])


def separate_clusters(n: int = 900, k: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return 30.0 * np.eye(5)[rng.integers(k, size=n)] + rng.normal(size=(n, 5))


def test_clear_clusters_recur() -> None:
    X = dask_rows(separate_clusters(), 200)
    result = measure_stability(X, KMeans(3, random_state=0).fit(X).cluster_centers_, 0)
    assert result.resampled.shape == (20,)
    assert result.resampled.min() > 0.99
    assert result.jaccard.min() > 0.99
    assert result.rows == 900


def test_arbitrary_clusters_do_not_recur() -> None:
    X = dask_rows(np.random.default_rng(1).normal(size=(900, 5)), 200)
    result = measure_stability(X, KMeans(6, random_state=0).fit(X).cluster_centers_, 0)
    assert result.resampled.mean() < 0.6
    assert result.jaccard.mean() < 0.75


def test_a_weak_cluster_stands_out() -> None:
    """Two clear groups, and a third whose split in two depends on the resample."""
    rng = np.random.default_rng(2)
    X = np.concatenate([separate_clusters(600, 2), 30 * np.eye(5)[2] + rng.normal(size=(600, 5))])
    rows = dask_rows(X, 300)
    model = KMeans(4, random_state=0).fit(rows)
    result = measure_stability(rows, model.cluster_centers_, 0)
    jaccard = np.sort(result.jaccard)
    assert jaccard[-2:].min() > 0.95
    assert jaccard[:2].max() < 0.9


def test_neither_chunks_nor_order_nor_copies_matter() -> None:
    X = separate_clusters(300)
    centers = KMeans(4, random_state=0).fit(dask_rows(X, 300)).cluster_centers_
    expected = measure_stability(dask_rows(X, 300), centers, 3)
    order = np.random.default_rng(0).permutation(len(X))
    result = measure_stability(dask_rows(X[order], 41), centers, 3)
    for one, other in zip(result[:3], expected[:3], strict=True):
        np.testing.assert_allclose(one, other)
    twice = measure_stability(dask_rows(np.concatenate([X, X]), 100), centers, 3)
    doubled = measure_stability(dask_rows(X, 77), centers, 3, sample_weight=np.full(len(X), 2.0))
    np.testing.assert_allclose(twice.jaccard, doubled.jaccard)


def test_a_single_cluster() -> None:
    X = dask_rows(separate_clusters(50), 20)
    result = measure_stability(X, separate_clusters(50).mean(axis=0)[None], 0)
    assert result.jaccard.tolist() == [1.0]
    assert set(result.resampled) == {1.0}
