"""Blocks of user statistics on the workers: merged from partitions by ranges of users, and kept."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.features import user_statistics
from segmentation.features.sketches import block_boundaries
from segmentation.schema import USER, UserStatistics
from segmentation.storage import parquet
from segmentation.storage.parquet import arrow_array
from segmentation.tasks import map_tasks, submit_value

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


#: Users of one feature block at most; fewer where that gives every thread one.
BLOCK_USERS = 131_072
#: A task on fewer costs more than its work.
_LEAST_USERS = 128


@dataclass
class UserBlocks:
    """User statistics as futures, a block a range of users, with the users in each."""

    statistics: list[Any]
    sizes: list[int]

    @property
    def users(self) -> int:
        """Users in all."""
        return sum(self.sizes)


def merge_by_user_range(
    client: Any,
    parts: list[Any],
    sketches: Sequence[NDArray[Any]],
    users: int | None,
    threads: int,
    block_users: int = BLOCK_USERS,
) -> UserBlocks:
    """Merge partitions into blocks of disjoint ranges of users, whatever order they are in.

    ``parts`` is emptied: each is let go as soon as the blocks that its users belong to are there.
    ``users`` are those of each part, added up (None: they are counted), and ``block_users`` about
    the most of a block.
    """
    if users is None:
        users = sum(client.gather(map_tasks(client, "count", _users_of_part, parts)))
    n_blocks = max(min(threads, users // _LEAST_USERS), -(-users // block_users), 1)
    cuts: list[Any] = [None, *block_boundaries(sketches, n_blocks), None]
    known = [(part, sketch) for part, sketch in zip(parts, sketches, strict=True) if len(sketch)]
    # Compared by NumPy: parts times blocks is what grows fastest here.
    first = np.array([sketch[0] for _, sketch in known])
    last = np.array([sketch[-1] for _, sketch in known])
    merged = []
    for low, high in itertools.pairwise(cuts):
        inside = np.ones(len(known), np.bool_)
        if high is not None:
            inside &= first < high
        if low is not None:
            inside &= last >= low
        overlapping = [known[at][0] for at in np.flatnonzero(inside)]
        n = len(overlapping)
        slices = map_tasks(client, "slice", _slice, overlapping, [low] * n, [high] * n)
        merged.append(client.submit(_merged, slices, pure=False))
    overlapping, slices, known = [], [], []
    parts.clear()
    lengths = client.gather(map_tasks(client, "count", _users, merged))
    kept = [(block, n) for block, n in zip(merged, lengths, strict=True) if n]
    return UserBlocks([block for block, _ in kept], [n for _, n in kept])


def save_blocks(
    client: Any, path: Path, blocks: UserBlocks, genres: tuple[str, ...], ahead: int
) -> None:
    """Keep the merged statistics, a row group or part a block, for resuming and refreshing."""
    parquet.write_parts(client, path, statistics_table, [blocks.statistics, genres], ahead)


def load_blocks(
    client: Any, path: Path, sizes: Sequence[int], *, shared: bool = True
) -> UserBlocks:
    """Take up again what :func:`save_blocks` kept.

    ``shared`` tells that all workers see the run's folder. Where they don't, the blocks go with the
    tasks that they are the results of, since what dies with its worker has to come from somewhere.
    """
    path = path.resolve()
    whole = not path.is_dir()
    places = [path if whole else parquet.part_path(path, number) for number in range(len(sizes))]
    groups = [number if whole else 0 for number in range(len(sizes))]
    if shared:
        kept = map_tasks(client, "load", read_statistics, places, groups)
    else:
        import dask

        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 GiB"}):
            kept = [
                submit_value(client, "load", read_statistics(place, group))
                for place, group in zip(places, groups, strict=True)
            ]
    return UserBlocks(kept, list(sizes))


def _merged(slices: list[UserStatistics]) -> UserStatistics:
    return user_statistics.downcast(user_statistics.merge(slices))


def _slice(pair: tuple[UserStatistics, Any], low: Any, high: Any) -> UserStatistics:
    return user_statistics.take_range(pair[0], low, high)


def _users_of_part(pair: tuple[UserStatistics, Any]) -> int:
    return len(pair[0].users)


def _users(block: UserStatistics) -> int:
    return len(block.users)


def statistics_table(block: UserStatistics, genres: Sequence[str]) -> Any:
    """Return a block of user statistics as an Arrow table."""
    import pyarrow as pa

    columns = {
        USER: block.users,
        "movies": block.movies.astype(np.int64),
        "rating_sum": block.rating_sum.astype(np.float64),
        **{f"sum:{name}": block.sums[:, g].astype(np.float64) for g, name in enumerate(genres)},
        **{f"count:{name}": block.counts[:, g].astype(np.int32) for g, name in enumerate(genres)},
    }
    return pa.table({name: arrow_array(column) for name, column in columns.items()})


def read_statistics(path: Path, group: int = 0) -> UserStatistics:
    """Read one row group that was a :func:`statistics_table` back."""
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read_row_group(group)
    width = (table.num_columns - 3) // 2
    columns = [column.to_numpy() for column in table.columns]
    if columns[0].dtype.kind == "O":
        columns[0] = np.array([text.encode() for text in columns[0]], np.bytes_)
    return UserStatistics(
        columns[0],
        columns[1],
        columns[2],
        np.column_stack(columns[3 : 3 + width]),
        np.column_stack(columns[3 + width :]),
    )
