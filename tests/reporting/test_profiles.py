"""Profiles: sums per segment, worked out by hand, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.reporting import profiles
from segmentation.schema import UserStatistics

GENRES = ("Drama", "Comedy", "War")


def users() -> UserStatistics:
    """Four users: A and B in segment 0, C and D in segment 1; nobody rated War."""
    return UserStatistics(
        np.array([1, 2, 3, 4]),
        np.array([2, 1, 3, 3]),
        np.array([6.0, 5.0, 12.0, 9.0]),
        np.array([[4.0, 2, 0], [5, 0, 0], [8, 4, 0], [0, 9, 0]]),
        np.array([[1, 1, 0], [1, 0, 0], [2, 1, 0], [0, 3, 0]], np.int32),
    )


def test_two_segments_by_hand() -> None:
    sums = profiles.block_sums(users(), np.array([0, 0, 1, 1], np.int32), 2)
    low, high = profiles.build_profiles(sums, np.array([1.5, 3.0]), np.array([1.0, 2.0]))
    assert (low.users, low.share, low.items_per_user) == (2, 0.5, 1.5)
    assert (low.median_items_per_user, high.median_items_per_user) == (1.5, 3.0)
    assert low.mean_rating == pytest.approx((3.0 + 5.0) / 2)
    np.testing.assert_allclose(low.mean, [4.5, 1.0, 0.0])
    np.testing.assert_allclose(low.mean_rated, [4.5, 2.0, np.nan])
    np.testing.assert_allclose(low.coverage, [1.0, 0.5, 0.0])
    # Drama has 2 of the segment's 3 genre ratings, and 4 of all 9.
    np.testing.assert_allclose(low.lift, [(2 / 3) / (4 / 9), (1 / 3) / (5 / 9), np.nan])
    assert low.high_rated(GENRES) == ["Drama"]
    assert low.satisfaction == pytest.approx(5.5 / 3)
    np.testing.assert_allclose(high.mean, [2.0, 3.5, 0.0])
    assert high.high_rated(GENRES) == ["Comedy"]
    assert high.distance_p99 == 2.0


def test_order_is_by_rising_items_per_user() -> None:
    sums = profiles.block_sums(users(), np.array([2, 2, 0, 1], np.int32), 3)
    assert profiles.order_by_activity(sums) == [2, 0, 1]


@given(
    users=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), min_size=1, max_size=40),
    cut=st.integers(0, 40),
)
def test_medians_against_numpy(users: list[tuple[int, int]], cut: int) -> None:
    labels, items = (np.array(column, np.int32) for column in zip(*users, strict=True))
    parts = [profiles.count_ratings(items[part], labels[part]) for part in np.s_[:cut, cut:]]
    counts = profiles.merge_rating_counts(parts)
    segments, places = np.unique(labels, return_inverse=True)
    counts = counts._replace(segments=np.searchsorted(segments, counts.segments))
    expected = [np.median(items[places == s]) for s in range(len(segments))]
    assert profiles.median_ratings(counts, len(segments)).tolist() == expected


@given(labels=st.lists(st.integers(0, 2), min_size=4, max_size=4), cut=st.integers(0, 4))
def test_blocks_add_up(labels: list[int], cut: int) -> None:
    whole = users()
    parts = [
        UserStatistics(*(column[rows] for column in whole))
        for rows in (slice(0, cut), slice(cut, 4))
    ]
    numbers = np.array(labels, np.int32)
    together = profiles.block_sums(whole, numbers, 3)
    apart = profiles.merge_sums(
        [
            profiles.block_sums(parts[0], numbers[:cut], 3),
            profiles.block_sums(parts[1], numbers[cut:], 3),
        ]
    )
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one, other)


def test_activity_agrees_with_the_sums() -> None:
    labels = np.array([2, 2, 0, 1], np.int32)
    sums = profiles.block_sums(users(), labels, 3)
    activity = profiles.merge_activity([profiles.block_activity(users(), labels, 3)])
    np.testing.assert_array_equal(activity.users, sums.users)
    np.testing.assert_array_equal(activity.items, sums.items)
    assert profiles.order_by_activity(activity) == profiles.order_by_activity(sums)
