"""Lines of text files: which are ratings, which are rejected, and that both paths agree."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation.datasets import csv_reader, format
from segmentation.datasets.csv_reader import parse_line, parse_lines, split_line
from segmentation.datasets.format import NO_TIMESTAMP, RatingsFormat
from segmentation.schema import ITEM, RATING, TIMESTAMP, USER
from tests import oracles
from tests.datasets.reading import HEADER, LINES, read_file, write

COLUMNS = ("userId", "movieId", "rating", "timestamp")
INTEGER_IDS = RatingsFormat("a.csv", 1, b",", COLUMNS, 0, 0, (0.5, 5.0))
STRING_USERS = RatingsFormat(
    "a.csv", 1, b",", COLUMNS[:3], 0, 0, (0.5, 5.0), string_columns=("userId",)
)


def test_four_rows_by_hand() -> None:
    chunk = parse_lines(INTEGER_IDS, b"1,10,4.0,1\n1,20,2.5,2\n7,10,0.5,3\n9,3,5,4\n")
    assert chunk.ratings.to_dict("list") == {
        USER: [1, 1, 7, 9],
        ITEM: [10, 20, 10, 3],
        RATING: [4.0, 2.5, 0.5, 5.0],
    }
    assert [str(dtype) for dtype in chunk.ratings.dtypes] == ["int64", "int64", "float64"]
    assert chunk.rejected == ()
    assert chunk.lines == 4


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n"])
def test_nothing_to_parse(data: bytes) -> None:
    chunk = parse_lines(INTEGER_IDS, data, detailed=True)
    assert len(chunk.ratings) == 0
    assert [str(dtype) for dtype in chunk.ratings.dtypes] == [
        "int64",
        "int64",
        "float64",
        "int64",
        "int64",
    ]
    assert chunk.lines == len(data)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CRLF", HEADER.replace("\n", "\r\n") + "1,10,4.0,1\r\n2,20,3.0,2\r\n"),
        ("byte-order mark", "\ufeff" + HEADER + "1,10,4.0,1\n2,20,3.0,2\n"),
        ("no last newline", HEADER + "1,10,4.0,1\n2,20,3.0,2"),
        ("blank lines", HEADER + "\n1,10,4.0,1\n\n2,20,3.0,2\n\n"),
        ("quoted fields", HEADER + '"1","10","4.0","1"\n2,20,3.0,2\n'),
        ("spaces", HEADER + " 1, 10 ,4.0,1\n2,20,3.0 ,2\n"),
        ("other column order", "rating,timestamp,movieId,userId\n4.0,1,10,1\n3.0,2,20,2\n"),
        ("no timestamp", "userId,movieId,rating\n1,10,4.0\n2,20,3.0\n"),
        ("other columns too", "userId,movieId,rating,timestamp,tag\n1,10,4.0,1,a\n2,20,3.0,2,b\n"),
    ],
)
@pytest.mark.parametrize("partition_bytes", [1 << 25, 7])
def test_variants_read_alike(tmp_path: Path, name: str, text: str, partition_bytes: int) -> None:
    frame, rejected, _ = read_file(write(tmp_path / "ratings.csv", text), partition_bytes)
    assert frame.to_dict("list") == {USER: [1, 2], ITEM: [10, 20], RATING: [4.0, 3.0]}, name
    assert rejected == []


def test_ids_beyond_32_bits() -> None:
    chunk = parse_lines(INTEGER_IDS, f"{2**62 + 1},{2**33},3.5,1\n".encode())
    assert chunk.ratings[USER].tolist() == [2**62 + 1]
    assert chunk.ratings[ITEM].tolist() == [2**33]
    assert chunk.rejected == ()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2,20", "2 fields, expected 4"),
        ("2,20,3.0,2,9", "5 fields, expected 4"),
        ("2,20,NaN,2", "rating is not a number"),
        ("2,20,,2", "rating is not a number"),
        ("2,20,good,2", "rating is not a number"),
        ("2,20,inf,2", "rating is not a number"),
        ("2,20,-1.0,2", "rating is outside 0.5 to 5"),
        ("2,20,6.0,2", "rating is outside 0.5 to 5"),
        ("2,20,0.0,2", "rating is outside 0.5 to 5"),
        ("x,20,3.0,2", "userId is text"),
        ("1.5,20,3.0,2", "userId is not an integer"),
        ("007,20,3.0,2", "userId has leading zeros"),
        ("2.5,20,3.0,2", "userId is not an integer"),
        ("0x1F,20,3.0,2", "userId is text"),
        ("2,,3.0,2", "movieId is not an integer"),
        ("2,99999999999999999999,3.0,2", "movieId does not fit in 64 bits"),
        ("1,20", "2 fields, expected 4"),
        ("2;20;3.0;2", "1 field, expected 4"),
    ],
)
@pytest.mark.parametrize("partition_bytes", [1 << 25, 16])
def test_rejected_with_line_and_reason(
    tmp_path: Path, line: str, reason: str, partition_bytes: int
) -> None:
    text = HEADER + f"1,10,4.0,1\n{line}\n3,30,2.0,3\n"
    frame, rejected, _ = read_file(write(tmp_path / "ratings.csv", text), partition_bytes)
    assert frame[USER].tolist() == [1, 3]
    assert rejected == [(3, reason, line.encode())]


def test_truncated_last_line_is_rejected() -> None:
    chunk = parse_lines(INTEGER_IDS, b"1,10,4.0,1\n2,20,3")
    assert len(chunk.ratings) == 1
    assert chunk.rejected == ((1, "3 fields, expected 4", b"2,20,3"),)
    assert chunk.lines == 2


def test_dat_with_double_colons(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.dat", "1::10::4::1\n2::20::3.5::2\nbad\n3::30::9::3\n")
    for partition_bytes in (1 << 25, 3, 9):
        frame, rejected, _ = read_file(path, partition_bytes)
        assert frame.to_dict("list") == {USER: [1, 2], ITEM: [10, 20], RATING: [4.0, 3.5]}
        assert [line for line, _, _ in rejected] == [3, 4]


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b"1,10,4.0", [b"1", b"10", b"4.0"]),
        (b'"1","a,b","say ""hi"""', [b"1", b"a,b", b'say "hi"']),
        (b'1,"\xff"', [b"1", b"\xff"]),
        (b'1\r,"2"', [b"1\r", b'"2"']),
        (b"", [b""]),
    ],
)
def test_split_line(line: bytes, fields: list[bytes]) -> None:
    assert split_line(INTEGER_IDS, line) == fields


