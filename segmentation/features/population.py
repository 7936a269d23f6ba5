"""What is counted of an audience to see later whether it has changed; counts and sums add up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from segmentation.schema import Grid, Population

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def make_grid(preset: str, scale: tuple[float, float]) -> Grid:
    """Return the grid that holds every feature of a preset, for ratings on ``scale``.

    Examples
    --------
    >>> make_grid("engagement", (0.5, 5.0)), make_grid("taste", (0.5, 5.0))
    (Grid(low=0.0, high=5.0), Grid(low=-4.5, high=4.5))
    """
    low, high = scale
    if preset == "taste":
        return Grid(low - high, high - low)
    return Grid(min(low, 0.0), max(high, 0.0))


def count_population(
    features: NDArray[Any],
    labels: NDArray[np.int32],
    distance: NDArray[np.float64],
    distance_p99: NDArray[np.float64],
    grid: Grid,
) -> Population:
    """Count and sum the users of one block.

    Parameters
    ----------
    features
        Shape (n_users, n_features).
    labels, distance
        Each user's segment, and the distance to its centre; of shape (n_users,).
    distance_p99
        The distance beyond which a user is an outlier, of shape (n_segments,).
    grid
        The cells to count in.

    Examples
    --------
    >>> features, labels = np.array([[0.0], [0.1], [5.0]]), np.array([0, 0, 1], np.int32)
    >>> distance = np.array([0.5, 2.0, 0.0])
    >>> counts = count_population(features, labels, distance, np.array([1.0, 1.0]), Grid(0.0, 5.0))
    >>> counts.users.tolist(), counts.outliers.tolist(), counts.cells[0, [0, 1, 40]].tolist()
    ([2, 1], [1, 0], [1, 1, 1])
    """
    k, n_features = len(distance_p99), features.shape[1]
    cells = np.zeros((n_features, grid.n_cells), np.int64)
    sums = np.zeros((k, n_features))
    rows = np.ascontiguousarray(features)
    _add_features(rows, labels, grid.low, 1 / grid.width, cells, sums)
    return Population(
        np.bincount(labels, minlength=k),
        np.bincount(labels[distance > distance_p99[labels]], minlength=k),
        np.bincount(labels, distance**2, minlength=k).astype(np.float64),
        sums,
        cells,
    )


def merge_populations(parts: Sequence[Population]) -> Population:
    """Add the populations of disjoint blocks."""
    columns: Any = (np.sum(column, axis=0) for column in zip(*parts, strict=True))
    return Population(*columns)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _add_features(
    features: NDArray[Any],
    labels: NDArray[np.int32],
    low: float,
    cells_per_unit: float,
    cells: NDArray[np.int64],
    sums: NDArray[np.float64],
) -> None:
    last = cells.shape[1] - 1
    for i in range(features.shape[0]):
        for g in range(features.shape[1]):
            value = features[i, g]
            sums[labels[i], g] += value
            cell = 0
            if value != 0:
                cell = max(1, min(1 + int((value - low) * cells_per_unit), last))
            cells[g, cell] += 1
