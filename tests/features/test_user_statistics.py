"""Sums and counts: by hand, by plain loops, by pandas, and in any partitions, order or merge."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.datasets import catalogue, layouts, partitions
from segmentation.datasets.identifiers import STRING_DTYPE
from segmentation.features import presets, sketches, user_statistics
from segmentation.features.partition_reader import aggregate_partition
from segmentation.schema import ITEM, RATING, USER, ItemTable, UserStatistics
from tests import oracles
from tests.features.helpers import aggregate, assert_equal, expected_statistics, to_frame


def test_four_rows_by_hand() -> None:
    chunk = aggregate([(7, 1, 4.0), (7, 2, 2.0), (3, 5, 1.0), (3, 77, 5.0)])
    assert (chunk.used, chunk.unmapped, chunk.lines) == (3, 1, 4)
    assert chunk.statistics.users.tolist() == [3, 7]
    assert chunk.statistics.items.tolist() == [1, 2]
    assert chunk.statistics.rating_sum.tolist() == [1.0, 6.0]
    assert chunk.statistics.sums.tolist() == [[0, 0, 0], [4.0, 6.0, 0]]
    assert chunk.statistics.counts.tolist() == [[0, 0, 0], [1, 2, 0]]
    assert np.unpackbits(chunk.seen)[:4].tolist() == [1, 1, 1, 0]


def test_users_without_used_ratings_are_left_out() -> None:
    assert aggregate([(1, 77, 5.0), (2, 1, 5.0)]).statistics.users.tolist() == [2]


def test_a_second_rating_counts_like_any_other() -> None:
    statistics = aggregate([(1, 1, 5.0), (1, 1, 2.0)]).statistics
    assert statistics.items.tolist() == [2]
    assert statistics.counts.tolist() == [[2, 2, 0]]


ROWS = st.lists(
    st.tuples(
        st.integers(-3, 12) | st.sampled_from([2**40, 2**62]),
        st.sampled_from([1, 2, 5, 9, 3, 0, -1, 2**50]),
        st.integers(1, 10).map(lambda half: half / 2),
    ),
    max_size=60,
)


@given(rows=ROWS, cuts=st.lists(st.integers(0, 60), max_size=5), random=st.randoms())
def test_any_partitions_in_any_order(rows, cuts, random) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [aggregate(shuffled[start:stop]) for start, stop in itertools.pairwise(bounds)]
    random.shuffle(parts)
    merged = user_statistics.merge([part.statistics for part in parts])
    assert_equal(merged, expected_statistics(rows))
    assert sum(part.unmapped for part in parts) == sum(
        movie not in (1, 2, 5, 9) for _, movie, _ in rows
    )
    seen = np.unpackbits(np.bitwise_or.reduce([part.seen for part in parts]))[:4]
    assert seen.tolist() == [any(movie == id_ for _, movie, _ in rows) for id_ in (1, 2, 5, 9)]


@given(rows=ROWS, n_blocks=st.integers(1, 8))
def test_ranges_of_users_are_disjoint_and_complete(rows, n_blocks) -> None:
    parts = [aggregate(rows[i : i + 9]).statistics for i in range(0, max(len(rows), 1), 9)]
    samples = [sketches.quantile_sketch(part.users) for part in parts]
    bounds = [
        None,
        *sketches.block_boundaries(samples, [len(part.users) for part in parts], n_blocks),
        None,
    ]
    blocks = [
        user_statistics.merge([user_statistics.take_range(part, low, high) for part in parts])
        for low, high in itertools.pairwise(bounds)
    ]
    joined = UserStatistics(*(np.concatenate(column) for column in zip(*blocks, strict=True)))
    assert_equal(joined, expected_statistics(rows))


def test_a_few_users_do_not_keep_all_in_memory() -> None:
    part = aggregate([(user, 1, 4.0) for user in range(100)]).statistics
    few = user_statistics.take_range(part, 95, None)
    assert few.users.tolist() == [95, 96, 97, 98, 99]
    assert not any(np.shares_memory(a, b) for a, b in zip(few, part, strict=True))
    most = user_statistics.take_range(part, 5, None)
    assert most.users.tolist() == list(range(5, 100))
    assert all(np.shares_memory(a, b) for a, b in zip(most, part, strict=True))


@pytest.mark.parametrize(
    "ids", [np.array([3, 2**40]), np.array([-5, 3]), np.array([3, 8]), np.empty(0, np.int64)]
)
def test_look_up_items(ids: np.ndarray) -> None:
    """By a table, or by binary search where ids are too large or negative."""
    table = ItemTable(ids, np.zeros(len(ids) + 1, np.int32), np.empty(0, np.int32), 1)
    searched = [2**40, 3, 4, 2**41, -1, -5, 8, 0]
    rows = user_statistics.look_up_items(table, np.array(searched))
    assert rows.tolist() == [ids.tolist().index(i) if i in ids else -1 for i in searched]


def test_movies_with_string_ids() -> None:
    ids = np.array([b"a", b"bb"])
    table = ItemTable(ids, np.array([0, 1, 1], np.int32), np.zeros(1, np.int32), 1)
    ratings = to_frame([(1, 0, 3.0), (1, 0, 4.0), (2, 0, 5.0)])
    ratings[ITEM] = pd.array(["bb", "x", "a"], dtype=STRING_DTYPE)
    rows, n_used = user_statistics.map_items(ratings, table)
    assert n_used == len(rows)
    assert rows[[USER, ITEM, RATING]].values.tolist() == [[1, 1, 3.0], [2, 0, 5.0]]


def test_parts_that_cannot_be_merged() -> None:
    one = aggregate([(1, 1, 5.0)]).statistics
    other = one._replace(sums=one.sums[:, :2], counts=one.counts[:, :2])
    with pytest.raises(ValueError, match=r"different numbers of categories: \[2, 3\]"):
        user_statistics.merge([one, other])
    with pytest.raises(ValueError, match="nothing to merge"):
        user_statistics.merge([])


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "join", "used", "n_users"),
    [
        ("kaggle-small", "links", 99_810, 671),
        ("kaggle-small", "direct", 44_989, 671),
        ("ml-latest-small", "links", 100_836, 610),
    ],
)
def test_real_means_equal_pandas(
    real_data: Path, folder: str, join: str, used: int, n_users: int
) -> None:
    layout = layouts.detect_layout(str(real_data / folder))
    movies = catalogue.load_catalogue(layout, join)
    fragments = partitions.plan_partitions(partitions.probe_files(layout), 300_000)
    parts = [aggregate_partition(partition, movies.table()) for partition in fragments]
    assert sum(summary.used for _, summary in parts) == used
    merged = user_statistics.merge([statistics for statistics, _ in parts])
    assert len(merged.users) == n_users
    genres = (
        oracles.kaggle_movies(real_data / folder, join)
        if folder == "kaggle-small"
        else oracles.grouplens_movies(real_data / folder)
    )
    expected = oracles.user_genre_means(pd.read_csv(layout.ratings), genres)
    means = pd.DataFrame(
        presets.category_means(merged), index=merged.users, columns=movies.categories
    )
    assert means.index.tolist() == expected.index.tolist()
    np.testing.assert_allclose(
        means, expected.reindex(columns=list(movies.categories)), atol=1e-9, equal_nan=True
    )


@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.integers(1, 2**40),
            st.floats(0, 1e12),
            st.integers(0, 2**31 - 1),
        ),
        max_size=6,
    ),
    st.sampled_from([0.5, 0.1, 1e-9]),
)
def test_downcast_keeps_every_number(rows: list[tuple], step: float) -> None:
    columns = zip(*rows, strict=True) if rows else [()] * 4
    users, movies, stars, counts = (np.array(column) for column in columns)
    total = np.round(stars.astype(np.float64) / step) * step
    statistics = UserStatistics(
        users.astype(np.int64),
        movies.astype(np.int64),
        total,
        np.stack([total, np.zeros(len(rows))], axis=1),
        np.stack([counts, np.ones(len(rows))], axis=1).astype(np.int32),
    )
    smaller = user_statistics.downcast(statistics)
    assert_equal(smaller, statistics)
    for one, other in zip(smaller, statistics, strict=True):
        assert not np.shares_memory(one, other)


def test_half_stars_take_half_the_memory() -> None:
    statistics = expected_statistics([(i, 1, 0.5 + i % 10 / 2) for i in range(500)])
    smaller = user_statistics.downcast(statistics)
    assert (smaller.sums.dtype, smaller.counts.dtype) == (np.float32, np.uint16)
    assert smaller.nbytes < 0.61 * statistics.nbytes
    doubled = user_statistics.merge([smaller, smaller])
    assert_equal(doubled, user_statistics.merge([statistics, statistics]))


@pytest.mark.parametrize(
    "users",
    [
        [[1, 2], [3], [4, 5]],
        [[1, 2], [2, 3], [3, 4]],
        [[1, 2], [2], [2], [2, 3]],
        [[1], [1], [1]],
        [[5], [1, 2], [9]],
    ],
)
def test_parts_that_share_users_only_at_their_edges(users: list[list[int]]) -> None:
    rows = [[(user, 1, 3.5) for user in part] for part in users]
    parts = [user_statistics.downcast(aggregate(part).statistics) for part in rows]
    before = [tuple(np.array(column) for column in part) for part in parts]
    merged = user_statistics.merge(parts)
    assert_equal(merged, expected_statistics(list(itertools.chain(*rows))))
    # The parts are results of other tasks, which must not change.
    for part, columns in zip(parts, before, strict=True):
        for column, old in zip(part, columns, strict=True):
            np.testing.assert_array_equal(column, old)


def test_an_edge_that_outgrows_the_small_types() -> None:
    ratings = [(1, 1, 5.0)] * 40_000
    parts = [
        user_statistics.downcast(aggregate(rows).statistics)
        for rows in (ratings, [*ratings, (2, 1, 4.5)])
    ]
    assert parts[0].counts.dtype == np.uint16
    merged = user_statistics.merge(parts)
    assert merged.counts[:, 0].tolist() == [80_000, 1]
    assert merged.sums[:, 0].tolist() == [400_000.0, 4.5]
