"""Compiled loop over the users of a block; ``tests/naive.py`` has a reference implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def add_users(
    labels: NDArray[np.int32],
    user_items: NDArray[Any],
    rating_sum: NDArray[Any],
    sums: NDArray[Any],
    counts: NDArray[Any],
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    rating_means: NDArray[np.float64],
    category_means: NDArray[np.float64],
    covered: NDArray[np.int64],
    category_ratings: NDArray[np.int64],
) -> None:
    """Add each user to the sums of its segment, in place.

    Parameters
    ----------
    labels
        Segment of each user, int32 of shape (n_users,).
    user_items, rating_sum
        Number and sum of each user's ratings, of shape (n_users,). Every user has at
        least one rating.
    sums, counts
        Sum and number of each user's ratings by category, of shape (n_users, n_categories).
    users, items, rating_means
        Outputs of shape (n_segments,): users, ratings, and the sum of the users' mean ratings.
    category_means, covered, category_ratings
        Outputs of shape (n_segments, n_categories): the sum of the users' category means, the users
        who rated the category, and the ratings in it.
    """
    for i in range(len(labels)):
        s = labels[i]
        users[s] += 1
        items[s] += np.int64(user_items[i])
        rating_means[s] += np.float64(rating_sum[i]) / np.float64(user_items[i])
        for g in range(sums.shape[1]):
            n = np.int64(counts[i, g])
            if n > 0:
                category_means[s, g] += np.float64(sums[i, g]) / n
                covered[s, g] += 1
                category_ratings[s, g] += n
