"""Partitions: every line is read once, however files are cut, compressed or mixed."""

from __future__ import annotations

import gzip
import sys
import threading
import tracemalloc
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.datasets import partitions
from segmentation.datasets.format import RatingsFormat
from segmentation.datasets.layouts import Layout, detect_layout
from segmentation.datasets.partitions import Fragment, plan_partitions, probe_files, read_chunks
from segmentation.errors import DataError
from segmentation.schema import USER, ByteRange
from tests.conftest import write_tiny
from tests.datasets.reading import HEADER, LINES, probe, read_file, write


def compress(codec: str, data: bytes) -> bytes:
    if codec == "gzip":
        return gzip.compress(data)
    compressed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return compressed


def layout_of(*paths: Path) -> Layout:
    files = tuple(map(str, paths))
    return Layout("kaggle", str(paths[0].parent), files[0], "", None, (), parts=files)


def test_each_line_belongs_to_one_range(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i * 7},{(i % 10 + 1) / 2},{i}\n" for i in range(1, 400))
    path = write(tmp_path / "ratings.csv", HEADER + rows)
    for size in (1, 2, 3, 50, 1000, 10**6):
        frame, _, _ = read_file(path, size)
        assert frame[USER].tolist() == list(range(1, 400)), size


def test_a_range_within_one_line_is_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.csv", HEADER + "1,10,4.0,1\n2,20,3.0,2\n")
    file = probe(path)
    middle = ByteRange(str(path), file.data_start + 3, file.data_start + 5)
    assert list(read_chunks(Fragment(file, middle))) == []


@pytest.mark.parametrize("name", ["ratings.csv", "ratings.csv.gz"])
def test_a_hole_in_a_file_is_not_read_into_memory(tmp_path: Path, name: str) -> None:
    """A crash can leave a file with a hole of zeros; the rest of it is not one line."""
    path = tmp_path / name
    with gzip.open(path, "wb") if name.endswith("gz") else path.open("wb") as stream:
        stream.write(HEADER.encode() + b"1,10,4.0,1\n" + bytes(40 << 20) + b"\n2,20,3.0,2\n")
    file = probe(path)
    tracemalloc.start()
    with pytest.raises(DataError, match="no line end within 1 MiB"):
        for (fragment,) in plan_partitions([file], 1 << 20):
            for chunk in read_chunks(fragment, 1 << 20):
                assert len(chunk) < 2 << 20
    assert tracemalloc.get_traced_memory()[1] < 12 << 20
    tracemalloc.stop()


def test_ranges_cover_the_data_without_overlap() -> None:
    file = RatingsFormat("a.csv", 1_007, b",", ("userId", "movieId", "rating"), 7, 1, (0.5, 5.0))
    for size in (1, 3, 250, 333, 1_000, 5_000):
        ranges = [part[1:] for ((_, part),) in plan_partitions([file], size)]
        assert ranges[0][0] == 7
        assert ranges[-1][1] == 1_007
        assert [stop for _, stop in ranges[:-1]] == [start for start, _ in ranges[1:]]
        assert max(stop - start for start, stop in ranges) <= size


def test_small_files_share_a_partition_and_large_ones_are_cut(tmp_path: Path) -> None:
    files = []
    for number, n_rows in enumerate((3, 3, 3, 100, 1)):
        path = write(tmp_path / f"{number}.csv", HEADER + "1,10,4.0,1\n" * n_rows)
        files.append(probe(path))
    path = write(tmp_path / "gzip.csv.gz", gzip.compress((HEADER + "1,10,4.0,1\n" * 9).encode()))
    files.append(probe(path))
    names = [
        [Path(fragment.part.path).name.split(".")[0] for fragment in partition]
        for partition in plan_partitions(files, 100)
    ]
    assert names == [["0", "1", "2"], *[["3"]] * 11, ["4"], ["gzip"]]


def test_the_first_file_may_hold_a_header_alone(tmp_path: Path) -> None:
    empty = write(tmp_path / "a.csv", HEADER)
    files = probe_files(layout_of(empty, write(tmp_path / "b.csv", HEADER + "1,10,4.0,1\n")))
    (partition,) = plan_partitions(files, 1_000)
    assert [fragment.file for fragment in partition] == files


