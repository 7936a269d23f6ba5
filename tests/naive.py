"""Slow NumPy versions of the compiled kernels, which tests compare them with.

As in stumpy, they live among the tests. Each has the signature of its kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# features


def accumulate(
    user_rows: np.ndarray,
    movie_rows: np.ndarray,
    ratings: np.ndarray,
    offsets: np.ndarray,
    codes: np.ndarray,
    movies: np.ndarray,
    rating_sum: np.ndarray,
    sums: np.ndarray,
    counts: np.ndarray,
    seen: np.ndarray,
) -> None:
    """:func:`segmentation.features.kernels.accumulate`, one dense genre column at a time."""
    n_users, n_genres = sums.shape
    has_genre = np.zeros((len(seen), n_genres), dtype=bool)
    has_genre[np.repeat(np.arange(len(seen)), np.diff(offsets)), codes] = True
    movies += np.bincount(user_rows, minlength=n_users)
    rating_sum += np.bincount(user_rows, weights=ratings, minlength=n_users)
    seen[movie_rows] = True
    for genre in range(n_genres):
        mask = has_genre[movie_rows, genre]
        sums[:, genre] += np.bincount(user_rows[mask], weights=ratings[mask], minlength=n_users)
        counts[:, genre] += np.bincount(user_rows[mask], minlength=n_users).astype(np.int32)


def find_run_starts(values: np.ndarray, starts: np.ndarray) -> int:
    """:func:`segmentation.features.kernels.find_run_starts`."""
    if (np.diff(values) < 0).any():
        return -1
    _, first = np.unique(values, return_index=True)
    starts[: len(first)] = first
    return len(first)


def mean_columns(
    sums: np.ndarray, counts: np.ndarray, means: np.ndarray, valid: np.ndarray
) -> None:
    """:func:`segmentation.features.kernels.mean_columns`."""
    has_mean = counts > 0
    quotients = np.zeros(sums.shape)
    np.divide(sums, counts, out=quotients, where=has_mean, dtype=np.float64)
    means[:] = quotients.T
    valid[:] = np.packbits(has_mean.T, axis=1, bitorder="little")


# reporting


def add_users(
    labels: NDArray[np.int32],
    user_movies: NDArray[Any],
    rating_sum: NDArray[Any],
    sums: NDArray[Any],
    counts: NDArray[Any],
    users: NDArray[np.int64],
    movies: NDArray[np.int64],
    rating_means: NDArray[np.float64],
    genre_means: NDArray[np.float64],
    covered: NDArray[np.int64],
    genre_ratings: NDArray[np.int64],
) -> None:
    """Add each user to the sums of its segment: ``segmentation.reporting.kernels.add_users``."""
    means = np.zeros(counts.shape)
    np.divide(sums, counts, out=means, where=counts > 0, dtype=np.float64)
    np.add.at(users, labels, 1)
    np.add.at(movies, labels, user_movies)
    np.add.at(rating_means, labels, rating_sum / user_movies)
    np.add.at(genre_means, labels, means)
    np.add.at(covered, labels, counts > 0)
    np.add.at(genre_ratings, labels, counts)
