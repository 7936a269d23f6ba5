"""Sums and counts per user and category: aggregated per partition, merged in any order.

NVTabular computes moments out of core in the same way (``nvtabular/ops/moments.py``). Rows are
never exploded by category: a rating is added once per category of its item, straight into the dense
(users in the partition) × categories block.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.features.factorize import factorize
from segmentation.features.kernels import accumulate
from segmentation.schema import ITEM, RATING, USER, UserStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from segmentation.datasets.format import LineReject, ParsedChunk
    from segmentation.schema import ItemTable

#: Items are looked up in a table of 4 bytes per id if all ids are below this, else by bisection.
MAX_TABLE_ID = 1 << 22
#: The number of categories that sizes of partitions and blocks are meant for.
_USUAL_CATEGORIES = 20


class ChunkStatistics(NamedTuple):
    """The statistics of one chunk of a partition, and the counts of its rows.

    Attributes
    ----------
    statistics
        Sums and counts per user.
    used, unmapped
        Number of ratings whose item is in the catalogue, and of those whose item is not.
    seen
        Bitmap of the catalogue's items with a used rating, eight to a byte.
    lines
        Number of lines, blank ones included.
    rejected
        The lines that are not ratings.
    unlisted
        Number of further such lines.
    unrated
        Number of rows left out because their rating stands for "not rated".
    """

    statistics: UserStatistics
    used: int
    unmapped: int
    seen: NDArray[np.uint8]
    lines: int
    rejected: tuple[LineReject, ...] = ()
    unlisted: int = 0
    unrated: int = 0


def aggregate_chunk(chunk: ParsedChunk, table: ItemTable) -> ChunkStatistics:
    """Count and sum the rows of one chunk.

    Parameters
    ----------
    chunk
        Its ratings have the columns ``userId`` and ``movieId`` (int64 or strings) and ``rating``
        (float64, stars).
    table
        The catalogue's items.
    """
    rows, n_used = map_items(chunk.ratings, table)
    statistics, seen = aggregate_rows(rows, table)
    return ChunkStatistics(
        downcast(statistics),
        n_used,
        len(chunk.ratings) - n_used,
        np.packbits(seen),
        chunk.lines,
        chunk.rejected,
        chunk.unlisted,
        chunk.unrated,
    )


def map_items(ratings: pd.DataFrame, table: ItemTable) -> tuple[pd.DataFrame, int]:
    """Replace ``movieId`` by the item's row in the catalogue; return the rows to go on with.

    These are the used ratings, whose number is returned as well. With ``table.keep_all_users`` the
    others stay among them, and their item is −1.
    """
    if isinstance(ratings[ITEM].dtype, np.dtype):
        items = look_up_items(table, ratings[ITEM].to_numpy())
    else:
        ids, codes = factorize(ratings[ITEM])
        items = look_up_items(table, ids)[codes]
    rows = ratings.assign(**{ITEM: items.astype(np.int32)})
    is_mapped = items >= 0
    n_used = int(is_mapped.sum())
    keeps_all = table.keep_all_users or n_used == len(rows)
    return rows if keeps_all else rows[is_mapped], n_used


def look_up_items(table: ItemTable, ids: NDArray[Any]) -> NDArray[np.int64]:
    """Return the row of each id in the catalogue, −1 if it is missing; shape (n_ids,)."""
    item_ids: NDArray[Any] = table.item_ids
    if len(item_ids) == 0:
        return np.full(len(ids), -1, np.int64)
    rows = make_lookup_table(item_ids)
    if rows is not None:
        out_of_range = len(rows) - 1
        in_range = (ids >= 0) & (ids < out_of_range)
        return rows[np.where(in_range, ids, out_of_range)].astype(np.int64)
    nearest = np.minimum(np.searchsorted(item_ids, ids), len(item_ids) - 1)
    return np.where(item_ids[nearest] == ids, nearest, -1)


def make_lookup_table(item_ids: NDArray[Any]) -> NDArray[np.int32] | None:
    """Return the row of each id from 0 on, −1 for ids without an item, the last entry among them.

    None if the ids are strings, too large, or none at all.
    """
    is_integer = len(item_ids) > 0 and item_ids.dtype.kind == "i"
    if not is_integer or item_ids[0] < 0 or item_ids[-1] >= MAX_TABLE_ID:
        return None
    rows = np.full(int(item_ids[-1]) + 2, -1, np.int32)
    rows[item_ids] = np.arange(len(item_ids), dtype=np.int32)
    return rows


def aggregate_rows(
    rows: pd.DataFrame, table: ItemTable
) -> tuple[UserStatistics, NDArray[np.bool_]]:
    """Count and sum the rows that :func:`map_items` returns.

    Returns
    -------
    statistics : UserStatistics
    seen : ndarray of shape (n_items,), bool
        Which items of the catalogue have a row.
    """
    users, user_rows = factorize(rows[USER])
    seen = np.zeros(len(table.item_ids), np.bool_)
    statistics = zero_statistics(users, table.n_categories)
    accumulate(
        user_rows,
        rows[ITEM].to_numpy(),
        rows[RATING].to_numpy(),
        table.offsets,
        table.codes,
        statistics.items,
        statistics.rating_sum,
        statistics.sums,
        statistics.counts,
        seen,
    )
    return statistics, seen


def empty_statistics(n_categories: int) -> UserStatistics:
    """Return statistics without users."""
    return zero_statistics(np.empty(0, np.int64), n_categories)


def relative_width(n_categories: int) -> float:
    """Return how many times the memory of a user with 20 categories a user takes, at least 1.

    Examples
    --------
    >>> relative_width(20), round(relative_width(1_000))
    (1.0, 44)
    """
    return max(1.0, _user_bytes(n_categories) / _user_bytes(_USUAL_CATEGORIES))


def _user_bytes(n_categories: int) -> int:
    """Return the bytes of a user's statistics in the smallest dtypes."""
    return 16 + 6 * n_categories


