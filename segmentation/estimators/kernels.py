"""Compiled loops over one block of rows, each with a NumPy twin that serves as its oracle."""

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
    centers: NDArray[np.float64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> float:
    """Add each row to its nearest centre's sum and count, in place; return the inertia.

    One pass serves a whole Lloyd iteration: nothing as long as the block is written.

    Parameters
    ----------
    X, centers
        As in :func:`assign`.
    sums, counts
        Outputs of shape (n_clusters, n_features) and (n_clusters,).
    """
    inertia = 0.0
    for i in range(X.shape[0]):
        best = np.inf
        label = 0
        for c in range(centers.shape[0]):
            distance = 0.0
            for j in range(X.shape[1]):
                delta = X[i, j] - centers[c, j]
                distance += delta * delta
            if distance < best:
                best = distance
                label = c
        inertia += best
        counts[label] += 1
        for j in range(X.shape[1]):
            sums[label, j] += X[i, j]
    return inertia


def assign_and_sum_numpy(
    X: NDArray[Any],
    centers: NDArray[np.float64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> float:
    """Do the same as :func:`assign_and_sum` with NumPy."""
    squares = ((X[:, None, :].astype(np.float64) - centers[None]) ** 2).sum(axis=2)
    labels = squares.argmin(axis=1)
    np.add.at(sums, labels, X.astype(np.float64))
    counts += np.bincount(labels, minlength=len(centers))
    return float(squares.min(axis=1).sum())
