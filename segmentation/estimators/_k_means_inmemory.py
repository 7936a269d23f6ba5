"""K-Means on rows in memory, compiled whole: a restart costs its passes and hardly more.

Each loop has a NumPy twin that serves as its oracle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from segmentation.estimators._kernels import assign_and_sum, assign_and_sum_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

# As in kernels: sums over features may be reordered.
_FAST = {"reassoc", "contract", "nsz", "arcp"}


@njit(nogil=True, cache=True, fastmath=_FAST)  # type: ignore[untyped-decorator]
def plus_plus(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    uniforms: NDArray[np.float64],
    chosen: NDArray[np.int64],
) -> None:
    """Choose rows by weighted k-means++ with greedy trials (Arthur & Vassilvitskii 2007), in place.

    Of some candidates, each drawn with a chance proportional to its weighted squared distance to
    the centres so far, the one that lowers the sum of those most is taken.

    Parameters
    ----------
    rows, weights
        float64 of shape (n_rows, n_features) and (n_rows,).
    uniforms
        Random numbers in [0, 1), (n_clusters, n_trials); one decides each draw.
    chosen
        Output: the rows' numbers, (n_clusters,).
    """
    n, d = rows.shape
    k, trials = uniforms.shape
    nearest = np.full(n, np.inf)
    ends = np.empty(n)
    distances = np.empty((trials, n))
    for step in range(k):
        total = 0.0
        last = 0
        weighted = step == 0
        if not weighted:
            for i in range(n):
                total += weights[i] * nearest[i]
            # Where no row is off its centre any more, they are drawn by weight once again.
            weighted = total == 0.0
        total = 0.0
        for i in range(n):
            mass = weights[i] if weighted else weights[i] * nearest[i]
            total += mass
            ends[i] = total
            if mass > 0.0:
                last = i
        best, best_sum, best_trial = last, np.inf, 0
        for trial in range(1 if step == 0 else trials):
            at = min(np.searchsorted(ends, uniforms[step, trial] * total, side="right"), last)
            cost = 0.0
            for i in range(n):
                distance = 0.0
                for j in range(d):
                    delta = rows[i, j] - rows[at, j]
                    distance += delta * delta
                distance = min(distance, nearest[i])
                distances[trial, i] = distance
                cost += weights[i] * distance
            if cost < best_sum:
                best, best_sum, best_trial = at, cost, trial
        chosen[step] = best
        for i in range(n):
            nearest[i] = distances[best_trial, i]


def plus_plus_numpy(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    uniforms: NDArray[np.float64],
    chosen: NDArray[np.int64],
) -> None:
    """Do the same as :func:`plus_plus` with NumPy."""
    nearest = np.full(len(rows), np.inf)
    for step, own in enumerate(uniforms):
        mass = weights if step == 0 or not (weights * nearest).any() else weights * nearest
        ends = np.cumsum(mass)
        at = np.searchsorted(ends, own[: 1 if step == 0 else None] * ends[-1], side="right")
        at = np.minimum(at, np.flatnonzero(mass)[-1])
        squares = np.minimum(((rows[None] - rows[at][:, None]) ** 2).sum(axis=2), nearest)
        best = int(np.argmin(squares @ weights))
        chosen[step], nearest = at[best], squares[best]


@njit(nogil=True, cache=True, fastmath=_FAST)  # type: ignore[untyped-decorator]
def converge(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    centers: NDArray[np.float64],
    tol: float,
    passes: int,
) -> float:
    """Run Lloyd's iterations on weighted rows until they hold still; the centres move in place.

    Parameters
    ----------
    rows, weights
        float64 of shape (n_rows, n_features) and (n_rows,).
    centers
        float64 of shape (n_clusters, n_features); one without rows moves to the worst-fitted row.
    tol
        Largest squared shift of all centres that counts as none.
    passes
        Iterations at most.

    Returns
    -------
    float
        The inertia of the centres as they end.
    """
    k, d = centers.shape
    offsets = np.array([0, k])
    sums, counts, inertia = np.empty((k, d)), np.empty(k), np.empty(1)
    for _ in range(passes):
        sums[:], counts[:] = 0.0, 0.0
        assign_and_sum(rows, weights, centers, offsets, 0.0, np.inf, sums, counts, inertia)
        for c in range(k):
            for j in range(d):
                sums[c, j] = sums[c, j] / counts[c] if counts[c] > 0.0 else centers[c, j]
        if counts.min() == 0.0:
            _move_empty(rows, weights, sums, counts)
        shift = 0.0
        for c in range(k):
            for j in range(d):
                delta = sums[c, j] - centers[c, j]
                shift += delta * delta
                centers[c, j] = sums[c, j]
        if shift <= tol:
            break
    inertia[0] = 0.0
    assign_and_sum(rows, weights, centers, offsets, 0.0, np.inf, sums, counts, inertia)
    return float(inertia[0])


@njit(nogil=True, cache=True, fastmath=_FAST)  # type: ignore[untyped-decorator]
def _move_empty(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    centers: NDArray[np.float64],
    counts: NDArray[np.float64],
) -> None:
    n, d = rows.shape
    cost = np.empty(n)
    for i in range(n):
        best = np.inf
        for c in range(len(centers)):
            distance = 0.0
            for j in range(d):
                delta = rows[i, j] - centers[c, j]
                distance += delta * delta
            best = min(best, distance)
        cost[i] = weights[i] * best
    for c in range(len(centers)):
        if counts[c] == 0.0:
            worst = np.argmax(cost)
            centers[c] = rows[worst]
            cost[worst] = -1.0


def converge_numpy(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    centers: NDArray[np.float64],
    tol: float,
    passes: int,
) -> float:
    """Do the same as :func:`converge` with NumPy."""
    k = len(centers)
    offsets = np.array([0, k])

    def assigned() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        out = np.zeros(centers.shape), np.zeros(k), np.zeros(1)
        assign_and_sum_numpy(rows, weights, centers, offsets, 0.0, np.inf, *out)
        return out

    for _ in range(passes):
        sums, counts, _inertia = assigned()
        filled = counts > 0
        moved = np.where(filled[:, None], sums / np.where(filled, counts, 1.0)[:, None], centers)
        if not filled.all():
            squares = ((rows[:, None] - moved[None]) ** 2).sum(axis=2).min(axis=1)
            worst = np.argsort(-(squares * weights), kind="stable")
            moved[~filled] = rows[worst[: k - filled.sum()]]
        shift = float(((moved - centers) ** 2).sum())
        centers[:] = moved
        if shift <= tol:
            break
    return float(assigned()[2][0])
