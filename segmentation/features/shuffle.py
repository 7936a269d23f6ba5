"""Shuffle ratings by user and aggregate them, for files that are not sorted by user.

If most users are in most partitions, the partial sums of each partition cover nearly all users and
their categories, and those of all partitions together take many times the memory of the ratings.
Then, or to deduplicate, Dask's ``p2p`` shuffle groups the ratings by user, out of core, and each
user's ratings are aggregated once.
"""

from __future__ import annotations

import functools
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.features import sketches, user_statistics
from segmentation.features.deduplicate import aggregate_latest
from segmentation.features.partition_reader import (
    PartitionSummary,
    empty_rows,
    first_fragment_numbers,
    log_partition,
    read_used_rows,
)
from segmentation.schema import USER
from segmentation.tasks import copy_item

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from distributed import Client, Future
    from numpy.typing import NDArray

    from segmentation.datasets.partitions import Fragment
    from segmentation.schema import ItemTable, UserStatistics

#: Bytes of a shuffled row: user, the item's row in the catalogue, and stars.
_ROW_BYTES = 20
#: The same with timestamp, line and fragment.
_DETAILED_ROW_BYTES = 40
#: Bytes of the statistics of one user: without categories, and per category.
_USER_BYTES, _CATEGORY_BYTES = 24, 12
#: Partitions overlap if more than this share of their user ids lies within other partitions.
_MAX_OVERLAP = 0.2


def exceeds_memory(
    summaries: Sequence[PartitionSummary], n_partitions: int, n_categories: int, limit: int
) -> bool:
    """Return whether partial sums overlap and are too large to merge.

    Parameters
    ----------
    summaries
        The summaries of the partitions read so far, from which all are extrapolated.
    n_partitions
        Total number of partitions.
    n_categories
        Number of categories.
    limit
        Bytes that partial sums may take.
    """
    n_users = sum(summary.n_users for summary in summaries)
    user_bytes = _USER_BYTES + n_categories * _CATEGORY_BYTES
    expected = n_users * user_bytes * n_partitions / len(summaries)
    return len(summaries) > 1 and expected > limit and _measure_overlap(summaries) > _MAX_OVERLAP


def _measure_overlap(summaries: Sequence[PartitionSummary]) -> float:
    """Return the share of sketched user ids that lie within the range of another partition."""
    sketched = [summary.sketch for summary in summaries if len(summary.sketch)]
    n_inside = n_ids = 0
    for sketch in sketched:
        n_ranges = np.zeros(len(sketch), np.int64)
        for other in sketched:
            n_ranges += (sketch > other[0]) & (sketch < other[-1])
        # Each id but the first and the last of a partition also lies within that partition's range.
        n_inside += int((n_ranges > 1).sum())
        n_ids += len(sketch)
    return n_inside / max(n_ids, 1)


def row_bytes(*, detailed: bool) -> int:
    """Return the bytes that one row takes in a shuffle."""
    return _DETAILED_ROW_BYTES if detailed else _ROW_BYTES


def shuffle_by_user(
    client: Client,
    partitions: Sequence[list[Fragment]],
    table: ItemTable,
    *,
    n_rows: int,
    partition_bytes: int,
    deduplicate: bool = False,
) -> tuple[list[Future], list[Future]]:
    """Shuffle the ratings by user and aggregate them.

    Parameters
    ----------
    client
        The client to compute on.
    partitions
        The fragments of each partition.
    table
        The catalogue's items.
    n_rows
        Estimated number of ratings.
    partition_bytes
        Bytes of rows per partition after the shuffle.
    deduplicate
        Whether only a user's latest rating of an item counts.

    Returns
    -------
    parts : list of Future
        The results of :func:`aggregate_shuffled`, or with ``deduplicate`` of
        :func:`aggregate_shuffled_latest`, for disjoint sets of users.
    summaries : list of Future
        One :class:`PartitionSummary` per partition that was read, in the order of the files.
    """
    import dask
    import dask.dataframe as dd

    token = uuid.uuid4().hex[:8]
    read = dask.delayed(functools.partial(read_partition, detailed=deduplicate), pure=False)
    take_rows, take_summary = (dask.delayed(f, pure=False) for f in (_take_first, copy_item))
    aggregate = dask.delayed(
        aggregate_shuffled_latest if deduplicate else aggregate_shuffled, pure=False
    )
    # One task holds the table, instead of a copy in every other task.
    shared_table = dask.delayed(table, traverse=False, pure=False)
    pairs = []
    first_fragments = first_fragment_numbers(partitions)
    for number, fragments in enumerate(partitions):
        delayed_fragments = dask.delayed(fragments, traverse=False, pure=False)
        key = f"read-rows-{token}-{number}"
        pairs.append(
            read(delayed_fragments, shared_table, first_fragments[number], dask_key_name=key)
        )
    n_parts = max(1, -(-n_rows * row_bytes(detailed=deduplicate) // partition_bytes))
    meta = empty_rows(partitions[0][0].file.string_columns, detailed=deduplicate)
    frame = dd.from_delayed([take_rows(pair) for pair in pairs], meta=meta, verify_meta=False)
    shuffled = frame.shuffle(USER, npartitions=n_parts, shuffle_method="p2p", ignore_index=True)
    parts = [aggregate(rows, shared_table) for rows in shuffled.to_delayed()]
    futures = client.compute([*parts, *(take_summary(pair, 1) for pair in pairs)])
    return futures[: len(parts)], futures[len(parts) :]


def read_partition(
    fragments: Sequence[Fragment], table: ItemTable, first_fragment: int = 0, *, detailed: bool
) -> tuple[pd.DataFrame, PartitionSummary]:
    """Read the rows of one partition for the shuffle, and summarize the partition."""
    rows, summary = read_used_rows(
        fragments, table, detailed=detailed, first_fragment=first_fragment
    )
    log_partition(fragments, summary.used + summary.unmapped)
    return rows, summary


def aggregate_shuffled(rows: pd.DataFrame, table: ItemTable) -> tuple[UserStatistics, NDArray[Any]]:
    """Aggregate one shuffled partition; return the statistics and a sketch of the users."""
    statistics, _ = user_statistics.aggregate_rows(rows, table)
    return statistics, sketches.quantile_sketch(statistics.users)


def aggregate_shuffled_latest(
    rows: pd.DataFrame, table: ItemTable
) -> tuple[UserStatistics, NDArray[Any], pd.DataFrame]:
    """Aggregate the latest ratings of one shuffled partition.

    Return the statistics, a sketch of the users and the superseded rows.
    """
    statistics, superseded = aggregate_latest(rows, table)
    return statistics, sketches.quantile_sketch(statistics.users), superseded


def _take_first(pair: tuple[Any, Any]) -> Any:
    return pair[0]
