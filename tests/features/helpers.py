"""A small catalogue, and ratings in the forms that the modules of the room take."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from segmentation.datasets.format import ParsedChunk, RatingsFormat
from segmentation.datasets.partitions import Fragment
from segmentation.features import sketches, user_statistics
from segmentation.features.partition_reader import PartitionSummary
from segmentation.schema import (
    ITEM,
    RATING,
    TIMESTAMP,
    USER,
    ByteRange,
    ItemTable,
    UserStatistics,
)

COLUMNS = (USER, ITEM, RATING, TIMESTAMP)
#: Genres of the movies.
GENRES = {1: [0, 1], 2: [1], 5: [], 9: [2]}
TABLE = ItemTable(
    np.array([1, 2, 5, 9]),
    np.array([0, 2, 3, 3, 4], np.int32),
    np.array([0, 1, 1, 2], np.int32),
    3,
)


def to_frame(rows: list[tuple[int, int, float]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=[USER, ITEM, RATING])
    return frame.astype({USER: np.int64, ITEM: np.int64, RATING: np.float64})


def aggregate(rows: list[tuple[int, int, float]]) -> user_statistics.ChunkStatistics:
    """Aggregate ratings with the program."""
    return user_statistics.aggregate_chunk(ParsedChunk(to_frame(rows), (), len(rows)), TABLE)


def expected_statistics(rows: list[tuple[int, int, float]]) -> UserStatistics:
    """Aggregate ratings with plain loops over Python numbers."""
    users = sorted({user for user, movie, _ in rows if movie in GENRES})
    used = [(users.index(user), movie, stars) for user, movie, stars in rows if movie in GENRES]
    expected = UserStatistics(
        np.array(users, np.int64),
        np.zeros(len(users), np.int64),
        np.zeros(len(users)),
        np.zeros((len(users), 3)),
        np.zeros((len(users), 3), np.int32),
    )
    for row, movie, stars in used:
        expected.items[row] += 1
        expected.rating_sum[row] += stars
        for genre in GENRES[movie]:
            expected.sums[row, genre] += stars
            expected.counts[row, genre] += 1
    return expected


def assert_equal(one: UserStatistics, other: UserStatistics, *, dtypes: bool = False) -> None:
    for name, first, second in zip(one._fields, one, other, strict=True):
        np.testing.assert_array_equal(first, second, err_msg=name)
        assert not dtypes or first.dtype == second.dtype, name


def summarize(users: np.ndarray) -> PartitionSummary:
    """Summarize a partition with these users and no rows."""
    users = np.unique(users)
    return PartitionSummary(
        (),
        0,
        0,
        np.zeros(1, np.uint8),
        sketches.quantile_sketch(users),
        len(users),
        sketches.hash_sample(users),
    )


def write_file(path: Path, text: bytes, columns: tuple[str, ...] = COLUMNS) -> RatingsFormat:
    """Write rows without a header."""
    path.write_bytes(text)
    return RatingsFormat(str(path), len(text), b",", columns, 0, 0, (0.5, 5.0))


def split(file: RatingsFormat, *cuts: int) -> list[Fragment]:
    """Split a file into fragments at some bytes."""
    bounds = [0, *cuts, file.size]
    return [
        Fragment(file, ByteRange(file.path, start, stop))
        for start, stop in itertools.pairwise(bounds)
    ]
