"""Parquet: which types are read, which rows are rejected, and how row groups are divided."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.datasets import parquet_reader
from segmentation.datasets.format import NO_TIMESTAMP, ParsedChunk, RatingsFormat
from segmentation.datasets.parquet_reader import (
    check_id_types,
    plan_row_groups,
    probe_parquet,
    read_row_groups,
)
from segmentation.errors import DataError
from segmentation.schema import ITEM, RATING, TIMESTAMP, USER, ByteRange

SCALE = (0.5, 5.0)


def write(path: Path, columns: dict[str, Any], **options: Any) -> RatingsFormat:
    pq.write_table(pa.table(columns), path, **options)
    return probe_parquet(str(path), path.stat().st_size, SCALE)


def ratings(**changes: Any) -> dict[str, Any]:
    """Three sound rows, with some columns changed."""
    return {USER: [1, 2, 3], ITEM: [10, 20, 30], RATING: [4.0, 3.5, 0.5], **changes}


def read(file: RatingsFormat, *, detailed: bool = False) -> ParsedChunk:
    """All row groups of a small file, as one chunk."""
    n_groups = pq.ParquetFile(file.path).num_row_groups
    (chunk,) = read_row_groups(file, ByteRange(file.path, 0, n_groups), detailed=detailed)
    return chunk


def test_three_rows_by_hand(tmp_path: Path) -> None:
    file = write(tmp_path / "r.parquet", {"tag": [["x"], [], None], **ratings()})
    assert file.columns == ("tag", USER, ITEM, RATING)
    assert (file.codec, file.data_start, file.string_columns) == ("parquet", 0, ())
    chunk = read(file)
    assert chunk.ratings.to_dict("list") == ratings()
    assert [str(dtype) for dtype in chunk.ratings.dtypes] == ["int64", "int64", "float64"]
    assert (chunk.rejected, chunk.lines) == ((), 3)


@pytest.mark.parametrize("dtype", [pa.int8(), pa.uint16(), pa.int32(), pa.uint32(), pa.uint64()])
def test_integer_types(tmp_path: Path, dtype: pa.DataType) -> None:
    file = write(tmp_path / "r.parquet", ratings(userId=pa.array([1, 2, 3], dtype)))
    assert read(file).ratings[USER].tolist() == [1, 2, 3]
    assert read(file).ratings[USER].dtype == np.int64


@pytest.mark.parametrize(
    "values",
    [
        pa.array([4, 3, 1], pa.int8()),
        pa.array([4, 3, 1], pa.float32()),
        pa.array([decimal.Decimal("4.0"), decimal.Decimal("3.0"), decimal.Decimal("1.0")]),
    ],
)
def test_rating_types(tmp_path: Path, values: pa.Array) -> None:
    file = write(tmp_path / "r.parquet", ratings(rating=values))
    assert read(file).ratings[RATING].tolist() == [4.0, 3.0, 1.0]


@pytest.mark.parametrize(
    ("values", "strings"),
    [
        (pa.array(["a", "b", "c"]), ["a", "b", "c"]),
        (pa.array(["a", " b\t", "c"], pa.large_string()), ["a", "b", "c"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (
            pa.array([decimal.Decimal(10**24 + i) for i in range(3)]),
            [str(10**24 + i) for i in range(3)],
        ),
        (pa.array([1, 2, 2**63], pa.uint64()), ["1", "2", str(2**63)]),
    ],
)
@pytest.mark.parametrize("write_statistics", [True, False])
def test_string_ids(
    tmp_path: Path, values: pa.Array, strings: list[str], write_statistics: bool
) -> None:
    file = write(tmp_path / "r.parquet", ratings(userId=values), write_statistics=write_statistics)
    assert file.string_columns == (USER,)
    assert read(file).ratings[USER].tolist() == strings


def test_strings_as_integers(tmp_path: Path) -> None:
    """Where other files say that ids are integers, strings are parsed."""
    file = write(tmp_path / "r.parquet", ratings(movieId=[" 10", "x", None]))
    chunk = read(RatingsFormat(**{**vars(file), "string_columns": ()}))
    assert chunk.ratings[ITEM].tolist() == [10]
    reasons = ["movieId is text", "movieId is not a 64-bit integer"]
    assert [reject.reason for reject in chunk.rejected] == reasons


def test_strings_that_are_not_utf_8(tmp_path: Path) -> None:
    movies = pa.array([b"10", b"\xff"], pa.binary()).view(pa.string())
    columns = [pa.array([1, 2]), movies, pa.array([4.0, 3.0])]
    table = pa.Table.from_arrays(columns, [USER, ITEM, RATING])
    pq.write_table(table, tmp_path / "r.parquet")
    file = probe_parquet(str(tmp_path / "r.parquet"), 1, (0.5, 5.0))
    size = (tmp_path / "r.parquet").stat().st_size
    chunk = read(RatingsFormat(**{**vars(file), "size": size, "string_columns": ()}))
    assert chunk.ratings[ITEM].tolist() == [10]
    assert [reject.text for reject in chunk.rejected] == [b"2,\xff,3.0"]
    with pytest.raises(DataError, match="can't be read .Invalid UTF8 sequence in input"):
        read(RatingsFormat(**{**vars(file), "size": size}))


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    columns = [pa.array([1]), pa.array([2]), pa.array([10]), pa.array([4.0])]
    names = [USER, USER, ITEM, RATING]
    pq.write_table(pa.Table.from_arrays(columns, names), tmp_path / "r.parquet")
    with pytest.raises(DataError, match="r.parquet: names column userId twice; keep one of them"):
        probe_parquet(str(tmp_path / "r.parquet"), 1, (0.5, 5.0))


def test_rejected_rows(tmp_path: Path) -> None:
    file = write(
        tmp_path / "r.parquet",
        {
            RATING: pa.array([4.0, None, float("nan"), 9.0, 3.0, 2.0, 5.0]),
            USER: pa.array([1, 1, 1, 1, None, 2**63 + 1, 2], pa.uint64()),
            ITEM: pa.array([10, 10, 10, 10, 10, 10, 20]),
        },
    )
    chunk = read(RatingsFormat(**{**vars(file), "string_columns": ()}), detailed=True)
    assert chunk.ratings[[USER, ITEM, RATING]].values.tolist() == [[1, 10, 4], [2, 20, 5]]
    assert chunk.ratings["line"].tolist() == [0, 6]
    assert chunk.ratings[TIMESTAMP].tolist() == [NO_TIMESTAMP] * 2
    assert chunk.lines == 7
    assert [(r.line, r.reason, r.text) for r in chunk.rejected] == [
        (1, "rating is not a number", b"1,10,"),
        (2, "rating is not a number", b"1,10,nan"),
        (3, "rating is outside 0.5 to 5", b"1,10,9.0"),
        (4, "userId is not a 64-bit integer", b",10,3.0"),
        (5, "userId is not a 64-bit integer", b"9223372036854775809,10,2.0"),
    ]


def test_rejected_string_ids(tmp_path: Path) -> None:
    file = write(tmp_path / "r.parquet", ratings(userId=["anna", " ", "x" * 257]))
    chunk = read(file)
    assert chunk.ratings[USER].tolist() == ["anna"]
    reason = "userId is not a string of 1 to 256 bytes"
    assert [reject.reason for reject in chunk.rejected] == [reason] * 2


@pytest.mark.parametrize(
    ("values", "expected", "is_datetime"),
    [
        (pa.array([5, None, -7]), [5, NO_TIMESTAMP, -7], False),
        (pa.array([5.0, 5.5, 2.0**53]), [5, NO_TIMESTAMP, NO_TIMESTAMP], False),
        (pa.array(["5", "6", "7"]), [NO_TIMESTAMP] * 3, False),
        (
            pa.array([datetime.datetime(1970, 1, 1, 0, 0, 1, 5), None, None], pa.timestamp("us")),
            [1_000_005, NO_TIMESTAMP, NO_TIMESTAMP],
            True,
        ),
        (pa.array([1, 2, 3], pa.timestamp("s", "UTC")), [1_000_000, 2_000_000, 3_000_000], True),
        (
            pa.array([datetime.date(1970, 1, 2)] * 3, pa.date32()),
            [86_400_000_000] * 3,
            True,
        ),
    ],
)
def test_timestamps(
    tmp_path: Path, values: pa.Array, expected: list[int], is_datetime: bool
) -> None:
    file = write(tmp_path / "r.parquet", ratings(timestamp=values))
    assert file.has_datetime_timestamps == is_datetime
    assert read(file, detailed=True).ratings[TIMESTAMP].tolist() == expected


@given(n_rows=st.integers(1, 40), group_rows=st.integers(1, 12), size=st.integers(1, 3_000))
def test_row_groups_are_divided_without_loss(
    tmp_path_factory: pytest.TempPathFactory, n_rows: int, group_rows: int, size: int
) -> None:
    path = tmp_path_factory.mktemp("p") / "r.parquet"
    frame = pd.DataFrame(
        {
            "noise": [f"{i:09d}" * 5 for i in range(n_rows)],
            USER: np.arange(n_rows),
            ITEM: np.arange(n_rows) * 7,
            RATING: np.arange(n_rows) % 10 / 2 + 0.5,
        }
    )
    frame.to_parquet(path, row_group_size=group_rows)
    file = probe_parquet(str(path), path.stat().st_size, SCALE)
    plan = list(plan_row_groups(file, size))
    metadata = pq.ParquetFile(path).metadata
    group_bytes = [
        sum(metadata.row_group(g).column(c).total_compressed_size for c in (1, 2, 3))
        for g in range(metadata.num_row_groups)
    ]
    assert [cost for _, cost in plan] == [sum(group_bytes[p.start : p.stop]) for p, _ in plan]
    assert all(cost <= size or p.stop - p.start == 1 for p, cost in plan)
    chunks = [chunk for part, _ in plan for chunk in read_row_groups(file, part)]
    rows = pd.concat([chunk.ratings for chunk in chunks], ignore_index=True)
    pd.testing.assert_frame_equal(rows, frame[[USER, ITEM, RATING]])


def test_batches_end_within_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_reader, "_BATCH_ROWS", 2)
    file = write(tmp_path / "r.parquet", ratings())
    chunks = list(read_row_groups(file, ByteRange(file.path, 0, 1), detailed=True))
    assert [chunk.ratings[USER].tolist() for chunk in chunks] == [[1, 2], [3]]
    assert [chunk.ratings["line"].tolist() for chunk in chunks] == [[0, 1], [0]]


def test_a_file_without_rows(tmp_path: Path) -> None:
    empty = {name: pa.array([], pa.int64()) for name in (USER, ITEM, RATING)}
    file = write(tmp_path / "r.parquet", empty)
    assert file.data_start == file.size
    assert (
        sum(
            len(chunk.ratings)
            for part, _ in plan_row_groups(file, 9)
            for chunk in read_row_groups(file, part)
        )
        == 0
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {USER: [1], ITEM: [2], "stars": [3.0]},
            "no column rating (it reads 'userId, movieId, stars'); if these are the ones, pass "
            "columns user=userId,item=movieId,rating=stars",
        ),
        (
            {USER: [True], ITEM: [2], RATING: [3.0]},
            "column userId is of type bool; use integers or strings",
        ),
        (
            {USER: [1], ITEM: [2], RATING: ["good"]},
            "column rating is of type string; use a numeric type",
        ),
    ],
)
def test_schemas_that_are_not_ratings(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        write(tmp_path / "r.parquet", columns)
    assert str(caught.value).startswith(f"{tmp_path}/r.parquet: {message}")


def test_parts_must_agree_on_the_type_of_ids(tmp_path: Path) -> None:
    integers = write(tmp_path / "1.parquet", ratings())
    unsigned = write(tmp_path / "2.parquet", ratings(userId=pa.array([1, 2, 2**63], pa.uint64())))
    strings = write(tmp_path / "3.parquet", ratings(userId=["1", "2", "3"]))
    check_id_types([])
    check_id_types([strings, strings])
    check_id_types([integers, unsigned, integers])
    with pytest.raises(DataError) as caught:
        check_id_types([integers, unsigned, strings])
    assert str(caught.value) == (
        f"{tmp_path}/3.parquet: column userId is of type string, but of type int64 in "
        f"{tmp_path}/1.parquet; write all parts with the same type"
    )


@pytest.mark.parametrize("damage", ["not Parquet", "cut off", "overwritten"])
def test_damaged_files(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "r.parquet"
    n = np.arange(20_000)
    write(path, {USER: n, ITEM: n * 7, RATING: n % 10 / 2 + 0.5})
    content = path.read_bytes()
    path.write_bytes(
        {
            "not Parquet": b"PAR1" * 9,
            "cut off": content[:-100],
            "overwritten": content[:100] + b"\xff" * 2_000 + content[2_100:],
        }[damage]
    )
    with pytest.raises(DataError, match=r"r.parquet: can't be read .*; write the file again"):
        read(probe_parquet(str(path), path.stat().st_size, SCALE))
