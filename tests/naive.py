"""Slow NumPy versions of the compiled kernels, which tests compare them with.

As in stumpy, they live among the tests. Each has the signature of its kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# features


def accumulate(
    user_rows: np.ndarray,
    movie_rows: np.ndarray,
    ratings: np.ndarray,
    offsets: np.ndarray,
    codes: np.ndarray,
    movies: np.ndarray,
    rating_sum: np.ndarray,
    sums: np.ndarray,
    counts: np.ndarray,
    seen: np.ndarray,
) -> None:
    """:func:`segmentation.features.kernels.accumulate`, one dense genre column at a time."""
    n_users, n_genres = sums.shape
    has_genre = np.zeros((len(seen), n_genres), dtype=bool)
    has_genre[np.repeat(np.arange(len(seen)), np.diff(offsets)), codes] = True
    movies += np.bincount(user_rows, minlength=n_users)
    rating_sum += np.bincount(user_rows, weights=ratings, minlength=n_users)
    seen[movie_rows] = True
    for genre in range(n_genres):
        mask = has_genre[movie_rows, genre]
        sums[:, genre] += np.bincount(user_rows[mask], weights=ratings[mask], minlength=n_users)
        counts[:, genre] += np.bincount(user_rows[mask], minlength=n_users).astype(np.int32)


def digest_rows(ids: np.ndarray, items: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> int:
    """:func:`segmentation.features.kernels.digest_rows`, in Python's integers."""
    multiplier, bits = 0x9E3779B97F4A7C15, 2**64
    total = 0
    for i in range(len(ids)):
        value = (int(ids[i]) ^ int(items[i])) * multiplier % bits
        for column in (int(sums[i]), *map(int, counts[i])):
            value = (value ^ (value >> 32) ^ column) * multiplier % bits
        total += (value ^ (value >> 32)) * multiplier
    return total % bits


def find_run_starts(values: np.ndarray, starts: np.ndarray) -> int:
    """:func:`segmentation.features.kernels.find_run_starts`."""
    if (np.diff(values) < 0).any():
        return -1
    _, first = np.unique(values, return_index=True)
    starts[: len(first)] = first
    return len(first)


def mean_columns(
    sums: np.ndarray, counts: np.ndarray, means: np.ndarray, valid: np.ndarray
) -> None:
    """:func:`segmentation.features.kernels.mean_columns`."""
    has_mean = counts > 0
    quotients = np.zeros(sums.shape)
    np.divide(sums, counts, out=quotients, where=has_mean, dtype=np.float64)
    means[:] = quotients.T
    valid[:] = np.packbits(has_mean.T, axis=1, bitorder="little")


# estimators


def assign(
    X: NDArray[Any],
    centers: NDArray[np.float64],
    labels: NDArray[np.int32],
    nearest: NDArray[np.float64],
    runner_up: NDArray[np.int32],
    second: NDArray[np.float64],
) -> None:
    squares = ((X[:, None, :].astype(np.float64) - centers[None]) ** 2).sum(axis=2)
    order = np.argsort(squares, axis=1, kind="stable")
    rows = np.arange(len(X))
    labels[:], nearest[:] = order[:, 0], squares[rows, order[:, 0]]
    if len(centers) > 1:
        runner_up[:], second[:] = order[:, 1], squares[rows, order[:, 1]]
    else:
        runner_up[:], second[:] = -1, np.inf


def assign_and_sum(
    X: NDArray[Any],
    weights: NDArray[np.float64],
    centers: NDArray[Any],
    offsets: NDArray[np.int64],
    zero: Any,
    infinity: Any,
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    inertia: NDArray[np.float64],
) -> None:
    w = weights if len(weights) else np.ones(len(X))
    squares = ((X[:, None, :].astype(np.float64) - centers[None]) ** 2).sum(axis=2)
    for s in range(len(offsets) - 1):
        distances = squares[:, offsets[s] : offsets[s + 1]]
        labels = distances.argmin(axis=1) + offsets[s]
        np.add.at(sums, labels, w[:, None] * X.astype(np.float64))
        np.add.at(counts, labels, w)
        inertia[s] += float((w * distances.min(axis=1)).sum())


