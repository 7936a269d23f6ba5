"""The kernels compute what their NumPy versions compute."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from segmentation.features import kernels
from tests import naive
from tests.features.helpers import TABLE


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(1, 10)), max_size=60)
)
def test_accumulate(rows: list[tuple[int, int, int]]) -> None:
    user_rows = np.array([user for user, _, _ in rows], np.int64)
    item_rows = np.array([movie for _, movie, _ in rows], np.int32)
    ratings = np.array([halves / 2 for _, _, halves in rows])
    outputs = []
    for kernel in (kernels.accumulate, naive.accumulate):
        output = (
            np.zeros(5, np.int64),
            np.zeros(5),
            np.zeros((5, 3)),
            np.zeros((5, 3), np.int32),
            np.zeros(4, np.bool_),
        )
        kernel(user_rows, item_rows, ratings, TABLE.offsets, TABLE.codes, *output)
        outputs.append(output)
    for compiled, expected in zip(*outputs, strict=True):
        np.testing.assert_array_equal(compiled, expected)


@given(values=st.lists(st.integers(-5, 5), max_size=30), is_sorted=st.booleans())
def test_find_run_starts(values: list[int], is_sorted: bool) -> None:
    array = np.array(sorted(values) if is_sorted else values, np.int64)
    starts, expected_starts = np.empty(len(array), np.int64), np.empty(len(array), np.int64)
    n = kernels.find_run_starts(array, starts)
    assert n == naive.find_run_starts(array, expected_starts)
    np.testing.assert_array_equal(starts[: max(n, 0)], expected_starts[: max(n, 0)])


@given(seed=st.integers(0, 99), n=st.integers(0, 20), small=st.booleans())
def test_mean_columns(seed: int, n: int, small: bool) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 3, (n, 3)).astype(np.uint16 if small else np.int32)
    sums = (counts * 3.5).astype(np.float32 if small else np.float64)
    outputs = []
    for kernel in (kernels.mean_columns, naive.mean_columns):
        output = np.zeros((3, n), np.float32), np.zeros((3, -(-n // 8)), np.uint8)
        kernel(sums, counts, *output)
        outputs.append(output)
    for compiled, expected in zip(*outputs, strict=True):
        np.testing.assert_array_equal(compiled, expected)


def test_arrow_reads_the_mean_columns() -> None:
    counts = np.array([[2], [0], [1]] * 4, np.int32)
    means, valid = np.zeros((1, 12), np.float32), np.zeros((1, 2), np.uint8)
    kernels.mean_columns(counts * 2.0, counts, means, valid)
    buffers = [pa.py_buffer(valid[0]), pa.py_buffer(means[0])]
    assert pa.Array.from_buffers(pa.float32(), 12, buffers).to_pylist() == [2.0, None, 2.0] * 4


@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 2**64 - 1),
            st.integers(0, 2**31 - 1),
            st.floats(-9, 9),
            st.integers(0, 9),
        ),
        max_size=20,
    ),
    data=st.data(),
)
def test_digest_rows(rows: list[tuple[int, int, float, int]], data: st.DataObject) -> None:
    def digest(kernel, some: list[tuple[int, int, float, int]]) -> int:
        return int(
            kernel(
                np.array([row[0] for row in some], np.uint64),
                np.array([row[1] for row in some], np.int32),
                np.array([row[2] for row in some]).view(np.uint64),
                np.array([[row[3], 0] for row in some], np.uint16).reshape(len(some), 2),
            )
        )

    expected = digest(naive.digest_rows, rows)
    assert digest(kernels.digest_rows, rows) == expected
    assert digest(kernels.digest_rows, data.draw(st.permutations(rows))) == expected
