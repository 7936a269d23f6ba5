"""How good clusterings are: exact figures from one distributed pass, others on a sample."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import dask
import numpy as np

from segmentation.estimators import _kernels
from segmentation.estimators._blockwise import (
    as_rows,
    gather,
    held,
    reduce_blocks,
    rows_of,
    sample_row_numbers,
)
from segmentation.estimators._lloyd import assign_block, stacked

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da
    from numpy.typing import NDArray

#: Rows that the silhouette is computed on: its cost grows with their square.
SILHOUETTE_ROWS = 5_000


class _Sums(NamedTuple):
    """What one pass adds up for each centre of every set, in the order of :func:`kernels.judge`."""

    counts: NDArray[np.float64]
    rows: NDArray[np.float64]
    squares: NDArray[np.float64]
    distances: NDArray[np.float64]
    silhouettes: NDArray[np.float64]


def evaluate_clustering(
    X: da.Array, centers: NDArray[np.float64], sample_weight: Any = None
) -> dict[str, Any]:
    """Judge the clustering of ``X`` by its nearest centres, exactly, in one pass.

    Parameters
    ----------
    X
        Dask array of shape (n_samples, n_features).
    centers
        Shape (n_clusters, n_features).
    sample_weight
        How often each row counts, (n_samples,).

    Returns
    -------
    dict
        ``sizes`` (rows, or their weight); ``inertia``; ``calinski_harabasz`` (Caliński & Harabasz
        1974); ``davies_bouldin`` (Davies & Bouldin 1979, with distances to ``centers``);
        ``simplified_silhouette`` (Hruschka et al. 2004: distances to centres in place of mean
        distances to members) over all rows and, a cluster at a time,
        ``simplified_silhouettes``. Figures that one cluster can't have are None.
    """
    return evaluate_clusterings(X, [centers], sample_weight)[0]


def evaluate_clusterings(
    X: da.Array, sets: Sequence[NDArray[np.float64]], sample_weight: Any = None
) -> list[dict[str, Any]]:
    """Judge several clusterings of ``X`` in the same pass, each as :func:`evaluate` does."""
    centers, offsets = stacked(sets)
    rows = rows_of(as_rows(X), sample_weight)
    sums: _Sums = reduce_blocks(rows, _judge_block, _add, centers, offsets)
    whole = sample_weight is None
    return [
        _figures(_Sums(*(part[low:high] for part in sums)), centers[low:high], whole=whole)
        for low, high in itertools.pairwise(offsets)
    ]


def _figures(sums: _Sums, centers: NDArray[np.float64], *, whole: bool) -> dict[str, Any]:
    n, k = float(sums.counts.sum()), len(centers)
    occupied = np.where(sums.counts > 0, sums.counts, 1.0)
    means = sums.rows / occupied[:, None]
    mean = sums.rows.sum(axis=0) / n
    # Rows spread about their cluster's mean as about its centre, less the mean's own offset.
    within = float(sums.squares.sum() - (sums.counts * ((means - centers) ** 2).sum(axis=1)).sum())
    between = float((sums.counts * ((means - mean) ** 2).sum(axis=1)).sum())
    figures: dict[str, Any] = {
        "sizes": [int(count) if whole else float(count) for count in sums.counts],
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


def silhouette_score(
    X: da.Array, centers: NDArray[np.float64], seed: int, size: int = SILHOUETTE_ROWS
) -> tuple[float | None, int]:
    """Return scikit-learn's silhouette on a sample of rows, and how many rows that was.

    None where fewer than two clusters are in the sample, or every row is a cluster of its own.
    """
    values, rows = silhouette_scores(X, [centers], seed, size)
    return values[0], rows


def silhouette_scores(
    X: da.Array, sets: Sequence[NDArray[np.float64]], seed: int, size: int = SILHOUETTE_ROWS
) -> tuple[list[float | None], int]:
    """Return the silhouettes of several clusterings on the same sample.

    The distances between its rows, which make the cost, are computed once and never stored.
    """
    numbers = sample_row_numbers(X.shape[0], size, seed)
    sample = np.asarray(gather(rows_of(as_rows(X)), numbers), np.float64)
    values = dask.delayed(_silhouettes, pure=False)(held(sample), list(sets)).compute()
    return list(values), len(sample)


def _silhouettes(
    sample: NDArray[np.float64], sets: Sequence[NDArray[np.float64]]
) -> list[float | None]:
    """Rousseeuw (1987), as scikit-learn has it: 0 for a row that is a cluster of its own."""
    _, offsets = stacked(sets)
    labels = np.column_stack([assign_block(sample, centers).labels for centers in sets])
    columns = labels + offsets[:-1]
    sums = np.zeros((len(sample), offsets[-1]))
    _kernels.distance_sums(sample, columns, sums)
    return [
        _silhouette(sums[:, low:high], own)
        for (low, high), own in zip(itertools.pairwise(offsets), labels.T, strict=True)
    ]


def _silhouette(sums: NDArray[np.float64], labels: NDArray[np.int32]) -> float | None:
    n = len(labels)
    counts = np.bincount(labels, minlength=sums.shape[1])
    if not 2 <= np.count_nonzero(counts) < n:
        return None
    rows = np.arange(n)
    near = sums[rows, labels] / np.maximum(counts[labels] - 1, 1)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    means[rows, labels] = np.inf
    far = means.min(axis=1)
    larger = np.maximum(near, far)
    alone = (counts[labels] == 1) | (larger == 0)
    return float(np.where(alone, 0.0, (far - near) / np.where(larger > 0, larger, 1.0)).mean())


def _judge_block(
    block: NDArray[Any],
    weights: NDArray[np.float64],
    centers: NDArray[np.float64],
    offsets: NDArray[np.int64],
) -> _Sums:
    n = len(centers)
    sums = _Sums(np.zeros(n), np.zeros(centers.shape), np.zeros(n), np.zeros(n), np.zeros(n))
    _kernels.judge(np.ascontiguousarray(block), weights, centers, offsets, *sums)
    return sums


def _add(one: _Sums, other: _Sums) -> _Sums:
    return _Sums._make(a + b for a, b in zip(one, other, strict=True))
