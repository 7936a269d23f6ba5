"""Blocks of user statistics on the workers: merged from partitions by range of users, and saved."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.features import user_statistics
from segmentation.features.kernels import digest_rows
from segmentation.features.sketches import block_boundaries, hash_ids, quantile_sketch
from segmentation.schema import USER, UserStatistics
from segmentation.storage import parquet
from segmentation.tasks import map_tasks, submit_value

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa
    from distributed import Client, Future
    from numpy.typing import NDArray

#: A task for fewer users costs more than its work.
_MIN_USERS = 128


@dataclass
class UserBlocks:
    """User statistics as futures, one block per range of users.

    Attributes
    ----------
    statistics : list of Future
        Each a :class:`segmentation.schema.UserStatistics`, in ascending order of the users.
    sizes : list of int
        Number of users in each block.
    """

    statistics: list[Future]
    sizes: list[int]

    @property
    def users(self) -> int:
        """Total number of users."""
        return sum(self.sizes)


def merge_by_user_range(
    client: Client,
    parts: list[Future],
    sketches: Sequence[NDArray[Any]],
    sizes: Sequence[int],
    n_users: int,
    n_threads: int,
    block_users: int,
) -> UserBlocks:
    """Merge partitions, in any order, into blocks of disjoint ranges of users.

    Parameters
    ----------
    client
        The client to compute on.
    parts
        Futures of tuples, the statistics first. The list is emptied, so that each part can be
        released as soon as the blocks that its users belong to are complete.
    sketches
        One quantile sketch of the users per part.
    sizes
        Number of users in each part.
    n_users
        Estimated number of users in all parts.
    n_threads
        Threads of all workers together: about one block per thread is made, or more to respect
        ``block_users``, or fewer if blocks would get too small.
    block_users
        Approximate maximum number of users per block.
    """
    n_blocks = max(min(n_threads, n_users // _MIN_USERS), -(-n_users // block_users), 1)
    bounds: list[Any] = [None, *block_boundaries(sketches, sizes, n_blocks), None]
    pairs = [(part, sketch) for part, sketch in zip(parts, sketches, strict=True) if len(sketch)]
    # Compare in NumPy: the number of comparisons is parts × blocks.
    first = np.array([sketch[0] for _, sketch in pairs])
    last = np.array([sketch[-1] for _, sketch in pairs])
    blocks = []
    for low, high in itertools.pairwise(bounds):
        overlaps = np.ones(len(pairs), np.bool_)
        if high is not None:
            overlaps &= first < high
        if low is not None:
            overlaps &= last >= low
        overlapping = [pairs[i][0] for i in np.flatnonzero(overlaps)]
        n = len(overlapping)
        slices = map_tasks(client, "slice", _slice_part, overlapping, [low] * n, [high] * n)
        blocks.append(client.submit(_merge_slices, slices, pure=False))
    overlapping, slices, pairs = [], [], []
    parts.clear()
    sizes = client.gather(map_tasks(client, "count", _count_users, blocks))
    filled = [(block, size) for block, size in zip(blocks, sizes, strict=True) if size]
    return UserBlocks([block for block, _ in filled], [size for _, size in filled])


def merge_blocks(
    client: Client, earlier: UserBlocks, new: UserBlocks, n_threads: int, block_users: int
) -> UserBlocks:
    """Add the statistics of new ratings to those of earlier ones.

    ``n_threads`` and ``block_users`` are as in :func:`merge_by_user_range`. The lists of both
    arguments are emptied, so that each block can be released as soon as it is merged.
    """
    statistics = [*earlier.statistics, *new.statistics]
    sizes = [*earlier.sizes, *new.sizes]
    earlier.statistics.clear()
    new.statistics.clear()
    sketches = client.gather(map_tasks(client, "sketch", _sketch_block, statistics))
    parts = map_tasks(client, "part", _make_part, statistics)
    statistics.clear()
    n_users = max(sum(earlier.sizes), sum(new.sizes))
    return merge_by_user_range(client, parts, sketches, sizes, n_users, n_threads, block_users)


def digest_users(client: Client, blocks: UserBlocks) -> str:
    """Return a digest of all users with the numbers and the sum of their ratings.

    It depends neither on the blocks nor on how the ratings were stored, so that the same ratings
    have the same digest in any file. Other ratings differ in a sum, or in a number per category;
    with few users they may not.
    """
    digests = client.gather(map_tasks(client, "digest", _digest_block, blocks.statistics))
    return f"{blocks.users:x}-{sum(digests) % 2**64:016x}"


def select_active(client: Client, blocks: UserBlocks, min_ratings: int) -> UserBlocks:
    """Return the users with at least so many ratings."""
    return blocks if min_ratings <= 1 else select_users(client, blocks, min_ratings)


def select_users(
    client: Client, blocks: UserBlocks, least: int, below: int | None = None
) -> UserBlocks:
    """Return the users with ``least`` ratings or more, and fewer than ``below``."""
    selected = map_tasks(client, "select", _select_block_users, blocks.statistics, least, below)
    sizes = client.gather(map_tasks(client, "count", _count_users, selected))
    filled = [(block, size) for block, size in zip(selected, sizes, strict=True) if size]
    return UserBlocks([block for block, _ in filled], [size for _, size in filled])


class UserSurvey(NamedTuple):
    """What is odd about users.

    Attributes
    ----------
    single, uncategorized
        Number of users with one rating, and of those without a rating in any category.
    whole, decimal
        A text id of digits, and one of digits with ".0" after them; empty without one.
    """

    single: int
    uncategorized: int
    whole: str
    decimal: str


def survey_users(client: Client, blocks: UserBlocks) -> UserSurvey:
    """Return what is odd about the users of all blocks."""
    surveys = client.gather(map_tasks(client, "survey", _survey_block, blocks.statistics))
    return UserSurvey(
        sum(survey.single for survey in surveys),
        sum(survey.uncategorized for survey in surveys),
        max(survey.whole for survey in surveys),
        max(survey.decimal for survey in surveys),
    )


def _survey_block(block: UserStatistics) -> UserSurvey:
    whole = decimal = ""
    if block.users.dtype.kind == "S":
        endings = block.users[np.char.endswith(block.users, b".0")]
        decimal = next((user.decode() for user in endings if user[:-2].isdigit()), "")
        digits = block.users[np.char.isdigit(block.users)]
        whole = digits[0].decode() if len(digits) else ""
    return UserSurvey(
        int((block.items == 1).sum()),
        int((~(block.counts > 0).any(axis=1)).sum()),
        whole,
        decimal,
    )


def _select_block_users(block: UserStatistics, least: int, below: int | None) -> UserStatistics:
    rows = block.items >= least
    if below is not None:
        rows &= block.items < below
    if rows.all():
        return block
    columns: Any = (column[rows] for column in block)
    return UserStatistics(*columns)


def save_blocks(
    client: Client, path: Path, blocks: UserBlocks, categories: tuple[str, ...], ahead: int
) -> None:
    """Save the merged statistics, one part per block, for resume and refresh.

    ``ahead`` is the number of blocks to convert ahead of those being written.
    """
    parquet.write_parts(client, path, to_arrow, [blocks.statistics, categories], ahead)


def load_blocks(
    client: Client, path: Path, sizes: Sequence[int], *, shared: bool = True
) -> UserBlocks:
    """Load the blocks that :func:`save_blocks` saved.

    Parameters
    ----------
    client
        The client to load them on.
    path
        The folder of parts.
    sizes
        Number of users in each block.
    shared
        Whether all workers see the path. If not, the scheduler keeps the blocks with the tasks
        that return them, so that a block can be restored if its worker dies.

    Raises
    ------
    ValueError
        If a block is missing, or has another number of users.
    """
    paths = [parquet.part_path(path.resolve(), number) for number in range(len(sizes))]
    if [parquet.count_rows(part) for part in paths] != list(sizes):
        raise ValueError(f"{path}: its parts don't have the rows that its record lists")
    if shared:
        statistics = map_tasks(client, "load", read_statistics, paths)
    else:
        statistics = [submit_value(client, "load", read_statistics(part)) for part in paths]
    return UserBlocks(statistics, list(sizes))


def to_arrow(block: UserStatistics, categories: Sequence[str]) -> pa.Table:
    """Return a block of user statistics as an Arrow table."""
    import pyarrow as pa

    columns = {
        USER: block.users,
        "items": block.items.astype(np.int64),
        "rating_sum": block.rating_sum.astype(np.float64),
        **{f"sum:{name}": block.sums[:, g].astype(np.float64) for g, name in enumerate(categories)},
        **{
            f"count:{name}": block.counts[:, g].astype(np.int32)
            for g, name in enumerate(categories)
        },
    }
    return pa.table({name: parquet.arrow_array(column) for name, column in columns.items()})


def read_statistics(path: Path) -> UserStatistics:
    """Read a part that holds a :func:`to_arrow` table."""
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path, page_checksum_verification=True).read()
    n_categories = (table.num_columns - 3) // 2
    columns = [column.to_numpy() for column in table.columns]
    if columns[0].dtype.kind == "O":
        columns[0] = np.array([string.encode() for string in columns[0]], np.bytes_)
    return UserStatistics(
        columns[0],
        columns[1],
        columns[2],
        np.column_stack(columns[3 : 3 + n_categories]),
        np.column_stack(columns[3 + n_categories :]),
    )


def _sketch_block(block: UserStatistics) -> NDArray[Any]:
    return quantile_sketch(block.users)


def _make_part(block: UserStatistics) -> tuple[UserStatistics]:
    return (block,)


def _digest_block(block: UserStatistics) -> int:
    # Sums of decimals differ in the last bits with the order of the rows.
    sums = np.round(block.rating_sum.astype(np.float64), 6) + 0.0
    return int(digest_rows(hash_ids(block.users), block.items, sums.view(np.uint64), block.counts))


def _slice_part(part: tuple[Any, ...], low: Any, high: Any) -> UserStatistics:
    return user_statistics.take_range(part[0], low, high)


def _merge_slices(slices: list[UserStatistics]) -> UserStatistics:
    return user_statistics.downcast(user_statistics.merge(slices))


def _count_users(block: UserStatistics) -> int:
    return len(block.users)