def test_lines_longer_than_the_overread(tmp_path: Path) -> None:
    """Buffers grow while other threads take the ones that were used before."""
    lines = [f"{i},{i},4.0,{'z' * (9_000 if i % 7 == 0 else 1)}\n" for i in range(1, 200)]
    path = write(tmp_path / "ratings.csv", "userId,movieId,rating,review\n" + "".join(lines))
    results: list[list[int]] = []

    def read() -> None:
        results.extend(read_file(path, 5_000)[0][USER].tolist() for _ in range(5))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [list(range(1, 200))] * 15


def test_buffers_are_reused_and_released(tmp_path: Path) -> None:
    partitions.release_buffers()
    path = write(tmp_path / "ratings.csv", HEADER + "1,10,4.0,1\n" * 1_000)
    assert len(read_file(path, 500)[0]) == 1_000
    assert len(partitions._buffers) == 1
    assert sys.getsizeof(partitions._buffers[0]) < 10_000
    partitions.release_buffers()
    assert not partitions._buffers


def test_a_file_that_was_shortened_after_the_probe(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.csv", HEADER + "1,10,4.0,1\n" * 1_000)
    ((fragment,),) = plan_partitions([probe(path)])
    write(path, path.read_bytes()[:-11])
    with pytest.raises(DataError, match=r"is shorter than the 11,032 bytes it had when the run"):
        list(read_chunks(fragment))


def test_a_byte_order_mark_is_no_data(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.dat", b"\xef\xbb\xbf1::10::4::1\n2::20::3::2\n")
    for partition_bytes in (1 << 25, 3, 4):
        assert read_file(path, partition_bytes)[0][USER].tolist() == [1, 2]


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
@given(
    lines=st.lists(LINES, min_size=1, max_size=25),
    ends_with_newline=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n"]),
    bom=st.sampled_from(["", "\ufeff"]),
    chunk_bytes=st.sampled_from([1, 7, 64, 1 << 20]),
)
def test_compressed_files_read_as_their_content(
    tmp_path_factory: pytest.TempPathFactory,
    codec: str,
    lines: list[str],
    ends_with_newline: bool,
    newline: str,
    bom: str,
    chunk_bytes: int,
) -> None:
    folder = tmp_path_factory.mktemp("compressed")
    rows = [bom + HEADER.strip(), "1,1,1,1", *lines]
    text = (newline.join(rows) + newline * ends_with_newline).encode()
    expected = read_file(write(folder / "a.csv", text))
    frame, rejected, _ = read_file(
        write(folder / "b.csv.gz", compress(codec, text)), 5, chunk_bytes
    )
    pd.testing.assert_frame_equal(frame, expected[0])
    assert rejected == expected[1]


def test_a_compressed_dat_file(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.dat.gz", gzip.compress(b"1::10::4::1\n2::20::3.5::2\n"))
    assert read_file(path, 1, 3)[0][USER].tolist() == [1, 2]


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["cut off", "overwritten"])
def test_damaged_compression_is_an_error(tmp_path: Path, codec: str, damage: str) -> None:
    rows = "".join(f"{i},{i * 7 % 999},{(i % 10 + 1) / 2},{i * i}\n" for i in range(50_000))
    data = bytearray(compress(codec, (HEADER + rows).encode()))
    middle = len(data) // 2
    if damage == "cut off":
        del data[middle:]
    else:
        data[middle : middle + 400] = b"\x00" * 400
    path = write(tmp_path / "ratings.csv.gz", bytes(data))
    with pytest.raises(DataError) as caught:
        read_file(path)
    assert str(caught.value).startswith(f"{path}: can't be decompressed (")


def test_a_file_without_line_ends_is_not_buffered_whole(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(partitions, "_MAX_LINE_BYTES", 100)
    path = write(tmp_path / "ratings.csv.gz", gzip.compress(HEADER.encode() + b"1" * 1_000))
    with pytest.raises(DataError, match="no line end within"):
        read_file(path, chunk_bytes=50)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": is empty; replace it with a complete file"),
        (b"\x1f\x8b\x08\x00rest", ": can't be decompressed ("),
        (
            b"BZh91AY",
            ": holds bzip2 data, which is not supported; unpack it with bunzip2 and name the "
            "result",
        ),
        (b"\xfd7zXZ\x00", ": holds xz data, which is not supported"),
        (b"PK\x03\x04rest", ": is a zip archive; unpack it and name the result"),
        (b"PAR1rest", ": can't be read as Parquet ("),
        (gzip.compress(b"", mtime=0), ", line 1: no column userId"),
        (gzip.compress(HEADER.encode(), mtime=0), ": holds a header and no ratings"),
        (
            b"userId,movieId,stars\n1,2,3\n",
            ", line 1: no column rating (it reads 'userId, movieId, stars'); if these are the "
            "ones, pass columns user=userId,item=movieId,rating=stars",
        ),
        (
            b"1,31,2.5,1260759144\n",
            ", line 1: no column userId and no movieId and no rating (it reads '1, 31, 2.5, 126",
        ),
        (HEADER.encode(), ": holds a header and no ratings"),
        (b"userId,movieId,rating\r1,10,4.0\r", ": its lines end in CR alone; convert it with"),
        (b"userId,rating,movieId,rating\n1,1,1,4\n", ", line 1: names column rating twice"),
    ],
)
def test_refused_before_anything_is_read(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path / "ratings.csv", content)
    with pytest.raises(DataError) as caught:
        probe(path)
    assert f"{path}{message}" in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; check its name and folder"):
        probe(tmp_path / "ratings.csv")
    with pytest.raises(DataError, match="is a folder, not a file; name a file"):
        probe(tmp_path)


