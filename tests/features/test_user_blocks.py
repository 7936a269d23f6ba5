"""Blocks of user statistics: the same users and numbers in any partitions, and after a reload."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation.features import user_blocks, user_statistics
from segmentation.features.sketches import quantile_sketch
from segmentation.features.user_blocks import UserBlocks, merge_by_user_range
from segmentation.schema import UserStatistics
from segmentation.storage import parquet
from tests.features.helpers import aggregate, assert_equal, expected_statistics

GENRES = ("a", "b", "c")


def ratings(n: int, n_users: int) -> list[tuple[int, int, float]]:
    rng = np.random.default_rng(0)
    users, halves = rng.integers(n_users, size=n), rng.integers(1, 11, n)
    movies = rng.choice([1, 2, 5, 9], n)
    return list(zip(users.tolist(), movies.tolist(), (halves / 2).tolist(), strict=True))


def merge(client, partitions, n_users: int, n_threads: int, block_users: int) -> UserBlocks:
    """Merge partitions of ratings."""
    statistics = [aggregate(rows).statistics for rows in partitions]
    sketches = [quantile_sketch(part.users) for part in statistics]
    parts = client.scatter([(part, None) for part in statistics], hash=False)
    sizes = [len(part.users) for part in statistics]
    blocks = merge_by_user_range(client, parts, sketches, sizes, n_users, n_threads, block_users)
    assert parts == []
    return blocks


@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("n_users", [600, 1_500])
def test_merge_by_user_range(client, is_sorted: bool, n_users: int) -> None:
    rows = ratings(3_000, 600)
    if is_sorted:
        rows.sort()
    partitions = [rows[start : start + 500] for start in range(0, len(rows), 500)] + [[]]
    blocks = merge(client, partitions, n_users, 3, 100)
    statistics = client.gather(blocks.statistics)
    assert [len(block.users) for block in statistics] == blocks.sizes
    assert len(blocks.sizes) == -(-n_users // 100)
    # The sketches hold up to 64 users per partition.
    assert max(blocks.sizes) < 150
    for left, right in itertools.pairwise(statistics):
        assert left.users[-1] < right.users[0]
    expected = expected_statistics(rows)
    assert blocks.users == len(expected.users)
    merged = UserStatistics(*(np.concatenate(columns) for columns in zip(*statistics, strict=True)))
    assert_equal(merged, expected)


def test_every_thread_gets_a_block_that_is_worth_a_task(client) -> None:
    rows = [(user, 1, 4.0) for user in range(300)]
    assert len(merge(client, [rows], 300, 64, 1_000).sizes) == 300 // 128
    assert len(merge(client, [rows[:100]], 100, 64, 1_000).sizes) == 1


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("n_blocks", [1, 3, 9])
def test_saved_and_loaded(client, tmp_path: Path, n_blocks: int, shared: bool) -> None:
    path = tmp_path / "statistics.parquet"
    rows = [(user, (1, 2, 9)[user % 3], 0.5 + user % 10 / 2) for user in range(20 * n_blocks)]
    statistics = [
        user_statistics.downcast(aggregate(rows[start : start + 20]).statistics)
        for start in range(0, len(rows), 20)
    ]
    blocks = UserBlocks(client.scatter(statistics, hash=False), [20] * n_blocks)
    user_blocks.save_blocks(client, path, blocks, GENRES, 2)
    assert len(parquet.list_parts(path)) == n_blocks
    loaded = user_blocks.load_blocks(client, path, blocks.sizes, shared=shared)
    assert loaded.sizes == blocks.sizes
    for saved, block in zip(statistics, client.gather(loaded.statistics), strict=True):
        assert_equal(block, saved)


def test_string_ids_in_arrow(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    numbers = aggregate([(1, 1, 4.0), (2, 9, 3.5)]).statistics
    block = numbers._replace(users=np.array(["ü".encode(), b"z"]))
    table = user_blocks.to_arrow(block, GENRES)
    assert table["userId"].to_pylist() == ["ü", "z"]
    assert table["sum:c"].to_pylist() == [0.0, 3.5]
    assert table["count:a"].to_pylist() == [1, 0]
    pq.write_table(table, tmp_path / "block.parquet")
    assert_equal(user_blocks.read_statistics(tmp_path / "block.parquet"), block)


rating_rows = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([1, 2, 5, 9]), st.integers(1, 10)), min_size=1
).map(lambda rows: [(user, movie, halves / 2) for user, movie, halves in rows])


@settings(max_examples=20)
@given(earlier=rating_rows, new=rating_rows, sizes=st.integers(1, 20))
def test_new_statistics_are_added_to_earlier_ones(client, earlier, new, sizes: int) -> None:
    """Whatever users they share, the sums are those of all rows at once."""

    def block(rows: list[tuple[int, int, float]]) -> UserBlocks:
        return merge(client, [rows[::2], rows[1::2]], 30, 2, sizes)

    blocks = user_blocks.merge_blocks(client, block(earlier), block(new), 2, sizes)
    parts = client.gather(blocks.statistics)
    assert blocks.sizes == [len(part.users) for part in parts]
    merged = UserStatistics(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    assert_equal(merged, expected_statistics([*earlier, *new]))


@settings(max_examples=20)
@given(rows=rating_rows, other=rating_rows, size=st.integers(1, 20))
def test_a_digest_is_of_the_ratings_alone(client, rows, other, size: int) -> None:
    whole = user_blocks.digest_users(client, merge(client, [rows], 30, 1, 1_000))
    cut = merge(client, [rows[1::2], rows[::2]], 30, 2, size)
    assert user_blocks.digest_users(client, cut) == whole
    others = expected_statistics(other)
    mine = expected_statistics(rows)
    columns = [0, 1, 2, 4]  # users, items, their sum, and the counts per category
    is_same = all(np.array_equal(mine[c], others[c]) for c in columns)
    different = user_blocks.digest_users(client, merge(client, [other], 30, 1, 1_000))
    assert (different == whole) == is_same
