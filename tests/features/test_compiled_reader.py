"""The compiled reader says what the general reader says, or nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.datasets import csv_reader, format
from segmentation.features import compiled_reader, user_statistics
from segmentation.schema import MOVIE, RATING, TIMESTAMP, USER, MovieTable

COLUMNS = (USER, MOVIE, RATING, TIMESTAMP)
# Movies 2, 5 and 9 with two genres, none, and one.
TABLE = MovieTable(
    np.array([2, 5, 9]), np.array([0, 2, 2, 3], np.int32), np.array([0, 3, 1], np.int32), 4
)


def both(
    data: bytes,
    columns: tuple[str, ...] = COLUMNS,
    delimiter: bytes = b",",
    table: MovieTable = TABLE,
) -> bool:
    """Whether the compiled reader took it; if so, all it says is what the general reader says."""
    file = format.RatingsFormat("r.csv", len(data), delimiter, columns, 0, 0, (0.5, 5.0))
    grammar = compiled_reader.Grammar(len(columns), delimiter[0], len(delimiter), 0.5, 5.0)
    quick = compiled_reader.read_statistics(data, grammar, table)
    if quick is None:
        return False
    found, lines = quick
    partition = csv_reader.parse_lines(file, data)
    expected = user_statistics.partition_statistics(partition.ratings, table)
    assert partition.rejected == ()
    assert lines == partition.lines
    assert (found.used, found.unmapped) == (expected.used, expected.unmapped)
    np.testing.assert_array_equal(found.seen, expected.seen)
    np.testing.assert_array_equal(found.sketch, expected.sketch)
    for name, one, other in zip(
        found.statistics._fields, found.statistics, expected.statistics, strict=True
    ):
        np.testing.assert_array_equal(one, other, err_msg=name)
        assert one.dtype == other.dtype, name
    return True


def test_four_rows_by_hand() -> None:
    data = b"7,2,4.5,11\n7,9,3,12\n3,5,0.5,13\n3,4,1.0,14\n"
    grammar = compiled_reader.Grammar(4, ord(","), 1, 0.5, 5.0)
    quick = compiled_reader.read_statistics(data, grammar, TABLE)
    assert quick is not None
    found, lines = quick
    assert lines == 4
    assert (found.used, found.unmapped) == (3, 1)
    assert found.statistics.users.tolist() == [3, 7]
    assert found.statistics.movies.tolist() == [1, 2]
    assert found.statistics.rating_sum.tolist() == [0.5, 7.5]
    assert found.statistics.sums.tolist() == [[0, 0, 0, 0], [4.5, 3.0, 0, 4.5]]
    assert found.statistics.counts.tolist() == [[0, 0, 0, 0], [1, 1, 0, 1]]
    assert np.unpackbits(found.seen)[:3].tolist() == [1, 1, 1]


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 10), st.integers(1, 10), st.booleans()),
        max_size=60,
    ),
    newline=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    more=st.integers(0, 3),
    width=st.sampled_from([",", "::"]),
    ordered=st.booleans(),
)
def test_what_is_in_the_grammar_is_taken(rows, newline, last, more, width, ordered) -> None:
    def stars(halves: int, short: bool) -> str:
        return str(halves // 2) if short and halves % 2 == 0 else str(halves / 2)

    lines = []
    for user, movie, halves, short in sorted(rows) if ordered else rows:
        fields = [f"{user:02d}", str(movie), stars(halves, short), *["99"] * more]
        lines.append(width.join(fields))
    text = newline.join(lines) + (newline if last and lines else "")
    columns = (*COLUMNS[:3], *(f"more-{i}" for i in range(more)))
    assert both(text.encode(), columns, width.encode())


ODD = st.one_of(
    st.binary(min_size=1, max_size=3),
    st.sampled_from(
        [
            b"",
            b",",
            b"\n",
            b"\r",
            b"\r\n",
            b"-",
            b".",
            b"5",
            b"00",
            b".5",
            b'"',
            b" ",
            b"x",
            b"\x00",
            b"9999999999999999999",
            b"99999999999999999999999",
        ]
    ),
)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 10), st.integers(1, 10)),
        min_size=1,
        max_size=20,
    ),
    damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 3), ODD), max_size=3),
)
def test_damage_never_changes_what_is_said(rows, damage) -> None:
    data = b"".join(b"%d,%d,%.1f,7\n" % (user, movie, h / 2) for user, movie, h in rows)
    for place, length, odd in damage:
        at = place % (len(data) + 1)
        data = data[:at] + odd + data[at + length :]
    both(data)


@pytest.mark.parametrize(
    "line",
    [
        b"1,2,3.7,4",
        b"1,2,5.5,4",
        b"1,2,0,4",
        b"1,2,0.0,4",
        b"-1,2,3,4",
        b"+1,2,3,4",
        b"1,2,3,4,5",
        b"1,2,3",
        b"1,2,3,",
        b"1,,3,4",
        b" 1,2,3,4",
        b"1,2,3 ,4",
        b'"1",2,3,4',
        b"",
        b"1,2,3.55,4",
        b"1,2,.5,4",
        b"1,2,4.,4",
        b"1,2,3e0,4",
        b"1;2;3;4",
        b"1,2,3,4\r\r",
        b"x",
        b"1,2,18446744073709551618,4",
        b"9223372036854775808,2,3,4",
        b"1,2,3,1.5",
    ],
)
def test_whatever_is_outside_goes_to_the_general_reader(line: bytes) -> None:
    assert both(b"1,2,3.5,4\n2,9,5,4\n")
    assert not both(b"1,2,3.5,4\n" + line + b"\n2,9,5,4\n")


def test_more_users_than_there_is_room_for_at_first() -> None:
    rng = np.random.default_rng(0)
    users = rng.integers(10**12, size=3 * compiled_reader._FIRST_USERS)
    data = b"".join(
        b"%d,%d,%d,7\n" % (user, (2, 5, 9)[i % 3], 1 + i % 5)
        for i, user in enumerate([*users, *users[::-1]])
    )
    assert both(data)


def test_catalogues_that_are_not_looked_up() -> None:
    empty = np.empty(0, np.int64), np.zeros(1, np.int32), np.empty(0, np.int32), 4
    assert not both(b"1,2,3,4\n", table=MovieTable(*empty))
    for ids in (np.array([-1, 5, 9]), np.array([2, 5, compiled_reader._LARGEST_MOVIE])):
        assert not both(b"1,2,3,4\n", table=TABLE._replace(movie_ids=ids))
