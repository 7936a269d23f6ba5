"""Presets: which matrix is made of the user genre means and clustered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.schema import UserStatistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: name → what it clusters, in a sentence for help texts and reports.
PRESETS = {
    "engagement": "each genre's mean rating, 0 where the user has seen none of it",
    "taste": "each genre's mean as a deviation from the user's own mean rating, "
    "shrunk towards 0 the fewer films back it",
    "original": "as the original notebook: the direct join, means with 0 for unseen, unscaled",
}

#: How many films of a genre weigh as much as the belief that a user likes it as any other.
SHRINKAGE_FILMS = 5.0
#: Users whose features are made at a time.
_USERS = 8_192


def genre_means(statistics: UserStatistics) -> NDArray[np.float64]:
    """Return each user's mean rating a genre, NaN where unseen; shape (n_users, n_genres)."""
    counts = statistics.counts
    means = np.full(counts.shape, np.nan)
    np.divide(statistics.sums, counts, out=means, where=counts > 0, dtype=np.float64)
    return means


def compute_features(statistics: UserStatistics, preset: str) -> NDArray[np.float32]:
    """Return the matrix that is clustered, float32 of shape (n_users, n_genres).

    For ``taste`` the deviation of a genre with ``n`` films is multiplied by
    ``n / (n + SHRINKAGE_FILMS)``: the posterior mean of a normal deviation with a prior at 0.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: use one of {', '.join(PRESETS)}")
    found = np.empty(statistics.counts.shape, np.float32)
    # A few at a time, since the tables in between are several times as large.
    for at in range(0, len(found), _USERS):
        some = slice(at, at + _USERS)
        columns: Any = (column[some] for column in statistics)
        found[some] = _features(UserStatistics(*columns), preset)
    return found


def _features(statistics: UserStatistics, preset: str) -> NDArray[np.float64]:
    means = genre_means(statistics)
    if preset == "taste":
        own = np.divide(statistics.rating_sum, statistics.movies, dtype=np.float64)
        counts = statistics.counts.astype(np.float64)
        means = (means - own[:, None]) * (counts / (counts + SHRINKAGE_FILMS))
    return np.nan_to_num(means, nan=0.0)
