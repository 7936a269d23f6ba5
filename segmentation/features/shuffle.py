"""Ratings in any order → statistics a user, where partial sums would be larger than the ratings.

Where most users are in most partitions, a partition's partial sums hold nearly all users and their
genres, and all partitions' together many times what the ratings themselves take. Then the ratings
are shuffled by user, out of core, by Dask's own ``p2p`` shuffle, and summed up once.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.datasets.identifiers import STRING_DTYPE
from segmentation.features import sketches, user_statistics
from segmentation.features.partition_reader import (
    FragmentReport,
    PartitionSummary,
    log_partition,
    parse_chunks,
)
from segmentation.schema import MOVIE, RATING, USER
from segmentation.tasks import copy_second

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from segmentation.datasets.format import LineReject
    from segmentation.datasets.partitions import Fragment
    from segmentation.schema import MovieTable, UserStatistics

#: Bytes of a used rating on its way: user, the movie's row in the catalogue, and stars.
ROW_BYTES = 20
#: Bytes of the statistics of a user, without and for a genre.
_USER_BYTES, _GENRE_BYTES = 24, 12
#: More of the users' ids than this share lie among those of other partitions.
_CROWDED = 0.2


def exceeds_memory(
    summaries: Sequence[PartitionSummary], partitions: int, n_genres: int, budget: int
) -> bool:
    """Tell from some partitions whether the sums of all are too much to be merged as they are.

    Parameters
    ----------
    summaries
        What is known of those that have been read.
    partitions
        Their number in all.
    budget
        Bytes that partial sums may take.
    """
    users = sum(summary.users for summary in summaries)
    expected = users * (_USER_BYTES + n_genres * _GENRE_BYTES) * partitions / len(summaries)
    return len(summaries) > 1 and expected > budget and _overlap(summaries) > _CROWDED


def _overlap(summaries: Sequence[PartitionSummary]) -> float:
    """Return the share of the users' ids, by the sketches, that lie within other partitions'."""
    ends = [(s.sketch[0], s.sketch[-1]) for s in summaries if len(s.sketch)]
    inside = total = 0
    for own in (s for s in summaries if len(s.sketch)):
        covered = np.zeros(len(own.sketch), np.int64)
        for low, high in ends:
            covered += (own.sketch > low) & (own.sketch < high)
        # Its own range holds all but its first and last.
        inside += int((covered > 1).sum())
        total += len(own.sketch)
    return inside / max(total, 1)


class ShuffleSpec(NamedTuple):
    """How rows are read and summed up around a shuffle.

    ``read`` takes a partition's pieces, whatever else was given for it, and the table, and returns
    rows and a summary; ``summed`` takes rows and the table. ``none`` is a table without rows, and
    ``row_bytes`` what a row takes.
    """

    read: Callable[..., tuple[pd.DataFrame, PartitionSummary]]
    summed: Callable[[pd.DataFrame, MovieTable], tuple[UserStatistics, Any]]
    none: pd.DataFrame
    row_bytes: int


def shuffle_by_user(
    client: Any,
    way: ShuffleSpec,
    partitions: Sequence[list[Fragment]],
    more: Sequence[tuple[Any, ...]],
    table: MovieTable,
    rows: int,
    partition_bytes: int,
) -> tuple[list[Any], list[Any]]:
    """Shuffle the ratings by user and sum them up.

    Parameters
    ----------
    more
        What ``way.read`` is given for each partition beside it.
    rows
        About how many there are.
    partition_bytes
        Bytes of them in one partition behind the shuffle.

    Returns
    -------
    tuple
        Futures: what ``way.summed`` returned for disjoint sets of users, and a summary a partition
        that was read, in the files' order.
    """
    import dask
    import dask.dataframe as dd

    token = uuid.uuid4().hex[:8]
    read, rows_of, tell_of, sum_up = (
        dask.delayed(f, pure=False) for f in (way.read, _first, copy_second, way.summed)
    )
    # One task that holds it, and no part of it in any other.
    known = dask.delayed(table, traverse=False, pure=False)
    pairs = [
        read(
            dask.delayed(pieces, traverse=False, pure=False),
            *own,
            known,
            dask_key_name=f"read-rows-{token}-{number}",
        )
        for number, (pieces, own) in enumerate(zip(partitions, more, strict=True))
    ]
    n_parts = max(1, -(-rows * way.row_bytes // partition_bytes))
    frame = dd.from_delayed([rows_of(pair) for pair in pairs], meta=way.none, verify_meta=False)
    shuffled = frame.shuffle(USER, npartitions=n_parts, shuffle_method="p2p", ignore_index=True)
    summed = [sum_up(part, known) for part in shuffled.to_delayed()]
    futures = client.compute([*summed, *(tell_of(pair) for pair in pairs)])
    return futures[: len(summed)], futures[len(summed) :]


def read_rows(
    pieces: Sequence[Fragment], table: MovieTable
) -> tuple[pd.DataFrame, PartitionSummary]:
    """Read one partition; return its used ratings, and what the driver learns of it."""
    import pandas as pd

    frames = [no_rows(pieces[0].file.string_columns)]
    reports = []
    unmapped = 0
    for piece in pieces:
        lines = 0
        rejected: list[LineReject] = []
        for part in parse_chunks(piece):
            frames.append(user_statistics.map_movies(part.ratings, table))
            unmapped += len(part.ratings) - len(frames[-1])
            rejected += [reject._replace(line=lines + reject.line) for reject in part.rejected]
            lines += part.lines
        file = piece.file
        reports.append(FragmentReport(file.path, file.header_lines, lines, tuple(rejected)))
    rows = pd.concat(frames, ignore_index=True)
    seen = np.zeros(len(table.movie_ids), np.bool_)
    seen[rows[MOVIE].to_numpy()] = True
    log_partition("ratings", pieces, len(rows) + unmapped, None)
    return rows, PartitionSummary(tuple(reports), len(rows), unmapped, np.packbits(seen))


def summed(rows: pd.DataFrame, table: MovieTable) -> tuple[UserStatistics, Any]:
    """Sum up rows; return the statistics and the sketch of their users."""
    found, _ = user_statistics.aggregate_rows(rows, table)
    return found, sketches.quantile_sketch(found.users)


def no_rows(texts: Sequence[str] = ()) -> pd.DataFrame:
    """Return a table of rows without any; ``texts`` names columns whose ids are texts."""
    import pandas as pd

    users = pd.Series([], dtype=STRING_DTYPE if USER in texts else np.int64)
    return pd.DataFrame({USER: users, MOVIE: np.empty(0, np.int32), RATING: np.empty(0)})


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]
