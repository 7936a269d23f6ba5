"""Compiled loops over plain arrays, each with a NumPy twin that serves as its oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def accumulate(
    user_rows: NDArray[np.int64],
    movie_rows: NDArray[np.int32],
    ratings: NDArray[np.float64],
    offsets: NDArray[np.int32],
    codes: NDArray[np.int32],
    movies: NDArray[np.int64],
    rating_sum: NDArray[np.float64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int32],
    seen: NDArray[np.bool_],
) -> None:
    """Add each rating to its user's totals and to those of its movie's genres, in place.

    Parameters
    ----------
    user_rows, movie_rows, ratings
        One entry a used rating: the row of its user in the outputs, the row of its movie in the
        catalogue, and its stars. Shape (n_ratings,).
    offsets, codes
        The catalogue's compressed movie × genre rows.
    movies, rating_sum, sums, counts, seen
        Outputs of shape (n_users,), (n_users,), (n_users, n_genres) twice and (n_movies,).
    """
    for i in range(len(ratings)):
        user = user_rows[i]
        movie = movie_rows[i]
        rating = ratings[i]
        movies[user] += 1
        rating_sum[user] += rating
        seen[movie] = True
        for j in range(offsets[movie], offsets[movie + 1]):
            genre = codes[j]
            sums[user, genre] += rating
            counts[user, genre] += 1


def accumulate_numpy(
    user_rows: NDArray[np.int64],
    movie_rows: NDArray[np.int32],
    ratings: NDArray[np.float64],
    offsets: NDArray[np.int32],
    codes: NDArray[np.int32],
    movies: NDArray[np.int64],
    rating_sum: NDArray[np.float64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int32],
    seen: NDArray[np.bool_],
) -> None:
    """Do the same as :func:`accumulate` with NumPy, a dense indicator column at a time."""
    n_users, n_genres = sums.shape
    indicator = np.zeros((len(seen), n_genres), dtype=bool)
    indicator[np.repeat(np.arange(len(seen)), np.diff(offsets)), codes] = True
    movies += np.bincount(user_rows, minlength=n_users)
    rating_sum += np.bincount(user_rows, weights=ratings, minlength=n_users)
    seen[movie_rows] = True
    for genre in range(n_genres):
        mask = indicator[movie_rows, genre]
        sums[:, genre] += np.bincount(user_rows[mask], weights=ratings[mask], minlength=n_users)
        counts[:, genre] += np.bincount(user_rows[mask], minlength=n_users).astype(np.int32)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def run_starts(values: NDArray[np.int64], starts: NDArray[np.int64]) -> int:
    """Fill ``starts`` with where each run of equal values begins; return how many, −1 if unsorted.

    One pass instead of a sort: a ratings log is most often grouped by user already.
    """
    n = 0
    for i in range(len(values)):
        if i == 0 or values[i] != values[i - 1]:
            if i > 0 and values[i] < values[i - 1]:
                return -1
            starts[n] = i
            n += 1
    return n


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def mean_columns(
    sums: NDArray[Any], counts: NDArray[Any], means: NDArray[np.float32], valid: NDArray[np.uint8]
) -> None:
    """Turn sums and counts a user into columns of means, each with Arrow's bits for what is there.

    Parameters
    ----------
    sums, counts
        Shape (n_users, n_genres).
    means, valid
        Outputs of shape (n_genres, n_users), 0 where unseen, and (n_genres, ceil(n_users / 8)), in
        which user ``i`` is bit ``i % 8``, from the least, of byte ``i // 8``; zeros before.
    """
    for i in range(sums.shape[0]):
        bit = np.uint8(1 << (i & 7))
        for g in range(sums.shape[1]):
            n = np.int64(counts[i, g])
            if n > 0:
                means[g, i] = np.float32(np.float64(sums[i, g]) / n)
                valid[g, i >> 3] |= bit


def mean_columns_numpy(
    sums: NDArray[Any], counts: NDArray[Any], means: NDArray[np.float32], valid: NDArray[np.uint8]
) -> None:
    """Do the same as :func:`mean_columns` with NumPy."""
    seen = counts > 0
    found = np.zeros(sums.shape)
    np.divide(sums, counts, out=found, where=seen, dtype=np.float64)
    means[:] = found.T
    valid[:] = np.packbits(seen.T, axis=1, bitorder="little")
