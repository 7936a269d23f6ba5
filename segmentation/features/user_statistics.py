"""Sums and counts a (user, genre): made from a partition, merged in any order, divided once.

Count and sum a partition, merge, divide at the end is how NVTabular computes moments out of core
(``nvtabular/ops/moments.py``). Rows are never exploded by genre: a rating is added once for each
genre of its movie, straight into the dense (users in the partition) × genres block.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.features.factorize import factorize
from segmentation.features.kernels import accumulate
from segmentation.features.sketches import quantile_sketch
from segmentation.schema import MOVIE, RATING, USER, UserStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from segmentation.schema import MovieTable

#: A lookup table by movie id is used up to this id (4 bytes an entry), a binary search beyond.
_LOOKUP_LIMIT = 1 << 22


class PartitionStatistics(NamedTuple):
    """One partition's statistics with its tallies.

    ``seen`` marks the catalogue's movies that got a used rating, packed eight to a byte;
    ``sketch`` holds some evenly spaced user ids, from which block boundaries are chosen.
    """

    statistics: UserStatistics
    used: int
    unmapped: int
    seen: NDArray[np.uint8]
    sketch: NDArray[Any]


def _zeros(users: NDArray[Any], n_genres: int) -> UserStatistics:
    n = len(users)
    return UserStatistics(
        users,
        np.zeros(n, np.int64),
        np.zeros(n, np.float64),
        np.zeros((n, n_genres), np.float64),
        np.zeros((n, n_genres), np.int32),
    )


def empty(n_genres: int) -> UserStatistics:
    """Return the statistics of nobody."""
    return _zeros(np.empty(0, np.int64), n_genres)


def movie_rows(table: MovieTable, ids: NDArray[Any]) -> NDArray[np.int64]:
    """Return each id's row in the catalogue, −1 where it has none; shape (n_ratings,)."""
    known: NDArray[Any] = table.movie_ids
    if len(known) == 0:
        return np.full(len(ids), -1, np.int64)
    if known.dtype.kind == "i" and known[0] >= 0 and known[-1] < _LOOKUP_LIMIT:
        lookup = np.full(int(known[-1]) + 2, -1, np.int64)
        lookup[known] = np.arange(len(known))
        inside = (ids >= 0) & (ids <= known[-1])
        return np.asarray(lookup[np.where(inside, ids, known[-1] + 1)])
    rows = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[rows] == ids, rows, -1)


def partition_statistics(ratings: pd.DataFrame, table: MovieTable) -> PartitionStatistics:
    """Count and sum one partition of typed ratings.

    Parameters
    ----------
    ratings
        Columns ``userId`` and ``movieId`` (int64 or texts) and ``rating`` (float64, stars).
    table
        The catalogue's movies.
    """
    rows = map_movies(ratings, table)
    result, seen = aggregate_rows(rows, table)
    return PartitionStatistics(
        result,
        len(rows),
        len(ratings) - len(rows),
        np.packbits(seen),
        quantile_sketch(result.users),
    )


def map_movies(ratings: pd.DataFrame, table: MovieTable) -> pd.DataFrame:
    """Return the used ratings alone, ``movieId`` replaced by the movie's row in the catalogue."""
    if isinstance(ratings[MOVIE].dtype, np.dtype):
        movies = movie_rows(table, ratings[MOVIE].to_numpy())
    else:
        names, at = factorize(ratings[MOVIE])
        movies = movie_rows(table, names)[at]
    rows = ratings.assign(**{MOVIE: movies.astype(np.int32)})
    mapped = movies >= 0
    return rows if mapped.all() else rows[mapped]


