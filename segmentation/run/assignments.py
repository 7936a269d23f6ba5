"""The assignments: one row a user, built block by block on the workers, written in order."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.estimators.axes import project
from segmentation.estimators.lloyd import assign_block
from segmentation.features.presets import genre_means
from segmentation.insight import distances
from segmentation.insight.distances import Bins, bins_of
from segmentation.insight.profiles import ProfileSums, block_sums
from segmentation.run.files import arrow_array, arrow_texts
from segmentation.schema import USER, Axes, UserStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

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
) -> tuple[ProfileSums, Bins, NDArray[np.float64], NDArray[np.int32]]:
    """Sum up one block of users by segment; return some of its users' points and labels as well.

    ``shown`` are the rows of those.
    """
    found = assign_block(features, centers)
    return (
        block_sums(statistics, found.labels, len(centers)),
        bins_of(found.labels, found.distance),
        project(features[shown], axes.mean, axes.components),
        found.labels[shown],
    )


def fetch(
    features: NDArray[np.float32], centers: NDArray[np.float64], keys: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    """Return the distances of one block's users that lie in some bins."""
    found = assign_block(features, centers)
    return distances.fetch(found.labels, found.distance, keys)


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

    means = genre_means(statistics).astype(np.float32)
    assigned = assign(features, centers, axes)
    unseen = statistics.counts == 0
    single = assigned.runner_up < 0
    labels = arrow_array(assigned.labels)
    names = arrow_texts(personas)
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
        columns[genre] = arrow_array(means[:, g], unseen[:, g])
    return pa.table(columns)


def write(path: Path, tables: Iterable[Any]) -> None:
    """Write tables as the row groups of one Parquet file, beside its place and renamed."""
    import pyarrow.parquet as pq

    partial = path.with_name(path.name + ".partial")
    writer = None
    try:
        for part in tables:
            if writer is None:
                writer = pq.ParquetWriter(
                    partial, part.schema, compression="zstd", compression_level=1
                )
            writer.write_table(part)
    finally:
        if writer is not None:
            writer.close()
    os.replace(partial, path)
