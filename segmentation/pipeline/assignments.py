"""The assignments: one row a user, built block by block on the workers, written in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.estimators._incremental_pca import project
from segmentation.estimators._lloyd import assign_block
from segmentation.features.kernels import mean_columns
from segmentation.reporting import percentiles
from segmentation.reporting.percentiles import Histogram, build_histogram
from segmentation.reporting.profiles import ProfileSums, block_sums
from segmentation.schema import USER, Axes, UserStatistics
from segmentation.storage.parquet import arrow_array, arrow_strings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class AssignedBlock(NamedTuple):
    """One block's users in their segments; arrays of shape (n_users,) but ``points`` (n, axes)."""

    labels: NDArray[np.int32]
    distance: NDArray[np.float64]
    runner_up: NDArray[np.int32]
    margin: NDArray[np.float64]
    points: NDArray[np.float64]


def assign(
    features: NDArray[np.float32], centers: NDArray[np.float64], axes: Axes
) -> AssignedBlock:
    """Place one block's users: segment, distance, the next best, and the margin to it.

    ``margin`` is the second distance less the first: 0 for a user on the border. With a single
    segment there is no next best: ``runner_up`` is −1 and ``margin`` NaN.
    """
    found = assign_block(features, centers)
    margin = np.where(found.runner_up >= 0, found.second - found.distance, np.nan)
    return AssignedBlock(
        found.labels,
        found.distance,
        found.runner_up,
        margin,
        project(features, axes.mean, axes.components),
    )


def survey(
    statistics: UserStatistics,
    features: NDArray[np.float32],
    shown: NDArray[np.int64],
    centers: NDArray[np.float64],
    axes: Axes,
) -> tuple[ProfileSums, Histogram, NDArray[np.float64], NDArray[np.int32]]:
    """Sum up one block of users by segment; return some of its users' points and labels as well.

    ``shown`` are the rows of those.
    """
    found = assign_block(features, centers)
    return (
        block_sums(statistics, found.labels, len(centers)),
        build_histogram(found.labels, found.distance),
        project(features[shown], axes.mean, axes.components),
        found.labels[shown],
    )


def fetch(
    features: NDArray[np.float32], centers: NDArray[np.float64], keys: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    """Return the distances of one block's users that lie in some bins."""
    found = assign_block(features, centers)
    return percentiles.values_in_bins(found.labels, found.distance, keys)


def table(
    statistics: UserStatistics,
    features: NDArray[np.float32],
    centers: NDArray[np.float64],
    axes: Axes,
    personas: Sequence[str],
    genres: Sequence[str],
) -> Any:
    """Return one block as an Arrow table in the columns of ``assignments.parquet``."""
    import pyarrow as pa

    n, width = statistics.counts.shape
    means, seen = np.zeros((width, n), np.float32), np.zeros((width, -(-n // 8)), np.uint8)
    mean_columns(statistics.sums, statistics.counts, means, seen)
    assigned = assign(features, centers, axes)
    single = assigned.runner_up < 0
    labels = arrow_array(assigned.labels)
    names = arrow_strings(personas)
    columns = {
        USER: arrow_array(statistics.users),
        "segment": labels,
        "persona": pa.DictionaryArray.from_arrays(labels, names),
        "distance": arrow_array(assigned.distance),
        "runner_up": arrow_array(assigned.runner_up, single),
        "margin": arrow_array(assigned.margin, single),
        "pc1": arrow_array(assigned.points[:, 0]),
        "pc2": arrow_array(assigned.points[:, 1]),
        "movies": arrow_array(statistics.movies.astype(np.int64)),
        "mean_rating": arrow_array(
            np.divide(statistics.rating_sum, statistics.movies, dtype=np.float64)
        ),
    }
    for g, genre in enumerate(genres):
        buffers = [pa.py_buffer(seen[g]), pa.py_buffer(means[g])]
        columns[genre] = pa.Array.from_buffers(pa.float32(), n, buffers)
    return pa.table(columns)
