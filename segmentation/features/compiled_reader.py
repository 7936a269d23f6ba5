"""The compiled reader: the bytes of a chunk → its sums and counts, without a table in between.

It reads one strict grammar. Every line has the same number of fields: user, item and rating come
first. Ids are digits, perhaps with a point and zeros after them, and the rating is in half-stars.
The other fields may hold anything. Any field may be in quotes. LF or CR LF ends a line. A chunk
with a byte outside the grammar is left to the general reader, so what a rating means never depends
on which of the two reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from segmentation.features.user_statistics import (
    ChunkStatistics,
    downcast,
    make_lookup_table,
    merge,
    relative_width,
    zero_statistics,
)
from segmentation.schema import UserStatistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segmentation.schema import ItemTable

#: Users to allocate for at first, doubled when there are more, and at most, which is less with many
#: categories. A new part begins then.
_INITIAL_USERS, _MAX_USERS = 1 << 12, 1 << 17
#: Ids with more digits might not fit into 64 bits.
_MAX_DIGITS = np.uint64(18)
_DONE, _FULL, _OUTSIDE_GRAMMAR = 0, 1, -1
_LF, _CR, _QUOTE, _POINT, _FIVE, _ZERO, _NINE = (np.uint8(c) for c in (10, 13, 34, 46, 53, 48, 9))
_UINT0, _UINT1, _UINT2, _UINT10 = (np.uint64(n) for n in (0, 1, 2, 10))


class Grammar(NamedTuple):
    """How to split a line into fields, the first three of which are user, item and rating.

    Attributes
    ----------
    n_fields
        Number of fields in every line.
    delimiter, width
        The byte between two fields, and how many times it is repeated: once or twice.
    low, high
        The rating scale in stars.
    point
        The decimal mark.
    unrated
        The rating that stands for "not rated"; None without one.
    """

    n_fields: int
    delimiter: int
    width: int
    low: float
    high: float
    point: int = ord(".")
    unrated: float | None = None


def aggregate_lines(
    data: bytes | memoryview, grammar: Grammar, table: ItemTable
) -> ChunkStatistics | None:
    r"""Count and sum whole lines of a ratings file by user.

    Returns
    -------
    ChunkStatistics or None
        What the general reader would return; None if a line is outside the grammar, or items
        can't be looked up by their id.

    Examples
    --------
    >>> import numpy as np
    >>> from segmentation.schema import ItemTable
    >>> offsets, codes = np.array([0, 1], np.int32), np.array([0], np.int32)
    >>> one_item = ItemTable(np.array([10]), offsets, codes, n_categories=1)
    >>> lines = b"7,10,4.0\n7,10,3.5\n9,99,5\n"
    >>> chunk = aggregate_lines(lines, Grammar(3, ord(","), 1, 0.5, 5.0), one_item)
    >>> chunk.used, chunk.unmapped, chunk.statistics.rating_sum.tolist()
    (2, 1, [7.5])
    """
    item_rows = make_lookup_table(table.item_ids)
    if item_rows is None:
        return None
    seen = np.zeros(len(table.item_ids), np.bool_)
    scale = int(np.ceil(2 * grammar.low)), int(np.floor(2 * grammar.high))
    skipped = -1
    if grammar.unrated is not None and float(2 * grammar.unrated).is_integer():
        skipped = int(2 * grammar.unrated)
    form = (grammar.n_fields - 3, grammar.delimiter, grammar.width, grammar.point, *scale, skipped)
    items = (item_rows, table.keep_all_users, table.offsets, table.codes, seen)
    text = np.frombuffer(data, np.uint8)
    if len(text) and text[-1] != _LF:
        # A byte then follows every number, and no loop has to check for the end of the text.
        text = np.append(text, _LF)
    state = np.zeros(5, np.int64)
    arguments = (text, *form, *items, state)
    parts = _read_parts(arguments, table.n_categories)
    if parts is None:
        return None
    lines, used, unrated = (int(count) for count in state[2:])
    statistics = downcast(merge(parts))
    unmapped = lines - used - unrated
    return ChunkStatistics(statistics, used, unmapped, np.packbits(seen), lines, unrated=unrated)


def _read_parts(arguments: tuple[Any, ...], n_categories: int) -> list[UserStatistics] | None:
    """Return the statistics of all lines in parts of a limited number of users.

    ``arguments`` are those of :func:`_read_lines`, without the hash table and the statistics.
    """
    state = arguments[-1]
    max_users = max(_INITIAL_USERS, int(_MAX_USERS / relative_width(n_categories)))
    parts = []
    totals = zero_statistics(np.zeros(_INITIAL_USERS, np.int64), n_categories)
    # A hash table with open addressing: slots hold a user's row plus one, or zero.
    slots = np.zeros(4 * _INITIAL_USERS, np.int32)
    while True:
        status = _read_lines(*arguments, slots, *totals)
        if status == _OUTSIDE_GRAMMAR:
            return None
        n = int(state[1])
        if status == _FULL and n < max_users:
            larger = zero_statistics(np.zeros(2 * n, np.int64), n_categories)
            columns: Any = zip(larger, totals, strict=True)
            for new, old in columns:
                new[:n] = old
            totals = larger
            slots = np.zeros(2 * len(slots), np.int32)
            _insert_users(totals.users, n, slots)
            continue
        parts.append(_take_sorted(totals, n))
        if status == _DONE:
            return parts
        state[1] = 0
        slots[:] = 0
        for column in totals:
            column[:] = 0


def _take_sorted(totals: UserStatistics, n: int) -> UserStatistics:
    """Return the first ``n`` users in ascending order, in small dtypes."""
    users = totals.users[:n]
    order: NDArray[np.int64] | slice = slice(n)
    if (users[1:] < users[:-1]).any():
        order = np.argsort(users)
    columns: Any = (column[order] for column in totals)
    return downcast(UserStatistics(*columns))


# One flat loop over unsigned integers, with the same lines for user and item. When it read less,
# it took 11 ns per row, split into functions 79 ns, and with signed positions (which may count from
# the end) 18 ns.
@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _read_lines(  # noqa: PLR0912, PLR0915 - one loop, for the reason above
    data: NDArray[np.uint8],
    n_more_fields: int,
    delimiter: int,
    width: int,
    point: int,
    low: int,
    high: int,
    skipped: int,
    item_rows: NDArray[np.int32],
    keep_all_users: bool,
    offsets: NDArray[np.int32],
    codes: NDArray[np.int32],
    seen: NDArray[np.bool_],
    state: NDArray[np.int64],
    slots: NDArray[np.int32],
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    rating_sum: NDArray[np.float64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int32],
) -> int:
    """Continue at ``state``: the position, and the users, lines, used and unrated rows so far.

    Returns the status, and updates ``state`` and the output arrays in place. ``low``, ``high`` and
    ``skipped``, the rating of unrated rows, are in half-stars.
    """
    pos, size = np.uint64(state[0]), np.uint64(len(data))
    n, lines, used, unrated = state[1], state[2], state[3], state[4]
    row, last_user = 0, np.int64(-1)
    status = _DONE
    while pos < size:
        status = _OUTSIDE_GRAMMAR
        line = pos
        user = item = _UINT0
        digit = np.uint8(data[pos] - _ZERO)
        quoted = False
        if digit > _NINE:
            if data[pos] != _QUOTE:
                break
            quoted = True
            pos += _UINT1
            digit = np.uint8(data[pos] - _ZERO)
        begin = pos
        while digit <= _NINE:
            user = _UINT10 * user + np.uint64(digit)
            pos += _UINT1
            digit = np.uint8(data[pos] - _ZERO)
        if pos == begin or pos - begin > _MAX_DIGITS:
            break
        if data[begin] == _ZERO and pos - begin > _UINT1:
            break
        if data[pos] != delimiter or quoted:
            if data[pos] == _POINT:
                pos += _UINT1
                while data[pos] == _ZERO:
                    pos += _UINT1
            if quoted:
                if data[pos] != _QUOTE:
                    break
                pos += _UINT1
            if data[pos] != delimiter:
                break
        pos += _UINT1
        if width == 2:
            if data[pos] != delimiter:
                break
            pos += _UINT1
        digit = np.uint8(data[pos] - _ZERO)
        quoted = False
        if digit > _NINE:
            if data[pos] != _QUOTE:
                break
            quoted = True
            pos += _UINT1
            digit = np.uint8(data[pos] - _ZERO)
        begin = pos
        while digit <= _NINE:
            item = _UINT10 * item + np.uint64(digit)
            pos += _UINT1
            digit = np.uint8(data[pos] - _ZERO)
        if pos == begin or pos - begin > _MAX_DIGITS:
            break
        if data[begin] == _ZERO and pos - begin > _UINT1:
            break
        if data[pos] != delimiter or quoted:
            if data[pos] == _POINT:
                pos += _UINT1
                while data[pos] == _ZERO:
                    pos += _UINT1
            if quoted:
                if data[pos] != _QUOTE:
                    break
                pos += _UINT1
            if data[pos] != delimiter:
                break
        pos += _UINT1
        if width == 2:
            if data[pos] != delimiter:
                break
            pos += _UINT1
        digit = np.uint8(data[pos] - _ZERO)
        quoted = False
        if digit > _NINE:
            if data[pos] != _QUOTE:
                break
            quoted = True
            pos += _UINT1
            digit = np.uint8(data[pos] - _ZERO)
            if digit > _NINE:
                break
        halves = 2 * int(digit)
        pos += _UINT1
        digit = np.uint8(data[pos] - _ZERO)
        if digit <= _NINE:
            halves = 10 * halves + 2 * int(digit)
            pos += _UINT1
        if data[pos] == point and (quoted or point != delimiter):
            tenths = data[pos + _UINT1]
            if tenths == _FIVE:
                halves += 1
            elif tenths != _ZERO:
                break
            pos += _UINT2
        if quoted:
            if data[pos] != _QUOTE:
                break
            pos += _UINT1
        is_unrated = halves == skipped
        if (halves < low or halves > high) and not is_unrated:
            break
        is_valid = True
        for _ in range(n_more_fields):
            is_valid = bool(data[pos] == delimiter)
            if is_valid:
                pos += _UINT1
                if width == 2:
                    is_valid = bool(data[pos] == delimiter)
                    pos += np.uint64(is_valid)
            while is_valid and np.uint8(data[pos] - _ZERO) <= _NINE:
                pos += _UINT1
            if is_valid and data[pos] != delimiter and data[pos] != _LF:
                # A field of other characters than digits.
                if data[pos] == _QUOTE:
                    is_valid = bool(data[pos - _UINT1] == delimiter)
                    pos += _UINT1
                    while data[pos] != _QUOTE and data[pos] != _LF:
                        pos += _UINT1
                    is_valid = is_valid and bool(data[pos] == _QUOTE)
                    pos += np.uint64(is_valid)
                else:
                    while (
                        data[pos] != delimiter
                        and data[pos] != _LF
                        and data[pos] != _CR
                        and data[pos] != _QUOTE
                    ):
                        pos += _UINT1
            if not is_valid:
                break
        if not is_valid:
            break
        if data[pos] == _CR:
            pos += _UINT1
        if data[pos] != _LF:
            break
        pos += _UINT1
        if is_unrated:
            unrated += 1
            lines += 1
            status = _DONE
            continue
        item_row = item_rows[item] if item < np.uint64(len(item_rows)) else -1
        if (item_row >= 0 or keep_all_users) and np.int64(user) != last_user:
            slot = _find_slot(user, slots, users)
            row = int(slots[slot]) - 1
            if row < 0:
                if n == len(users):
                    status, pos = _FULL, line
                    break
                row = int(n)
                users[n] = user
                n += 1
                slots[slot] = n
            last_user = np.int64(user)
        if item_row >= 0:
            stars = 0.5 * halves
            used += 1
            items[row] += 1
            rating_sum[row] += stars
            seen[item_row] = True
            for j in range(offsets[item_row], offsets[item_row + 1]):
                sums[row, codes[j]] += stars
                counts[row, codes[j]] += 1
        lines += 1
        status = _DONE
    state[0], state[1], state[2], state[3], state[4] = pos, n, lines, used, unrated
    return status


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _insert_users(users: NDArray[np.int64], n: int, slots: NDArray[np.int32]) -> None:
    for row in range(n):
        slots[_find_slot(users[row], slots, users)] = row + 1


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _find_slot(user: int, slots: NDArray[np.int32], users: NDArray[np.int64]) -> np.int64:
    """Return the slot that holds a user's row, or the free slot where it belongs."""
    mask = np.uint64(len(slots) - 1)
    # Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4) spreads consecutive ids.
    slot = ((np.uint64(user) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while slots[slot] != 0 and users[slots[slot] - 1] != user:
        slot = (slot + np.uint64(1)) & mask
    return np.int64(slot)
