"""The scan of the rows: statistics against NumPy, and a sample that depends on content only."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.estimators import _sampling
from segmentation.estimators._blockwise import split_rows
from segmentation.estimators._sampling import scan_rows


def scan(X: np.ndarray, size: int, seed: int = 0, chunk: int = 10**6, weights=None):
    return scan_rows(split_rows(da.from_array(X, chunks=(chunk, X.shape[1])), weights), size, seed)


@given(n=st.integers(1, 200), chunk=st.integers(1, 70), seed=st.integers(0, 9))
def test_statistics_against_numpy(n: int, chunk: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, weights = rng.normal(100, 2, (n, 3)), rng.integers(0, 4, n)
    weights[0] = 1
    features = scan(X, 10, seed, chunk, weights).features
    copies = np.repeat(X, weights, axis=0)
    assert features.weight == len(copies)
    np.testing.assert_allclose(features.mean, copies.mean(axis=0))
    np.testing.assert_allclose(
        features.squared_deviations, copies.var(axis=0) * len(copies), atol=1e-9
    )
    assert features.max_abs == np.abs(X).max()
    assert features.scale_tol(1e-4) == pytest.approx(1e-4 * copies.var(axis=0).mean(), abs=1e-12)


@given(
    counts=st.lists(st.integers(0, 4), min_size=30, max_size=30).filter(any),
    size=st.integers(1, 40),
    chunk=st.integers(1, 50),
)
def test_the_sample_depends_neither_on_order_nor_on_chunks_nor_on_copies(
    counts: list[int], size: int, chunk: int
) -> None:
    X = np.random.default_rng(3).normal(size=(30, 2))
    weighted = scan(X, size, 5, weights=np.array(counts)).sample
    copies = np.random.default_rng(size).permutation(np.repeat(X, counts, axis=0))
    repeated = scan(copies, size, 5, chunk).sample
    for one, other in zip(weighted, repeated, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(weighted.rows) == min(size, np.count_nonzero(counts))
    # Each row has its own weight.
    for row, weight in zip(weighted.rows, weighted.weights, strict=True):
        assert weight == counts[int(np.flatnonzero((row == X).all(axis=1))[0])]


def test_few_distinct_rows_among_many_copies() -> None:
    X = np.repeat(np.arange(40.0)[:, None], 500, axis=0)
    sample = scan(X, 40, chunk=1_000).sample
    assert sorted(sample.rows.ravel()) == list(range(40))
    assert set(sample.weights) == {500.0}
    assert (np.diff(sample.hashes.astype(object)) > 0).all()


def test_another_seed_is_another_sample() -> None:
    X = np.arange(1000.0)[:, None]
    one, other = (set(scan(X, 100, seed).sample.rows.ravel()) for seed in (0, 1))
    assert len(one) == len(other) == 100
    # Two random tenths share about ten rows.
    assert len(one & other) < 30


def test_negative_zero_is_zero() -> None:
    for dtype in (np.float32, np.float64):
        hashes = _sampling.hash_block(np.array([[0.0, 1], [-0.0, 1], [1, 0]], dtype), np.uint64(7))
        assert hashes[0] == hashes[1] != hashes[2]
