"""How far found segments are the ones that a synthetic data set was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.datasets import parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segmentation.datasets.layouts import Layout

_PLANTED = "planted.parquet"


def synthetic_folder(layout: Layout) -> str | None:
    """Return the folder that the ratings lie in where `synthesize` wrote it, None for any other.

    It says so by its marker, wherever it was moved to; ratings from elsewhere that are joined with
    its catalogue are nobody's invention.
    """
    folder = layout.ratings.rpartition("/")[0] or "."
    return folder if parts.exists(f"{folder}/synthetic.json") else None


def planted_agreement(
    folder: str, users: NDArray[np.int64], labels: NDArray[np.int32]
) -> float | None:
    """Return the adjusted Rand index between found and planted segments.

    Parameters
    ----------
    folder
        Where the data lies; `synthesize` leaves ``planted.parquet`` beside the ratings.
    users, labels
        The users' ids and the segments found, both (n_users,).

    Returns
    -------
    float or None
        1 where both split the users alike, about 0 where one tells nothing of the other; None where
        the planted segments are not at hand.
    """
    from segmentation.estimators.stability import adjusted_rand

    planted = planted_segments(folder, users)
    if planted is None or not (planted >= 0).any():
        return None
    known = planted >= 0
    return adjusted_rand(labels[known], planted[known], np.ones(int(known.sum())))


def planted_segments(folder: str, users: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return each user's planted segment, -1 for one that has none; None without the file."""
    import fsspec
    import pyarrow as pa
    import pyarrow.parquet as pq

    filesystem, place = fsspec.core.url_to_fs(f"{folder}/{_PLANTED}")
    try:
        table: Any = pq.read_table(place, columns=["userId", "segment"], filesystem=filesystem)
        ids = np.asarray(table["userId"], np.int64)
        segments = np.asarray(table["segment"], np.int64)
    except (OSError, KeyError, ValueError, pa.ArrowInvalid):
        # It is no part of the ratings: a copy without it is as good.
        return None
    if len(ids) == 0:
        return None
    order = np.argsort(ids, kind="stable")
    at = order[np.minimum(np.searchsorted(ids, users, sorter=order), len(ids) - 1)]
    return np.where(ids[at] == users, segments[at], -1)