@given(
    lines=st.lists(LINES, max_size=25),
    ends_with_newline=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n"]),
    partition_bytes=st.sampled_from([5, 17, 64, 1 << 20]),
    piece_bytes=st.sampled_from([1, 40, 1 << 16]),
)
def test_same_as_the_line_oracle_wherever_the_file_is_cut(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[str],
    ends_with_newline: bool,
    newline: str,
    partition_bytes: int,
    piece_bytes: int,
) -> None:
    lines = [line.replace("\r", "") for line in lines] or ["1,1,1,1"]
    body = newline.join(lines) + newline * ends_with_newline
    if not body:
        lines = [body := "1,1,1,1"]
    path = tmp_path_factory.mktemp("h") / "ratings.csv"
    write(path, HEADER.replace("\n", newline) + body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_reader, "_PIECE_BYTES", piece_bytes)
        frame, rejected, _ = read_file(path, partition_bytes)
    rows = [oracles.rating_of(line) for line in lines]
    assert list(frame.itertuples(index=False, name=None)) == [row for row in rows if row]
    assert [number for number, _, _ in rejected] == [
        number
        for number, line in enumerate(lines, 2)
        if line.strip(' \t",') and oracles.rating_of(line) is None
    ]


TIMESTAMPS = st.one_of(
    st.integers(-20, 2**40).map(str),
    st.integers(-20, 2**40).map("{}.0".format),
    st.sampled_from(
        [
            "",
            " ",
            "5.",
            "5.00",
            "5.5",
            "-0.0",
            ".5",
            ".0",
            "+5",
            "+5.0",
            " 7 ",
            "7.0 ",
            "0x1F",
            "1_0",
            "1e3",
            "NaN",
            "inf",
            "2000-07-30",
            "2000-07-30 18:45:03",
            "9007199254740993.0",
            "9007199254740993",
            "9223372036854775808",
            "9223372036854775807.0",
        ]
    ),
)


def timestamp_of(field: str) -> int:
    """A timestamp as the documentation defines it: a 64-bit integer, or none."""
    integer, dot, fraction = field.strip(" \t").partition(".")
    digits = integer.removeprefix("-")
    # ".0" and "+5" are floats and not timestamps; Hypothesis found them in the strict parser.
    is_integer = digits.isascii() and digits.isdecimal() and not (dot and fraction.strip("0"))
    return int(integer) if is_integer and -(2**63) <= int(integer) < 2**63 else NO_TIMESTAMP


