"""Means and scatter matrices of blocks of rows, their merging, and sums of deviations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from segmentation.estimators._kernels import FASTMATH

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Moments(NamedTuple):
    """Number of rows, their mean and their centered scatter matrix, in float64.

    ``mean`` has shape (n_features,) and ``scatter`` has shape (n_features, n_features).
    """

    n: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]


def compute_moments(block: NDArray[Any]) -> Moments:
    """Return the moments of one block of shape (n_rows, n_features)."""
    n_features = block.shape[1]
    mean, scatter = np.zeros(n_features), np.zeros((n_features, n_features))
    compute_mean_and_scatter(np.ascontiguousarray(block), mean, scatter)
    return Moments(len(block), mean, scatter)


def merge_moments(left: Moments, right: Moments) -> Moments:
    """Return the moments of the rows of two disjoint blocks."""
    n = left.n + right.n
    with np.errstate(invalid="ignore", over="ignore"):
        delta = right.mean - left.mean
        scatter = left.scatter + right.scatter + np.outer(delta, delta) * (left.n * right.n / n)
        return Moments(n, left.mean + delta * (right.n / n), scatter)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def sum_deviations(
    X: NDArray[Any],
    weights: NDArray[np.float64],
    shift: NDArray[np.float64],
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> float:
    """Add each feature's weighted deviations from ``shift`` and their squares to the outputs.

    Parameters
    ----------
    X
        Rows of shape (n_rows, n_features), float32 or float64.
    weights
        Shape (n_rows,), float64; of length 0 if every row has weight 1.
    shift
        Shape (n_features,), float64. A value near the mean avoids cancellation.
    sums, squares
        Outputs of shape (n_features,), float64. Values are added to them, so pass zeros.

    Returns
    -------
    float
        The largest absolute value of ``X``; NaN if ``X`` holds NaN.
    """
    largest = np.zeros(X.shape[1])
    n_nan = 0
    for i in range(X.shape[0]):
        weight = weights[i] if len(weights) else 1.0
        for j in range(X.shape[1]):
            value = X[i, j]
            delta = value - shift[j]
            sums[j] += weight * delta
            squares[j] += weight * delta * delta
            magnitude = abs(value)
            # One maximum per feature and no branch, so that the loop vectorizes.
            largest[j] = magnitude if magnitude > largest[j] else largest[j]
            n_nan += np.isnan(value)
    return np.nan if n_nan else largest.max()


#: Rows in a tile. A tile is converted to float64 and transposed, and is small enough for the cache.
_TILE = 256
#: Unused entries after each feature of a tile, so that features don't map to the same cache sets.
_TILE_PADDING = 8
#: Features in a group. Each group of features is multiplied by two features at a time.
_FEATURE_GROUP = 4


@njit(nogil=True, cache=True, fastmath=FASTMATH)  # type: ignore[untyped-decorator]
def compute_mean_and_scatter(
    X: NDArray[Any], mean: NDArray[np.float64], scatter: NDArray[np.float64]
) -> None:
    """Compute the mean and the centered scatter matrix of the rows into ``mean`` and ``scatter``.

    Each tile is centered on its own mean and merged as in Chan, Golub & LeVeque (1979). NumPy's
    ``X.T @ X`` starts BLAS threads that compete with the workers' threads, and takes more than
    twice as long even if BLAS is limited to one thread.

    Parameters
    ----------
    X
        Rows of shape (n_rows, n_features), float32 or float64.
    mean, scatter
        Outputs of shape (n_features,) and (n_features, n_features), float64. Pass zeros.
    """
    n, d = X.shape
    # The features that fill the last group stay 0.
    padded = -(-d // _FEATURE_GROUP) * _FEATURE_GROUP
    tile = np.zeros((padded, _TILE + _TILE_PADDING))
    products = np.zeros((padded, padded))
    tile_mean = np.empty(d)
    n_merged = 0
    for start in range(0, n, _TILE):
        m = min(_TILE, n - start)
        for i in range(m):
            for j in range(d):
                tile[j, i] = X[start + i, j]
        for j in range(d):
            total = 0.0
            for i in range(m):
                total += tile[j, i]
            center = total / m
            tile_mean[j] = center
            for i in range(m):
                tile[j, i] -= center
        _add_products(tile, m, products)
        factor = n_merged * m / (n_merged + m)
        for a in range(d):
            for b in range(a + 1):
                scatter[a, b] += (tile_mean[a] - mean[a]) * (tile_mean[b] - mean[b]) * factor
        n_merged += m
        for j in range(d):
            mean[j] += (tile_mean[j] - mean[j]) * (m / n_merged)
    for a in range(d):
        for b in range(a + 1):
            scatter[a, b] += products[a, b]
            scatter[b, a] = scatter[a, b]


@njit(nogil=True, cache=True, fastmath=FASTMATH)  # type: ignore[untyped-decorator]
def _add_products(tile: NDArray[np.float64], m: int, products: NDArray[np.float64]) -> None:
    """Add products of features, summed over the first ``m`` rows of a tile, to ``products``.

    Entries above the diagonal are computed only within a group of features.
    """
    for a in range(0, len(tile), _FEATURE_GROUP):
        for b in range(0, a + _FEATURE_GROUP, 2):
            # Eight sums at once, so that each loaded value is used in several products.
            p0 = p1 = p2 = p3 = q0 = q1 = q2 = q3 = 0.0
            for i in range(m):
                u, v = tile[b, i], tile[b + 1, i]
                x = tile[a, i]
                p0 += x * u
                q0 += x * v
                x = tile[a + 1, i]
                p1 += x * u
                q1 += x * v
                x = tile[a + 2, i]
                p2 += x * u
                q2 += x * v
                x = tile[a + 3, i]
                p3 += x * u
                q3 += x * v
            products[a, b] += p0
            products[a + 1, b] += p1
            products[a + 2, b] += p2
            products[a + 3, b] += p3
            products[a, b + 1] += q0
            products[a + 1, b + 1] += q1
            products[a + 2, b + 1] += q2
            products[a + 3, b + 1] += q3
