"""Means, variances and scatter matrices of blocks of rows, mergeable in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Sums over rows may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}


class Moments(NamedTuple):
    """Rows, their mean and their centred scatter matrix, both in float64."""

    n: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]


def block_moments(block: NDArray[Any]) -> Moments:
    """Return the moments of one block."""
    d = block.shape[1]
    mean, scatter = np.zeros(d), np.zeros((d, d))
    scatter_matrix(np.ascontiguousarray(block), mean, scatter)
    return Moments(len(block), mean, scatter)


def merge_moments(one: Moments, other: Moments) -> Moments:
    """Merge moments of disjoint rows."""
    n = one.n + other.n
    with np.errstate(invalid="ignore", over="ignore"):
        delta = other.mean - one.mean
        scatter = one.scatter + other.scatter + np.outer(delta, delta) * (one.n * other.n / n)
        return Moments(n, one.mean + delta * (other.n / n), scatter)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def shifted_moments(
    X: NDArray[Any],
    weights: NDArray[np.float64],
    shift: NDArray[np.float64],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
) -> float:
    """Sum up each feature's deviation from ``shift`` and its square, in place.

    Returns
    -------
    float
        The largest absolute value; NaN wins.
    """
    top = np.zeros(X.shape[1])
    unknown = 0
    for i in range(X.shape[0]):
        weight = weights[i] if len(weights) else 1.0
        for j in range(X.shape[1]):
            value = X[i, j]
            delta = value - shift[j]
            first[j] += weight * delta
            second[j] += weight * delta * delta
            size = abs(value)
            # Without a branch, and a feature at a time, so that it vectorises.
            top[j] = size if size > top[j] else top[j]
            unknown += np.isnan(value)
    return np.nan if unknown else top.max()


#: Rows that are widened to float64 and turned on their side together, to stay in cache; and what
#: is left unused beside them, so that a column's features don't meet in the same cache lines.
_TILE, _GAP = 256, 8
#: So many features on one side, and two on the other, are multiplied at a time.
_SIDE = 4


@njit(nogil=True, cache=True, fastmath=_FAST)  # type: ignore[untyped-decorator]
def scatter_matrix(
    X: NDArray[Any], mean: NDArray[np.float64], scatter: NDArray[np.float64]
) -> None:
    """Compute the mean and the centred scatter matrix of the rows, in place.

    Each tile is centred on its own mean and merged as in Chan, Golub & LeVeque (1979). A BLAS
    that starts threads of its own would fight with those of the workers over such small products.
    """
    n, d = X.shape
    # Features beyond the last stay 0 and add nothing.
    wide = -(-d // _SIDE) * _SIDE
    tile = np.zeros((wide, _TILE + _GAP))
    products = np.zeros((wide, wide))
    own = np.empty(d)
    seen = 0
    for start in range(0, n, _TILE):
        m = min(_TILE, n - start)
        for i in range(m):
            for j in range(d):
                tile[j, i] = X[start + i, j]
        for j in range(d):
            total = 0.0
            for i in range(m):
                total += tile[j, i]
            middle = total / m
            own[j] = middle
            for i in range(m):
                tile[j, i] -= middle
        _add_products(tile, m, products)
        factor = seen * m / (seen + m)
        for a in range(d):
            for b in range(a + 1):
                scatter[a, b] += (own[a] - mean[a]) * (own[b] - mean[b]) * factor
        seen += m
        for j in range(d):
            mean[j] += (own[j] - mean[j]) * (m / seen)
    for a in range(d):
        for b in range(a + 1):
            scatter[a, b] += products[a, b]
            scatter[b, a] = scatter[a, b]


@njit(nogil=True, cache=True, fastmath=_FAST)  # type: ignore[untyped-decorator]
def _add_products(tile: NDArray[np.float64], m: int, products: NDArray[np.float64]) -> None:
    """Add the products of all pairs of features, over the first ``m`` rows of a tile, in place."""
    for a in range(0, len(tile), _SIDE):
        for b in range(0, a + _SIDE, 2):
            # Eight sums at once: each value that is loaded serves several products.
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


def scatter_matrix_numpy(
    X: NDArray[Any], mean: NDArray[np.float64], scatter: NDArray[np.float64]
) -> None:
    """Do the same as :func:`scatter_matrix` with NumPy."""
    rows = X.astype(np.float64)
    mean[:] = rows.mean(axis=0)
    scatter[:] = (rows - mean).T @ (rows - mean)