@given(
    timestamps=st.lists(TIMESTAMPS, min_size=1, max_size=12),
    string_columns=st.sampled_from([(), (USER,)]),
    piece_bytes=st.sampled_from([1, 40, 1 << 16]),
)
def test_timestamps_do_not_depend_on_the_path(
    timestamps: list[str], string_columns: tuple[str, ...], piece_bytes: int
) -> None:
    file = RatingsFormat("f", 1, b",", COLUMNS, 0, 0, (0.5, 5.0), string_columns=string_columns)
    data = "".join(f"{n},7,3.5,{stamp}\n" for n, stamp in enumerate(timestamps)).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_reader, "_PIECE_BYTES", piece_bytes)
        chunk = parse_lines(file, data, detailed=True)
    assert not chunk.rejected
    assert chunk.ratings[TIMESTAMP].tolist() == [timestamp_of(stamp) for stamp in timestamps]
    assert chunk.ratings["line"].tolist() == list(range(len(timestamps)))


def test_lines_are_numbered_across_blank_and_rejected_ones() -> None:
    chunk = parse_lines(INTEGER_IDS, b"1,10,4.0,1\n\nbad\n2,20,3.0,2\n", detailed=True)
    assert chunk.ratings["line"].tolist() == [0, 3]
    assert [(reject.line, reject.text) for reject in chunk.rejected] == [(2, b"bad")]


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.text('ab ü\0"x,\t\r7\x80', max_size=4),
            st.sampled_from(["1", "-2", "0x1", " 3", "y", ""]),
            st.sampled_from(["0.5", "5", "6", "x"]),
        ),
        max_size=30,
    )
)
def test_string_ids_do_not_depend_on_the_path(rows: list[tuple[str, str, str]]) -> None:
    data = "\n".join(",".join(row) for row in rows).encode()
    chunk = parse_lines(STRING_USERS, data)
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    parsed = [parse_line(STRING_USERS, line) for line in lines if line]
    ratings = [(u.encode(), m, r) for u, m, r in chunk.ratings.itertuples(index=False)]
    assert ratings == [row for row in parsed if not isinstance(row, str)]
    reasons = [row for row in parsed if isinstance(row, str)]
    assert [reject.reason for reject in chunk.rejected] == reasons


def test_string_ids_by_hand() -> None:
    chunk = parse_lines(STRING_USERS, 'anna,10,4\n"bo,b",20,3\n üx ,1,1\n,1,1\nc,0x1,1\n'.encode())
    assert chunk.ratings[USER].tolist() == ["anna", "bo,b", "üx"]
    assert chunk.ratings[ITEM].dtype == np.int64
    assert [reject[:2] for reject in chunk.rejected] == [
        (3, "userId is empty"),
        (4, "movieId is text"),
    ]


@pytest.mark.real_data
def test_real_ratings_as_pandas_reads_them(real_data: Path) -> None:
    for folder, name in (("kaggle-small", "ratings_small.csv"), ("ml-latest-small", "ratings.csv")):
        path = real_data / folder / name
        expected = pd.read_csv(path)[[USER, ITEM, RATING]]
        for size in (1 << 25, 99_991):
            frame, rejected, n_lines = read_file(path, size)
            pd.testing.assert_frame_equal(frame, expected)
            assert rejected == []
            assert n_lines == len(expected) + 1


def test_garbage_is_counted_in_full_and_listed_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format, "MAX_FRAGMENT_REJECTS", 3)
    file = RatingsFormat("a.csv", 99, b",", ("userId", "movieId", "rating"), 0, 0, (0.5, 5))
    text = b"x\n" + b"y" * 5_000 + b"\n1,10,4.0\n" + b"z\n" * 200_000
    chunk = csv_reader.parse_lines(file, text)
    assert [len(reject.text) for reject in chunk.rejected] == [1, 1_000, 1]
    assert chunk.unlisted == 200_002 - 3
    assert (len(chunk.ratings), chunk.lines) == (1, 200_003)


def test_a_long_quoted_field_is_one_field_in_every_process() -> None:
    """Whatever another module has set as the limit of the csv module."""
    line = b'1,10,4.0,"' + b"a," * 100_000 + b'"'
    limit = csv.field_size_limit(1_000)
    try:
        assert len(split_line(INTEGER_IDS, line)) == 4
    finally:
        csv.field_size_limit(limit)
