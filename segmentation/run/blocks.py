"""Blocks of user statistics on the workers: merged from partitions by ranges of users, and kept."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segmentation.features import statistics
from segmentation.run import files, tables
from segmentation.run.tasks import submit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from segmentation.schema import UserStatistics

#: Users of one feature block at most; fewer where that gives every thread one.
BLOCK_USERS = 131_072


@dataclass
class Blocks:
    """User statistics as futures, a block a range of users, with the users in each."""

    statistics: list[Any]
    sizes: list[int]

    @property
    def users(self) -> int:
        """Users in all."""
        return sum(self.sizes)


def merge_parts(
    client: Any,
    parts: list[Any],
    sketches: Sequence[NDArray[Any]],
    users: int | None,
    threads: int,
    block_users: int = BLOCK_USERS,
) -> Blocks:
    """Merge partitions into blocks of disjoint ranges of users, whatever order they are in.

    ``parts`` is emptied: each is let go as soon as the blocks that its users belong to are there.
    ``users`` are those of each part, added up (None: they are counted), and ``block_users`` about
    the most of a block.
    """
    if users is None:
        users = sum(client.gather(submit(client, "count", _users_of_part, parts)))
    n_blocks = max(threads, -(-users // block_users))
    cuts: list[Any] = [None, *statistics.block_boundaries(sketches, n_blocks), None]
    merged = []
    for low, high in itertools.pairwise(cuts):
        overlapping = [
            part
            for part, sketch in zip(parts, sketches, strict=True)
            if len(sketch)
            and (high is None or sketch[0] < high)
            and (low is None or sketch[-1] >= low)
        ]
        n = len(overlapping)
        slices = submit(client, "slice", _slice, overlapping, [low] * n, [high] * n)
        merged.append(client.submit(_merged, slices, pure=False))
    overlapping, slices = [], []
    parts.clear()
    lengths = client.gather(submit(client, "count", _users, merged))
    kept = [(block, n) for block, n in zip(merged, lengths, strict=True) if n]
    return Blocks([block for block, _ in kept], [n for _, n in kept])


def save_blocks(
    client: Any, path: Path, blocks: Blocks, genres: tuple[str, ...], ahead: int
) -> None:
    """Keep the merged statistics, a row group or part a block, for resuming and refreshing."""
    tables.write(client, path, files.statistics_table, [blocks.statistics, genres], ahead)


def load_blocks(client: Any, path: Path, sizes: Sequence[int]) -> Blocks:
    """Take up again what :func:`save_blocks` kept."""
    # Through the client, which alone is sure to see the run's folder.
    kept = []
    for number in range(len(sizes)):
        block = (
            files.read_statistics(tables.part_of(path, number))
            if path.is_dir()
            else files.read_statistics(path, number)
        )
        # In a list, since the arrays of a bare tuple would be scattered one by one.
        kept += client.scatter([block], hash=False)
    return Blocks(kept, list(sizes))


def _merged(slices: list[UserStatistics]) -> UserStatistics:
    return statistics.narrow(statistics.merge(slices))


def _slice(pair: tuple[UserStatistics, Any], low: Any, high: Any) -> UserStatistics:
    return statistics.take_range(pair[0], low, high)


def _users_of_part(pair: tuple[UserStatistics, Any]) -> int:
    return len(pair[0].users)


def _users(block: UserStatistics) -> int:
    return len(block.users)
