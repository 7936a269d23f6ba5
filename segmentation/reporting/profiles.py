"""Build segment profiles: sum per segment in each block of users, merge the sums, divide once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segmentation.reporting.kernels import add_users
from segmentation.schema import SCALE, SegmentProfile, UserStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class ProfileSums(NamedTuple):
    """Sums over the users of each segment.

    Attributes
    ----------
    users, movies
        Number of users and of their ratings, int64 of shape (n_segments,).
    rating_means
        Sum of the users' mean ratings, float64 of shape (n_segments,).
    genre_means
        Sum of the users' genre means, 0 where unseen, float64 of shape (n_segments, n_genres).
    covered, genre_ratings
        Number of users who rated the genre, and of ratings in it, int64 of shape
        (n_segments, n_genres).
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


class Activity(NamedTuple):
    """Number of users of each segment and of their ratings, int64 of shape (n_segments,)."""

    users: NDArray[np.int64]
    movies: NDArray[np.int64]


def block_activity(
    statistics: UserStatistics, labels: NDArray[np.int32], n_segments: int
) -> Activity:
    """Count the users of one block, and their ratings, by segment."""
    movies = np.bincount(labels, weights=statistics.movies, minlength=n_segments)
    return Activity(np.bincount(labels, minlength=n_segments), movies.astype(np.int64))


def merge_activity(parts: Sequence[Activity]) -> Activity:
    """Add the counts of disjoint blocks."""
    return Activity(*(np.sum(column, axis=0) for column in zip(*parts, strict=True)))


def order_by_activity(sums: Activity | ProfileSums) -> list[int]:
    """Sort the clusters by rising movies per user; ties by number of users, then by label."""
    movies_per_user = sums.movies / np.maximum(sums.users, 1)
    return sorted(range(len(sums.users)), key=lambda c: (movies_per_user[c], sums.users[c], c))


def build_profiles(
    sums: ProfileSums,
    distance_p99: NDArray[np.float64],
    scale: tuple[float, float] = SCALE,
) -> list[SegmentProfile]:
    """Divide the sums into one profile per segment.

    Parameters
    ----------
    sums
        The merged sums of all users. Every segment must have at least one user.
    distance_p99
        99th percentile of the distances to each segment's center, of shape (n_segments,).
    scale
        The lowest and the highest rating.
    """
    total_users = int(sums.users.sum())
    genre_totals = sums.genre_ratings.sum(axis=0)
    overall_share = genre_totals / max(int(genre_totals.sum()), 1)
    profiles = []
    for s, users in enumerate(sums.users):
        covered = sums.covered[s]
        genre_share = sums.genre_ratings[s] / max(int(sums.genre_ratings[s].sum()), 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean_rated = np.where(covered > 0, sums.genre_means[s] / covered, np.nan)
            lift = np.where(overall_share > 0, genre_share / overall_share, np.nan)
        profiles.append(
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
                scale=scale,
            )
        )
    return profiles
