"""Build segment profiles: sum per segment in each block of users, merge the sums, divide once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.reporting.kernels import add_users
from segmentation.schema import SCALE, SegmentProfile, UserStatistics, Words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class ProfileSums(NamedTuple):
    """Sums over the users of each segment.

    Attributes
    ----------
    users, items
        Number of users and of their ratings, int64 of shape (n_segments,).
    rating_means
        Sum of the users' mean ratings, float64 of shape (n_segments,).
    category_means
        Sum of the users' category means, 0 where unseen, float64 of shape
        (n_segments, n_categories).
    covered, category_ratings
        Number of users who rated the category, and of ratings in it, int64 of shape
        (n_segments, n_categories).
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    rating_means: NDArray[np.float64]
    category_means: NDArray[np.float64]
    covered: NDArray[np.int64]
    category_ratings: NDArray[np.int64]


def block_sums(
    statistics: UserStatistics, labels: NDArray[np.int32], n_segments: int
) -> ProfileSums:
    """Sum the users of one block by segment; ``labels`` are int32 of shape (n_users,)."""
    shape = n_segments, statistics.counts.shape[1]
    sums = ProfileSums(
        np.zeros(n_segments, np.int64),
        np.zeros(n_segments, np.int64),
        np.zeros(n_segments),
        np.zeros(shape),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.int64),
    )
    add_users(labels, *statistics[1:], *sums)
    return sums


def merge_sums(parts: Sequence[ProfileSums]) -> ProfileSums:
    """Add the sums of disjoint blocks."""
    return ProfileSums(*(np.sum(column, axis=0) for column in zip(*parts, strict=True)))


class RatingCounts(NamedTuple):
    """How many users of a segment have a number of ratings, for each pair that occurs.

    All arrays are int64 of the same shape, sorted by segment, then by number of ratings.
    """

    segments: NDArray[np.int64]
    ratings: NDArray[np.int64]
    users: NDArray[np.int64]


def count_ratings(items: NDArray[np.integer[Any]], labels: NDArray[np.int32]) -> RatingCounts:
    """Count the users of one block by segment and number of ratings, both of shape (n_users,)."""
    ratings = items.astype(np.int64)
    n_values = int(ratings.max(initial=0)) + 1
    pairs, users = np.unique(labels.astype(np.int64) * n_values + ratings, return_counts=True)
    return RatingCounts(*np.divmod(pairs, n_values), users)


def merge_rating_counts(parts: Sequence[RatingCounts]) -> RatingCounts:
    """Add the counts of disjoint blocks."""
    segments, ratings, users = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((ratings, segments))
    segments, ratings = segments[order], ratings[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (segments[1:] != segments[:-1]) | (ratings[1:] != ratings[:-1])
    starts = np.flatnonzero(is_first)
    return RatingCounts(segments[starts], ratings[starts], np.add.reduceat(users[order], starts))


def median_ratings(counts: RatingCounts, n_segments: int) -> NDArray[np.float64]:
    """Return the median number of ratings per user of each segment, of shape (n_segments,).

    Examples
    --------
    >>> import numpy as np
    >>> counts = count_ratings(np.array([1, 7, 4, 9]), np.array([0, 0, 1, 0], np.int32))
    >>> median_ratings(counts, 2).tolist()
    [7.0, 4.0]
    """
    medians = np.empty(n_segments)
    for s in range(n_segments):
        rows = counts.segments == s
        stops = np.cumsum(counts.users[rows])
        middle = (stops[-1] - 1) // 2, stops[-1] // 2
        medians[s] = counts.ratings[rows][np.searchsorted(stops, middle, side="right")].mean()
    return medians


class Activity(NamedTuple):
    """Number of users of each segment and of their ratings, int64 of shape (n_segments,)."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]


def block_activity(
    statistics: UserStatistics, labels: NDArray[np.int32], n_segments: int
) -> Activity:
    """Count the users of one block, and their ratings, by segment."""
    items = np.bincount(labels, weights=statistics.items, minlength=n_segments)
    return Activity(np.bincount(labels, minlength=n_segments), items.astype(np.int64))


def merge_activity(parts: Sequence[Activity]) -> Activity:
    """Add the counts of disjoint blocks."""
    return Activity(*(np.sum(column, axis=0) for column in zip(*parts, strict=True)))


def order_by_activity(sums: Activity | ProfileSums) -> list[int]:
    """Sort the clusters by rising items per user; ties by number of users, then by label."""
    items_per_user = sums.items / np.maximum(sums.users, 1)
    return sorted(range(len(sums.users)), key=lambda c: (items_per_user[c], sums.users[c], c))


def build_profiles(
    sums: ProfileSums,
    medians: NDArray[np.float64],
    distance_p99: NDArray[np.float64],
    scale: tuple[float, float] = SCALE,
    words: Words | None = None,
) -> list[SegmentProfile]:
    """Divide the sums into one profile per segment.

    Parameters
    ----------
    sums
        The merged sums of all users. Every segment must have at least one user.
    medians
        Median number of ratings per user, of shape (n_segments,).
    distance_p99
        99th percentile of the distances to each segment's center, of shape (n_segments,).
    scale
        The lowest and the highest rating.
    words
        What texts call items, categories and ratings.
    """
    total_users = int(sums.users.sum())
    category_totals = sums.category_ratings.sum(axis=0)
    overall_share = category_totals / max(int(category_totals.sum()), 1)
    profiles = []
    for s, users in enumerate(sums.users):
        covered = sums.covered[s]
        category_share = sums.category_ratings[s] / max(int(sums.category_ratings[s].sum()), 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean_rated = np.where(covered > 0, sums.category_means[s] / covered, np.nan)
            lift = np.where(overall_share > 0, category_share / overall_share, np.nan)
        profiles.append(
            SegmentProfile(
                segment=s,
                users=int(users),
                share=float(users / total_users),
                items_per_user=float(sums.items[s] / users),
                median_items_per_user=float(medians[s]),
                mean_rating=float(sums.rating_means[s] / users),
                mean=sums.category_means[s] / users,
                mean_rated=mean_rated,
                coverage=covered / users,
                lift=lift,
                distance_p99=float(distance_p99[s]),
                scale=scale,
                words=words or Words(),
            )
        )
    return profiles
