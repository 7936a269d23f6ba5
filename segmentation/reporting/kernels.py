"""The compiled loop over the users of a block, with a NumPy twin that serves as its oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
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
    """Add each user to the sums of its segment, in place.

    Parameters
    ----------
    labels
        The segment of each user, (n_users,).
    user_movies, rating_sum, sums, counts
        The users' statistics, (n_users,) twice and (n_users, n_genres) twice; each user has rated.
    users, movies, rating_means, genre_means, covered, genre_ratings
        Outputs of shape (n_segments,) three times, and (n_segments, n_genres).
    """
    for i in range(len(labels)):
        s = labels[i]
        users[s] += 1
        movies[s] += np.int64(user_movies[i])
        rating_means[s] += np.float64(rating_sum[i]) / np.float64(user_movies[i])
        for g in range(sums.shape[1]):
            n = np.int64(counts[i, g])
            if n > 0:
                genre_means[s, g] += np.float64(sums[i, g]) / n
                covered[s, g] += 1
                genre_ratings[s, g] += n


def add_users_numpy(
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
    """Do the same as :func:`add_users` with NumPy."""
    means = np.zeros(counts.shape)
    np.divide(sums, counts, out=means, where=counts > 0, dtype=np.float64)
    np.add.at(users, labels, 1)
    np.add.at(movies, labels, user_movies)
    np.add.at(rating_means, labels, rating_sum / user_movies)
    np.add.at(genre_means, labels, means)
    np.add.at(covered, labels, counts > 0)
    np.add.at(genre_ratings, labels, counts)
