"""The compiled reader: the bytes of a partition → its sums and counts, with no table in between.

It knows one strict grammar: in every line the same number of fields, user, movie and rating first,
each nothing but digits, and the rating in half-stars; LF or CR LF ends a line. At the first byte
outside of it the partition is given up, and the general reader takes it: what a rating means never
hangs on speed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from segmentation.features.sketches import quantile_sketch
from segmentation.features.user_statistics import PartitionStatistics
from segmentation.schema import UserStatistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segmentation.schema import MovieTable

#: Movies are looked up by their id, 4 bytes for each up to the largest; beyond this, no more.
_LARGEST_MOVIE = 1 << 22
_FIRST_USERS = 1 << 12
#: Ids of more digits might not fit into 64 bits.
_DIGITS = np.uint64(18)
_DONE, _FULL, _GIVEN_UP = 0, 1, -1
_LF, _CR, _POINT, _FIVE, _ZERO, _NINE = (np.uint8(c) for c in (10, 13, 46, 53, 48, 9))
_NONE, _ONE, _TWO, _TEN = (np.uint64(n) for n in (0, 1, 2, 10))


class Grammar(NamedTuple):
    """How a line is cut into fields, the first three of them user, movie and rating.

    ``delimiter`` is one byte that stands ``width`` times between two fields; ``low`` and ``high``
    are the scale, stars.
    """

    n_fields: int
    delimiter: int
    width: int
    low: float
    high: float


def read_statistics(
    data: bytes | memoryview, grammar: Grammar, table: MovieTable
) -> tuple[PartitionStatistics, int] | None:
    """Count and sum whole lines of a ratings file; None where one is outside the grammar.

    Returns
    -------
    tuple or None
        The statistics, the same as the general reader's, and the number of lines.
    """
    known = table.movie_ids
    if len(known) == 0 or known.dtype.kind != "i" or known[0] < 0 or known[-1] >= _LARGEST_MOVIE:
        return None
    lookup = np.full(int(known[-1]) + 1, -1, np.int32)
    lookup[known] = np.arange(len(known), dtype=np.int32)
    seen = np.zeros(len(known), np.bool_)
    grown = _room(_FIRST_USERS, table.n_genres)
    # Open addressing: a user's row plus one, at a place that its id decides, or the next free one.
    slots = np.zeros(4 * _FIRST_USERS, np.int32)
    scale = int(np.ceil(2 * grammar.low)), int(np.floor(2 * grammar.high))
    flat = (grammar.n_fields - 3, grammar.delimiter, grammar.width, *scale)
    text = np.frombuffer(data, np.uint8)
    if len(text) and text[-1] != _LF:
        # Every number is followed by something then, and no loop need ask whether the text ends.
        text = np.append(text, _LF)
    progress = np.zeros(4, np.int64)
    while True:
        status = _stream(
            text, *flat, lookup, table.offsets, table.codes, slots, seen, *grown, progress
        )
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
        found, used, lines - used, np.packbits(seen), quantile_sketch(found.users)
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


# One flat loop over unsigned numbers, since cut into functions (or with signed places, which may
# count from the end) it took up to seven times as long: 79 and 18 ns a row where this takes 11.
@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _stream(  # noqa: PLR0912, PLR0915
    data: NDArray[np.uint8],
    more_fields: int,
    delimiter: int,
    width: int,
    low: int,
    high: int,
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
    at, size = np.uint64(progress[0]), np.uint64(len(data))
    n, lines, used = progress[1], progress[2], progress[3]
    row, last_user = 0, np.int64(-1)
    status = _DONE
    while at < size:
        status = _GIVEN_UP
        line = at
        user = movie = _NONE
        begin = at
        digit = np.uint8(data[at] - _ZERO)
        while digit <= _NINE:
            user = _TEN * user + np.uint64(digit)
            at += _ONE
            digit = np.uint8(data[at] - _ZERO)
        if at == begin or at - begin > _DIGITS or data[at] != delimiter:
            break
        at += _ONE
        if width == 2:
            if data[at] != delimiter:
                break
            at += _ONE
        begin = at
        digit = np.uint8(data[at] - _ZERO)
        while digit <= _NINE:
            movie = _TEN * movie + np.uint64(digit)
            at += _ONE
            digit = np.uint8(data[at] - _ZERO)
        if at == begin or at - begin > _DIGITS or data[at] != delimiter:
            break
        at += _ONE
        if width == 2:
            if data[at] != delimiter:
                break
            at += _ONE
        digit = np.uint8(data[at] - _ZERO)
        if digit > _NINE:
            break
        halves = 2 * int(digit)
        if data[at + _ONE] == _POINT:
            tenths = data[at + _TWO]
            if tenths == _FIVE:
                halves += 1
            elif tenths != _ZERO:
                break
            at += _TWO
        if halves < low or halves > high:
            break
        at += _ONE
        sound = True
        for _ in range(more_fields):
            sound = bool(data[at] == delimiter)
            if sound:
                at += _ONE
                if width == 2:
                    sound = bool(data[at] == delimiter)
                    at += np.uint64(sound)
            begin = at
            while sound and np.uint8(data[at] - _ZERO) <= _NINE:
                at += _ONE
            sound = sound and bool(at > begin)
            if not sound:
                break
        if not sound:
            break
        if data[at] == _CR:
            at += _ONE
        if data[at] != _LF:
            break
        at += _ONE
        movie_row = lookup[movie] if movie < np.uint64(len(lookup)) else -1
        if movie_row >= 0:
            if np.int64(user) != last_user:
                place = _place(user, slots, users)
                row = int(slots[place]) - 1
                if row < 0:
                    if n == len(users):
                        status, at = _FULL, line
                        break
                    row = int(n)
                    users[n] = user
                    n += 1
                    slots[place] = n
                last_user = np.int64(user)
            stars = 0.5 * halves
            used += 1
            movies[row] += 1
            rating_sum[row] += stars
            seen[movie_row] = True
            for j in range(offsets[movie_row], offsets[movie_row + 1]):
                sums[row, codes[j]] += stars
                counts[row, codes[j]] += 1
        lines += 1
        status = _DONE
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