@pytest.mark.parametrize(
    ("second", "string_item_ids", "string_columns"),
    [
        ("2,20,3.0,1\n", None, ()),
        ("anna,20,3.0,1\n", None, ("userId",)),
        ("2,m20,3.0,1\n", None, ("movieId",)),
        ("anna,20,3.0,1\n", True, ("movieId", "userId")),
        ("2,m20,3.0,1\n", False, ()),
    ],
)
def test_a_column_has_one_type_in_all_files(
    tmp_path: Path, second: str, string_item_ids: bool | None, string_columns: tuple[str, ...]
) -> None:
    layout = layout_of(
        write(tmp_path / "1.csv", HEADER + "1,10,3.0,1\n"),
        write(tmp_path / "2.csv", HEADER + second),
    )
    files = probe_files(layout, string_item_ids=string_item_ids)
    assert {file.string_columns for file in files} == {string_columns}


def test_a_line_that_the_head_cuts_off_is_not_judged(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.csv", HEADER + "anna,10,4.0," + "7" * 70_000 + "\n")
    (file,) = probe_files(layout_of(path))
    assert file.string_columns == ()
    assert file.columns == ("userId", "movieId", "rating", "timestamp")
    assert (file.data_start, file.header_lines) == (len(HEADER), 1)


def test_formats_of_a_mixed_data_set(tmp_path: Path) -> None:
    text = HEADER + "1,10,3.0,1\n"
    paths = [
        write(tmp_path / "1.csv", text),
        write(tmp_path / "2.csv", gzip.compress(text.encode())),
        write(tmp_path / "3.dat", "1::10::3::1\n"),
        tmp_path / "4.parquet",
    ]
    pq.write_table(pa.table({"userId": [1], "movieId": [10], "rating": [3.0]}), paths[3])
    files = probe_files(layout_of(*paths))
    assert [file.codec for file in files] == [None, "gzip", None, "parquet"]
    assert [file.header_lines for file in files] == [1, 1, 0, 0]
    assert [file.delimiter for file in files] == [b",", b",", b"::", b""]
    assert [file.size for file in files] == [path.stat().st_size for path in paths]
    assert not any(file.is_streamed for file in files)


def test_a_folder_in_place_of_the_ratings(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "tiny")
    (folder / "ratings.csv").unlink()
    (folder / "ratings.csv").mkdir()
    with pytest.raises(DataError, match="this folder holds no ratings"):
        detect_layout(str(folder))
