"""Compiled loops over one block of rows, each with a NumPy twin that serves as its oracle.

Weights may be an array of length 0, which stands for a weight of 1 a row. Several sets of centres
are handled in one pass: ``centers`` holds them one below the other, and set ``s`` is
``centers[offsets[s]:offsets[s + 1]]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Sums over features may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}


@njit(nogil=True, cache=True, fastmath=_FAST)  # type: ignore[untyped-decorator]
def assign(
    X: NDArray[Any],
    centers: NDArray[np.float64],
    labels: NDArray[np.int32],
    nearest: NDArray[np.float64],
    runner_up: NDArray[np.int32],
    second: NDArray[np.float64],
) -> None:
    """Find each row's two nearest centres, in place; ties go to the lower number.

    Parameters
    ----------
    X
        float32 or float64 of shape (n_rows, n_features).
    centers
        float64 of shape (n_clusters, n_features).
    labels, runner_up
        Outputs: number of the nearest and the second nearest centre (−1 if there is only one).
    nearest, second
        Outputs: their squared distances, float64 (infinite for a missing second).
    """
    for i in range(X.shape[0]):
        best, other = np.inf, np.inf
        first_at, other_at = 0, -1
        for c in range(centers.shape[0]):
            distance = 0.0
            for j in range(X.shape[1]):
                delta = X[i, j] - centers[c, j]
                distance += delta * delta
            if distance < best:
                best, other = distance, best
                other_at = first_at if c > 0 else -1
                first_at = c
            elif distance < other:
                other, other_at = distance, c
        labels[i], nearest[i] = first_at, best
        runner_up[i], second[i] = other_at, other


def assign_numpy(
    X: NDArray[Any],
    centers: NDArray[np.float64],
    labels: NDArray[np.int32],
    nearest: NDArray[np.float64],
    runner_up: NDArray[np.int32],
    second: NDArray[np.float64],
) -> None:
    """Do the same as :func:`assign` with NumPy."""
    squares = ((X[:, None, :].astype(np.float64) - centers[None]) ** 2).sum(axis=2)
    order = np.argsort(squares, axis=1, kind="stable")
    rows = np.arange(len(X))
    labels[:], nearest[:] = order[:, 0], squares[rows, order[:, 0]]
    if len(centers) > 1:
        runner_up[:], second[:] = order[:, 1], squares[rows, order[:, 1]]
    else:
        runner_up[:], second[:] = -1, np.inf


@njit(nogil=True, cache=True, fastmath=_FAST)  # type: ignore[untyped-decorator]
def assign_and_sum(
    X: NDArray[Any],
    weights: NDArray[np.float64],
    centers: NDArray[Any],
    offsets: NDArray[np.int64],
    zero: Any,
    far: Any,
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    inertia: NDArray[np.float64],
) -> None:
    """Add each row to its nearest centre's sum and weight in every set of centres, in place.

    One pass serves a whole Lloyd iteration of all sets: nothing as long as the block is written.

    Parameters
    ----------
    X
        float32 or float64 of shape (n_rows, n_features).
    weights
        float64 of shape (n_rows,) or (0,).
    centers
        Shape (n_centers, n_features).
    offsets
        Where each set of centres begins, and the end; int64 of shape (n_sets + 1,).
    zero, far
        0 and infinity in the dtype that distances are computed in: the wider of those of ``X`` and
        ``centers``. Sums are float64 in any case.
    sums, counts, inertia
        Outputs of shape (n_centers, n_features), (n_centers,) and (n_sets,).
    """
    for i in range(X.shape[0]):
        weight = weights[i] if len(weights) else 1.0
        for s in range(len(offsets) - 1):
            best = far
            label = offsets[s]
            for c in range(offsets[s], offsets[s + 1]):
                distance = zero
                for j in range(X.shape[1]):
                    delta = X[i, j] - centers[c, j]
                    distance += delta * delta
                if distance < best:
                    best = distance
                    label = c
            inertia[s] += weight * best
            counts[label] += weight
            for j in range(X.shape[1]):
                sums[label, j] += weight * X[i, j]


def assign_and_sum_numpy(
    X: NDArray[Any],
    weights: NDArray[np.float64],
    centers: NDArray[Any],
    offsets: NDArray[np.int64],
    zero: Any,
    far: Any,
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    inertia: NDArray[np.float64],
) -> None:
    """Do the same as :func:`assign_and_sum` with NumPy."""
    w = weights if len(weights) else np.ones(len(X))
    squares = ((X[:, None, :].astype(np.float64) - centers[None]) ** 2).sum(axis=2)
    for s in range(len(offsets) - 1):
        own = squares[:, offsets[s] : offsets[s + 1]]
        labels = own.argmin(axis=1) + offsets[s]
        np.add.at(sums, labels, w[:, None] * X.astype(np.float64))
        np.add.at(counts, labels, w)
        inertia[s] += float((w * own.min(axis=1)).sum())


@njit(nogil=True, cache=True, fastmath=_FAST)  # type: ignore[untyped-decorator]
def judge(
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
    """Add up, a cluster of every set of centres, what its quality is computed from, in place.

    Parameters
    ----------
    X
        float32 or float64 of shape (n_rows, n_features).
    weights
        float64 of shape (n_rows,) or (0,).
    centers, offsets
        As in :func:`assign_and_sum`.
    counts, sums
        Outputs: each cluster's weight, (n_centers,), and sum of rows, (n_centers, n_features).
    squares, distances
        Outputs: sums of the squared and plain distances of its rows to its centre, (n_centers,).
    silhouettes
        Output: sum of ``1 - nearest / second`` over its rows, which is 0 where both are, and
        where there is no second centre. (n_centers,).
    """
    for i in range(X.shape[0]):
        weight = weights[i] if len(weights) else 1.0
        for s in range(len(offsets) - 1):
            best, other = np.inf, np.inf
            label = offsets[s]
            for c in range(offsets[s], offsets[s + 1]):
                distance = 0.0
                for j in range(X.shape[1]):
                    delta = X[i, j] - centers[c, j]
                    distance += delta * delta
                if distance < best:
                    best, other = distance, best
                    label = c
                elif distance < other:
                    other = distance
            counts[label] += weight
            squares[label] += weight * best
            distances[label] += weight * np.sqrt(best)
            if 0.0 < other < np.inf:
                silhouettes[label] += weight * (1.0 - np.sqrt(best / other))
            for j in range(X.shape[1]):
                sums[label, j] += weight * X[i, j]


def judge_numpy(
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
    """Do the same as :func:`judge` with NumPy."""
    w = weights if len(weights) else np.ones(len(X))
    for s in range(len(offsets) - 1):
        own = slice(offsets[s], offsets[s + 1])
        wide = X.astype(np.float64)
        apart = ((wide[:, None] - centers[own][None]) ** 2).sum(axis=2)
        labels = apart.argmin(axis=1) + offsets[s]
        near = np.sort(np.sqrt(apart), axis=1)
        np.add.at(counts, labels, w)
        np.add.at(sums, labels, w[:, None] * wide)
        np.add.at(squares, labels, w * near[:, 0] ** 2)
        np.add.at(distances, labels, w * near[:, 0])
        if near.shape[1] > 1:
            with np.errstate(divide="ignore", invalid="ignore"):
                each = np.where(near[:, 1] > 0, 1 - near[:, 0] / near[:, 1], 0.0)
            np.add.at(silhouettes, labels, w * each)


@njit(nogil=True, cache=True, fastmath=_FAST)  # type: ignore[untyped-decorator]
def distance_sums(
    X: NDArray[np.float64], labels: NDArray[np.int64], sums: NDArray[np.float64]
) -> None:
    """Add up each row's distances to the rows of every cluster of several clusterings, in place.

    Parameters
    ----------
    X
        float64 of shape (n_rows, n_features).
    labels
        Each row's column of ``sums`` in every clustering, int64 of shape (n_rows, n_sets).
    sums
        Output of shape (n_rows, n_clusters of all sets).
    """
    for i in range(X.shape[0]):
        for other in range(i):
            distance = 0.0
            for j in range(X.shape[1]):
                delta = X[i, j] - X[other, j]
                distance += delta * delta
            distance = np.sqrt(distance)
            for s in range(labels.shape[1]):
                sums[i, labels[other, s]] += distance
                sums[other, labels[i, s]] += distance


def distance_sums_numpy(
    X: NDArray[np.float64], labels: NDArray[np.int64], sums: NDArray[np.float64]
) -> None:
    """Do the same as :func:`distance_sums` with NumPy."""
    distances = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=2))
    for column in labels.T:
        sums += distances @ (column[:, None] == np.arange(sums.shape[1])).astype(np.float64)


_MIX1, _MIX2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_S32, _S33 = np.uint64(32), np.uint64(33)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def row_hashes(bits: NDArray[Any], zero: Any, salt: np.uint64, out: NDArray[np.uint64]) -> None:
    """Hash each row's content to 64 evenly spread bits, in place.

    Equal rows have equal hashes wherever they stand, so a choice by hash is the same for any
    order and any chunks. The finaliser is that of MurmurHash3 (Appleby 2011).

    Parameters
    ----------
    bits
        The rows' bits as unsigned integers, (n_rows, n_features).
    zero
        The bits of −0.0, which hashes like 0.0.
    salt
        Another salt, another choice.
    """
    for i in range(bits.shape[0]):
        h = salt
        for j in range(bits.shape[1]):
            value = np.uint64(bits[i, j])
            if value == zero:
                value = np.uint64(0)
            h = (h ^ value) * _MIX1
            h ^= h >> _S32
        h = (h ^ (h >> _S33)) * _MIX2
        out[i] = h ^ (h >> _S33)


def row_hashes_numpy(
    bits: NDArray[Any], zero: Any, salt: np.uint64, out: NDArray[np.uint64]
) -> None:
    """Do the same as :func:`row_hashes` with NumPy."""
    h = np.full(len(bits), salt, np.uint64)
    with np.errstate(over="ignore"):
        for column in bits.T.astype(np.uint64):
            h = (h ^ np.where(column == np.uint64(zero), np.uint64(0), column)) * _MIX1
            h ^= h >> _S32
        h = (h ^ (h >> _S33)) * _MIX2
    out[:] = h ^ (h >> _S33)
