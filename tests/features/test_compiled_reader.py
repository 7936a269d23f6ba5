"""The compiled reader returns what the general reader returns, or nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.datasets import csv_reader, format
from segmentation.features import compiled_reader, partition_reader, user_statistics
from segmentation.schema import ItemTable
from tests.features.helpers import COLUMNS, TABLE, assert_equal, expected_statistics


def is_read(
    data: bytes,
    columns: tuple[str, ...] = COLUMNS,
    delimiter: bytes = b",",
    table: ItemTable = TABLE,
) -> bool:
    """Tell whether the compiled reader reads the lines; if so, compare it with the general one."""
    grammar = compiled_reader.Grammar(len(columns), delimiter[0], len(delimiter), 0.5, 5.0)
    chunk = compiled_reader.aggregate_lines(data, grammar, table)
    if chunk is None:
        return False
    file = format.RatingsFormat("r.csv", len(data), delimiter, columns, 0, 0, (0.5, 5.0))
    expected = user_statistics.aggregate_chunk(csv_reader.parse_lines(file, data), table)
    assert expected.rejected == chunk.rejected == ()
    assert chunk.lines == expected.lines
    assert (chunk.used, chunk.unmapped) == (expected.used, expected.unmapped)
    np.testing.assert_array_equal(chunk.seen, expected.seen)
    assert_equal(chunk.statistics, expected.statistics, dtypes=True)
    return True


def test_four_rows_by_hand() -> None:
    data = b"7,1,4.5,11\n7,9,3,12\n3,5,0.5,13\n3,4,1.0,14\n"
    grammar = compiled_reader.Grammar(4, ord(","), 1, 0.5, 5.0)
    chunk = compiled_reader.aggregate_lines(data, grammar, TABLE)
    assert chunk is not None
    assert (chunk.lines, chunk.used, chunk.unmapped) == (4, 3, 1)
    assert chunk.statistics.users.tolist() == [3, 7]
    assert chunk.statistics.items.tolist() == [1, 2]
    assert chunk.statistics.rating_sum.tolist() == [0.5, 7.5]
    assert chunk.statistics.sums.tolist() == [[0, 0, 0], [4.5, 4.5, 3.0]]
    assert chunk.statistics.counts.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert np.unpackbits(chunk.seen)[:4].tolist() == [1, 0, 1, 1]


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
def test_lines_within_the_grammar(rows, newline, last, more, width, ordered) -> None:
    def stars(halves: int, short: bool) -> str:
        return str(halves // 2) if short and halves % 2 == 0 else str(halves / 2)

    lines = []
    for user, movie, halves, short in sorted(rows) if ordered else rows:
        fields = [str(user), str(movie), stars(halves, short), *["99"] * more]
        if short and width == ",":
            fields = [f'"{field}"' for field in fields]
        lines.append(width.join(fields))
    text = newline.join(lines) + (newline if last and lines else "")
    columns = (*COLUMNS[:3], *(f"more-{i}" for i in range(more)))
    assert is_read(text.encode(), columns, width.encode())


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
def test_damage_never_changes_the_result(rows, damage) -> None:
    data = b"".join(b"%d,%d,%.1f,7\n" % (user, movie, h / 2) for user, movie, h in rows)
    for place, length, odd in damage:
        at = place % (len(data) + 1)
        data = data[:at] + odd + data[at + length :]
    is_read(data)


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
        b"1,,3,4",
        b" 1,2,3,4",
        b"1,2,3 ,4",
        b'"1,2,3,4',
        b'1","2,3,4',
        b'1,2,3,a"b',
        b'1,2,3,"a""b"',
        b"01,2,3,4",
        b"1,00,3,4",
        b"1.5,2,3,4",
        b"1,2,3,4\rx",
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
    ],
)
def test_a_line_outside_the_grammar_leaves_all_to_the_general_reader(line: bytes) -> None:
    assert is_read(b"1,2,3.5,4\n2,9,5,4\n")
    assert not is_read(b"1,2,3.5,4\n" + line + b"\n2,9,5,4\n")


@pytest.mark.parametrize(
    "line",
    [
        b'"1","2","3.5","4"',
        b"1.0,2.000,3,4",
        b'1,"2",3,2005-04-02 23:53:47',
        b'1,2,3,"a, b"',
        b"1,2,3,",
        b'1,2,3,""',
        "1,2,3,é".encode("latin-1"),
        b"0,2,3,4\r",
    ],
)
def test_forms_within_the_grammar(line: bytes) -> None:
    assert is_read(b"1,2,3.5,4\n" + line + b"\n2,9,5,4\n")


def test_another_scale_a_decimal_comma_and_unrated_rows() -> None:
    data = b"1;2;10;x\n1;9;0;x\n2;2;7,5;x\n2;77;0;x\n"
    grammar = compiled_reader.Grammar(4, ord(";"), 1, 1, 10, ord(","), 0)
    file = format.RatingsFormat("r.csv", len(data), b";", COLUMNS, 0, 0, (1, 10))
    file = replace(file, decimal_comma=True, unrated=(0.0,))
    assert partition_reader.strict_grammar(file) == grammar
    chunk = compiled_reader.aggregate_lines(data, grammar, TABLE)
    expected = user_statistics.aggregate_chunk(csv_reader.parse_lines(file, data), TABLE)
    assert chunk is not None
    assert chunk.statistics.rating_sum.tolist() == [10.0, 7.5]
    assert_equal(chunk.statistics, expected.statistics, dtypes=True)
    assert chunk._replace(statistics=None, seen=None) == expected._replace(
        statistics=None, seen=None
    )


def test_an_unrated_value_between_half_stars() -> None:
    """It must not be rounded to a rating that counts, or to one that is rejected."""
    data = b"1,2,0,7\n"
    file = format.RatingsFormat("r.csv", len(data), b",", COLUMNS, 0, 0, (0.5, 5))
    grammar = partition_reader.strict_grammar(replace(file, unrated=(0.25,)))
    assert grammar is not None
    assert compiled_reader.aggregate_lines(data, grammar, TABLE) is None


@pytest.mark.parametrize("max_users", [1 << 12, 1 << 13, 1 << 17])
def test_more_users_than_are_allocated_for(monkeypatch: pytest.MonkeyPatch, max_users: int) -> None:
    monkeypatch.setattr(compiled_reader, "_MAX_USERS", max_users)
    rng = np.random.default_rng(0)
    users = rng.integers(10**12, size=3 * compiled_reader._INITIAL_USERS)
    data = b"".join(
        b"%d,%d,%d,7\n" % (user, (2, 5, 9)[i % 3], 1 + i % 5)
        for i, user in enumerate([*users, *users[::-1]])
    )
    assert is_read(data)


def test_as_plain_loops() -> None:
    rng = np.random.default_rng(0)
    users, movies = rng.integers(30, size=500).tolist(), rng.integers(11, size=500).tolist()
    rows = [(users[i], movies[i], 0.5 + i % 10 / 2) for i in range(500)]
    data = "".join(f"{user}::{movie}::{stars:g}\r\n" for user, movie, stars in rows).encode()
    grammar = compiled_reader.Grammar(3, ord(":"), 2, 0.5, 5.0)
    chunk = compiled_reader.aggregate_lines(data, grammar, TABLE)
    assert chunk is not None
    assert_equal(chunk.statistics, expected_statistics(rows))


def test_catalogues_without_a_lookup_table() -> None:
    empty = np.empty(0, np.int64), np.zeros(1, np.int32), np.empty(0, np.int32), 4
    assert not is_read(b"1,2,3,4\n", table=ItemTable(*empty))
    for ids in (np.array([-1, 2, 5, 9]), np.array([1, 2, 5, user_statistics.MAX_TABLE_ID])):
        assert not is_read(b"1,2,3,4\n", table=TABLE._replace(item_ids=ids))