def zero_statistics(users: NDArray[Any], n_categories: int) -> UserStatistics:
    """Return statistics of users without ratings, in the dtypes to add up in."""
    n = len(users)
    return UserStatistics(
        users,
        np.zeros(n, np.int64),
        np.zeros(n, np.float64),
        np.zeros((n, n_categories), np.float64),
        np.zeros((n, n_categories), np.int32),
    )


def take_range(part: UserStatistics, low: Any, high: Any) -> UserStatistics:
    """Return the users in ``[low, high)``; None is unbounded.

    The result is a view of ``part``, unless it holds less than half of the users: then it is a
    copy, so that a few users don't keep all of ``part`` in memory.
    """
    start = 0 if low is None else int(np.searchsorted(part.users, low))
    stop = len(part.users) if high is None else int(np.searchsorted(part.users, high))
    if start == 0 and stop == len(part.users):
        return part
    view = _slice_rows(part, slice(start, stop))
    if 2 * (stop - start) >= len(part.users):
        return view
    columns: Any = view
    return UserStatistics(*(np.array(column) for column in columns))


def downcast(statistics: UserStatistics) -> UserStatistics:
    """Return the same numbers in about half the memory, in arrays that are not views.

    Half-stars are sums of halves, which float32 holds exactly up to eight million stars. Sums on
    another scale that float32 would round stay float64.
    """
    return UserStatistics(
        np.array(statistics.users),
        _cast_if_exact(statistics.items, np.int32),
        _cast_if_exact(statistics.rating_sum, np.float32),
        _cast_if_exact(statistics.sums, np.float32),
        _cast_if_exact(statistics.counts, np.uint16),
    )


def _cast_if_exact(values: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    if values.dtype == dtype and values.base is None:
        return values
    smaller = values.astype(dtype)
    return smaller if np.array_equal(smaller, values) else np.array(values)


def merge(parts: Sequence[UserStatistics]) -> UserStatistics:
    """Add statistics whose users may overlap.

    Half-stars add up without rounding, so the result does not depend on the order of the parts.
    On other scales the last bits may.

    Raises
    ------
    ValueError
        If there are no parts, or they differ in their number of categories.

    Examples
    --------
    >>> import numpy as np
    >>> def rated(user, stars):
    ...     sums = np.array([[stars]])
    ...     counts = np.ones((1, 1), np.int32)
    ...     return UserStatistics(np.array([user]), np.ones(1, np.int64), sums[0], sums, counts)
    >>> merged = merge([rated(7, 4.0), rated(3, 1.5), rated(7, 2.0)])
    >>> merged.users.tolist(), merged.items.tolist(), merged.rating_sum.tolist()
    ([3, 7], [1, 2], [1.5, 6.0])
    """
    if not parts:
        raise ValueError("nothing to merge: pass at least one part")
    widths = {part.sums.shape[1] for part in parts}
    if len(widths) > 1:
        raise ValueError(f"parts with different numbers of categories: {sorted(widths)}")
    parts = [part for part in parts if len(part.users)] or list(parts[:1])
    if len(parts) == 1:
        return parts[0]
    if all(left.users[-1] <= right.users[0] for left, right in itertools.pairwise(parts)):
        return _concatenate(parts)
    return _add(parts)


def _concatenate(parts: Sequence[UserStatistics]) -> UserStatistics:
    """Concatenate parts in ascending order of users; add only users that neighbors share."""
    chain = [parts[0]]
    for part in parts[1:]:
        last = chain[-1]
        if last.users[-1] == part.users[0]:
            n = len(last.users)
            shared = _add([_slice_rows(last, slice(n - 1, n)), _slice_rows(part, slice(1))])
            rest = _slice_rows(part, slice(1, None))
            chain[-1:] = [_slice_rows(last, slice(n - 1)), downcast(shared)]
        else:
            rest = part
        if len(rest.users):
            chain.append(rest)
    columns: Any = zip(*chain, strict=True)
    return UserStatistics(*(np.concatenate(column) for column in columns))


def _slice_rows(part: UserStatistics, rows: slice) -> UserStatistics:
    columns: Any = part
    return UserStatistics(*(column[rows] for column in columns))


def _add(parts: Sequence[UserStatistics]) -> UserStatistics:
    """Add parts whose users may overlap in any way."""
    users = np.unique(np.concatenate([part.users for part in parts]))
    merged = zero_statistics(users, parts[0].sums.shape[1])
    for part in parts:
        rows = np.searchsorted(users, part.users)
        merged.items[rows] += part.items
        merged.rating_sum[rows] += part.rating_sum
        merged.sums[rows] += part.sums
        merged.counts[rows] += part.counts
    return merged
