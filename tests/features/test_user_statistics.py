"""Sums and counts: by hand, against pandas, and whatever the cut, the order or the merge."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.datasets import catalogue, csv_reader, layouts, partitions
from segmentation.features import kernels, presets, sketches, user_statistics
from segmentation.schema import MOVIE, RATING, USER, MovieTable, UserStatistics
from tests import oracles

#: Films 1 → genres 0, 1; 2 → genre 1; 5 → none; 9 → genre 2.
TABLE = MovieTable(
    np.array([1, 2, 5, 9]),
    np.array([0, 2, 3, 3, 4], np.int32),
    np.array([0, 1, 1, 2], np.int32),
    3,
)


def frame(rows: list[tuple[int, int, float]]) -> pd.DataFrame:
    made = pd.DataFrame(rows, columns=[USER, MOVIE, RATING])
    return made.astype({USER: np.int64, MOVIE: np.int64, RATING: np.float64})


def assert_same(one: UserStatistics, other: UserStatistics) -> None:
    for name, first, second in zip(one._fields, one, other, strict=True):
        np.testing.assert_array_equal(first, second, err_msg=name)
        assert first.dtype == second.dtype, name


def test_four_rows_by_hand() -> None:
    rows = frame([(7, 1, 4.0), (7, 2, 2.0), (3, 5, 1.0), (3, 77, 5.0)])
    found = user_statistics.partition_statistics(rows, TABLE)
    assert (found.used, found.unmapped) == (3, 1)
    assert found.statistics.users.tolist() == [3, 7]
    assert found.statistics.movies.tolist() == [1, 2]
    assert found.statistics.rating_sum.tolist() == [1.0, 6.0]
    assert found.statistics.sums.tolist() == [[0, 0, 0], [4.0, 6.0, 0]]
    assert found.statistics.counts.tolist() == [[0, 0, 0], [1, 2, 0]]
    assert np.unpackbits(found.seen)[:4].tolist() == [1, 1, 1, 0]
    means = presets.genre_means(found.statistics)
    np.testing.assert_array_equal(means, [[np.nan] * 3, [4.0, 3.0, np.nan]])


def test_a_user_without_used_ratings_is_not_in_the_audience() -> None:
    found = user_statistics.partition_statistics(frame([(1, 77, 5.0), (2, 1, 5.0)]), TABLE)
    assert found.statistics.users.tolist() == [2]


def test_a_second_rating_counts_like_any_other() -> None:
    found = user_statistics.partition_statistics(
        frame([(1, 1, 5.0), (1, 1, 2.0)]), TABLE
    ).statistics
    assert found.movies.tolist() == [2]
    assert found.counts.tolist() == [[2, 2, 0]]
    assert presets.genre_means(found)[0, 0] == 3.5


ROWS = st.lists(
    st.tuples(
        st.integers(-3, 12) | st.sampled_from([2**40, 2**62]),
        st.sampled_from([1, 2, 5, 9, 3, 0, -1, 2**50]),
        st.integers(1, 10).map(lambda half: half / 2),
    ),
    max_size=60,
)


@given(rows=ROWS, cuts=st.lists(st.integers(0, 60), max_size=5), order=st.randoms())
def test_any_partitioning_and_any_row_order(rows, cuts, order) -> None:
    whole = user_statistics.partition_statistics(frame(rows), TABLE)
    shuffled = list(rows)
    order.shuffle(shuffled)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [
        user_statistics.partition_statistics(frame(shuffled[a:b]), TABLE)
        for a, b in itertools.pairwise(edges)
    ]
    order.shuffle(parts)
    assert_same(user_statistics.merge([part.statistics for part in parts]), whole.statistics)
    assert sum(part.unmapped for part in parts) == whole.unmapped
    seen = np.bitwise_or.reduce([part.seen for part in parts])
    np.testing.assert_array_equal(seen, whole.seen)


@given(
    st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=60), min_size=1, max_size=5),
    st.booleans(),
)
def test_a_sample_holds_the_same_users_in_every_partition(parts, texts: bool) -> None:
    def sample(ids) -> set[int]:
        distinct = sorted({str(i) for i in ids} if texts else set(ids))
        users = np.array(
            [i.encode() for i in distinct] if texts else distinct, np.bytes_ if texts else np.int64
        )
        return set(sketches.hash_sample(users).tolist())

    # Texts are padded to another width where a longer one is beside them.
    assert set.union(*map(sample, parts)) == sample([i for part in parts for i in part])


@pytest.mark.parametrize("kind", ["dense", "spaced", "random", "texts"])
def test_a_sample_tells_how_many_users_there_are(kind: str) -> None:
    n = 200_000
    users = {
        "dense": np.arange(n),
        "spaced": np.arange(n) * 4096 + 7,
        "random": np.random.default_rng(0).integers(-(2**62), 2**62, n),
        "texts": np.array([f"user-{i}".encode() for i in range(n)]),
    }[kind]
    # 3,125 of them on average: five standard deviations are 9 %.
    assert len(sketches.hash_sample(users)) * sketches.SAMPLED == pytest.approx(n, rel=0.09)


def test_few_of_many_users_do_not_keep_the_memory_of_all() -> None:
    rows = [(user, 1, 4.0) for user in range(100)]
    part = user_statistics.partition_statistics(frame(rows), TABLE).statistics
    few = user_statistics.take_range(part, 95, None)
    assert few.users.tolist() == [95, 96, 97, 98, 99]
    assert not any(np.shares_memory(a, b) for a, b in zip(few, part, strict=True))
    most = user_statistics.take_range(part, 5, None)
    assert len(most.users) == 95
    assert all(np.shares_memory(a, b) for a, b in zip(most, part, strict=True))


@given(rows=ROWS, n_blocks=st.integers(1, 8))
def test_blocks_of_users_are_disjoint_and_complete(rows, n_blocks) -> None:
    parts = [
        user_statistics.partition_statistics(frame(rows[i : i + 9]), TABLE)
        for i in range(0, len(rows), 9)
    ] or [user_statistics.partition_statistics(frame([]), TABLE)]
    cuts = sketches.block_boundaries([part.sketch for part in parts], n_blocks)
    assert cuts == sorted(set(cuts))
    assert len(cuts) < n_blocks
    bounds = [None, *cuts, None]
    blocks = [
        user_statistics.merge([user_statistics.take_range(p.statistics, low, high) for p in parts])
        for low, high in itertools.pairwise(bounds)
    ]
    whole = user_statistics.partition_statistics(frame(rows), TABLE).statistics
    joined = UserStatistics(*(np.concatenate(column) for column in zip(*blocks, strict=True)))
    assert_same(joined, whole)


@given(rows=ROWS)
def test_kernel_and_its_twin_agree(rows) -> None:
    used = [(u, m, r) for u, m, r in rows if m in (1, 2, 5, 9)]
    users, user_rows = np.unique(np.array([u for u, *_ in used], np.int64), return_inverse=True)
    movie_rows = np.searchsorted(TABLE.movie_ids, [m for _, m, _ in used]).astype(np.int64)
    stars = np.array([r for *_, r in used], np.float64)
    results = []
    for kernel in (kernels.accumulate, kernels.accumulate_numpy):
        out = (
            np.zeros(len(users), np.int64),
            np.zeros(len(users)),
            np.zeros((len(users), 3)),
            np.zeros((len(users), 3), np.int32),
            np.zeros(4, np.bool_),
        )
        kernel(user_rows, movie_rows, stars, TABLE.offsets, TABLE.codes, *out)
        results.append(out)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@given(values=st.lists(st.integers(-5, 5), max_size=30))
def test_run_starts(values: list[int]) -> None:
    array = np.array(values, np.int64)
    starts = np.empty(len(array), np.int64)
    n = kernels.run_starts(array, starts)
    if values != sorted(values):
        assert n == -1
    else:
        assert starts[:n].tolist() == [values.index(v) for v in sorted(set(values))]


def test_movie_ids_too_large_for_a_table() -> None:
    table = MovieTable(
        np.array([3, 2**40]), np.array([0, 1, 1], np.int32), np.zeros(1, np.int32), 1
    )
    rows = user_statistics.movie_rows(table, np.array([2**40, 3, 4, 2**41, -1]))
    assert rows.tolist() == [1, 0, -1, -1, -1]


def test_merging_different_genres_says_both_numbers() -> None:
    one = user_statistics.partition_statistics(frame([(1, 1, 5.0)]), TABLE).statistics
    other = UserStatistics(
        one.users, one.movies, one.rating_sum, one.sums[:, :2], one.counts[:, :2]
    )
    with pytest.raises(ValueError, match=r"different numbers of genres: \[2, 3\]"):
        user_statistics.merge([one, other])
    with pytest.raises(ValueError, match="nothing to merge"):
        user_statistics.merge([])


def test_presets_by_hand() -> None:
    one = user_statistics.partition_statistics(
        frame([(7, 1, 4.0), (7, 2, 2.0), (7, 5, 0.5)]), TABLE
    )
    engagement = presets.compute_features(one.statistics, "engagement")
    assert engagement.dtype == np.float32
    np.testing.assert_allclose(engagement, [[4.0, 3.0, 0.0]])
    np.testing.assert_array_equal(presets.compute_features(one.statistics, "original"), engagement)
    own = (4.0 + 2.0 + 0.5) / 3
    expected = [[(4.0 - own) * 1 / 6, (3.0 - own) * 2 / 7, 0.0]]
    np.testing.assert_allclose(
        presets.compute_features(one.statistics, "taste"), expected, rtol=1e-6
    )
    with pytest.raises(ValueError, match="unknown preset 'x': use one of engagement"):
        presets.compute_features(one.statistics, "x")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "join", "used", "users"),
    [
        ("kaggle-small", "links", 99_810, 671),
        ("kaggle-small", "direct", 44_989, 671),
        ("ml-latest-small", "links", 100_836, 610),
    ],
)
def test_real_means_equal_pandas(
    real_data: Path, folder: str, join: str, used: int, users: int
) -> None:
    layout = layouts.detect_layout(str(real_data / folder))
    found = catalogue.load_catalogue(layout, join)
    (file,) = partitions.probe_files(layout)
    parts = [
        user_statistics.partition_statistics(
            csv_reader.parse_lines(file, bytes(chunk)).ratings, found.table()
        )
        for partition in partitions.plan_partitions([file], 300_000)
        for piece in partition
        for chunk in partitions.read_chunks(piece)
    ]
    assert sum(part.used for part in parts) == used
    merged = user_statistics.merge([part.statistics for part in parts])
    assert len(merged.users) == users
    movies = (
        oracles.kaggle_movies(real_data / folder, join)
        if folder == "kaggle-small"
        else oracles.grouplens_movies(real_data / folder)
    )
    expected = oracles.user_genre_means(pd.read_csv(layout.ratings), movies)
    means = pd.DataFrame(presets.genre_means(merged), index=merged.users, columns=found.genres)
    assert means.index.tolist() == expected.index.tolist()
    np.testing.assert_allclose(
        means, expected.reindex(columns=list(found.genres)), atol=1e-9, equal_nan=True
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
def test_narrow_keeps_every_number(rows: list[tuple], step: float) -> None:
    n = len(rows)
    users, movies, stars, counts = (
        (np.array(column) for column in zip(*rows, strict=True))
        if (rows)
        else (np.empty(0) for _ in range(4))
    )
    total = np.round(stars.astype(np.float64) / step) * step
    wide = UserStatistics(
        users.astype(np.int64),
        movies.astype(np.int64),
        total,
        np.stack([total, np.zeros(n)], axis=1),
        np.stack([counts, np.ones(n)], axis=1).astype(np.int32),
    )
    found = user_statistics.downcast(wide)
    for name, one, other in zip(wide._fields, found, wide, strict=True):
        assert np.array_equal(one, other), name
        assert not np.shares_memory(one, other), name


def test_narrow_takes_half_the_memory_of_half_stars() -> None:
    rows = frame([(i, 1, 0.5 + i % 10 / 2) for i in range(500)])
    wide = user_statistics.partition_statistics(rows, TABLE).statistics
    found = user_statistics.downcast(wide)
    assert (found.sums.dtype, found.counts.dtype) == (np.float32, np.uint16)
    assert found.nbytes < 0.61 * wide.nbytes
    assert_same(user_statistics.merge([found, found]), user_statistics.merge([wide, wide]))


@given(seed=st.integers(0, 99), n=st.integers(0, 20), narrow=st.booleans())
def test_columns_of_means_as_their_twin_makes_them(seed: int, n: int, narrow: bool) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 3, (n, 3)).astype(np.uint16 if narrow else np.int32)
    sums = (counts * 3.5).astype(np.float32 if narrow else np.float64)
    both = []
    for kernel in (kernels.mean_columns, kernels.mean_columns_numpy):
        out = np.zeros((3, n), np.float32), np.zeros((3, -(-n // 8)), np.uint8)
        kernel(sums, counts, *out)
        both.append(out)
    for one, other in zip(*both, strict=True):
        np.testing.assert_array_equal(one, other)


def edges(parts: list[list[int]]) -> list[UserStatistics]:
    """Statistics of users, one rating of 3.5 stars each, narrowed as partitions leave them."""
    return [
        user_statistics.downcast(
            user_statistics.partition_statistics(
                frame([(u, 1, 3.5) for u in users]), TABLE
            ).statistics
        )
        for users in parts
    ]


@pytest.mark.parametrize(
    "parts",
    [
        [[1, 2], [3], [4, 5]],
        [[1, 2], [2, 3], [3, 4]],
        [[1, 2], [2], [2], [2, 3]],
        [[1], [1], [1]],
        [[5], [1, 2], [9]],
    ],
)
def test_parts_that_share_users_at_their_edges_alone(parts: list[list[int]]) -> None:
    given_parts = edges(parts)
    before = [tuple(np.array(column) for column in part) for part in given_parts]
    merged = user_statistics.merge(given_parts)
    everyone = [user for users in parts for user in users]
    (whole,) = edges([everyone])
    assert_same(user_statistics.downcast(merged), whole)
    # What was merged is another task's result.
    for part, columns in zip(given_parts, before, strict=True):
        for column, old in zip(part, columns, strict=True):
            np.testing.assert_array_equal(column, old)


def test_an_edge_that_outgrows_the_narrow_types() -> None:
    many = [frame([(1, 1, 5.0)] * 40_000), frame([(1, 1, 5.0)] * 40_000 + [(2, 1, 4.5)])]
    parts = [
        user_statistics.downcast(user_statistics.partition_statistics(rows, TABLE).statistics)
        for rows in many
    ]
    assert parts[0].counts.dtype == np.uint16
    merged = user_statistics.merge(parts)
    assert merged.counts[:, 0].tolist() == [80_000, 1]
    assert merged.sums[:, 0].tolist() == [400_000.0, 4.5]
