"""How far found segments are the ones that a synthetic data set was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.datasets import filesystem
from segmentation.errors import DataError
from segmentation.schema import USER
from segmentation.storage.parquet import list_parts

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from segmentation.datasets.layouts import Layout

_PLANTED = "planted.parquet"


def synthetic_folder(layout: Layout) -> str | None:
    """Return the folder that the ratings lie in where `synthesize` wrote it, None for any other.

    It says so by its marker, wherever it was moved to; ratings from elsewhere that are joined with
    its catalogue are nobody's invention.
    """
    folder = layout.ratings.rpartition("/")[0] or "."
    return folder if filesystem.exists(f"{folder}/synthetic.json") else None


def planted_agreement(folder: str, assignments: Path) -> float | None:
    """Return the adjusted Rand index between found and planted segments.

    Parameters
    ----------
    folder
        Where the data lies; `synthesize` leaves ``planted.parquet`` beside the ratings.
    assignments
        The table of users with the segments found; it is read a row group at a time.

    Returns
    -------
    float or None
        1 where both split the users alike, about 0 where one tells nothing of the other; None where
        the planted segments are not at hand.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from segmentation.estimators.stability import adjusted_rand_score

    planted = GroundTruth.read(folder)
    if planted is None:
        return None
    n_planted = int(planted.segments.max(initial=-1)) + 1
    table = np.zeros(0, np.int64)
    for path in list_parts(assignments):
        file = pq.ParquetFile(path)
        if not pa.types.is_integer(file.schema_arrow.field(USER).type):
            return None
        for batch in file.iter_batches(columns=[USER, "segment"]):
            users: Any
            users, labels = (np.from_dlpack(batch.column(i)) for i in range(2))
            other = planted.of(users)
            known = other >= 0
            counts = np.bincount(
                labels[known].astype(np.int64) * n_planted + other[known], minlength=len(table)
            )
            counts[: len(table)] += table
            table = counts
    pairs = np.flatnonzero(table)
    if not len(pairs):
        return None
    ours, theirs = np.divmod(pairs, n_planted)
    return adjusted_rand_score(ours, theirs, table[pairs].astype(np.float64))


class GroundTruth(NamedTuple):
    """Users by rising id, and the segment that each was planted in, from 0; both (n_users,)."""

    users: NDArray[np.int64]
    segments: NDArray[np.int64]

    @classmethod
    def read(cls, folder: str) -> GroundTruth | None:
        """Read what `synthesize` left beside its ratings; None where it isn't there."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with filesystem.open_file(f"{folder}/{_PLANTED}") as file:
                table: Any = pq.ParquetFile(file).read([USER, "segment"])
            columns: list[Any] = [table[name].combine_chunks() for name in (USER, "segment")]
            ids = np.from_dlpack(columns[0]).astype(np.int64)
            segments = np.unique(np.from_dlpack(columns[1]), return_inverse=True)[1]
        except (OSError, KeyError, ValueError, DataError, pa.ArrowException):
            # It is no part of the ratings: a copy without it is as good.
            return None
        order = np.argsort(ids, kind="stable")
        return cls(ids[order], segments[order].astype(np.int64)) if len(ids) else None

    def of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return each user's planted segment, -1 for one that has none."""
        at = np.minimum(np.searchsorted(self.users, users), len(self.users) - 1)
        return np.where(self.users[at] == users, self.segments[at], -1)
