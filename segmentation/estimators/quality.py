"""How good a clustering is: exact figures from one distributed pass, others on a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.estimators.blocks import as_rows, gather, reduce_blocks, rows_of, sample_rows
from segmentation.estimators.lloyd import assign_block

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import NDArray

#: Rows that the silhouette is computed on: its cost grows with their square.
SILHOUETTE_ROWS = 5_000


class _Sums(NamedTuple):
    counts: NDArray[np.int64]
    rows: NDArray[np.float64]
    squares: NDArray[np.float64]
    distances: NDArray[np.float64]
    silhouettes: NDArray[np.float64]


def evaluate(X: da.Array, centers: NDArray[np.float64]) -> dict[str, Any]:
    """Judge the clustering of ``X`` by its nearest centres, exactly, in one pass.

    Parameters
    ----------
    X
        Dask array of shape (n_samples, n_features).
    centers
        Shape (n_clusters, n_features).

    Returns
    -------
    dict
        ``sizes``; ``inertia``; ``calinski_harabasz`` (Caliński & Harabasz 1974);
        ``davies_bouldin`` (Davies & Bouldin 1979, with distances to ``centers``);
        ``simplified_silhouette`` (Hruschka et al. 2004: distances to centres in place of mean
        distances to members) over all rows and, a cluster at a time,
        ``simplified_silhouettes``. Figures that one cluster can't have are None.
    """
    sums: _Sums = reduce_blocks(rows_of(as_rows(X)), _block_sums, _add, centers)
    n, k = int(sums.counts.sum()), len(centers)
    occupied = np.maximum(sums.counts, 1)
    means = sums.rows / occupied[:, None]
    mean = sums.rows.sum(axis=0) / n
    # Rows spread about their cluster's mean as about its centre, less the mean's own offset.
    within = float(sums.squares.sum() - (sums.counts * ((means - centers) ** 2).sum(axis=1)).sum())
    between = float((sums.counts * ((means - mean) ** 2).sum(axis=1)).sum())
    figures: dict[str, Any] = {
        "sizes": [int(count) for count in sums.counts],
        "inertia": float(sums.squares.sum()),
        "calinski_harabasz": None,
        "davies_bouldin": None,
        "simplified_silhouette": None,
        "simplified_silhouettes": [None] * k,
    }
    if k < 2:
        return figures
    if within > 0 and n > k:
        figures["calinski_harabasz"] = between / within * (n - k) / (k - 1)
    spread = sums.distances / occupied
    apart = np.sqrt(((centers[:, None] - centers[None]) ** 2).sum(axis=2))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(apart > 0, (spread[:, None] + spread[None]) / apart, 0.0)
    figures["davies_bouldin"] = float(ratio.max(axis=1).mean())
    figures["simplified_silhouette"] = float(sums.silhouettes.sum() / n)
    figures["simplified_silhouettes"] = [float(s) for s in sums.silhouettes / occupied]
    return figures


def sampled_silhouette(
    X: da.Array, centers: NDArray[np.float64], seed: int, size: int = SILHOUETTE_ROWS
) -> tuple[float | None, int]:
    """Return scikit-learn's silhouette on a sample of rows, and how many rows that was.

    None where fewer than two clusters are in the sample, or every row is a cluster of its own.
    """
    from sklearn.metrics import silhouette_score

    rows = sample_rows(X.shape[0], size, seed)
    sample = np.asarray(gather(rows_of(as_rows(X)), rows), np.float64)
    labels = assign_block(sample, centers).labels
    found = len(np.unique(labels))
    if not 2 <= found < len(sample):
        return None, len(sample)
    return float(silhouette_score(sample, labels)), len(sample)


def _block_sums(
    block: NDArray[Any], weights: NDArray[np.float64], centers: NDArray[np.float64]
) -> _Sums:
    k = len(centers)
    found = assign_block(block, centers)
    with np.errstate(invalid="ignore", divide="ignore"):
        silhouette = np.where(found.second > 0, 1.0 - found.distance / found.second, 0.0)

    def by_cluster(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(found.labels, weights=values, minlength=k).astype(np.float64)

    rows = np.column_stack([by_cluster(column) for column in block.T])
    return _Sums(
        np.bincount(found.labels, minlength=k),
        rows,
        by_cluster(found.distance**2),
        by_cluster(found.distance),
        by_cluster(silhouette),
    )


def _add(one: _Sums, other: _Sums) -> _Sums:
    return _Sums._make(a + b for a, b in zip(one, other, strict=True))
