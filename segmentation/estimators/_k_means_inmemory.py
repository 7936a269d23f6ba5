"""K-Means on weighted rows in memory, fully compiled, so that a restart has hardly any overhead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from segmentation.estimators._kernels import FASTMATH, assign_and_sum

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(nogil=True, cache=True, fastmath=FASTMATH)  # type: ignore[untyped-decorator]
def choose_plus_plus(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    uniforms: NDArray[np.float64],
    chosen: NDArray[np.int64],
) -> None:
    """Choose rows by weighted greedy k-means++ (Arthur & Vassilvitskii 2007).

    The first row is drawn by weight. Each further step draws candidates with a probability
    proportional to the weighted squared distance to the nearest center so far, and takes the
    candidate that lowers the sum of these distances most.

    Parameters
    ----------
    rows, weights
        Shapes (n_rows, n_features) and (n_rows,), float64.
    uniforms
        Random numbers in [0, 1) of shape (n_clusters, n_trials), one per candidate; the first
        step uses only the first.
    chosen
        Output of shape (n_clusters,): the numbers of the chosen rows.
    """
    n, d = rows.shape
    k, n_trials = uniforms.shape
    nearest = np.full(n, np.inf)
    cumulative = np.empty(n)
    distances = np.empty((n_trials, n))
    for step in range(k):
        total = 0.0
        last_positive = 0
        by_weight = step == 0
        if not by_weight:
            for i in range(n):
                total += weights[i] * nearest[i]
            # Every row coincides with a center: draw by weight again.
            by_weight = total == 0.0
        total = 0.0
        for i in range(n):
            mass = weights[i] if by_weight else weights[i] * nearest[i]
            total += mass
            cumulative[i] = total
            if mass > 0.0:
                last_positive = i
        best, lowest_cost, best_trial = last_positive, np.inf, 0
        for trial in range(1 if step == 0 else n_trials):
            candidate = min(
                np.searchsorted(cumulative, uniforms[step, trial] * total, side="right"),
                last_positive,
            )
            cost = 0.0
            for i in range(n):
                distance = 0.0
                for j in range(d):
                    delta = rows[i, j] - rows[candidate, j]
                    distance += delta * delta
                distance = min(distance, nearest[i])
                distances[trial, i] = distance
                cost += weights[i] * distance
            if cost < lowest_cost:
                best, lowest_cost, best_trial = candidate, cost, trial
        chosen[step] = best
        for i in range(n):
            nearest[i] = distances[best_trial, i]


@njit(nogil=True, cache=True, fastmath=FASTMATH)  # type: ignore[untyped-decorator]
def run_lloyd(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    centers: NDArray[np.float64],
    tol: float,
    max_iter: int,
) -> float:
    """Run Lloyd's iterations on weighted rows; the centers move in place.

    Parameters
    ----------
    rows, weights
        Shapes (n_rows, n_features) and (n_rows,), float64.
    centers
        Shape (n_clusters, n_features), float64. A center without rows moves to the row with
        the largest weighted squared distance to its own center.
    tol
        Stop when the squared shift of all centers is at most this.
    max_iter
        Maximum number of iterations.

    Returns
    -------
    float
        The inertia of the final centers.
    """
    k, d = centers.shape
    offsets = np.array([0, k])
    sums, counts, inertia = np.empty((k, d)), np.empty(k), np.empty(1)
    for _ in range(max_iter):
        sums[:], counts[:] = 0.0, 0.0
        assign_and_sum(rows, weights, centers, offsets, 0.0, np.inf, sums, counts, inertia)
        for c in range(k):
            for j in range(d):
                sums[c, j] = sums[c, j] / counts[c] if counts[c] > 0.0 else centers[c, j]
        if counts.min() == 0.0:
            _move_empty_centers(rows, weights, sums, counts)
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


@njit(nogil=True, cache=True, fastmath=FASTMATH)  # type: ignore[untyped-decorator]
def _move_empty_centers(
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
            farthest = np.argmax(cost)
            centers[c] = rows[farthest]
            cost[farthest] = -1.0