def sum_for_metrics(
    X: NDArray[Any],
    weights: NDArray[np.float64],
    centers: NDArray[np.float64],
    offsets: NDArray[np.int64],
    counts: NDArray[np.float64],
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
    distances: NDArray[np.float64],
    silhouettes: NDArray[np.float64],
) -> None:
    w = weights if len(weights) else np.ones(len(X))
    for s in range(len(offsets) - 1):
        subset = centers[offsets[s] : offsets[s + 1]]
        wide = X.astype(np.float64)
        squared_distances = ((wide[:, None] - subset[None]) ** 2).sum(axis=2)
        labels = squared_distances.argmin(axis=1) + offsets[s]
        near = np.sort(np.sqrt(squared_distances), axis=1)
        np.add.at(counts, labels, w)
        np.add.at(sums, labels, w[:, None] * wide)
        np.add.at(squares, labels, w * near[:, 0] ** 2)
        np.add.at(distances, labels, w * near[:, 0])
        if near.shape[1] > 1:
            with np.errstate(divide="ignore", invalid="ignore"):
                scores = np.where(near[:, 1] > 0, 1 - near[:, 0] / near[:, 1], 0.0)
            np.add.at(silhouettes, labels, w * scores)


def sum_distances(
    X: NDArray[np.float64], labels: NDArray[np.int64], sums: NDArray[np.float64]
) -> None:
    distances = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=2))
    for column in labels.T:
        sums += distances @ (column[:, None] == np.arange(sums.shape[1])).astype(np.float64)


def hash_rows(
    bits: NDArray[Any], negative_zero: Any, salt: np.uint64, out: NDArray[np.uint64]
) -> None:
    # The multipliers of MurmurHash3's finalizer.
    mix1, mix2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
    h = np.full(len(bits), salt, np.uint64)
    with np.errstate(over="ignore"):
        for column in bits.T.astype(np.uint64):
            h = (h ^ np.where(column == np.uint64(negative_zero), np.uint64(0), column)) * mix1
            h ^= h >> np.uint64(32)
        h = (h ^ (h >> np.uint64(33))) * mix2
    out[:] = h ^ (h >> np.uint64(33))


def compute_mean_and_scatter(
    X: NDArray[Any], mean: NDArray[np.float64], scatter: NDArray[np.float64]
) -> None:
    rows = X.astype(np.float64)
    mean[:] = rows.mean(axis=0)
    scatter[:] = (rows - mean).T @ (rows - mean)


def choose_plus_plus(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    uniforms: NDArray[np.float64],
    chosen: NDArray[np.int64],
) -> None:
    nearest = np.full(len(rows), np.inf)
    for step, draws in enumerate(uniforms):
        mass = weights if step == 0 or not (weights * nearest).any() else weights * nearest
        cumulative = np.cumsum(mass)
        candidates = np.searchsorted(
            cumulative, draws[: 1 if step == 0 else None] * cumulative[-1], side="right"
        )
        candidates = np.minimum(candidates, np.flatnonzero(mass)[-1])
        squares = np.minimum(((rows[None] - rows[candidates][:, None]) ** 2).sum(axis=2), nearest)
        best = int(np.argmin(squares @ weights))
        chosen[step], nearest = candidates[best], squares[best]


def run_lloyd(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    centers: NDArray[np.float64],
    tol: float,
    max_iter: int,
) -> float:
    k = len(centers)
    offsets = np.array([0, k])

    def assign_rows() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        out = np.zeros(centers.shape), np.zeros(k), np.zeros(1)
        assign_and_sum(rows, weights, centers, offsets, 0.0, np.inf, *out)
        return out

    for _ in range(max_iter):
        sums, counts, _inertia = assign_rows()
        occupied = counts > 0
        moved = np.where(
            occupied[:, None], sums / np.where(occupied, counts, 1.0)[:, None], centers
        )
        if not occupied.all():
            squares = ((rows[:, None] - moved[None]) ** 2).sum(axis=2).min(axis=1)
            farthest = np.argsort(-(squares * weights), kind="stable")
            moved[~occupied] = rows[farthest[: k - occupied.sum()]]
        shift = float(((moved - centers) ** 2).sum())
        centers[:] = moved
        if shift <= tol:
            break
    return float(assign_rows()[2][0])


# reporting


def add_users(
    labels: NDArray[np.int32],
    user_movies: NDArray[Any],
    rating_sum: NDArray[Any],
    sums: NDArray[Any],
    counts: NDArray[Any],
    users: NDArray[np.int64],
    movies: NDArray[np.int64],
    rating_means: NDArray[np.float64],
    genre_means: NDArray[np.float64],
    covered: NDArray[np.int64],
    genre_ratings: NDArray[np.int64],
) -> None:
    """Add each user to the sums of its segment: ``segmentation.reporting.kernels.add_users``."""
    means = np.zeros(counts.shape)
    np.divide(sums, counts, out=means, where=counts > 0, dtype=np.float64)
    np.add.at(users, labels, 1)
    np.add.at(movies, labels, user_movies)
    np.add.at(rating_means, labels, rating_sum / user_movies)
    np.add.at(genre_means, labels, means)
    np.add.at(covered, labels, counts > 0)
    np.add.at(genre_ratings, labels, counts)
