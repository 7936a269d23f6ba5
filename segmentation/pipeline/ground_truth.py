"""How far the segments found are the ones that a synthetic data set was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.datasets import filesystem
from segmentation.datasets.filesystem import join_path
from segmentation.datasets.layouts import require_file
from segmentation.datasets.synthetic import MARKER, PLANTED
from segmentation.errors import DataError
from segmentation.schema import USER
from segmentation.storage.parquet import list_parts

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from segmentation.datasets.layouts import Layout


class GroundTruth(NamedTuple):
    """The segment that each user was generated in.

    Attributes
    ----------
    users
        Ids, sorted, of shape (n_users,).
    segments
        Numbers from 0, of shape (n_users,).
    """

    users: NDArray[np.int64]
    segments: NDArray[np.int64]

    @classmethod
    def read(cls, folder: str) -> GroundTruth | None:
        """Read what `synthesize` left next to its ratings; None where it is missing."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            path = join_path(folder, PLANTED)
            require_file(path)
            with filesystem.open_file(path) as file:
                table: Any = pq.ParquetFile(file).read([USER, "segment"])
            columns: list[Any] = [table[name].combine_chunks() for name in (USER, "segment")]
            ids = np.from_dlpack(columns[0]).astype(np.int64)
            segments = np.unique(np.from_dlpack(columns[1]), return_inverse=True)[1]
        except (OSError, KeyError, ValueError, DataError, pa.ArrowException):
            # It is not part of the ratings: a copy of the data set without it is as good.
            return None
        order = np.argsort(ids, kind="stable")
        return cls(ids[order], segments[order].astype(np.int64)) if len(ids) else None

    def segments_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the segment of each user, −1 for one without; of shape (n_users,)."""
        rows = np.minimum(np.searchsorted(self.users, users), len(self.users) - 1)
        return np.where(self.users[rows] == users, self.segments[rows], -1)


def synthetic_folder(layout: Layout) -> str | None:
    """Return the folder of the ratings if `synthesize` wrote it, None for any other.

    Its marker says so, wherever the folder was moved to. Ratings from elsewhere that are joined
    with its catalogue are not synthetic.
    """
    inner, chain, archive = layout.ratings.partition("::")
    folder = (inner.rpartition("/")[0] or ".") + chain + archive
    return folder if filesystem.exists(join_path(folder, MARKER)) else None


def planted_agreement(folder: str, assignments: Path) -> float | None:
    """Return the adjusted Rand index between the segments found and the planted ones.

    Parameters
    ----------
    folder
        Where the synthetic data lies.
    assignments
        The assignments of the run, which are read one batch at a time.

    Returns
    -------
    float or None
        1 where both group the users alike, about 0 where one says nothing about the other; None
        where the planted segments are missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from segmentation.estimators.stability import adjusted_rand_score

    truth = GroundTruth.read(folder)
    if truth is None:
        return None
    n_planted = int(truth.segments.max(initial=-1)) + 1
    # How many users have each pair of segments: found × planted, flat.
    pair_counts = np.zeros(0, np.int64)
    for path in list_parts(assignments):
        file = pq.ParquetFile(path)
        if not pa.types.is_integer(file.schema_arrow.field(USER).type):
            return None
        for batch in file.iter_batches(columns=[USER, "segment"]):
            ids: Any = batch.column(0)
            labels: Any = np.from_dlpack(batch.column(1))
            planted = truth.segments_of(np.from_dlpack(ids).astype(np.int64, copy=False))
            has_truth = planted >= 0
            pairs = labels[has_truth].astype(np.int64) * n_planted + planted[has_truth]
            counts = np.bincount(pairs, minlength=len(pair_counts))
            counts[: len(pair_counts)] += pair_counts
            pair_counts = counts
    pairs = np.flatnonzero(pair_counts)
    if not len(pairs):
        return None
    found_labels, planted_labels = np.divmod(pairs, n_planted)
    return adjusted_rand_score(found_labels, planted_labels, pair_counts[pairs].astype(np.float64))
