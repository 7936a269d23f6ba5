"""Incremental PCA as a function: one batch per block, fixed signs, and the angle to exact PCA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.estimators._blockwise import (
    check_array,
    check_finite,
    iterate_blocks,
    split_rows,
)
from segmentation.estimators._covariance import Moments, compute_moments, merge_moments

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PCAResult(NamedTuple):
    """Result of :func:`fit_incremental_pca`.

    Attributes
    ----------
    n_samples
        Number of rows.
    mean, var
        Mean and variance of each feature; shape (n_features,).
    components
        Orthonormal axes by decreasing variance; shape (n_components, n_features).
    singular_values, explained_variance, explained_variance_ratio
        Shape (n_components,).
    noise_variance
        Mean variance of the components that are left out; 0 if there are none.
    angle_to_exact_degrees
        Largest principal angle to the components of exact PCA; NaN if nothing varies along one.
    """

    n_samples: int
    mean: NDArray[np.float64]
    var: NDArray[np.float64]
    components: NDArray[np.float64]
    singular_values: NDArray[np.float64]
    explained_variance: NDArray[np.float64]
    explained_variance_ratio: NDArray[np.float64]
    noise_variance: float
    angle_to_exact_degrees: float


class Batch(NamedTuple):
    """One condensed block: its moments, and a factor ``F`` of its scatter matrix ``F.T @ F``.

    ``factor`` has shape (min(n_rows, n_features), n_features). It is not reduced if the block holds
    NaN or infinity.
    """

    moments: Moments
    factor: NDArray[np.float64]


def fit_incremental_pca(X: Any, n_components: int | None = None, rank: int = 256) -> PCAResult:
    """Compute the principal components of ``X`` incrementally (Ross et al. 2008).

    Parameters
    ----------
    X
        Array of shape (n_samples, n_features).
    n_components
        Number of components; None for min(n_samples, n_features).
    rank
        Number of directions kept between updates; ``n_components`` if that is larger.

    Raises
    ------
    ValueError
        If ``n_components`` is not between 1 and min(n_samples, n_features), or ``X`` holds
        NaN or infinity.
    """
    X = check_array(X)
    n_features = X.shape[1]
    limit = min(X.shape)
    if n_components is None:
        n_components = limit
    if not 1 <= n_components <= limit:
        raise ValueError(
            f"n_components={n_components} must be between 1 and "
            f"min(n_samples, n_features) = {limit}"
        )
    rank = min(n_features, max(rank, n_components))
    # A batch is two matrices of (n_features, n_features) in float64.
    batches = iterate_blocks(split_rows(X), condense_block, result_bytes=16 * n_features**2)
    batch = next(batches)
    exact = batch.moments
    n_samples, mean = batch.moments.n, batch.moments.mean
    singular_values, axes = truncated_svd(batch.factor, rank)
    for batch in batches:
        exact = merge_moments(exact, batch.moments)
        n_batch, batch_mean = batch.moments.n, batch.moments.mean
        total = n_samples + n_batch
        correction = np.sqrt(n_samples * n_batch / total) * (mean - batch_mean)
        stacked = np.vstack([singular_values[:, None] * axes, batch.factor, correction[None]])
        singular_values, axes = truncated_svd(stacked, rank)
        mean = mean + (batch_mean - mean) * (n_batch / total)
        n_samples = total
    check_finite(exact.scatter)
    return _summarize(mean, singular_values, axes, exact, n_components)


def _summarize(
    mean: NDArray[np.float64],
    singular_values: NDArray[np.float64],
    axes: NDArray[np.float64],
    exact: Moments,
    n_components: int,
) -> PCAResult:
    n = exact.n
    degrees_of_freedom = max(n - 1, 1)
    total = float(np.trace(exact.scatter)) / degrees_of_freedom
    components = fix_signs(axes[:n_components])
    variance = (singular_values**2 / degrees_of_freedom)[:n_components]
    n_left_out = min(n, len(mean)) - n_components
    rest = max(0.0, total - float(variance.sum()))
    return PCAResult(
        n_samples=n,
        mean=mean,
        var=np.diag(exact.scatter) / n,
        components=components,
        singular_values=singular_values[:n_components],
        explained_variance=variance,
        explained_variance_ratio=variance / total if total > 0 else np.zeros(n_components),
        noise_variance=rest / n_left_out if n_left_out > 0 else 0.0,
        # Along an axis without variance, any direction is as exact as any other.
        angle_to_exact_degrees=principal_angle(components, exact_components(exact, n_components))
        if variance[-1] > np.finfo(np.float64).eps * len(mean) * total
        else float("nan"),
    )


def condense_block(block: NDArray[Any], weights: NDArray[np.float64] | None = None) -> Batch:
    """Reduce a block to its moments and a factor of its scatter matrix; ``weights`` is ignored.

    The factor is computed from the eigenvectors of the scatter matrix: a QR decomposition of all
    rows took twenty times as long as the scatter matrix.
    """
    moments = compute_moments(block)
    if len(block) <= block.shape[1] or not np.isfinite(moments.scatter).all():
        return Batch(moments, np.asarray(block, np.float64) - moments.mean)
    values, vectors = np.linalg.eigh(moments.scatter)
    return Batch(moments, np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T)


def truncated_svd(
    matrix: NDArray[np.float64], rank: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ``rank`` largest singular values and their right singular vectors.

    Raises
    ------
    ValueError
        If ``matrix`` holds NaN or infinity.
    """
    check_finite(matrix)
    _, singular_values, axes = np.linalg.svd(matrix, full_matrices=False)
    return singular_values[:rank], axes[:rank]


def exact_components(moments: Moments, n_components: int) -> NDArray[np.float64]:
    """Return the leading eigenvectors of a scatter matrix; shape (n_components, n_features)."""
    _, vectors = np.linalg.eigh(moments.scatter)
    return fix_signs(vectors.T[::-1][:n_components])


def fix_signs(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Flip each component whose loading of largest absolute value is negative."""
    largest = np.argmax(np.abs(components), axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    return np.asarray(components * np.where(signs == 0, 1.0, signs)[:, None])


def principal_angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the largest principal angle between two sets of orthonormal rows, in degrees.

    It is computed from its sine (Björck & Golub 1973), which is accurate for small angles.
    """
    residual = b - (b @ a.T) @ a
    sine = float(np.linalg.norm(residual, ord=2))
    return float(np.degrees(np.arcsin(min(1.0, sine))))


def project(
    block: NDArray[Any], mean: NDArray[np.float64], components: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Project the rows of one block; float64 of shape (n_rows, n_components)."""
    return np.asarray((np.asarray(block, np.float64) - mean) @ components.T)
