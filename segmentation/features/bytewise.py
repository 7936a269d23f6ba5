"""The compiled reader: the bytes of a partition → its sums and counts, with no table in between.

It knows one strict grammar: in every line the same number of fields, each nothing but digits, and
a rating in half-stars; LF or CR LF ends a line. At the first byte outside of it the
partition is given up, and the general reader takes it: what a rating means never hangs on speed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from segmentation.features.statistics import PartitionStatistics, sketch_of
from segmentation.schema import UserStatistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segmentation.schema import MovieTable

#: Movies are looked up by their id, 4 bytes for each up to the largest; beyond this, no more.
_LARGEST_MOVIE = 1 << 22
_FIRST_USERS = 1 << 12
#: Ids of more digits might not fit into 64 bits.
_DIGITS = 18
_DONE, _FULL, _GIVEN_UP = 0, 1, -1


class Grammar(NamedTuple):
    """How a line is cut into fields.

    ``delimiter`` is one byte that stands ``width`` times between two fields, ``user``, ``movie``
    and ``rating`` are the numbers of their fields, and ``low`` and ``high`` the scale, stars.
    """

    n_fields: int
    user: int
    movie: int
    rating: int
    delimiter: int
    width: int
    low: float
    high: float


def read_statistics(
    data: bytes, grammar: Grammar, table: MovieTable
) -> tuple[PartitionStatistics, int] | None:
    """Count and sum whole lines of a ratings file; None where one is outside the grammar.

    Returns
    -------
    tuple or None
        The statistics, the same as the general reader's, and the number of lines.
    """
    known = table.movie_ids
    if len(known) == 0 or known[0] < 0 or known[-1] >= _LARGEST_MOVIE:
        return None
    lookup = np.full(int(known[-1]) + 1, -1, np.int32)
    lookup[known] = np.arange(len(known), dtype=np.int32)
    seen = np.zeros(len(known), np.bool_)
    grown = _room(_FIRST_USERS, table.n_genres)
    # Open addressing: a user's row plus one, at a place that its id decides, or the next free one.
    slots = np.zeros(4 * _FIRST_USERS, np.int32)
    scale = int(np.ceil(2 * grammar.low)), int(np.floor(2 * grammar.high))
    flat = (*grammar[:6], *scale)
    progress = np.zeros(4, np.int64)
    while True:
        status = _stream(
            np.frombuffer(data, np.uint8), flat, lookup, table.offsets, table.codes, slots, seen,
            *grown, progress,
        )  # fmt: skip
        if status == _GIVEN_UP:
            return None
        n, lines, used = (int(value) for value in progress[1:])
        if status == _DONE:
            break
        slots = np.zeros(2 * len(slots), np.int32)
        wider = _room(2 * len(grown.users), table.n_genres)
        columns: Any = zip(wider, grown, strict=True)
        for new, old in columns:
            new[:n] = old
        grown = wider
        _note(grown.users, n, slots)
    users = grown.users[:n]
    order: NDArray[np.int64] | slice = slice(n)
    if (users[1:] < users[:-1]).any():
        order = np.argsort(users)
    # Copies: the arrays were made with room to grow.
    ordered: Any = (np.array(column[order]) for column in grown)
    found = UserStatistics(*ordered)
    summed = PartitionStatistics(
        found, used, lines - used, np.packbits(seen), sketch_of(found.users)
    )
    return summed, lines


def _room(users: int, n_genres: int) -> UserStatistics:
    return UserStatistics(
        np.zeros(users, np.int64),
        np.zeros(users, np.int64),
        np.zeros(users, np.float64),
        np.zeros((users, n_genres), np.float64),
        np.zeros((users, n_genres), np.int32),
    )


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _number(data: NDArray[np.uint8], at: int) -> tuple[int, int]:
    """Read digits; return where they end (−1 where there are none or too many) and the number."""
    begin, stop = at, len(data)
    number = 0
    while at < stop:
        digit = int(data[at]) - 48
        if digit < 0 or digit > 9:
            break
        number = 10 * number + digit
        at += 1
    return (at if 0 < at - begin <= _DIGITS else -1), number


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _half_stars(data: NDArray[np.uint8], at: int, low: int, high: int) -> tuple[int, int]:
    """Read a rating; return where it ends (−1 where it is none) and its half-stars."""
    at, whole = _number(data, at)
    # Else a rating of very many stars could wrap around into the scale.
    halves = 2 * min(whole, 1_000)
    if 0 <= at < len(data) - 1 and data[at] == 46:
        if data[at + 1] == 53:
            halves += 1
        elif data[at + 1] != 48:
            return -1, 0
        at += 2
    return (at if low <= halves <= high else -1), halves


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _skip(data: NDArray[np.uint8], at: int, byte: int, times: int) -> int:
    """Return what follows a byte that stands some times; −1 where it doesn't."""
    for _ in range(times):
        if at < 0 or at >= len(data) or data[at] != byte:
            return -1
        at += 1
    return at


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _line(data: NDArray[np.uint8], at: int, grammar: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Read a line; return where the next begins (−1: given up), user, movie and half-stars."""
    n_fields, user_field, movie_field, rating_field, delimiter, width, low, high = grammar
    user = movie = halves = 0
    for field in range(n_fields):
        if field:
            at = _skip(data, at, delimiter, width)
            if at < 0:
                break
        if field == rating_field:
            at, halves = _half_stars(data, at, low, high)
        else:
            at, number = _number(data, at)
            if field == user_field:
                user = number
            elif field == movie_field:
                movie = number
        if at < 0:
            break
    if 0 <= at < len(data):
        if data[at] == 13 and at + 1 < len(data):
            at += 1
        at = _skip(data, at, 10, 1)
    return at, user, movie, halves


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _stream(
    data: NDArray[np.uint8],
    grammar: tuple[int, ...],
    lookup: NDArray[np.int32],
    offsets: NDArray[np.int32],
    codes: NDArray[np.int32],
    slots: NDArray[np.int32],
    seen: NDArray[np.bool_],
    users: NDArray[np.int64],
    movies: NDArray[np.int64],
    rating_sum: NDArray[np.float64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int32],
    progress: NDArray[np.int64],
) -> int:
    """Go on from ``progress``: the byte, the users so far, the lines, and the used ratings."""
    at, n, lines, used = progress[0], progress[1], progress[2], progress[3]
    row, last_user = 0, -1
    status = _DONE
    while at < len(data):
        following, user, movie, halves = _line(data, at, grammar)
        if following < 0:
            status = _GIVEN_UP
            break
        movie_row = lookup[movie] if movie < len(lookup) else -1
        if movie_row >= 0:
            if user != last_user:
                place = _place(user, slots, users)
                row = slots[place] - 1
                if row < 0:
                    if n == len(users):
                        status = _FULL
                        break
                    row = n
                    users[n] = user
                    n += 1
                    slots[place] = n
                last_user = user
            stars = 0.5 * halves
            used += 1
            movies[row] += 1
            rating_sum[row] += stars
            seen[movie_row] = True
            for j in range(offsets[movie_row], offsets[movie_row + 1]):
                sums[row, codes[j]] += stars
                counts[row, codes[j]] += 1
        at = following
        lines += 1
    progress[0], progress[1], progress[2], progress[3] = at, n, lines, used
    return status


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _note(users: NDArray[np.int64], n: int, slots: NDArray[np.int32]) -> None:
    for row in range(n):
        slots[_place(users[row], slots, users)] = row + 1


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _place(user: int, slots: NDArray[np.int32], users: NDArray[np.int64]) -> np.int64:
    """Return where a user's row is noted, or the free place where it belongs."""
    mask = np.uint64(len(slots) - 1)
    # Fibonacci hashing (Knuth 1973, 6.4): ids that follow one another spread evenly.
    place = ((np.uint64(user) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while slots[place] != 0 and users[slots[place] - 1] != user:
        place = (place + np.uint64(1)) & mask
    return np.int64(place)
