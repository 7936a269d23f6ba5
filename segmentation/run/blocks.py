"""Blocks of user statistics on the workers: merged from partitions by ranges of users, and kept."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segmentation.features import statistics
from segmentation.run import files
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
    threads: int,
    block_users: int = BLOCK_USERS,
) -> Blocks:
    """Merge partitions into blocks of disjoint ranges of users, whatever order they are in.

    ``parts`` is emptied: each is let go as soon as the blocks that its users belong to are there.
    ``block_users`` are about the most of a block.
    """
    partials = submit(client, "partial", _first, parts)
    parts.clear()
    sizes = client.gather(submit(client, "count", _users, partials))
    n_blocks = max(threads, -(-sum(sizes) // block_users))
    cuts: list[Any] = [None, *statistics.block_boundaries(sketches, n_blocks), None]
    merged = []
    for low, high in itertools.pairwise(cuts):
        overlapping = [
            partial
            for partial, sketch in zip(partials, sketches, strict=True)
            if len(sketch)
            and (high is None or sketch[0] < high)
            and (low is None or sketch[-1] >= low)
        ]
        n = len(overlapping)
        slices = submit(client, "slice", statistics.take_range, overlapping, [low] * n, [high] * n)
        merged.append(client.submit(_merged, slices, pure=False))
    partials, overlapping, slices = [], [], []
    lengths = client.gather(submit(client, "count", _users, merged))
    kept = [(block, n) for block, n in zip(merged, lengths, strict=True) if n]
    return Blocks([block for block, _ in kept], [n for _, n in kept])


def save_blocks(path: Path, blocks: Blocks, genres: tuple[str, ...]) -> None:
    """Keep the merged statistics, a row group a block, for resuming and refreshing."""
    files.write_statistics(path, (block.result() for block in blocks.statistics), genres)


def load_blocks(client: Any, path: Path, sizes: Sequence[int]) -> Blocks:
    """Take up again what :func:`save_blocks` kept."""
    # Through the client, which alone is sure to see the run's folder.
    kept = [
        client.scatter(files.read_statistics(path, group), hash=False)
        for group in range(len(sizes))
    ]
    return Blocks(kept, list(sizes))


def _merged(slices: list[UserStatistics]) -> UserStatistics:
    return statistics.narrow(statistics.merge(slices))


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _users(block: UserStatistics) -> int:
    return len(block.users)
