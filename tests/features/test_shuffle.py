"""When the ratings are shuffled, and that a shuffle changes no number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segmentation.features import shuffle
from segmentation.features.partition_reader import PartitionSummary, empty_rows
from segmentation.schema import UserStatistics
from tests.features.helpers import (
    TABLE,
    assert_equal,
    expected_statistics,
    split,
    summarize,
    write_file,
)

RNG = np.random.default_rng


def summarize_parts(users: np.ndarray, n: int) -> list[PartitionSummary]:
    return [summarize(part) for part in np.array_split(users, n)]


def test_sums_of_users_in_order_never_exceed_memory() -> None:
    users = np.sort(RNG(0).integers(0, 5_000, 50_000))
    assert not shuffle.exceeds_memory(summarize_parts(users, 10), 10, 20, limit=0)
    # Nor do those of runs of users, in whatever order.
    runs = np.split(users, 10)
    shuffled = np.concatenate([runs[i] for i in RNG(1).permutation(10)])
    assert not shuffle.exceeds_memory(summarize_parts(shuffled, 10), 10, 20, limit=0)


def test_overlapping_sums_that_are_too_large() -> None:
    users = RNG(0).integers(0, 5_000, 50_000)
    summaries = summarize_parts(users, 10)
    # 24 bytes per user and 12 per genre; about 3,160 of 5,000 users are in each partition.
    expected = sum(len(np.unique(part)) for part in np.array_split(users, 10)) * 264
    assert shuffle.exceeds_memory(summaries, 10, 20, expected - 1)
    assert not shuffle.exceeds_memory(summaries, 10, 20, expected)
    # All are extrapolated from some.
    assert shuffle.exceeds_memory(summaries[:3], 10, 20, int(expected * 0.9))
    assert not shuffle.exceeds_memory(summaries[:3], 10, 20, int(expected * 1.1))
    # One partition overlaps with nothing.
    assert not shuffle.exceeds_memory(summaries[:1], 10, 20, limit=0)


def test_partitions_without_users() -> None:
    empty = summarize(np.empty(0, np.int64))
    assert not shuffle.exceeds_memory([empty, empty], 2, 20, limit=-1)


@pytest.mark.parametrize("deduplicate", [False, True])
def test_shuffle_by_user(client, tmp_path: Path, deduplicate: bool) -> None:
    rng = RNG(0)
    users, movies = rng.integers(40, size=2_000), rng.choice([1, 2, 4, 5, 9], 2_000)
    rows = [
        (user, movie, 0.5 + i % 10 / 2)
        for i, (user, movie) in enumerate(zip(users.tolist(), movies.tolist(), strict=True))
    ]
    text = "".join(f"{u},{m},{s},{i}\n" for i, (u, m, s) in enumerate(rows)).encode()
    fragments = split(write_file(tmp_path / "r.csv", text), 5_000, 11_000, 15_000)
    parts, summaries = shuffle.shuffle_by_user(
        client,
        [fragments[:1], fragments[1:3], fragments[3:]],
        TABLE,
        n_rows=2_000,
        partition_bytes=10_000,
        deduplicate=deduplicate,
    )
    results, summaries = client.gather([parts, summaries])
    # 20 or 40 bytes per row.
    assert len(results) == (8 if deduplicate else 4)
    statistics = [result[0] for result in results if len(result[0].users)]
    columns = [np.concatenate(column) for column in zip(*statistics, strict=True)]
    order = np.argsort(columns[0])
    found = UserStatistics(*(column[order] for column in columns))
    latest = [(u, m, s) for (u, m), s in {(u, m): s for u, m, s in rows}.items()]
    assert_equal(found, expected_statistics(latest if deduplicate else rows))
    for result in results:
        assert set(result[1]) <= set(result[0].users)
    assert [len(summary.fragments) for summary in summaries] == [1, 2, 1]
    used = sum(movie != 4 for _, movie, _ in rows)
    assert sum(summary.used for summary in summaries) == used
    assert sum(summary.unmapped for summary in summaries) == 2_000 - used
    if deduplicate:
        superseded = sum(len(result[2]) for result in results)
        assert superseded == used - sum(movie != 4 for _, movie, _ in latest)


def test_nothing_to_aggregate() -> None:
    statistics, sketch = shuffle.aggregate_shuffled(empty_rows(), TABLE)
    assert len(statistics.users) == len(sketch) == 0
    statistics, sketch, superseded = shuffle.aggregate_shuffled_latest(
        empty_rows(detailed=True), TABLE
    )
    assert len(statistics.users) == len(sketch) == len(superseded) == 0
