"""Partitions of ratings: what is read, what is rejected, and that no cut changes it."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.datasets import csv_reader, format, layouts, partitions
from segmentation.errors import DataError
from segmentation.schema import MOVIE, RATING, TIMESTAMP, USER, ByteRange
from tests import oracles
from tests.conftest import write_tiny

HEADER = "userId,movieId,rating,timestamp\n"


def format_of(path: Path) -> format.RatingsFormat:
    layout = layouts.Layout("kaggle", str(path.parent), str(path), "", None, ())
    (file,) = partitions.probe_files(layout)
    # Of a few lines, most of which are damaged on purpose, nobody could tell.
    return dataclasses.replace(file, texts=())


def typed(file: format.RatingsFormat, chunk) -> format.Partition:
    return (
        chunk if isinstance(chunk, format.Partition) else csv_reader.parse_lines(file, bytes(chunk))
    )


def read_all(
    path: Path, partition_bytes: int = 1 << 25, chunk_bytes: int = 1 << 25
) -> tuple[pd.DataFrame, list, int]:
    """Every row, every reject with its line number in the file, and the number of lines."""
    file = format_of(path)
    frames, rejects, line = [], [], file.header_lines
    for partition in partitions.plan_partitions([file], partition_bytes):
        for piece in partition:
            for chunk in partitions.read_chunks(piece, chunk_bytes):
                read = typed(file, chunk)
                frames.append(read.ratings)
                rejects += [(line + 1 + r.line, r.reason, r.text) for r in read.rejected]
                line += read.lines
    return pd.concat(frames, ignore_index=True), rejects, line


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_four_rows_by_hand(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.csv", HEADER + "1,10,4.0,1\n1,20,2.5,2\n7,10,0.5,3\n9,3,5,4\n")
    frame, rejects, lines = read_all(path)
    assert frame.to_dict("list") == {
        USER: [1, 1, 7, 9],
        MOVIE: [10, 20, 10, 3],
        RATING: [4.0, 2.5, 0.5, 5.0],
    }
    assert [str(dtype) for dtype in frame.dtypes] == ["int64", "int64", "float64"]
    assert rejects == []
    assert lines == 5


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
def test_read_all_the_same(tmp_path: Path, name: str, text: str, partition_bytes: int) -> None:
    frame, rejects, _ = read_all(write(tmp_path / "ratings.csv", text), partition_bytes)
    assert frame.to_dict("list") == {USER: [1, 2], MOVIE: [10, 20], RATING: [4.0, 3.0]}, name
    assert rejects == []


def test_ids_beyond_32_bits(tmp_path: Path) -> None:
    big = 2**62 + 1
    frame, rejects, _ = read_all(write(tmp_path / "r.csv", HEADER + f"{big},{2**33},3.5,1\n"))
    assert frame.loc[0].tolist() == [big, 2**33, 3.5] or frame[USER][0] == big
    assert frame[MOVIE][0] == 2**33
    assert rejects == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2,20", "2 fields where 4 belong"),
        ("2,20,3.0,2,9", "5 fields where 4 belong"),
        ("2,20,NaN,2", "rating is no number"),
        ("2,20,,2", "rating is no number"),
        ("2,20,good,2", "rating is no number"),
        ("2,20,inf,2", "rating is no number"),
        ("2,20,-1.0,2", "rating is outside 0.5 to 5"),
        ("2,20,6.0,2", "rating is outside 0.5 to 5"),
        ("2,20,0.0,2", "rating is outside 0.5 to 5"),
        ("x,20,3.0,2", "userId is no whole number"),
        ("2.5,20,3.0,2", "userId is no whole number"),
        ("0x1F,20,3.0,2", "userId is no whole number"),
        ("2,,3.0,2", "movieId is no whole number"),
        ("2,99999999999999999999,3.0,2", "movieId is beyond 64 bits"),
        ("   ", "1 field where 4 belong"),
        ("2;20;3.0;2", "1 field where 4 belong"),
    ],
)
@pytest.mark.parametrize("partition_bytes", [1 << 25, 16])
def test_rejected_with_place_and_reason(
    tmp_path: Path, line: str, reason: str, partition_bytes: int
) -> None:
    text = HEADER + f"1,10,4.0,1\n{line}\n3,30,2.0,3\n"
    frame, rejects, _ = read_all(write(tmp_path / "ratings.csv", text), partition_bytes)
    assert frame[USER].tolist() == [1, 3]
    assert rejects == [(3, reason, line.encode())]


def test_truncated_last_line_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.csv", HEADER + "1,10,4.0,1\n2,20,3")
    frame, rejects, _ = read_all(path)
    assert len(frame) == 1
    assert rejects == [(3, "3 fields where 4 belong", b"2,20,3")]


def test_dat_with_double_colons(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.dat", "1::10::4::1\n2::20::3.5::2\nbad\n3::30::9::3\n")
    for partition_bytes in (1 << 25, 3, 9):
        frame, rejects, _ = read_all(path, partition_bytes)
        assert frame.to_dict("list") == {USER: [1, 2], MOVIE: [10, 20], RATING: [4.0, 3.5]}
        assert [line for line, _, _ in rejects] == [3, 4]


def test_dat_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.dat", b"\xef\xbb\xbf1::10::4::1\n2::20::3::2\n")
    for partition_bytes in (1 << 25, 3, 4):
        assert read_all(path, partition_bytes)[0][USER].tolist() == [1, 2]


FIELD = st.one_of(
    st.integers(-3, 12).map(str),
    st.sampled_from(
        [
            "",
            " ",
            "NaN",
            "inf",
            "6.0",
            "5.0",
            "0.5",
            "4.5",
            "-1",
            "1e0",
            ".5",
            "5.",
            "0x1F",
            "+3",
            "1_0",
            "٣",
            "99999999999999999999",
            "9223372036854775807",
            "a",
            '"2"',
            '"3',
            "2\x1f",
            "\x00",
            " 3",
            "4\t",
            "3 0",
        ]
    ),
)
LINE = st.one_of(
    st.tuples(st.integers(1, 99), st.integers(1, 99), st.integers(1, 10)).map(
        lambda t: f"{t[0]},{t[1]},{t[2] / 2},{t[0]}"
    ),
    st.lists(FIELD, min_size=1, max_size=6).map(",".join),
)


@given(
    lines=st.lists(LINE, max_size=25),
    end=st.sampled_from(["", "\n"]),
    newline=st.sampled_from(["\n", "\r\n"]),
    partition_bytes=st.sampled_from([5, 17, 64, 1 << 20]),
    piece=st.sampled_from([1, 40, 1 << 16]),
)
def test_same_as_the_line_oracle_wherever_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[str],
    end: str,
    newline: str,
    partition_bytes: int,
    piece: int,
) -> None:
    lines = [line.replace("\r", "") for line in lines]
    path = tmp_path_factory.mktemp("h") / "ratings.csv"
    body = newline.join(lines) + (newline if end and lines else "")
    write(path, HEADER.replace("\n", newline) + (body or "1,1,1,1"))
    if not body:
        lines = ["1,1,1,1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_reader, "_PIECE_BYTES", piece)
        frame, rejects, _ = read_all(path, partition_bytes)
    sound = [oracles.rating_of(line) for line in lines if line]
    assert list(frame.itertuples(index=False, name=None)) == [r for r in sound if r is not None]
    bad = [n for n, line in enumerate(lines, 2) if line and oracles.rating_of(line) is None]
    assert [line for line, _, _ in rejects] == bad


STAMP = st.one_of(
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


def stamp_of(text: str) -> int:
    """A timestamp as the documentation has it: a whole number within 64 bits, or none."""
    whole, dot, rest = text.strip(" \t").partition(".")
    digits = whole.removeprefix("-")
    fine = digits.isascii() and digits.isdecimal() and not (dot and rest.strip("0"))
    # A float may be ".0" or "+5", which Hypothesis found where the strict reader takes floats.
    return int(whole) if fine and -(2**63) <= int(whole) < 2**63 else format.NO_TIMESTAMP


@given(
    stamps=st.lists(STAMP, min_size=1, max_size=12),
    texts=st.sampled_from([(), (USER,)]),
    piece=st.sampled_from([1, 40, 1 << 16]),
)
def test_timestamps_are_the_same_however_they_are_read(
    stamps: list[str], texts: tuple[str, ...], piece: int
) -> None:
    columns = ("userId", "movieId", "rating", "timestamp")
    file = format.RatingsFormat("f", 1, b",", columns, 0, 0, (0.5, 5.0), texts=texts)
    data = "".join(f"{n},7,3.5,{stamp}\n" for n, stamp in enumerate(stamps)).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_reader, "_PIECE_BYTES", piece)
        found = csv_reader.parse_lines(file, data, detailed=True)
    assert not found.rejected
    assert found.ratings[TIMESTAMP].tolist() == [stamp_of(stamp) for stamp in stamps]


def test_ranges_own_each_line_once(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i * 7},{(i % 10 + 1) / 2},{i}\n" for i in range(1, 400))
    path = write(tmp_path / "ratings.csv", HEADER + rows)
    for size in (1, 2, 3, 50, 1000, 10**6):
        frame, _, _ = read_all(path, size)
        assert frame[USER].tolist() == list(range(1, 400)), size


def test_a_range_can_lie_within_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.csv", HEADER + "1,10,4.0,1\n2,20,3.0,2\n")
    file = format_of(path)
    middle = ByteRange(str(path), file.data_start + 3, file.data_start + 5)
    (chunk,) = partitions.read_chunks(partitions.Fragment(file, middle))
    assert chunk == b""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: put a file with content in its place"),
        (b"\x1f\x8b\x08\x00rest", "can't be unpacked"),
        (b"BZh91AY", "holds bzip2, not text: unpack it (bunzip2) and name the result"),
        (b"\xfd7zXZ\x00", "holds xz, not text"),
        (b"PK\x03\x04rest", "holds a zip archive, not text"),
        (b"PAR1rest", "can't be read as Parquet"),
        (gzip.compress(b"", mtime=0), "line 1 names no column userId"),
        (gzip.compress(HEADER.encode(), mtime=0), "holds a header and no ratings"),
        (b"userId,movieId,stars\n1,2,3\n", "line 1 names no column rating (it reads: userId,"),
        (b"1,31,2.5,1260759144\n", "line 1 names no column userId and no movieId and no rating"),
        (HEADER.encode(), "holds a header and no ratings"),
    ],
)
def test_refused_before_anything_is_read(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "ratings.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        format_of(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_directory_where_a_file_should_be(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "tiny")
    (folder / "ratings.csv").unlink()
    (folder / "ratings.csv").mkdir()
    with pytest.raises(DataError, match="is a folder without a part of ratings"):
        layouts.detect_layout(str(folder))
    (folder / "movies_metadata.csv").unlink()
    (folder / "movies_metadata.csv").mkdir()
    with pytest.raises(DataError, match="is a directory where a file should be"):
        layouts.require_file(str(folder / "movies_metadata.csv"))


def packed_as(codec: str, data: bytes) -> bytes:
    if codec == "gzip":
        return gzip.compress(data)
    packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return packed


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
@given(
    lines=st.lists(LINE, min_size=1, max_size=25),
    last=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n"]),
    bom=st.sampled_from(["", "\ufeff"]),
    chunk=st.sampled_from([1, 7, 64, 1 << 20]),
)
def test_packed_is_what_it_unpacks_to(
    tmp_path_factory, codec: str, lines: list[str], last: bool, newline: str, bom: str, chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("packed")
    text = newline.join([bom + HEADER.strip(), "1,1,1,1", *lines]) + (newline if last else "")
    plain, packed = folder / "a.csv", folder / "b.csv.gz"
    plain.write_bytes(text.encode())
    packed.write_bytes(packed_as(codec, text.encode()))
    expected, told = read_all(plain), read_all(packed, 5, chunk)
    pd.testing.assert_frame_equal(expected[0], told[0])
    assert expected[1] == told[1]


def test_a_packed_dat(tmp_path: Path) -> None:
    path = tmp_path / "ratings.dat.gz"
    path.write_bytes(gzip.compress(b"1::10::4::1\n2::20::3.5::2\n"))
    assert read_all(path, 1, 3)[0][USER].tolist() == [1, 2]


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["cut off", "overwritten"])
def test_damaged_packing_is_told(tmp_path: Path, codec: str, damage: str) -> None:
    rows = "".join(f"{i},{i * 7 % 999},{(i % 10 + 1) / 2},{i * i}\n" for i in range(50_000))
    data = bytearray(packed_as(codec, (HEADER + rows).encode()))
    middle = len(data) // 2
    if damage == "cut off":
        del data[middle:]
    else:
        data[middle : middle + 400] = b"\x00" * 400
    path = tmp_path / "ratings.csv.gz"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_all(path)
    assert str(caught.value).startswith(f"{path}: can't be unpacked")


def test_a_file_without_lines_is_not_kept_whole(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(partitions, "_LONGEST_LINE", 100)
    path = tmp_path / "ratings.csv.gz"
    path.write_bytes(gzip.compress(HEADER.encode() + b"1" * 1_000))
    with pytest.raises(DataError, match="has no end of a line"):
        read_all(path, chunk_bytes=50)


def test_small_files_share_a_partition_and_large_ones_are_cut(tmp_path: Path) -> None:
    files = []
    for number, rows in enumerate((3, 3, 3, 100, 1)):
        path = write(tmp_path / f"{number}.csv", HEADER + "1,10,4.0,1\n" * rows)
        files.append(format_of(path))
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress((HEADER + "1,10,4.0,1\n" * 9).encode()))
    files.append(format_of(packed))
    names = [
        [Path(piece.part.path).stem for piece in partition]
        for partition in partitions.plan_partitions(files, 100)
    ]
    assert names[0] == ["0", "1", "2"]
    assert all(partition == ["3"] for partition in names[1:-2])
    assert len(names) == 1 + 11 + 2
    assert names[-2:] == [["4"], ["packed.csv"]]


@pytest.mark.real_data
def test_real_ratings_as_pandas_reads_them(real_data: Path) -> None:
    for folder, name in (("kaggle-small", "ratings_small.csv"), ("ml-latest-small", "ratings.csv")):
        path = real_data / folder / name
        plain = pd.read_csv(path)[[USER, MOVIE, RATING]]
        for size in (1 << 25, 99_991):
            frame, rejects, lines = read_all(path, size)
            pd.testing.assert_frame_equal(frame, plain)
            assert rejects == []
            assert lines == len(plain) + 1
