"""Deduplication: of a user's ratings of one item, only the latest counts.

The task that reads a partition deduplicates the users that are in no other partition. If the files
are sorted by user, these are all but the first and the last user, whose rows the driver
deduplicates at the end. Otherwise the ratings are shuffled by user first.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segmentation.datasets.format import NO_TIMESTAMP
from segmentation.features import user_statistics
from segmentation.features.factorize import factorize, format_id
from segmentation.features.partition_reader import (
    FRAGMENT,
    PartitionSummary,
    add_users,
    log_partition,
    read_used_rows,
)
from segmentation.schema import ITEM, LINE, RATING, TIMESTAMP, USER, RejectedRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from segmentation.datasets.partitions import Fragment
    from segmentation.schema import ItemTable, UserStatistics

#: Why a superseded row is set aside.
REASON = "rated again: a later rating of the item by the same user counts"


class Leftovers(NamedTuple):
    """Rows of a partition that are not in its statistics.

    Attributes
    ----------
    superseded
        Rows that a later rating supersedes.
    edges
        Rows of the first and the last user, whom neighboring partitions may share.
    """

    superseded: pd.DataFrame
    edges: pd.DataFrame


def read_latest(
    fragments: Sequence[Fragment], first_fragment: int, table: ItemTable
) -> tuple[UserStatistics, PartitionSummary, Leftovers]:
    """Read one partition; aggregate the latest ratings of all but its first and last user.

    Raises
    ------
    DataError
        If a compressed or Parquet file is damaged.
    """
    rows, summary = read_used_rows(fragments, table, detailed=True, first_fragment=first_fragment)
    users, codes = factorize(rows[USER])
    log_partition(fragments, summary.used + summary.unmapped, len(users))
    is_edge = (codes == 0) | (codes == len(users) - 1)
    statistics, superseded = aggregate_latest(rows[~is_edge], table)
    return statistics, add_users(summary, users), Leftovers(superseded, rows[is_edge])


def aggregate_latest(rows: pd.DataFrame, table: ItemTable) -> tuple[UserStatistics, pd.DataFrame]:
    """Aggregate the latest ratings; return the statistics and the superseded rows."""
    is_superseded = superseded_mask(rows)
    statistics, _ = user_statistics.aggregate_rows(rows[~is_superseded], table)
    return statistics, rows[is_superseded]


def superseded_mask(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Mark the rows that a later rating of the same item by the same user supersedes.

    The latest rating has the largest timestamp. Of equal timestamps the rating with the most stars
    counts, so that the order of the rows does not matter; of equal stars, the last in the files.

    Parameters
    ----------
    rows
        Columns ``userId``, ``movieId``, ``rating``, ``timestamp``, ``fragment`` and ``line``. Rows
        with a negative item are not superseded.

    Returns
    -------
    ndarray of shape (n_rows,), bool

    Examples
    --------
    >>> import pandas as pd
    >>> rows = pd.DataFrame({"userId": [7, 7], "movieId": [1, 1], "rating": [4.0, 2.0]})
    >>> superseded_mask(rows.assign(timestamp=[20, 10], fragment=0, line=[0, 1])).tolist()
    [False, True]
    """
    sort_keys = (LINE, FRAGMENT, RATING, TIMESTAMP, ITEM)
    _, user_codes = factorize(rows[USER])
    order = np.lexsort([*(rows[key].to_numpy() for key in sort_keys), user_codes])
    users, items = user_codes[order], rows[ITEM].to_numpy()[order]
    # Sorted from the earliest to the latest rating of each item by each user.
    has_later = (users[1:] == users[:-1]) & (items[1:] == items[:-1]) & (items[1:] >= 0)
    mask = np.zeros(len(rows), np.bool_)
    mask[order[:-1]] = has_later
    return mask


def is_sorted_by_user(summaries: Sequence[PartitionSummary]) -> bool:
    """Return whether partitions share no users except at their edges."""
    ranges = sorted((s.sketch[0], s.sketch[-1]) for s in summaries if len(s.sketch))
    return all(left[1] <= right[0] for left, right in itertools.pairwise(ranges))


def superseded_rows(
    rows: pd.DataFrame, fragments: Sequence[tuple[str, int]], table: ItemTable
) -> list[RejectedRow]:
    """Return superseded rows as rejected rows, with file, line and text.

    Parameters
    ----------
    rows
        Rows with their details, as :func:`aggregate_latest` returns them.
    fragments
        Path, and number of the first line, of each fragment of all partitions.
    table
        The catalogue's items.
    """
    rejected = []
    columns = [USER, ITEM, RATING, TIMESTAMP, LINE, FRAGMENT]
    for row in rows[columns].itertuples(index=False):
        user, item, stars, timestamp, line, fragment = row
        path, first_line = fragments[fragment]
        text = f"{user},{format_id(table.item_ids[item])},{stars:g}"
        if timestamp != NO_TIMESTAMP:
            text += f",{timestamp}"
        rejected.append(RejectedRow(path, first_line + line, REASON, text))
    return rejected
