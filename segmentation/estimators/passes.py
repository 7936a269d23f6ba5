"""Lloyd's iterations over all rows: several sets of centres advance in the same passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask
import numpy as np

from segmentation.estimators.blocks import Rows, reduce_blocks
from segmentation.estimators.lloyd import (
    Step,
    add_steps,
    farthest_rows,
    lloyd_block,
    merge_farthest,
    stacked,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from segmentation.estimators.survey import Spread


#: Inertia over the leader's that puts a set of centres out of the race.
_BEHIND = 1.001


def lloyd_pass(X: Rows, sets: Sequence[NDArray[np.float64]], dtype: Any = np.float64) -> Step:
    """Assign every row in every set of centres and sum up, in one pass over the rows."""
    centers, offsets = stacked(sets)
    step: Step = reduce_blocks(
        X, lloyd_block, add_steps, np.ascontiguousarray(centers, dtype), offsets
    )
    return step


def advance(
    X: Rows,
    sets: Sequence[NDArray[np.float64]],
    tol: float,
    max_iter: int,
    dtype: Any = np.float64,
    *,
    rivals: Sequence[int] | None = None,
) -> tuple[list[NDArray[np.float64]], list[int]]:
    """Advance all sets of centres together until each has converged.

    Parameters
    ----------
    X
        The rows.
    sets
        Centres, each set of shape (n_clusters, n_features) with a number of clusters of its own.
    tol
        Largest squared shift of a set's centres that counts as none.
    max_iter
        Passes at most.
    dtype
        In which distances to centres are compared where the rows are float32 too.
    rivals
        How many sets, one after the other, are rivals: from the second pass on those that are
        clearly behind the best of theirs are dropped. Only for sets that start near their
        optimum: what a set is worth shows late if it starts far away. None drops none.

    Returns
    -------
    tuple
        The sets' last centres, and how many passes each took.
    """
    ends = list(sets)
    n_iter = [0] * len(ends)
    active = list(range(len(ends)))
    race = np.repeat(np.arange(len(rivals)), rivals) if rivals is not None else None
    for number in range(1, max_iter + 1):
        step = lloyd_pass(X, [ends[s] for s in active], dtype)
        moving = []
        at = 0
        for s in active:
            own = slice(at, at + len(ends[s]))
            at = own.stop
            sums, counts = step.sums[own], step.counts[own]
            if not counts.all():
                sums, counts = _fill_empty(X, ends[s], sums, counts)
            filled = counts > 0
            # Distinct rows may be fewer than empty clusters for now: those wait in place.
            weight = np.where(filled, counts, 1.0)[:, None]
            moved = np.where(filled[:, None], sums / weight, ends[s])
            shift = float(((moved - ends[s]) ** 2).sum())
            ends[s], n_iter[s] = moved, number
            if shift > tol or not filled.all():
                moving.append(s)
        if race is not None and number > 1:
            leader = np.full(len(race), np.inf)
            np.minimum.at(leader, race[active], step.inertia)
            limit = leader[race] * _BEHIND
            behind = {s for s, i in zip(active, step.inertia, strict=True) if i > limit[s]}
            moving = [s for s in moving if s not in behind]
        active = moving
        if not active:
            break
    return ends, n_iter


def _fill_empty(
    X: Rows,
    centers: NDArray[np.float64],
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give each empty cluster the row that fits its own worst, as scikit-learn does."""
    k = len(centers)
    far = dask.delayed(farthest_rows, pure=False)
    parts = zip(X.blocks, X.weights, X.starts, strict=True)
    found = dask.compute(
        *(far(block, weights, start, centers, k) for block, weights, start in parts)
    )
    worst = iter(merge_farthest(k, found))
    sums, counts = sums.copy(), counts.copy()
    taken: list[NDArray[np.float64]] = []
    for cluster in np.flatnonzero(counts == 0):
        for far_row in worst:
            fresh = not any(np.array_equal(far_row.row, row) for row in taken)
            spare = counts[far_row.label] > far_row.weight
            if fresh and far_row.distance > 0 and spare:
                taken.append(far_row.row)
                sums[far_row.label] -= far_row.weight * far_row.row
                counts[far_row.label] -= far_row.weight
                sums[cluster] = far_row.weight * far_row.row
                counts[cluster] = far_row.weight
                break
    if not taken:
        distinct = int((counts > 0).sum())
        raise ValueError(
            f"{distinct} distinct rows for n_clusters={k}: use n_clusters={distinct} or fewer"
        )
    return sums, counts


def distance_dtype(dtype: Any, spread: Spread) -> Any:
    """Return the precision for distances that decide labels.

    float32 where the rows are, and lose nothing by it: values neither huge nor tiny, and not far
    off the origin for their spread. What is reported is computed in float64 in any case.
    """
    if dtype != np.float32:
        return np.float64
    typical = float(np.sqrt(spread.squares.mean() / spread.weight))
    plain = 1e-15 < typical < 1e15 and spread.largest < 1e3 * typical
    return np.float32 if plain else np.float64
