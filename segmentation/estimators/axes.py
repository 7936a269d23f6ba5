"""What a block of rows goes through in PCA, and small linear algebra; light to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.estimators.moments import Moments, block_moments

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
