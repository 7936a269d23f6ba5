"""What a block of rows goes through in K-Means; all that a worker imports for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.estimators import kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Step(NamedTuple):
    """What one Lloyd pass learns: a sum and a count a cluster, and the inertia."""

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]
    inertia: float


def lloyd_block(block: NDArray[Any], centers: NDArray[np.float64]) -> Step:
    sums = np.zeros(centers.shape)
    counts = np.zeros(len(centers), np.int64)
    inertia = kernels.assign_and_sum(np.ascontiguousarray(block), centers, sums, counts)
    return Step(sums, counts, float(inertia))


def add_steps(steps: list[Step]) -> Step:
    return Step(
        np.sum([step.sums for step in steps], axis=0),
        np.sum([step.counts for step in steps], axis=0),
        sum(step.inertia for step in steps),
    )


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
    row: NDArray[np.float64]


def assign_block(block: NDArray[Any], centers: NDArray[np.float64]) -> Assignment:
    """Assign the rows of one block; distances are Euclidean, float64."""
    n = len(block)
    labels, runner_up = np.empty(n, np.int32), np.empty(n, np.int32)
    nearest, second = np.empty(n), np.empty(n)
    kernels.assign(np.ascontiguousarray(block), centers, labels, nearest, runner_up, second)
    return Assignment(labels, np.sqrt(nearest), runner_up, np.sqrt(second))


def block_labels(block: NDArray[Any], centers: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the number of each row's nearest centre."""
    return assign_block(block, centers).labels


def block_distances(block: NDArray[Any], centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row's distance to each centre; float64 of shape (n_rows, n_clusters)."""
    out = np.empty((len(block), len(centers)))
    for c, center in enumerate(centers):
        out[:, c] = np.sqrt(((np.asarray(block, np.float64) - center) ** 2).sum(axis=1))
    return out


def farthest_rows(
    block: NDArray[Any], start: int, centers: NDArray[np.float64], count: int
) -> list[FarRow]:
    """Return the ``count`` rows of a block that are farthest from their centres."""
    found = assign_block(block, centers)
    rows = np.argsort(-found.distance, kind="stable")[:count]
    return [
        FarRow(
            float(found.distance[row]),
            start + int(row),
            int(found.labels[row]),
            np.asarray(block[row], np.float64),
        )
        for row in rows
    ]


def merge_farthest(count: int, parts: list[list[FarRow]]) -> list[FarRow]:
    """Keep the ``count`` rows farthest from their centres; equal ones by row number."""
    rows = [row for part in parts for row in part]
    return sorted(rows, key=lambda row: (-row.distance, row.number))[:count]
