"""Compiled kernels against their slow NumPy versions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.estimators import _kernels
from tests import naive

SHAPES = {
    "n": st.integers(1, 40),
    "d": st.integers(1, 5),
    "k": st.integers(1, 6),
    "seed": st.integers(0, 50),
    "dtype": st.sampled_from([np.float32, np.float64]),
}


def whole_numbers(n: int, d: int, k: int, seed: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Rows and centres whose distances are exact, so that ties are ties in any order of sums."""
    rng = np.random.default_rng(seed)
    return np.rint(rng.normal(0, 3, (n, d))).astype(dtype), np.rint(rng.normal(0, 3, (k, d)))


@given(**SHAPES)
def test_assign(n: int, d: int, k: int, seed: int, dtype: type) -> None:
    X, centers = whole_numbers(n, d, k, seed, dtype)
    results = []
    for module in (_kernels, naive):
        out = (np.empty(n, np.int32), np.empty(n), np.empty(n, np.int32), np.empty(n))
        module.assign(X, centers, *out)
        results.append(out)
    for array, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(array, expected)


@given(**SHAPES, weighted=st.booleans())
def test_sums_of_two_sets_of_centres(
    n: int, d: int, k: int, seed: int, dtype: type, weighted: bool
) -> None:
    X, centers = whole_numbers(n, d, k, seed, dtype)
    weights = np.random.default_rng(seed).integers(0, 4, n).astype(float)
    weights = weights if weighted else np.empty(0)
    both, offsets = np.concatenate([centers, centers[:1] + 1]), np.array([0, k, k + 1])
    sums, for_metrics = [], []
    for module in (_kernels, naive):
        out = (np.zeros((k + 1, d)), np.zeros(k + 1), np.zeros(2))
        module.assign_and_sum(
            X, weights, both.astype(dtype), offsets, dtype(0), dtype(np.inf), *out
        )
        sums.append(out)
        out = (np.zeros(k + 1), np.zeros((k + 1, d)), *(np.zeros(k + 1) for _ in range(3)))
        module.sum_for_metrics(X, weights, both, offsets, *out)
        for_metrics.append(out)
    for array, expected in zip(*sums, strict=True):
        np.testing.assert_array_equal(array, expected)
    for array, expected in zip(*for_metrics, strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-12, atol=1e-12)


@given(**SHAPES)
def test_sum_distances(n: int, d: int, k: int, seed: int, dtype: type) -> None:
    X, _ = whole_numbers(n, d, k, seed, dtype)
    X = X.astype(np.float64)
    labels = np.random.default_rng(seed).integers(0, k, (n, 2)) + np.array([0, k])
    sums = [np.zeros((n, 2 * k)), np.zeros((n, 2 * k))]
    _kernels.sum_distances(X, labels, sums[0])
    naive.sum_distances(X, labels, sums[1])
    np.testing.assert_allclose(*sums)


@given(**SHAPES)
def test_hash_rows(n: int, d: int, k: int, seed: int, dtype: type) -> None:
    X, _ = whole_numbers(n, d, k, seed, dtype)
    bits = X.view(np.uint32 if dtype is np.float32 else np.uint64)
    negative_zero = np.array(-0.0, dtype).view(bits.dtype)[()]
    hashes = [np.empty(n, np.uint64), np.empty(n, np.uint64)]
    _kernels.hash_rows(bits, negative_zero, np.uint64(seed), hashes[0])
    naive.hash_rows(bits, negative_zero, np.uint64(seed), hashes[1])
    np.testing.assert_array_equal(*hashes)


def test_a_tie_goes_to_the_lower_label() -> None:
    out = (np.empty(1, np.int32), np.empty(1), np.empty(1, np.int32), np.empty(1))
    _kernels.assign(np.array([[1.0]]), np.array([[5.0], [0.0], [2.0]]), *out)
    assert [array[0] for array in out] == [1, 1.0, 2, 1.0]


def test_a_missing_second_centre() -> None:
    out = (np.empty(1, np.int32), np.empty(1), np.empty(1, np.int32), np.empty(1))
    _kernels.assign(np.array([[1.0]]), np.array([[3.0]]), *out)
    assert [array[0] for array in out] == [0, 4.0, -1, pytest.approx(np.inf)]