def aggregate_rows(
    rows: pd.DataFrame, table: MovieTable
) -> tuple[UserStatistics, NDArray[np.bool_]]:
    """Count and sum what :func:`compact` returned; tell which movies of the catalogue it holds."""
    distinct, user = factorize(rows[USER])
    seen = np.zeros(len(table.movie_ids), np.bool_)
    result = _zeros(distinct, table.n_genres)
    accumulate(
        user,
        rows[MOVIE].to_numpy(),
        rows[RATING].to_numpy(),
        table.offsets,
        table.codes,
        result.movies,
        result.rating_sum,
        result.sums,
        result.counts,
        seen,
    )
    return result, seen


def take_range(part: UserStatistics, low: Any, high: Any) -> UserStatistics:
    """Return the users in ``[low, high)``; None is unbounded.

    They are a view of ``part`` unless they are few of it, which should not keep it in memory.
    """
    start = 0 if low is None else int(np.searchsorted(part.users, low))
    stop = len(part.users) if high is None else int(np.searchsorted(part.users, high))
    if start == 0 and stop == len(part.users):
        return part
    taken = _rows(part, slice(start, stop))
    if 2 * (stop - start) >= len(part.users):
        return taken
    columns: Any = taken
    return UserStatistics(*(np.array(column) for column in columns))


def downcast(found: UserStatistics) -> UserStatistics:
    """Return the same numbers in about half the memory; the arrays are its own.

    Half-stars are sums of halves, which float32 holds as they are up to eight million stars; sums
    of another scale that it would round stay float64.
    """
    return UserStatistics(
        np.array(found.users),
        _held(found.movies, np.int32),
        _held(found.rating_sum, np.float32),
        _held(found.sums, np.float32),
        _held(found.counts, np.uint16),
    )


def _held(values: NDArray[Any], kind: type[np.generic]) -> NDArray[Any]:
    if values.dtype == kind and values.base is None:
        return values
    smaller = values.astype(kind)
    return smaller if np.array_equal(smaller, values) else np.array(values)


def merge(parts: Sequence[UserStatistics]) -> UserStatistics:
    """Add statistics whose users may overlap.

    Half-stars add without rounding, so the result does not depend on the order of the parts;
    for other scales it does so to the last bits of a float64.

    Raises
    ------
    ValueError
        If the parts differ in their number of genres, with both numbers.
    """
    if not parts:
        raise ValueError("nothing to merge: needs at least one part")
    widths = {part.sums.shape[1] for part in parts}
    if len(widths) > 1:
        raise ValueError(f"parts with different numbers of genres: {sorted(widths)}")
    parts = [part for part in parts if len(part.users)] or list(parts[:1])
    if len(parts) == 1:
        return parts[0]
    if all(one.users[-1] <= other.users[0] for one, other in itertools.pairwise(parts)):
        return _chained(parts)
    return _added(parts)


def _chained(parts: Sequence[UserStatistics]) -> UserStatistics:
    """Put parts one behind the other; only a user at the edge of two of them is added up."""
    pieces = [parts[0]]
    for part in parts[1:]:
        last = pieces[-1]
        if last.users[-1] == part.users[0]:
            n = len(last.users)
            shared = _added([_rows(last, slice(n - 1, n)), _rows(part, slice(1))])
            pieces[-1:] = [_rows(last, slice(n - 1)), downcast(shared)]
            part = _rows(part, slice(1, None))  # noqa: PLW2901 - what is left of it
        if len(part.users):
            pieces.append(part)
    columns: Any = zip(*pieces, strict=True)
    return UserStatistics(*(np.concatenate(column) for column in columns))


def _rows(part: UserStatistics, rows: slice) -> UserStatistics:
    columns: Any = part
    return UserStatistics(*(column[rows] for column in columns))


def _added(parts: Sequence[UserStatistics]) -> UserStatistics:
    """Add parts in any order."""
    users = np.unique(np.concatenate([part.users for part in parts]))
    merged = _zeros(users, parts[0].sums.shape[1])
    for part in parts:
        rows = np.searchsorted(users, part.users)
        merged.movies[rows] += part.movies
        merged.rating_sum[rows] += part.rating_sum
        merged.sums[rows] += part.sums
        merged.counts[rows] += part.counts
    return merged
