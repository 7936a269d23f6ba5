"""Blocks of rows: what is accepted, how blocks and weights are cut, and how results combine."""

from __future__ import annotations

import gc
import time
from typing import NamedTuple

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from segmentation.estimators import _blockwise
from segmentation.estimators._blockwise import check_array, split_rows


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(np.float16, "f4"), (np.float32, "f4"), (np.float64, "f8"), (np.int8, "f8"), (bool, "f8")],
)
def test_dtype_of_the_rows(dtype: type, expected: str) -> None:
    X = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    for rows in (X, pd.DataFrame(X), da.from_array(X, chunks=(2, 1))):
        array = check_array(rows)
        assert array.dtype == np.dtype(expected)
        assert array.numblocks[1] == 1
        np.testing.assert_array_equal(array.compute(), X)


def test_rejected_input() -> None:
    with pytest.raises(TypeError, match=r"dense data is required: convert it with X\.toarray"):
        check_array(scipy.sparse.csr_matrix(np.eye(3)))
    with pytest.raises(ValueError, match="Complex data not supported"):
        check_array(np.eye(2) * 1j)
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        check_array(np.zeros(3))
    with pytest.raises(ValueError, match=r"0 feature\(s\) \(shape=\(3, 0\)\)"):
        check_array(np.zeros((3, 0)))


def add_up(block: np.ndarray, weights: np.ndarray, factor: int) -> list[tuple[int, float, int]]:
    return [(len(block), float(block.sum()), len(weights) * factor)]


@given(
    chunks=st.lists(st.integers(0, 5), min_size=1, max_size=40).filter(any),
    result_bytes=st.sampled_from([8, 2**25, 2**30]),
)
def test_every_block_is_reduced_once_and_in_order(chunks: list[int], result_bytes: int) -> None:
    """Lists that are concatenated show the order; up to 40 blocks need a tree."""
    X = np.arange(2.0 * sum(chunks)).reshape(-1, 2)
    rows = split_rows(da.from_array(X, chunks=(tuple(chunks), 2)))
    lengths = [n for n in chunks if n]
    assert (rows.n_rows, rows.n_features, rows.lengths) == (len(X), 2, lengths)
    assert rows.starts == [sum(lengths[:i]) for i in range(len(lengths))]
    expected = [
        (n, float(X[start : start + n].sum()), 0)
        for n, start in zip(lengths, rows.starts, strict=True)
    ]

    def concatenate(parts: list[list]) -> list:
        assert len(parts) <= 16
        return [item for part in parts for item in part]

    assert _blockwise.reduce_blocks(rows, add_up, concatenate, 3) == expected
    blocks = _blockwise.iterate_blocks(rows, add_up, 3, result_bytes=result_bytes)
    assert list(blocks) == [[item] for item in expected]


@pytest.mark.parametrize("as_dask", [True, False])
def test_weights_are_cut_like_the_rows(as_dask: bool) -> None:
    weights = np.arange(10)
    X = da.zeros((10, 1), chunks=((3, 0, 5, 2), 1))
    rows = split_rows(X, da.from_array(weights, chunks=4) if as_dask else weights.tolist())
    blocks = list(
        _blockwise.iterate_blocks(rows, lambda block, part: part.tolist(), result_bytes=8)
    )
    assert blocks == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0, 6.0, 7.0], [8.0, 9.0]]
    with pytest.raises(ValueError, match=r"sample_weight.shape == \(9,\), expected \(10,\)"):
        split_rows(X, weights[:9])


@given(
    chunks=st.lists(st.integers(0, 6), min_size=1, max_size=9).filter(any),
    size=st.integers(1, 60),
    seed=st.integers(0, 9),
)
def test_sampled_rows_do_not_depend_on_chunks(chunks: list[int], size: int, seed: int) -> None:
    X = np.arange(float(sum(chunks)))[:, None]
    numbers = _blockwise.sample_row_numbers(len(X), size, seed)
    assert len(set(numbers)) == len(numbers) == min(size, len(X))
    rows = split_rows(da.from_array(X, chunks=(tuple(chunks), 1)))
    np.testing.assert_array_equal(
        _blockwise.take_rows(rows, numbers).compute().ravel(), np.sort(numbers)
    )


def test_fields_are_added_one_by_one() -> None:
    class Pair(NamedTuple):
        a: np.ndarray
        b: float

    total = _blockwise.add_fields([Pair(np.array([1, 2]), 0.5), Pair(np.array([10, 20]), 1.0)])
    assert isinstance(total, Pair)
    assert (total.a.tolist(), total.b) == ([11, 22], 1.5)


def test_rows_in_memory_stay_on_the_cluster_while_they_are_needed(client) -> None:
    """The blocks alone do not keep the futures of the array that was made of them."""
    rows = split_rows(check_array(np.ones((50, 2))))
    gc.collect()
    time.sleep(0.2)  # a release would have reached the scheduler
    sums = _blockwise.iterate_blocks(
        rows, lambda block, weights: float(block.sum()), result_bytes=8
    )
    assert list(sums) == [100.0]


def test_a_shared_value_is_a_task(client) -> None:
    """Scattered data could not be computed again; a task has a run specification."""
    value = np.arange(5)
    future = _blockwise.share_value(value)

    def is_task(dask_scheduler, key: str) -> bool:
        return dask_scheduler.tasks[key].run_spec is not None

    np.testing.assert_array_equal(future.result(), value)
    assert client.run_on_scheduler(is_task, key=future.key)
