"""Lloyd's iterations in passes over all rows, and the functions that run on each block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import dask
import numpy as np

from segmentation.estimators import _kernels
from segmentation.estimators._blockwise import RowBlocks, add_fields, check_finite, reduce_blocks
from segmentation.estimators.exceptions import TooFewDistinctRowsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    from segmentation.estimators._sampling import FeatureStatistics

#: A set of centers is dropped once its inertia exceeds this multiple of the best of its group.
_MAX_INERTIA_RATIO = 1.001


class LloydSums(NamedTuple):
    """Sums of one pass over rows for several sets of centers, stacked.

    Attributes
    ----------
    sums
        Weighted sum of the rows of each center; shape (n_centers, n_features).
    counts
        Weight of the rows of each center; shape (n_centers,).
    inertia
        Weighted sum of squared distances of each set; shape (n_sets,).
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.float64]
    inertia: NDArray[np.float64]


class Assignment(NamedTuple):
    """Each row's nearest and second nearest center and its distances to them.

    All have shape (n_rows,). Labels are int32; distances are Euclidean, float64.
    """

    labels: NDArray[np.int32]
    distance: NDArray[np.float64]
    runner_up: NDArray[np.int32]
    second: NDArray[np.float64]


class FarRow(NamedTuple):
    """A row far from its center: distance, row number in the whole array, label and weight."""

    distance: float
    number: int
    label: int
    weight: float
    row: NDArray[np.float64]


