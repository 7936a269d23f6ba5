"""Incremental PCA: a batch a block, a fixed sign, and its angle to exact PCA.

Like the fit of K-Means it needs no scikit-learn; the estimator that wraps it is
:class:`segmentation.estimators.pca.IncrementalPCA`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.estimators._blockwise import as_rows, fold, map_blocks, rows_of
from segmentation.estimators._covariance import Moments, block_moments, merge_moments

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Principal(NamedTuple):
    """Axes by falling variance, (n_components, n_features), and what is known of them."""

    n: int
    mean: NDArray[np.float64]
    var: NDArray[np.float64]
    components: NDArray[np.float64]
    singular_values: NDArray[np.float64]
    explained_variance: NDArray[np.float64]
    explained_variance_ratio: NDArray[np.float64]
    noise_variance: float
    angle_to_exact_degrees: float


def fit_incremental_pca(X: Any, n_components: int | None = None, rank: int = 256) -> Principal:
    """Find the axes of ``X``, of shape (n_samples, n_features), by Ross et al. (2008).

    Raises
    ------
    ValueError
        If ``n_components`` is not between 1 and min(n_samples, n_features), or ``X`` holds
        NaN or infinity.
    """
    X = as_rows(X)
    n_samples, n_features = X.shape
    most = min(n_samples, n_features)
    wanted = most if n_components is None else n_components
    if not 1 <= wanted <= most:
        raise ValueError(
            f"n_components={n_components} must be between 1 and min(n_samples, n_features) = {most}"
        )
    keep = min(n_features, max(rank, wanted))
    batches: list[Batch] = map_blocks(rows_of(X), condense)
    exact = fold([batch.moments for batch in batches], merge_moments)
    if not np.isfinite(exact.scatter).all():
        raise ValueError("NaN or infinity in the input: fill or drop those rows first")
    n, mean = batches[0].moments.n, batches[0].moments.mean
    singular, axes = leading(batches[0].factor, keep)
    for batch in batches[1:]:
        m, batch_mean = batch.moments.n, batch.moments.mean
        correction = np.sqrt(n * m / (n + m)) * (mean - batch_mean)
        stacked = np.vstack([singular[:, None] * axes, batch.factor, correction[None]])
        singular, axes = leading(stacked, keep)
        mean = mean + (batch_mean - mean) * (m / (n + m))
        n += m
    return _told(n, mean, singular, axes, exact, wanted)


def _told(
    n: int,
    mean: NDArray[np.float64],
    singular: NDArray[np.float64],
    axes: NDArray[np.float64],
    exact: Moments,
    wanted: int,
) -> Principal:
    freedom = max(n - 1, 1)
    total = float(np.trace(exact.scatter)) / freedom
    components = fix_signs(axes[:wanted])
    variance = (singular**2 / freedom)[:wanted]
    rest = min(n, len(mean)) - wanted
    return Principal(
        n,
        mean,
        np.diag(exact.scatter) / n,
        components,
        singular[:wanted],
        variance,
        variance / total if total > 0 else np.zeros(wanted),
        max(0.0, total - float(variance.sum())) / rest if rest > 0 else 0.0,
        # Without variance no axis is more exact than another.
        angle_degrees(components, exact_axes(exact, wanted)) if total > 0 else float("nan"),
    )


class Batch(NamedTuple):
    """One block condensed: its moments and the triangular factor of its centred rows."""

    moments: Moments
    factor: NDArray[np.float64]


def exact_axes(moments: Moments, n_components: int) -> NDArray[np.float64]:
    """Return the leading eigenvectors of a scatter matrix, (n_components, n_features)."""
    _, vectors = np.linalg.eigh(moments.scatter)
    return fix_signs(vectors.T[::-1][:n_components])


def angle_degrees(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the largest principal angle between two sets of orthonormal rows, degrees.

    From the sine (Björck & Golub 1973), which is accurate where the angle is small.
    """
    residual = second - (second @ first.T) @ first
    sine = float(np.linalg.norm(residual, ord=2))
    return float(np.degrees(np.arcsin(min(1.0, sine))))


def fix_signs(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn each axis so that its largest loading by size is positive."""
    largest = np.argmax(np.abs(axes), axis=1)
    signs = np.sign(axes[np.arange(len(axes)), largest])
    return np.asarray(axes * np.where(signs == 0, 1.0, signs)[:, None])


def project(
    block: NDArray[Any], mean: NDArray[np.float64], axes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Project one block's rows; float64 of shape (n_rows, n_components)."""
    return np.asarray((np.asarray(block, np.float64) - mean) @ axes.T)


def condense(block: NDArray[Any], weights: NDArray[np.float64] | None = None) -> Batch:
    """Condense one block to what an update needs of it.

    The factor's cross product is the scatter matrix, like that of the centred rows themselves:
    from its eigenvectors, since a QR of all rows took twenty times as long as the scatter.
    """
    moments = block_moments(block)
    if len(block) <= block.shape[1] or not np.isfinite(moments.scatter).all():
        return Batch(moments, np.asarray(block, np.float64) - moments.mean)
    values, vectors = np.linalg.eigh(moments.scatter)
    return Batch(moments, np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T)


def leading(
    matrix: NDArray[np.float64], keep: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ``keep`` largest singular values and their right singular vectors."""
    if not np.isfinite(matrix).all():
        raise ValueError("NaN or infinity in the input: fill or drop those rows first")
    _, singular, axes = np.linalg.svd(matrix, full_matrices=False)
    return singular[:keep], axes[:keep]
