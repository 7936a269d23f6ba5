"""What a segment is: sums a segment over blocks of users, merged, divided once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segmentation.reporting.kernels import add_users
from segmentation.schema import SegmentProfile, UserStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class ProfileSums(NamedTuple):
    """Sums over the users of each segment; (n_segments,) and (n_segments, n_genres).

    ``rating_means`` adds up users' own means; ``genre_means`` their means a genre with 0 for
    unseen, ``covered`` the users who have seen it, ``genre_ratings`` the ratings behind it.
    """

    users: NDArray[np.int64]
    movies: NDArray[np.int64]
    rating_means: NDArray[np.float64]
    genre_means: NDArray[np.float64]
    covered: NDArray[np.int64]
    genre_ratings: NDArray[np.int64]


def block_sums(
    statistics: UserStatistics, labels: NDArray[np.int32], n_segments: int
) -> ProfileSums:
    """Sum up one block of users by segment."""
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
    """Add the sums of disjoint blocks of users."""
    return ProfileSums(*(np.sum(column, axis=0) for column in zip(*parts, strict=True)))


class Activity(NamedTuple):
    """Users of each segment, and the ratings behind them; (n_segments,)."""

    users: NDArray[np.int64]
    movies: NDArray[np.int64]


def block_activity(
    statistics: UserStatistics, labels: NDArray[np.int32], n_segments: int
) -> Activity:
    """Count one block of users by segment."""
    movies = np.bincount(labels, weights=statistics.movies, minlength=n_segments)
    return Activity(np.bincount(labels, minlength=n_segments), movies.astype(np.int64))


def merge_activity(parts: Sequence[Activity]) -> Activity:
    """Add the counts of disjoint blocks of users."""
    return Activity(*(np.sum(column, axis=0) for column in zip(*parts, strict=True)))


def order_by_activity(sums: Activity | ProfileSums) -> list[int]:
    """Return the clusters by rising movies per user; equal ones by number of users."""
    activity = sums.movies / np.maximum(sums.users, 1)
    return sorted(range(len(activity)), key=lambda c: (activity[c], sums.users[c], c))


def build_profiles(sums: ProfileSums, distance_p99: NDArray[np.float64]) -> list[SegmentProfile]:
    """Divide the sums into one profile a segment; every segment must have users.

    ``distance_p99`` is each segment's 99th percentile of distances to its centre.
    """
    total_users = int(sums.users.sum())
    everyone = sums.genre_ratings.sum(axis=0)
    base = everyone / max(int(everyone.sum()), 1)
    found = []
    for s, users in enumerate(sums.users):
        covered = sums.covered[s]
        own = sums.genre_ratings[s] / max(int(sums.genre_ratings[s].sum()), 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean_rated = np.where(covered > 0, sums.genre_means[s] / covered, np.nan)
            lift = np.where(base > 0, own / base, np.nan)
        found.append(
            SegmentProfile(
                segment=s,
                users=int(users),
                share=float(users / total_users),
                movies_per_user=float(sums.movies[s] / users),
                mean_rating=float(sums.rating_means[s] / users),
                mean=sums.genre_means[s] / users,
                mean_rated=mean_rated,
                coverage=covered / users,
                lift=lift,
                distance_p99=float(distance_p99[s]),
            )
        )
    return found
