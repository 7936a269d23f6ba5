"""One loop over chunks: lines are numbered and rows read alike, wherever a partition is cut."""

from __future__ import annotations

import gzip
import logging
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from segmentation.datasets import layouts, partitions
from segmentation.deploy.memory_budget import _MEM_PER_PARTITION_BYTE
from segmentation.features import compiled_reader, partition_reader
from segmentation.features.partition_reader import aggregate_partition, read_rows, read_used_rows
from segmentation.schema import ItemTable
from tests.features.helpers import (
    COLUMNS,
    GENRES,
    TABLE,
    assert_equal,
    expected_statistics,
    split,
    write_file,
)

#: Movie 4 is not in the catalogue. Lines 1 and 2 are blank and bad.
TEXT = b"7,1,4.5,1\n\n" + b"x" * 50 + b"\n7,9,3,2\n3,5,0.5,3\n3,4,1.0,4"
ROWS = [(7, 1, 4.5), (7, 9, 3.0), (3, 5, 0.5), (3, 4, 1.0)]


def rejected_lines(reports) -> list[tuple[int, bytes]]:
    """Number the rejected lines through all fragments of a file."""
    lines, first = [], 0
    for report in reports:
        lines += [(first + line.line, line.text) for line in report.rejected]
        first += report.lines
    return lines


@pytest.mark.parametrize("parse_bytes", [1, 6, 13, 1 << 20])
@pytest.mark.parametrize("cuts", [(), (9,), (10,), (11, 40, 62)])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_rows_and_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parse_bytes: int, cuts: tuple[int], end: bytes
) -> None:
    monkeypatch.setattr(partition_reader, "_PARSE_BYTES", parse_bytes)
    file = write_file(tmp_path / "r.csv", TEXT + end)
    reader = read_rows(split(file, *cuts), detailed=True)
    chunks = list(reader)
    if not cuts:
        assert (len(chunks) > 1) == (parse_bytes < 1 << 20)
    rows = pd.concat(
        [
            chunk.ratings.assign(line=chunk.ratings["line"] + line, fragment=index)
            for index, line, chunk in chunks
        ]
    )
    actual = rows[["userId", "movieId", "rating"]].itertuples(index=False, name=None)
    assert list(actual) == ROWS
    assert rows["timestamp"].tolist() == [1, 2, 3, 4]
    assert rejected_lines(reader.reports) == [(2, b"x" * 50)]
    assert sum(report.lines for report in reader.reports) == 6
    first_lines = np.cumsum([0, *(report.lines for report in reader.reports)])
    assert (first_lines[rows["fragment"]] + rows["line"]).tolist() == [0, 3, 4, 5]


@pytest.mark.parametrize("cuts", [(), (11,), (11, 40, 62)])
@pytest.mark.parametrize("strict", [True, False])
def test_aggregate_partition(tmp_path: Path, cuts: tuple[int], strict: bool) -> None:
    """By the compiled reader where the grammar allows it, and by the general reader."""
    text = TEXT.replace(b"\n\n" + b"x" * 50, b"") if strict else TEXT
    fragments = split(write_file(tmp_path / "r.csv", text), *(cut for cut in cuts if cut < 30))
    statistics, summary = aggregate_partition(fragments, TABLE)
    assert_equal(statistics, expected_statistics(ROWS))
    assert (summary.used, summary.unmapped, summary.rejected) == (3, 1, not strict)
    assert np.unpackbits(summary.seen)[:4].tolist() == [1, 0, 1, 1]
    assert (summary.n_users, summary.sketch.tolist()) == (2, [3, 7])
    assert rejected_lines(summary.fragments) == ([] if strict else [(2, b"x" * 50)])


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_any_file_of_many_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "userId": rng.integers(50, size=3_000),
            "movieId": rng.choice([1, 2, 4, 5, 9], 3_000),
            "rating": rng.integers(1, 11, 3_000) / 2,
        }
    )
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n")
    path = tmp_path / f"ratings{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path, row_group_size=100)
        assert pq.ParquetFile(path).num_row_groups == 30
    else:
        text = frame.to_csv(index=False).encode()
        path.write_bytes(gzip.compress(text) if suffix == ".csv.gz" else text)
    layout = layouts.detect_layout(str(tmp_path), ratings=path.name)
    (fragments,) = partitions.plan_partitions(partitions.probe_files(layout), 1 << 20)
    original = partitions.read_chunks
    monkeypatch.setattr(
        partitions, "read_chunks", lambda one, **options: original(one, 1_000, **options)
    )
    expected = expected_statistics(list(frame.itertuples(index=False, name=None)))
    statistics, summary = aggregate_partition(fragments, TABLE)
    assert_equal(statistics, expected)
    is_mapped = frame["movieId"].isin(GENRES)
    assert (summary.used, summary.unmapped) == (is_mapped.sum(), (~is_mapped).sum())
    rows, row_summary = read_used_rows(fragments, TABLE)
    assert (row_summary.used, row_summary.unmapped) == (summary.used, summary.unmapped)
    np.testing.assert_array_equal(row_summary.seen, summary.seen)
    assert rows["userId"].tolist() == frame["userId"][is_mapped].tolist()
    assert TABLE.item_ids[rows["movieId"]].tolist() == frame["movieId"][is_mapped].tolist()
    assert rows["rating"].tolist() == frame["rating"][is_mapped].tolist()


