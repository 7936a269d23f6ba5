"""Slow NumPy twins of the compiled kernels: the same signatures, and no code in common."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

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