def stack_centers(
    center_sets: Sequence[NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Stack sets of centers; return them with the offset of each set and the end."""
    return np.concatenate(center_sets), np.cumsum([0, *map(len, center_sets)])


def lloyd_block(
    block: NDArray[Any],
    weights: NDArray[np.float64],
    centers: NDArray[Any],
    offsets: NDArray[np.int64],
) -> LloydSums:
    """Assign the rows of one block in every set of centers and sum them.

    Distances are computed in the wider dtype of ``block`` and ``centers``; sums are float64.
    """
    result = LloydSums(np.zeros(centers.shape), np.zeros(len(centers)), np.zeros(len(offsets) - 1))
    wide = np.result_type(block, centers).type
    _kernels.assign_and_sum(
        np.ascontiguousarray(block), weights, centers, offsets, wide(0), wide(np.inf), *result
    )
    return result


def assign_block(block: NDArray[Any], centers: NDArray[np.float64]) -> Assignment:
    """Assign the rows of one block to their nearest centers."""
    n = len(block)
    labels, runner_up = np.empty(n, np.int32), np.empty(n, np.int32)
    nearest, second = np.empty(n), np.empty(n)
    _kernels.assign(np.ascontiguousarray(block), centers, labels, nearest, runner_up, second)
    return Assignment(labels, np.sqrt(nearest), runner_up, np.sqrt(second))


def label_block(block: NDArray[Any], centers: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the label of each row's nearest center; int32 of shape (n_rows,).

    Raises
    ------
    ValueError
        If a row holds NaN or infinity.
    """
    assignment = assign_block(block, centers)
    check_finite(assignment.distance)
    return assignment.labels


def compute_distances(block: NDArray[Any], centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row's distance to each center; float64 of shape (n_rows, n_clusters).

    Raises
    ------
    ValueError
        If a row holds NaN or infinity.
    """
    distances = np.empty((len(block), len(centers)))
    rows = np.asarray(block, np.float64)
    for c, center in enumerate(centers):
        distances[:, c] = np.sqrt(((rows - center) ** 2).sum(axis=1))
    check_finite(distances)
    return distances


def lloyd_pass(
    X: RowBlocks, center_sets: Sequence[NDArray[np.float64]], dtype: DTypeLike = np.float64
) -> LloydSums:
    """Assign and sum all rows in every set of centers, in one pass over the rows.

    ``dtype`` is that of the centers, and so that of distances to float32 rows.
    """
    centers, offsets = stack_centers(center_sets)
    return reduce_blocks(X, lloyd_block, add_fields, np.ascontiguousarray(centers, dtype), offsets)


def run_lloyd_passes(
    X: RowBlocks,
    center_sets: Sequence[NDArray[np.float64]],
    tol: float,
    max_iter: int,
    dtype: DTypeLike = np.float64,
    *,
    group_sizes: Sequence[int] | None = None,
) -> tuple[list[NDArray[np.float64]], list[int]]:
    """Run Lloyd's iterations on all sets of centers together until each has converged.

    Parameters
    ----------
    X
        The rows.
    center_sets
        Sets of centers, each of shape (n_clusters, n_features); ``n_clusters`` may differ.
    tol
        Largest squared shift of a set's centers at which the set has converged.
    max_iter
        Maximum number of passes.
    dtype
        Precision in which distances are compared where the rows are float32.
    group_sizes
        Numbers of consecutive sets that compete with each other. From the second pass on, sets
        clearly behind the best of their group stop. Only for sets that start near their optimum:
        the inertia of a set that starts far away says little. With None, no set stops early.

    Returns
    -------
    centers : list
        The final centers of each set.
    n_iter : list
        Number of passes made by each set.
    """
    center_sets = list(center_sets)
    n_iter = [0] * len(center_sets)
    active = list(range(len(center_sets)))
    group = None if group_sizes is None else np.repeat(np.arange(len(group_sizes)), group_sizes)
    for iteration in range(1, max_iter + 1):
        result = lloyd_pass(X, [center_sets[s] for s in active], dtype)
        moving = []
        start = 0
        for s in active:
            part = slice(start, start + len(center_sets[s]))
            start = part.stop
            moved, is_moving = _update_centers(
                X, center_sets[s], result.sums[part], result.counts[part], tol
            )
            center_sets[s], n_iter[s] = moved, iteration
            if is_moving:
                moving.append(s)
        if group is not None and iteration > 1:
            best = np.full(len(group), np.inf)
            np.minimum.at(best, group[active], result.inertia)
            limits = best[group[active]] * _MAX_INERTIA_RATIO
            is_behind = result.inertia > limits
            behind = {s for s, flag in zip(active, is_behind, strict=True) if flag}
            moving = [s for s in moving if s not in behind]
        active = moving
        if not active:
            break
    return center_sets, n_iter


def _update_centers(
    X: RowBlocks,
    centers: NDArray[np.float64],
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    tol: float,
) -> tuple[NDArray[np.float64], bool]:
    """Move each center to the mean of its rows; return the centers and whether they still move."""
    if not counts.all():
        sums, counts = _relocate_empty_clusters(X, centers, sums, counts)
    occupied = counts > 0
    # A cluster that is still empty stays in place, and its set is not converged.
    weights = np.where(occupied, counts, 1.0)[:, None]
    moved = np.where(occupied[:, None], sums / weights, centers)
    shift = float(((moved - centers) ** 2).sum())
    return moved, shift > tol or not occupied.all()


def _relocate_empty_clusters(
    X: RowBlocks,
    centers: NDArray[np.float64],
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give each empty cluster the row that is farthest from its center, as scikit-learn does.

    Raises
    ------
    TooFewDistinctRowsError
        If no row can be moved.
    """
    k = len(centers)
    find = dask.delayed(find_farthest_rows, pure=False)
    blocks = zip(X.blocks, X.weights, X.starts, strict=True)
    parts = dask.compute(
        *(find(block, weights, start, centers, k) for block, weights, start in blocks)
    )
    farthest = iter(merge_farthest(parts, k))
    sums, counts = sums.copy(), counts.copy()
    taken: list[NDArray[np.float64]] = []
    for cluster in np.flatnonzero(counts == 0):
        for far_row in farthest:
            is_new = not any(np.array_equal(far_row.row, row) for row in taken)
            is_only_row = counts[far_row.label] <= far_row.weight
            if is_new and far_row.distance > 0 and not is_only_row:
                taken.append(far_row.row)
                sums[far_row.label] -= far_row.weight * far_row.row
                counts[far_row.label] -= far_row.weight
                sums[cluster] = far_row.weight * far_row.row
                counts[cluster] = far_row.weight
                break
    if not taken:
        raise TooFewDistinctRowsError(int((counts > 0).sum()), k, X.n_rows)
    return sums, counts


def find_farthest_rows(
    block: NDArray[Any],
    weights: NDArray[np.float64],
    start: int,
    centers: NDArray[np.float64],
    limit: int,
) -> list[FarRow]:
    """Return the ``limit`` rows of a block that are farthest from their centers.

    ``start`` is the number of the block's first row in the whole array. Rows of weight 0 come last,
    with a distance of −1.
    """
    assignment = assign_block(block, centers)
    distance = assignment.distance
    if len(weights):
        distance = np.where(weights > 0, distance, -1.0)
    rows = np.argsort(-distance, kind="stable")[:limit]
    return [
        FarRow(
            float(distance[row]),
            start + int(row),
            int(assignment.labels[row]),
            float(weights[row]) if len(weights) else 1.0,
            np.asarray(block[row], np.float64),
        )
        for row in rows
    ]


def merge_farthest(parts: Sequence[list[FarRow]], limit: int) -> list[FarRow]:
    """Return the ``limit`` farthest rows of all blocks; ties are broken by content and number."""
    rows = [row for part in parts for row in part]
    return sorted(rows, key=lambda row: (-row.distance, row.row.tolist(), row.number))[:limit]


def choose_distance_dtype(
    dtype: np.dtype[Any], features: FeatureStatistics
) -> type[np.floating[Any]]:
    """Return the dtype of the distances that assign rows during Lloyd's iterations.

    float32 if the rows are float32 and it is precise enough: values neither huge nor tiny, and not
    far from the origin compared with their spread. Final labels, distances and inertias are always
    computed in float64.
    """
    if dtype != np.float32:
        return np.float64
    scale = float(np.sqrt(features.squared_deviations.mean() / features.weight))
    is_safe = 1e-15 < scale < 1e15 and features.max_abs < 1e3 * scale
    return np.float32 if is_safe else np.float64
