"""Quality metrics of clusterings: exact ones from one pass, the silhouette from a sample."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import dask
import numpy as np

from segmentation.estimators import _kernels
from segmentation.estimators._blockwise import (
    add_fields,
    check_array,
    reduce_blocks,
    sample_row_numbers,
    split_rows,
    take_rows,
)
from segmentation.estimators._lloyd import assign_block, stack_centers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da
    from numpy.typing import ArrayLike, NDArray

#: Default number of rows for the silhouette, whose cost grows with their square.
SILHOUETTE_ROWS = 5_000


class _ClusterSums(NamedTuple):
    """Sums over the rows of each center, in the order of :func:`_kernels.sum_for_metrics`."""

    counts: NDArray[np.float64]
    rows: NDArray[np.float64]
    squares: NDArray[np.float64]
    distances: NDArray[np.float64]
    silhouettes: NDArray[np.float64]


def evaluate_clustering(
    X: Any, centers: NDArray[np.float64], sample_weight: ArrayLike | da.Array | None = None
) -> dict[str, Any]:
    """Compute exact metrics of the clustering of ``X`` by nearest center, in one pass.

    Parameters
    ----------
    X
        Array of shape (n_samples, n_features).
    centers
        Shape (n_clusters, n_features).
    sample_weight
        How often each row counts; shape (n_samples,).

    Returns
    -------
    dict
        ``sizes`` : list
            Rows per cluster, or their weight.
        ``inertia`` : float
            Sum of squared distances to the nearest center.
        ``calinski_harabasz`` : float or None
            Caliński & Harabasz (1974).
        ``davies_bouldin`` : float or None
            Davies & Bouldin (1979), with distances to ``centers``.
        ``simplified_silhouette`` : float or None
            Hruschka et al. (2004): the silhouette with distances to centers in place of mean
            distances to members.
        ``simplified_silhouettes`` : list
            The same per cluster.

        None if a metric is undefined. With one cluster, only the first two are defined.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> metrics = evaluate_clustering(X, np.array([[0.5], [10.5]]))
    >>> metrics["sizes"], metrics["inertia"], metrics["davies_bouldin"]
    ([2, 2], 1.0, 0.1)
    """
    return evaluate_clusterings(X, [centers], sample_weight)[0]


def evaluate_clusterings(
    X: Any,
    center_sets: Sequence[NDArray[np.float64]],
    sample_weight: ArrayLike | da.Array | None = None,
) -> list[dict[str, Any]]:
    """Evaluate several clusterings of ``X`` as :func:`evaluate_clustering` does, in one pass."""
    centers, offsets = stack_centers(center_sets)
    rows = split_rows(check_array(X), sample_weight)
    sums = reduce_blocks(rows, _sum_block, add_fields, centers, offsets)
    return [
        _compute_metrics(
            _ClusterSums._make(column[low:high] for column in sums),
            centers[low:high],
            is_weighted=sample_weight is not None,
        )
        for low, high in itertools.pairwise(offsets)
    ]


def _sum_block(
    block: NDArray[Any],
    weights: NDArray[np.float64],
    centers: NDArray[np.float64],
    offsets: NDArray[np.int64],
) -> _ClusterSums:
    n = len(centers)
    sums = _ClusterSums(np.zeros(n), np.zeros(centers.shape), np.zeros(n), np.zeros(n), np.zeros(n))
    _kernels.sum_for_metrics(np.ascontiguousarray(block), weights, centers, offsets, *sums)
    return sums


def _compute_metrics(
    sums: _ClusterSums, centers: NDArray[np.float64], *, is_weighted: bool
) -> dict[str, Any]:
    n, k = float(sums.counts.sum()), len(centers)
    occupied = np.where(sums.counts > 0, sums.counts, 1.0)
    means = sums.rows / occupied[:, None]
    mean = sums.rows.sum(axis=0) / n
    # The scatter around a cluster's mean follows from that around its center.
    within = float(sums.squares.sum() - (sums.counts * ((means - centers) ** 2).sum(axis=1)).sum())
    between = float((sums.counts * ((means - mean) ** 2).sum(axis=1)).sum())
    metrics: dict[str, Any] = {
        "sizes": [float(count) if is_weighted else int(count) for count in sums.counts],
        "inertia": float(sums.squares.sum()),
        "calinski_harabasz": None,
        "davies_bouldin": None,
        "simplified_silhouette": None,
        "simplified_silhouettes": [None] * k,
    }
    if k < 2:
        return metrics
    if within > 0 and n > k:
        metrics["calinski_harabasz"] = between / within * (n - k) / (k - 1)
    mean_distances = sums.distances / occupied
    separation = np.sqrt(((centers[:, None] - centers[None]) ** 2).sum(axis=2))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = mean_distances[:, None] + mean_distances[None]
        ratio = np.where(separation > 0, spread / separation, 0.0)
    metrics["davies_bouldin"] = float(ratio.max(axis=1).mean())
    metrics["simplified_silhouette"] = float(sums.silhouettes.sum() / n)
    metrics["simplified_silhouettes"] = [float(s) for s in sums.silhouettes / occupied]
    return metrics


def silhouette_score(
    X: Any, centers: NDArray[np.float64], seed: int, size: int = SILHOUETTE_ROWS
) -> tuple[float | None, int]:
    """Compute the silhouette of the clustering of ``X`` by nearest center, on a sample of rows.

    Parameters
    ----------
    X
        Array of shape (n_samples, n_features).
    centers
        Shape (n_clusters, n_features).
    seed
        Seed of the sample.
    size
        Maximum number of rows in the sample.

    Returns
    -------
    score : float or None
        Rousseeuw (1987), as scikit-learn computes it. None if the sample has fewer than two
        clusters, or as many as it has rows.
    n_sampled : int
        Number of rows in the sample.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> score, n_sampled = silhouette_score(X, np.array([[0.5], [10.5]]), seed=0)
    >>> round(score, 3), n_sampled
    (0.9, 4)
    """
    scores, n_sampled = silhouette_scores(X, [centers], seed, size)
    return scores[0], n_sampled


def silhouette_scores(
    X: Any,
    center_sets: Sequence[NDArray[np.float64]],
    seed: int,
    size: int = SILHOUETTE_ROWS,
) -> tuple[list[float | None], int]:
    """Compute the silhouettes of several clusterings on the same sample.

    The distances between rows, which dominate the cost, are computed once and never stored.
    """
    X = check_array(X)
    numbers = sample_row_numbers(X.shape[0], size, seed)
    sample = take_rows(split_rows(X), numbers)
    # One graph from the blocks to the scores: the sample is recomputed if its worker is lost.
    scores = dask.delayed(_score_sample, pure=False)(sample, list(center_sets)).compute()
    return scores, len(numbers)


def _score_sample(
    sample: NDArray[Any], center_sets: Sequence[NDArray[np.float64]]
) -> list[float | None]:
    rows = np.asarray(sample, np.float64)
    _, offsets = stack_centers(center_sets)
    labels = np.column_stack([assign_block(rows, centers).labels for centers in center_sets])
    sums = np.zeros((len(rows), offsets[-1]))
    _kernels.sum_distances(rows, labels + offsets[:-1], sums)
    return [
        _score_clustering(sums[:, low:high], column)
        for (low, high), column in zip(itertools.pairwise(offsets), labels.T, strict=True)
    ]


def _score_clustering(sums: NDArray[np.float64], labels: NDArray[np.int32]) -> float | None:
    """Return the mean silhouette; rows that are alone in their cluster score 0.

    ``sums`` holds each row's summed distances to the rows of every cluster.
    """
    n = len(labels)
    counts = np.bincount(labels, minlength=sums.shape[1])
    if not 2 <= np.count_nonzero(counts) < n:
        return None
    rows = np.arange(n)
    within = sums[rows, labels] / np.maximum(counts[labels] - 1, 1)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    means[rows, labels] = np.inf
    nearest_other = means.min(axis=1)
    larger = np.maximum(within, nearest_other)
    is_zero = (counts[labels] == 1) | (larger == 0)
    ratio = (nearest_other - within) / np.where(larger > 0, larger, 1.0)
    return float(np.where(is_zero, 0.0, ratio).mean())
