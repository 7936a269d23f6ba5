"""What a block of rows goes through in K-Means; all that a worker imports for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.estimators import kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


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
    kernels.assign_and_sum(
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
    kernels.assign(np.ascontiguousarray(block), centers, labels, nearest, runner_up, second)
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
