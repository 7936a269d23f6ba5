"""What a block of rows goes through in K-Means; all that a worker imports for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import dask
import numpy as np

from segmentation.estimators import _kernels
from segmentation.estimators._blockwise import Rows, reduce_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from segmentation.estimators._sampling import Spread


class Step(NamedTuple):
    """What one pass learns of several sets of centres, one below the other.

    ``sums`` has shape (n_centers, n_features), ``counts`` (the weight of each centre's rows)
    (n_centers,), ``inertia`` (n_sets,).
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.float64]
    inertia: NDArray[np.float64]


class Assignment(NamedTuple):
    """Each row's nearest and second nearest centre, and its distances to them."""

    labels: NDArray[np.int32]
    distance: NDArray[np.float64]
    runner_up: NDArray[np.int32]
    second: NDArray[np.float64]


class FarRow(NamedTuple):
    """A row far from its centre: the distance, its number in the whole array, its label."""

    distance: float
    number: int
    label: int
    weight: float
    row: NDArray[np.float64]


def stacked(
    sets: Sequence[NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Put sets of centres one below the other; return them and where each begins."""
    return np.concatenate(sets), np.cumsum([0, *map(len, sets)])


def lloyd_block(
    block: NDArray[Any],
    weights: NDArray[np.float64],
    centers: NDArray[Any],
    offsets: NDArray[np.int64],
) -> Step:
    """Assign one block's rows in every set of centres and sum them up.

    Centres in float32 let a float32 block be compared in that precision; sums are float64.
    """
    step = Step(np.zeros(centers.shape), np.zeros(len(centers)), np.zeros(len(offsets) - 1))
    wide = np.result_type(block, centers).type
    _kernels.assign_and_sum(
        np.ascontiguousarray(block), weights, centers, offsets, wide(0), wide(np.inf), *step
    )
    return step


def add_steps(one: Step, other: Step) -> Step:
    """Add what two blocks learnt."""
    return Step(*(a + b for a, b in zip(one, other, strict=True)))


def assign_block(block: NDArray[Any], centers: NDArray[np.float64]) -> Assignment:
    """Assign the rows of one block; distances are Euclidean, float64."""
    n = len(block)
    labels, runner_up = np.empty(n, np.int32), np.empty(n, np.int32)
    nearest, second = np.empty(n), np.empty(n)
    _kernels.assign(np.ascontiguousarray(block), centers, labels, nearest, runner_up, second)
    return Assignment(labels, np.sqrt(nearest), runner_up, np.sqrt(second))


def block_labels(block: NDArray[Any], centers: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the number of each row's nearest centre.

    Raises
    ------
    ValueError
        If a row holds NaN or infinity.
    """
    found = assign_block(block, centers)
    _check(found.distance)
    return found.labels


def block_distances(block: NDArray[Any], centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row's distance to each centre; float64 of shape (n_rows, n_clusters)."""
    out = np.empty((len(block), len(centers)))
    for c, center in enumerate(centers):
        out[:, c] = np.sqrt(((np.asarray(block, np.float64) - center) ** 2).sum(axis=1))
    _check(out)
    return out


def _check(distances: NDArray[np.float64]) -> None:
    if not np.isfinite(distances).all():
        raise ValueError("NaN or infinity in the input: fill or drop those rows first")


def farthest_rows(
    block: NDArray[Any],
    weights: NDArray[np.float64],
    start: int,
    centers: NDArray[np.float64],
    count: int,
) -> list[FarRow]:
    """Return the ``count`` rows of a block that are farthest from their centres."""
    found = assign_block(block, centers)
    distance = np.where(weights > 0, found.distance, -1.0) if len(weights) else found.distance
    rows = np.argsort(-distance, kind="stable")[:count]
    return [
        FarRow(
            float(distance[row]),
            start + int(row),
            int(found.labels[row]),
            float(weights[row]) if len(weights) else 1.0,
            np.asarray(block[row], np.float64),
        )
        for row in rows
    ]


def merge_farthest(count: int, parts: Sequence[list[FarRow]]) -> list[FarRow]:
    """Keep the ``count`` rows farthest from their centres; equal ones by content, then number."""
    rows = [row for part in parts for row in part]
    return sorted(rows, key=lambda row: (-row.distance, row.row.tolist(), row.number))[:count]


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
