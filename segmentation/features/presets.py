"""Presets: the feature matrix that is clustered, made from the user statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.features.user_statistics import relative_width
from segmentation.schema import UserStatistics
from segmentation.tasks import map_tasks

if TYPE_CHECKING:
    import dask.array as da
    from distributed import Client
    from numpy.typing import NDArray

    from segmentation.features.user_blocks import UserBlocks

#: What the feature matrix may hold: the mean rating per category, 0 where the user has none; its
#: deviation from the user's own mean rating, shrunk towards 0 if few ratings support it; or the
#: original notebook's matrix, which is the first with the direct join.
PRESETS = ("engagement", "taste", "original")

#: Weight of the prior, in ratings: a deviation is halved with this many in the category.
SHRINKAGE_RATINGS = 5.0
#: Users whose features are computed at a time, fewer with many categories.
_CHUNK_USERS = 8_192


def category_means(statistics: UserStatistics) -> NDArray[np.float64]:
    """Return the means per user and category, NaN where unseen; shape (n_users, n_categories)."""
    counts = statistics.counts
    means = np.full(counts.shape, np.nan)
    np.divide(statistics.sums, counts, out=means, where=counts > 0, dtype=np.float64)
    return means


def compute_features(statistics: UserStatistics, preset: str) -> NDArray[np.float32]:
    """Return the feature matrix of a preset.

    For ``taste`` the deviation of a category with ``n`` ratings is multiplied by
    ``n / (n + SHRINKAGE_RATINGS)``, the posterior mean of a normal deviation with a prior at 0.

    Returns
    -------
    ndarray of shape (n_users, n_categories), float32

    Raises
    ------
    ValueError
        If there is no such preset.

    Examples
    --------
    >>> import numpy as np
    >>> one_user = UserStatistics(
    ...     users=np.array([7]),
    ...     items=np.array([3]),
    ...     rating_sum=np.array([9.0]),
    ...     sums=np.array([[8.0, 1.0, 0.0]]),
    ...     counts=np.array([[2, 1, 0]]),
    ... )
    >>> compute_features(one_user, "engagement").tolist()
    [[4.0, 1.0, 0.0]]
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: use one of {', '.join(PRESETS)}")
    features = np.empty(statistics.counts.shape, np.float32)
    # In chunks, since the float64 arrays in between are several times as large.
    n_users = max(1, int(_CHUNK_USERS / relative_width(statistics.counts.shape[1])))
    for start in range(0, len(features), n_users):
        rows = slice(start, start + n_users)
        columns: Any = (column[rows] for column in statistics)
        features[rows] = _chunk_features(UserStatistics(*columns), preset)
    return features


def _chunk_features(statistics: UserStatistics, preset: str) -> NDArray[np.float64]:
    means = category_means(statistics)
    if preset == "taste":
        user_means = np.divide(statistics.rating_sum, statistics.items, dtype=np.float64)
        counts = statistics.counts.astype(np.float64)
        means = (means - user_means[:, None]) * (counts / (counts + SHRINKAGE_RATINGS))
    return np.nan_to_num(means, nan=0.0)


def feature_matrix(client: Client, blocks: UserBlocks, preset: str, n_categories: int) -> da.Array:
    """Return the feature matrix as a Dask array over blocks that stay on the workers.

    Parameters
    ----------
    client
        The client that holds the blocks.
    blocks
        The user statistics.
    preset
        One of :data:`PRESETS`.
    n_categories
        The number of columns.

    Returns
    -------
    dask.array.Array of shape (n_users, n_categories), float32
        Rows follow the users' ids.
    """
    import dask.array as da

    tasks = map_tasks(client, "features", compute_features, blocks.statistics, preset)
    return da.concatenate(
        [
            da.from_delayed(task, shape=(size, n_categories), dtype=np.float32)
            for task, size in zip(tasks, blocks.sizes, strict=True)
        ]
    )
