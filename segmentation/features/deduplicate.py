"""``--deduplicate``: of a user's ratings of one movie the latest alone is summed up.

A partition decides by itself for users that no other one holds. In a file sorted by user those are
all but its first and last user, whose rows are decided together in the end; otherwise ratings are
shuffled by user first.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.datasets import format
from segmentation.datasets.identifiers import STRING_DTYPE
from segmentation.features import sketches, user_statistics
from segmentation.features.factorize import factorize, format_id
from segmentation.features.partition_reader import (
    FragmentReport,
    PartitionSummary,
    log_partition,
    parse_chunks,
)
from segmentation.schema import LINE, MOVIE, RATING, TIMESTAMP, USER, RejectedRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from segmentation.datasets.format import LineReject
    from segmentation.datasets.partitions import Fragment
    from segmentation.schema import MovieTable, UserStatistics


REASON = "rated again: a later rating of the movie by the user stands"
#: Bytes of a row on its way: user, movie's row, stars, timestamp, line and piece.
ROW_BYTES = 40


class Distinct(NamedTuple):
    """What one partition leaves: the rows it put aside, and those of users at its edges."""

    dropped: pd.DataFrame
    edges: pd.DataFrame


def no_rows(texts: Sequence[str] = ()) -> pd.DataFrame:
    """Return a table of rows without any; ``texts`` names columns whose ids are texts."""
    import pandas as pd

    columns: dict[str, Any] = {name: np.empty(0, np.int64) for name in (TIMESTAMP, LINE)}
    columns[USER] = pd.Series([], dtype=STRING_DTYPE if USER in texts else np.int64)
    columns |= {name: np.empty(0, np.int32) for name in (MOVIE, PIECE)}
    return pd.DataFrame({**columns, RATING: np.empty(0)})[
        [USER, MOVIE, RATING, TIMESTAMP, LINE, PIECE]
    ]


def read_rows(
    pieces: Sequence[Fragment], first_piece: int, table: MovieTable
) -> tuple[pd.DataFrame, PartitionSummary]:
    """Read one partition; return its used ratings with their places, and what the driver learns.

    ``first_piece`` is the number of its first piece among all partitions'.
    """
    import pandas as pd

    frames = [no_rows(pieces[0].file.string_columns)]
    reports = []
    unmapped = 0
    for number, piece in enumerate(pieces, start=first_piece):
        lines = 0
        rejected: list[LineReject] = []
        for part in parse_chunks(piece, detailed=True):
            used = user_statistics.map_movies(part.ratings, table)
            unmapped += len(part.ratings) - len(used)
            here: dict[str, Any] = {LINE: used[LINE] + lines, PIECE: np.int32(number)}
            frames.append(used.assign(**here))
            rejected += [reject._replace(line=lines + reject.line) for reject in part.rejected]
            lines += part.lines
        file = piece.file
        reports.append(FragmentReport(file.path, file.header_lines, lines, tuple(rejected)))
    rows = pd.concat(frames, ignore_index=True)
    seen = np.zeros(len(table.movie_ids), np.bool_)
    seen[rows[MOVIE].to_numpy()] = True
    users, _ = factorize(rows[USER])
    log_partition("ratings", pieces, len(rows) + unmapped, len(users))
    return rows, PartitionSummary(
        tuple(reports),
        len(rows),
        unmapped,
        np.packbits(seen),
        sketches.quantile_sketch(users),
        len(users),
        sketches.hash_sample(users),
        int((rows[TIMESTAMP].to_numpy() == format.NO_TIMESTAMP).sum()),
    )


def read_partition(
    pieces: Sequence[Fragment], first_piece: int, table: MovieTable
) -> tuple[UserStatistics, tuple[PartitionSummary, Distinct]]:
    """Read one partition and sum up the latest ratings of the users between its first and last."""
    rows, summary = read_rows(pieces, first_piece, table)
    names, users = factorize(rows[USER])
    at_edge = (users == 0) | (users == len(names) - 1)
    found, dropped = sum_up(rows[~at_edge], table)
    return found, (summary, Distinct(dropped, rows[at_edge]))


def sum_up(rows: pd.DataFrame, table: MovieTable) -> tuple[UserStatistics, pd.DataFrame]:
    """Sum up the latest ratings; return the others aside."""
    old = superseded_mask(rows)
    found, _ = user_statistics.aggregate_rows(rows[~old], table)
    return found, rows[old]


def summed(
    rows: pd.DataFrame, table: MovieTable
) -> tuple[UserStatistics, tuple[NDArray[Any], pd.DataFrame]]:
    """Do the same behind a shuffle; return the sketch of the users as well."""
    found, dropped = sum_up(rows, table)
    return found, (sketches.quantile_sketch(found.users), dropped)


def is_sorted_by_user(summaries: Sequence[PartitionSummary]) -> bool:
    """Tell whether partitions share no users but those at their edges."""
    ends = sorted((s.sketch[0], s.sketch[-1]) for s in summaries if len(s.sketch))
    return all(one[1] <= other[0] for one, other in itertools.pairwise(ends))


def rejected_rows(
    dropped: pd.DataFrame, places: Sequence[tuple[str, int]], table: MovieTable
) -> list[RejectedRow]:
    """Return rows that were put aside as they are kept for the user.

    ``places`` gives each piece's file and the number of its first line.
    """
    found = []
    for row in dropped.itertuples(index=False):
        user, movie, stars, timestamp, line, piece = row
        path, first = places[piece]
        text = f"{user},{format_id(table.movie_ids[movie])},{stars:g}"
        if timestamp != format.NO_TIMESTAMP:
            text += f",{timestamp}"
        found.append(RejectedRow(path, first + line, REASON, text))
    return found


#: The number of the piece that a row was read from; a column of ours.
PIECE = "piece"


def superseded_mask(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell which rows a later rating of the same movie by the same user takes the place of.

    The latest has the largest timestamp; of those the one with the most stars, so that no order
    of the rows decides what counts, and of the same again the last in the files.

    Parameters
    ----------
    rows
        Columns ``userId``, ``movieId``, ``rating``, ``timestamp``, ``piece`` and ``line``.

    Returns
    -------
    ndarray of shape (n_rows,), bool
    """
    keys = [rows[name].to_numpy() for name in (LINE, PIECE, RATING, TIMESTAMP, MOVIE)]
    keys.append(factorize(rows[USER])[1])
    order = np.lexsort(keys)
    movies, users = keys[4][order], keys[5][order]
    again = (movies[1:] == movies[:-1]) & (users[1:] == users[:-1])
    found = np.zeros(len(rows), np.bool_)
    found[order[:-1]] = again
    return found