def test_used_rows_with_details(tmp_path: Path) -> None:
    file = write_file(tmp_path / "r.csv", TEXT.replace(b"9,3,2", b"9,3,later"))
    rows, summary = read_used_rows(split(file, 40), TABLE, detailed=True, first_fragment=5)
    assert rows["fragment"].tolist() == [5, 6, 6]
    assert rows["line"].tolist() == [0, 0, 1]
    assert rows["movieId"].tolist() == [0, 3, 2]
    assert summary.without_timestamp == 1
    assert rows.dtypes.equals(partition_reader.empty_rows(detailed=True).dtypes)


def test_no_row_is_used(tmp_path: Path) -> None:
    file = write_file(tmp_path / "r.csv", b"1,77,3.0,1\n")
    none = ItemTable(np.array([1]), np.zeros(2, np.int32), np.empty(0, np.int32), 3)
    rows, summary = read_used_rows(split(file), none)
    assert (len(rows), summary.used, summary.unmapped) == (0, 0, 1)
    statistics, summary = aggregate_partition(split(file), none)
    assert (len(statistics.users), summary.used, summary.unmapped) == (0, 0, 1)
    assert statistics.sums.shape == (0, 3)


def test_which_files_the_compiled_reader_reads(tmp_path: Path) -> None:
    file = write_file(tmp_path / "r.csv", TEXT)
    grammar = compiled_reader.Grammar(4, ord(","), 1, 0.5, 5.0)
    assert partition_reader.strict_grammar(file) == grammar
    colons = replace(file, delimiter=b"::")
    assert partition_reader.strict_grammar(colons) == grammar._replace(delimiter=58, width=2)
    for other in (
        replace(file, columns=(COLUMNS[1], COLUMNS[0], *COLUMNS[2:])),
        replace(file, string_columns=("userId",)),
    ):
        assert partition_reader.strict_grammar(other) is None


def test_partitions_are_named_in_the_log(tmp_path: Path, caplog, monkeypatch) -> None:
    file = write_file(tmp_path / "r.csv", TEXT)
    one, other = split(file, 20)
    assert partition_reader.describe_partition([one]) == f"{file.path}, bytes 0 to 20"
    assert partition_reader.describe_partition([one, other]) == (
        f"{file.path}, bytes 0 to 20 and 1 more up to {file.path}"
    )
    groups = one._replace(file=replace(file, codec="parquet"))
    assert partition_reader.describe_partition([groups]) == f"{file.path}, row groups 0 to 20"
    with caplog.at_level(logging.INFO, "segmentation"):
        monkeypatch.setattr(logging.getLogger("segmentation"), "propagate", True)
        partition_reader.log_partition([one], 1_234, 5)
    assert caplog.messages == [f"ratings: {file.path}, bytes 0 to 20: 1,234 rows by 5 users"]


@pytest.mark.parametrize(("is_sorted", "factor"), [(True, _MEM_PER_PARTITION_BYTE), (False, 36)])
def test_memory_of_a_partition_with_one_rating_per_user(
    tmp_path: Path, is_sorted: bool, factor: int
) -> None:
    users = np.arange(1_000_000, 1_400_000)
    if not is_sorted:
        users = np.random.default_rng(0).permutation(users)
    text = b"".join(b"%d,1,4.5,1\n" % user for user in users)
    fragments = split(write_file(tmp_path / "r.csv", text))
    table = ItemTable(np.array([1]), np.array([0, 1]), np.zeros(1, np.int32), 20)
    aggregate_partition(fragments, table)
    tracemalloc.start()
    statistics, _ = aggregate_partition(fragments, table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(statistics.users) == 400_000
    # Sums that overlap take more. The ratings are shuffled if they do in all partitions.
    assert peak <= len(text) * factor
