"""When ratings are shuffled: where sums of all partitions are many times what they merge to."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from segmentation import tasks
from segmentation.datasets import csv_reader, format
from segmentation.datasets import partitions as pieces
from segmentation.features import aggregate, partition_reader, shuffle, sketches, user_statistics
from segmentation.features.partition_reader import PartitionSummary
from segmentation.schema import ByteRange, MovieTable
from tests.features.test_compiled_reader import COLUMNS, TABLE


def summary(users: np.ndarray) -> PartitionSummary:
    users = np.unique(users)
    nothing = np.zeros(1, np.uint8)
    sketch, sample = sketches.quantile_sketch(users), sketches.hash_sample(users)
    return PartitionSummary((), 1, 0, nothing, sketch, len(users), sample)


def parts(users: np.ndarray, n: int) -> list[PartitionSummary]:
    return [summary(part) for part in np.array_split(users, n)]


def test_sorted_by_user_is_never_crowded() -> None:
    users = np.sort(np.random.default_rng(0).integers(0, 5_000, 50_000))
    assert not shuffle.exceeds_memory(parts(users, 10), 10, 20, budget=0)
    # Nor are users in runs of their own, in whatever order.
    runs = np.split(users, 10)
    order = np.random.default_rng(1).permutation(10)
    shuffled = np.concatenate([runs[i] for i in order])
    assert not shuffle.exceeds_memory(parts(shuffled, 10), 10, 20, budget=0)


def test_shuffled_is_crowded_where_its_sums_are_too_large() -> None:
    users = np.random.default_rng(0).integers(0, 5_000, 50_000)
    found = parts(users, 10)
    # About 3,160 of 5,000 users in each partition, 264 bytes each.
    expected = sum(part.users for part in found) * 264
    assert shuffle.exceeds_memory(found, 10, 20, expected - 1)
    assert not shuffle.exceeds_memory(found, 10, 20, expected)
    # Some of them tell what all will take.
    assert shuffle.exceeds_memory(found[:3], 10, 20, int(expected * 0.9))
    assert not shuffle.exceeds_memory(found[:3], 10, 20, int(expected * 1.1))
    # One alone tells nothing of others.
    assert not shuffle.exceeds_memory(found[:1], 10, 20, budget=0)


def test_partitions_without_users() -> None:
    empty = summary(np.empty(0, np.int64))
    assert not shuffle.exceeds_memory([empty, empty], 2, 20, budget=-1)


@pytest.mark.parametrize("typed", [1, 9, 16, 1 << 20])
@pytest.mark.parametrize("cut", [11, 22, 35])
def test_rows_are_those_of_the_statistics(tmp_path, monkeypatch, cut: int, typed: int) -> None:
    monkeypatch.setattr(partition_reader, "_TYPED_BYTES", typed)
    text = b"7,2,4.5,1\n7,9,3,2\nbad\n3,5,0.5,3\n3,4,1.0,4\n"
    path = tmp_path / "r.csv"
    path.write_bytes(text)
    file = format.RatingsFormat(str(path), len(text), b",", COLUMNS, 0, 0, (0.5, 5.0))
    halves = [
        pieces.Fragment(file, ByteRange(str(path), *ends)) for ends in ((0, cut), (cut, len(text)))
    ]
    rows, told = shuffle.read_rows(halves, TABLE)
    assert rows.to_dict("list") == {
        "userId": [7, 7, 3],
        "movieId": [0, 2, 1],
        "rating": [4.5, 3.0, 0.5],
    }
    assert (told.used, told.unmapped, told.rejected) == (3, 1, 1)
    line = 0
    for piece in told.pieces:
        lines = [line + reject.line for reject in piece.rejected]
        line += piece.lines
        assert lines in ([], [2])
    assert np.unpackbits(told.seen)[:3].tolist() == [1, 1, 1]
    whole = user_statistics.partition_statistics(csv_reader.parse_lines(file, text).ratings, TABLE)
    summed, _ = shuffle.summed(rows, TABLE)
    for one, other in zip(summed, whole.statistics, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_used() -> None:
    table = MovieTable(np.array([1]), np.zeros(2, np.int32), np.empty(0, np.int32), 3)
    found, sketch = shuffle.summed(shuffle.no_rows(), table)
    assert len(found.users) == len(sketch) == 0
    frame = pd.DataFrame({"userId": [1], "movieId": [5], "rating": [3.0]})
    assert len(user_statistics.map_movies(frame, table)) == 0


@pytest.mark.parametrize("typed", [1, 6, 13, 1 << 20])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_text_is_typed_in_whole_lines(tmp_path, monkeypatch, typed: int, end: bytes) -> None:
    monkeypatch.setattr(partition_reader, "_TYPED_BYTES", typed)
    text = b"7,2,4.5,1\n\n" + b"x" * 50 + b"\n3,5,0.5,3\n3,4,1.0,4" + end
    path = tmp_path / "r.csv"
    path.write_bytes(text)
    file = format.RatingsFormat(str(path), len(text), b",", COLUMNS, 0, 0, (0.5, 5.0))
    piece = pieces.Fragment(file, ByteRange(str(path), 0, len(text)))
    found = list(partition_reader.parse_chunks(piece))
    assert (len(found) > 1) == (typed < 1 << 20)
    rows = pd.concat([part.ratings for part in found])
    assert rows["userId"].tolist() == [7, 3, 3]
    lines = np.cumsum([0, *(part.lines for part in found)])
    rejects = [
        (first + bad.line, bad.text)
        for first, part in zip(lines, found, strict=False)
        for bad in part.rejected
    ]
    assert rejects == [(2, b"x" * 50)]
    assert lines[-1] == 5


def test_users_of_partitions_that_share_them_are_counted_once() -> None:
    rng = np.random.default_rng(0)
    shuffled = parts(rng.integers(0, 64_000, 500_000), 10)
    assert sum(part.users for part in shuffled) > 300_000
    found = aggregate._Read([], [], shuffled, "whole")
    # Some 1,000 are told of: five standard deviations are 16 %.
    assert found.users == pytest.approx(64_000, rel=0.16)
    # Of those that share none it is never more than their sum.
    apart = parts(np.arange(64_000), 10)
    assert 64_000 * 0.84 < (aggregate._Read([], [], apart, "whole").users or 0) <= 64_000
    # Behind a shuffle the summaries are of what was read before it.
    assert aggregate._Read([], [], shuffled, "whole", shuffled=True).users is None
    assert aggregate._Read([], [], parts(np.empty(0, np.int64), 2), "whole").users is None


def test_a_part_of_a_result_does_not_keep_the_whole_in_memory() -> None:
    whole = np.arange(1_000)
    sketch = whole[:10]
    for taken in (tasks.copy_second((None, sketch)), tasks.copy_first((sketch, None))):
        assert taken.tolist() == list(range(10))
        assert not np.shares_memory(taken, whole)
