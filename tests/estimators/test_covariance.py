"""Moments against NumPy, for any split of the rows."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.estimators import _covariance
from tests import naive


@given(n=st.integers(1, 700), d=st.integers(1, 9), seed=st.integers(0, 9), single=st.booleans())
def test_scatter_against_numpy(n: int, d: int, seed: int, single: bool) -> None:
    """Up to three tiles of rows, and numbers of features that do and don't fill the padding."""
    rng = np.random.default_rng(seed)
    X = (1e3 + rng.normal(size=(n, d))).astype(np.float32 if single else np.float64)
    results = []
    for module in (_covariance, naive):
        mean, scatter = np.zeros(d), np.zeros((d, d))
        module.compute_mean_and_scatter(X, mean, scatter)
        results.append((mean, scatter))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-12)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-8 * n)


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_merged_moments_are_those_of_all_rows(lengths: list[int], seed: int) -> None:
    X = np.random.default_rng(seed).normal(50, 3, (sum(lengths), 3))
    parts = np.split(X, np.cumsum(lengths)[:-1])
    moments = functools.reduce(
        _covariance.merge_moments, [_covariance.compute_moments(part) for part in parts]
    )
    assert moments.n == len(X)
    np.testing.assert_allclose(moments.mean, X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.scatter / len(X), np.cov(X.T, ddof=0), atol=1e-9)


def test_deviations_by_hand() -> None:
    X = np.array([[1.0, -7.0], [2.0, 0.0], [4.0, 5.0]])
    sums, squares = np.zeros(2), np.zeros(2)
    largest = _covariance.sum_deviations(
        X, np.array([1.0, 0.0, 2.0]), np.array([1.0, 0.0]), sums, squares
    )
    assert (sums.tolist(), squares.tolist(), largest) == ([6.0, 3.0], [18.0, 99.0], 7.0)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_the_largest_value_of_rows_with_nan_is_nan(position: int) -> None:
    X = np.array([[1.0], [2.0], [3.0]])
    X[position] = np.nan
    out = np.zeros(1), np.zeros(1)
    assert np.isnan(_covariance.sum_deviations(X, np.empty(0), np.zeros(1), *out))
