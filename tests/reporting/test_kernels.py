"""The compiled loop over users: worked out by hand, and equal to its NumPy twin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.reporting import kernels
from tests import naive

N_SEGMENTS, N_GENRES = 3, 4


def zeros(n_segments: int, n_categories: int) -> list[np.ndarray]:
    shape = n_segments, n_categories
    return [
        np.zeros(n_segments, np.int64),
        np.zeros(n_segments, np.int64),
        np.zeros(n_segments),
        np.zeros(shape),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.int64),
    ]


@pytest.mark.parametrize("add_users", [kernels.add_users, naive.add_users])
def test_three_users_by_hand(add_users: Callable[..., None]) -> None:
    """Users 0 and 2 are in segment 1, user 1 is in segment 0; nobody is in segment 2."""
    outputs = zeros(3, 2)
    add_users(
        np.array([1, 0, 1], np.int32),
        np.array([2, 1, 3]),
        np.array([7.0, 4.0, 6.0]),
        np.array([[3.0, 4.0], [4.0, 0.0], [0.0, 6.0]]),
        np.array([[1, 1], [1, 0], [0, 3]], np.int32),
        *outputs,
    )
    users, movies, rating_means, category_means, covered, category_ratings = outputs
    np.testing.assert_array_equal(users, [1, 2, 0])
    np.testing.assert_array_equal(movies, [1, 5, 0])
    np.testing.assert_array_equal(rating_means, [4.0, 3.5 + 2.0, 0.0])
    np.testing.assert_array_equal(category_means, [[4.0, 0.0], [3.0, 4.0 + 2.0], [0.0, 0.0]])
    np.testing.assert_array_equal(covered, [[1, 0], [1, 2], [0, 0]])
    np.testing.assert_array_equal(category_ratings, [[1, 0], [1, 4], [0, 0]])


@given(
    labels=st.lists(st.integers(0, N_SEGMENTS - 1), min_size=1, max_size=40),
    seed=st.integers(0, 99),
    is_narrow=st.booleans(),
)
def test_equal_to_the_twin(labels: list[int], seed: int, is_narrow: bool) -> None:
    """In both sets of dtypes that user statistics are kept in."""
    rng = np.random.default_rng(seed)
    n = len(labels)
    counts = rng.integers(0, 4, (n, N_GENRES)).astype(np.uint16 if is_narrow else np.int32)
    user_movies = rng.integers(1, 9, n).astype(np.int32 if is_narrow else np.int64)
    dtype = np.float32 if is_narrow else np.float64
    rating_sum, sums = (user_movies * 3.5).astype(dtype), (counts * 2.5).astype(dtype)
    compiled, expected = zeros(N_SEGMENTS, N_GENRES), zeros(N_SEGMENTS, N_GENRES)
    inputs = np.array(labels, np.int32), user_movies, rating_sum, sums, counts
    kernels.add_users(*inputs, *compiled)
    naive.add_users(*inputs, *expected)
    for array, twin in zip(compiled, expected, strict=True):
        np.testing.assert_allclose(array, twin, rtol=1e-12)
