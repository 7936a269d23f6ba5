"""The tasks that assign a block of users to the segments; each runs on a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.estimators._incremental_pca import project
from segmentation.estimators._lloyd import Assignment, assign_block
from segmentation.features.kernels import mean_columns
from segmentation.features.population import count_population
from segmentation.reporting import percentiles
from segmentation.reporting.percentiles import Histogram, build_histogram
from segmentation.reporting.profiles import ProfileSums, RatingCounts, block_sums, count_ratings
from segmentation.schema import USER, Axes, Grid, Population, UserStatistics
from segmentation.storage.parquet import arrow_array, arrow_booleans, arrow_strings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray


class AssignedBlock(NamedTuple):
    """One block's users in their segments.

    All arrays are of shape (n_users,), except ``points`` of shape (n_users, n_axes). ``runner_up``
    is the segment of the second nearest center. ``margin`` is
    the distance to the next best centre less the distance to the nearest: 0 for a user on the
    border. With a single segment ``runner_up`` is −1 and ``margin`` NaN.
    """

    labels: NDArray[np.int32]
    distance: NDArray[np.float64]
    runner_up: NDArray[np.int32]
    margin: NDArray[np.float64]
    points: NDArray[np.float64]


def assign(
    features: NDArray[np.float32], centers: NDArray[np.float64], axes: Axes
) -> AssignedBlock:
    """Assign one block's users to their nearest centers, and project them onto the PCA axes."""
    nearest = assign_block(features, centers)
    margin = np.where(nearest.runner_up >= 0, nearest.second - nearest.distance, np.nan)
    points = project(features, axes.mean, axes.components)
    return AssignedBlock(nearest.labels, nearest.distance, nearest.runner_up, margin, points)


class BlockSummary(NamedTuple):
    """The sums and counts of one block's users by segment, and the users that the figure shows.

    Attributes
    ----------
    sums, counts, histogram
        For the profiles: sums, numbers of ratings per user, and distances to the centers.
    points, labels
        The users shown on the two axes, of shape (n_shown, 2), and their segments.
    population
        What is saved of the users to see a change later; nobody counts as an outlier.
    """

    sums: ProfileSums
    counts: RatingCounts
    histogram: Histogram
    points: NDArray[np.float64]
    labels: NDArray[np.int32]
    population: Population


def summarize_block(
    statistics: UserStatistics,
    features: NDArray[np.float32],
    shown: NDArray[np.int64],
    centers: NDArray[np.float64],
    axes: Axes,
    grid: Grid,
    least: int,
) -> BlockSummary:
    """Summarize one block's users by segment, and project the users that the figure shows.

    Parameters
    ----------
    shown
        The rows of the users that the figure shows.
    least
        The number of ratings from which on a user is counted in the population.
    """
    nearest = assign_block(features, centers)
    nobody = np.full(len(centers), np.inf)
    return BlockSummary(
        block_sums(statistics, nearest.labels, len(centers)),
        count_ratings(statistics.items, nearest.labels),
        build_histogram(nearest.labels, nearest.distance),
        project(features[shown], axes.mean, axes.components),
        nearest.labels[shown],
        _count_active(statistics, features, nearest, nobody, grid, least),
    )


def count_block(
    statistics: UserStatistics,
    features: NDArray[np.float32],
    centers: NDArray[np.float64],
    distance_p99: NDArray[np.float64],
    grid: Grid,
    least: int,
) -> Population:
    """Count the users of one block with ``least`` ratings by segment, and their features."""
    nearest = assign_block(features, centers)
    return _count_active(statistics, features, nearest, distance_p99, grid, least)


def _count_active(
    statistics: UserStatistics,
    features: NDArray[np.float32],
    nearest: Assignment,
    distance_p99: NDArray[np.float64],
    grid: Grid,
    least: int,
) -> Population:
    labels, distance = nearest.labels, nearest.distance
    if least > 1:
        rows = statistics.items >= least
        features, labels, distance = features[rows], labels[rows], distance[rows]
    return count_population(features, labels, distance, distance_p99, grid)


def label_users(
    statistics: UserStatistics, features: NDArray[np.float32], centers: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Return one block's users and their segments."""
    return np.array(statistics.users), assign_block(features, centers).labels


def count_flows(
    features: NDArray[np.float32], before: NDArray[np.float64], now: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Count one block's users by their nearest center of two sets, of shape (n_before, n_now)."""
    one, other = (assign_block(features, centers).labels for centers in (before, now))
    pairs = one.astype(np.int64) * len(now) + other
    counts = np.bincount(pairs, minlength=len(before) * len(now))
    return counts.reshape(len(before), len(now))


def distances_in_bins(
    features: NDArray[np.float32], centers: NDArray[np.float64], keys: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    """Return one block's distances in each of the bins ``keys``, one array per bin."""
    nearest = assign_block(features, centers)
    return percentiles.values_in_bins(nearest.labels, nearest.distance, keys)


def build_table(
    statistics: UserStatistics,
    features: NDArray[np.float32],
    centers: NDArray[np.float64],
    axes: Axes,
    personas: Sequence[str],
    categories: Sequence[str],
    distance_p99: NDArray[np.float64] | None = None,
) -> pa.Table:
    """Return one block as a table with the columns of ``assignments.parquet``.

    With ``distance_p99``, the distance beyond which a user of each segment is an outlier, there is
    the column ``is_outlier`` before those of the categories.
    """
    import pyarrow as pa

    n_users, n_categories = statistics.counts.shape
    means = np.zeros((n_categories, n_users), np.float32)
    validity = np.zeros((n_categories, -(-n_users // 8)), np.uint8)
    mean_columns(statistics.sums, statistics.counts, means, validity)
    assigned = assign(features, centers, axes)
    has_no_runner_up = assigned.runner_up < 0
    labels = arrow_array(assigned.labels)
    columns = {
        USER: arrow_array(statistics.users),
        "segment": labels,
        "persona": pa.DictionaryArray.from_arrays(labels, arrow_strings(personas)),
        "distance": arrow_array(assigned.distance),
        "runner_up": arrow_array(assigned.runner_up, has_no_runner_up),
        "margin": arrow_array(assigned.margin, has_no_runner_up),
        "pc1": arrow_array(assigned.points[:, 0]),
        "pc2": arrow_array(assigned.points[:, 1]),
        "items": arrow_array(statistics.items.astype(np.int64)),
        "mean_rating": arrow_array(
            np.divide(statistics.rating_sum, statistics.items, dtype=np.float64)
        ),
    }
    if distance_p99 is not None:
        columns["is_outlier"] = arrow_booleans(assigned.distance > distance_p99[assigned.labels])
    for g, category in enumerate(categories):
        buffers = [pa.py_buffer(validity[g]), pa.py_buffer(means[g])]
        columns[category] = pa.Array.from_buffers(pa.float32(), n_users, buffers)
    return pa.table(columns)
