"""Compiled loops over one block of rows.

Weights may be an array of length 0: then every row has weight 1. Functions with ``offsets`` handle
several sets of centers in one pass: ``centers`` holds them stacked, and set ``s`` is
``centers[offsets[s]:offsets[s + 1]]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Lets the compiler reorder sums, which vectorizes them. NaN and infinity keep their
# meaning.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}


@njit(nogil=True, cache=True, fastmath=FASTMATH)  # type: ignore[untyped-decorator]
def assign(
    X: NDArray[Any],
    centers: NDArray[np.float64],
    labels: NDArray[np.int32],
    nearest: NDArray[np.float64],
    runner_up: NDArray[np.int32],
    second: NDArray[np.float64],
) -> None:
    """Find each row's two nearest centers; ties go to the lower label.

    Parameters
    ----------
    X
        Rows of shape (n_rows, n_features), float32 or float64.
    centers
        Shape (n_clusters, n_features), float64.
    labels, runner_up
        Outputs of shape (n_rows,), int32: labels of the nearest and the second nearest center
        (−1 if there is only one center).
    nearest, second
        Outputs of shape (n_rows,), float64: their squared distances (infinite for a missing
        second center).
    """
    for i in range(X.shape[0]):
        best, second_best = np.inf, np.inf
        best_label, second_label = 0, -1
        for c in range(centers.shape[0]):
            distance = 0.0
            for j in range(X.shape[1]):
                delta = X[i, j] - centers[c, j]
                distance += delta * delta
            if distance < best:
                best, second_best = distance, best
                second_label = best_label if c > 0 else -1
                best_label = c
            elif distance < second_best:
                second_best, second_label = distance, c
        labels[i], nearest[i] = best_label, best
        runner_up[i], second[i] = second_label, second_best


@njit(nogil=True, cache=True, fastmath=FASTMATH)  # type: ignore[untyped-decorator]
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
    """Add each row to the sum of its nearest center in every set of centers.

    One pass serves a Lloyd iteration of all sets and allocates nothing per row.

    Parameters
    ----------
    X
        Rows of shape (n_rows, n_features), float32 or float64.
    weights
        Shape (n_rows,) or (0,), float64.
    centers
        Sets of centers, stacked; shape (n_centers, n_features).
    offsets
        Where each set of centers starts, and the end; shape (n_sets + 1,), int64.
    zero, infinity
        0 and infinity in the dtype in which distances are computed: the wider one of ``X`` and
        ``centers``. Sums are always float64.
    sums, counts, inertia
        Outputs of shape (n_centers, n_features), (n_centers,) and (n_sets,), float64, which are
        added to: weighted sums of each center's rows, their weight, and the weighted sum of
        squared distances.
    """
    for i in range(X.shape[0]):
        weight = weights[i] if len(weights) else 1.0
        for s in range(len(offsets) - 1):
            best = infinity
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


@njit(nogil=True, cache=True, fastmath=FASTMATH)  # type: ignore[untyped-decorator]
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
    """Add up the sums that the metrics of every set of centers are computed from.

    All outputs are added to.

    Parameters
    ----------
    X
        Rows of shape (n_rows, n_features), float32 or float64.
    weights
        Shape (n_rows,) or (0,), float64.
    centers, offsets
        As in :func:`assign_and_sum`.
    counts, sums
        Outputs of shape (n_centers,) and (n_centers, n_features): weight and weighted sum of each
        center's rows.
    squares, distances
        Outputs of shape (n_centers,): weighted sums of the squared and plain distances of its rows
        to the center.
    silhouettes
        Output of shape (n_centers,): weighted sum of ``1 - nearest / second`` over its rows. A
        row adds 0 where both distances are 0 and where there is no second center.
    """
    for i in range(X.shape[0]):
        weight = weights[i] if len(weights) else 1.0
        for s in range(len(offsets) - 1):
            best, second_best = np.inf, np.inf
            label = offsets[s]
            for c in range(offsets[s], offsets[s + 1]):
                distance = 0.0
                for j in range(X.shape[1]):
                    delta = X[i, j] - centers[c, j]
                    distance += delta * delta
                if distance < best:
                    best, second_best = distance, best
                    label = c
                elif distance < second_best:
                    second_best = distance
            counts[label] += weight
            squares[label] += weight * best
            distances[label] += weight * np.sqrt(best)
            if 0.0 < second_best < np.inf:
                silhouettes[label] += weight * (1.0 - np.sqrt(best / second_best))
            for j in range(X.shape[1]):
                sums[label, j] += weight * X[i, j]


@njit(nogil=True, cache=True, fastmath=FASTMATH)  # type: ignore[untyped-decorator]
def sum_distances(
    X: NDArray[np.float64], labels: NDArray[np.int64], sums: NDArray[np.float64]
) -> None:
    """Add up each row's distances to the rows of every cluster of several clusterings.

    Parameters
    ----------
    X
        Rows of shape (n_rows, n_features), float64.
    labels
        Each row's column of ``sums`` in every clustering; shape (n_rows, n_sets), int64.
    sums
        Output of shape (n_rows, n_centers), which is added to: the clusters of all sets side by
        side.
    """
    for a in range(X.shape[0]):
        for b in range(a):
            distance = 0.0
            for j in range(X.shape[1]):
                delta = X[a, j] - X[b, j]
                distance += delta * delta
            distance = np.sqrt(distance)
            for s in range(labels.shape[1]):
                sums[a, labels[b, s]] += distance
                sums[b, labels[a, s]] += distance


_MIX1, _MIX2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT32, _SHIFT33 = np.uint64(32), np.uint64(33)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def hash_rows(
    bits: NDArray[Any], negative_zero: Any, salt: np.uint64, out: NDArray[np.uint64]
) -> None:
    """Hash the content of each row to 64 evenly distributed bits.

    Equal rows have equal hashes, so a choice by hash depends neither on the order of the rows nor
    on chunking. The constants are those of the finalizer of MurmurHash3 (Appleby 2011).

    Parameters
    ----------
    bits
        Bits of the rows as unsigned integers, of shape (n_rows, n_features).
    negative_zero
        The bits of −0.0, which gets the hash of 0.0.
    salt
        Selects the hash function.
    out
        Output of shape (n_rows,).
    """
    for i in range(bits.shape[0]):
        h = salt
        for j in range(bits.shape[1]):
            value = np.uint64(bits[i, j])
            if value == negative_zero:
                value = np.uint64(0)
            h = (h ^ value) * _MIX1
            h ^= h >> _SHIFT32
        h = (h ^ (h >> _SHIFT33)) * _MIX2
        out[i] = h ^ (h >> _SHIFT33)
