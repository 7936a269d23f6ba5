"""Stability: whether clusters recur on resampled rows and with other seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import dask
import numpy as np

from segmentation.estimators import _init
from segmentation.estimators._blockwise import check_array, share_value, split_rows
from segmentation.estimators._lloyd import label_block
from segmentation.estimators._sampling import Sample, scan_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import dask.array as da
    from numpy.typing import ArrayLike, NDArray

#: Default number of distinct rows that fits are repeated on; the cost of a fit grows with it.
SAMPLE_ROWS = 20_000
_N_RESAMPLES, _N_SEEDS = 20, 10
#: Each repeated fit runs few restarts, since there are many fits. On a large sample, only the
#: best restart is run to convergence.
_BUDGET = _init.RestartBudget(restarts=16, refined=4, finalists=1)
_TOL = 1e-4
#: Keeps the random numbers of the repeated fits apart from others of the same seed.
_RANDOM_STREAM = 21


class Stability(NamedTuple):
    """Agreement of a clustering with repeated fits; 1 is perfect.

    Attributes
    ----------
    resampled
        Adjusted Rand index (Hubert & Arabie 1985), on all rows of the sample, between the
        clustering and the fit on each bootstrap resample with at least n_clusters distinct rows;
        float64 of shape (n_fits,). Empty if fewer than half of the resamples have that many.
    reseeded
        Adjusted Rand index between the clustering and fits on the sample itself with different
        seeds; float64 of shape (n_fits,). Empty if the sample has fewer than n_clusters rows.
    jaccard
        For each cluster, the mean over the resamples of its largest Jaccard similarity, over the
        rows drawn, to a cluster of the resample's fit; float64 of shape (n_clusters,). Below 0.6
        a cluster should not be trusted, from 0.6 it indicates a pattern, from 0.75 it is stable,
        from 0.85 highly stable (Hennig 2007, and the manual of his R package fpc). A resample
        counts if it has at least n_clusters distinct rows, one of them in the cluster. NaN if
        fewer than half of the resamples count.
    rows
        Number of distinct rows in the sample.
    """

    resampled: NDArray[np.float64]
    reseeded: NDArray[np.float64]
    jaccard: NDArray[np.float64]
    rows: int


def measure_stability(
    X: Any,
    centers: NDArray[np.float64],
    seed: int,
    *,
    sample_weight: ArrayLike | da.Array | None = None,
    size: int = SAMPLE_ROWS,
) -> Stability:
    """Measure how well repeated fits agree with the clustering of ``X`` by nearest center.

    The fits are repeated on a sample of the rows.

    Parameters
    ----------
    X
        Array of shape (n_samples, n_features).
    centers
        Shape (n_clusters, n_features).
    seed
        Seed of the sample, the resamples and the fits. They also depend on the rows' content, but
        neither on chunking nor on the order of the rows.
    sample_weight
        How often each row counts; shape (n_samples,).
    size
        Maximum number of distinct rows in the sample.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.repeat([[0.0], [20.0]], 100, axis=0) + rng.normal(size=(200, 1))
    >>> measure_stability(X, np.array([[0.0], [20.0]]), seed=0).jaccard.tolist()
    [1.0, 1.0]
    """
    return measure_stabilities(X, [centers], seed, sample_weight=sample_weight, size=size)[0]


def measure_stabilities(
    X: Any,
    center_sets: Sequence[NDArray[np.float64]],
    seed: int,
    *,
    sample_weight: ArrayLike | da.Array | None = None,
    size: int = SAMPLE_ROWS,
    callback: Callable[[int, int], None] | None = None,
) -> list[Stability]:
    """Measure several clusterings as :func:`measure_stability` does; each fit is one task.

    ``callback(done, total)`` is called before each clustering.
    """
    scan = scan_rows(split_rows(check_array(X), sample_weight), size, seed)
    tol = scan.features.scale_tol(_TOL)
    sample = share_value(scan.sample)
    refit = dask.delayed(_refit, pure=False)
    results = []
    for done, centers in enumerate(center_sets):
        if callback is not None:
            callback(done, len(center_sets))
        refits = dask.compute(
            *(refit(sample, centers, tol, seed, i) for i in range(_N_RESAMPLES + _N_SEEDS))
        )
        results.append(_summarize(refits, len(scan.sample.rows)))
    return results


class _Agreement(NamedTuple):
    """Agreement of a clustering with one repeated fit; NaN where it is undefined."""

    rand: float
    jaccard: NDArray[np.float64]


def _refit(
    sample: Sample, centers: NDArray[np.float64], tol: float, seed: int, index: int
) -> _Agreement:
    """Repeat the fit on a bootstrap resample, or from index ``_N_RESAMPLES`` with another seed."""
    k, weights = len(centers), sample.weights
    rng = np.random.default_rng([seed, _RANDOM_STREAM, index])
    counts = weights
    if index < _N_RESAMPLES:
        # Fractional weights may sum to less than the number of rows.
        n_draws = max(len(weights), round(float(weights.sum())))
        counts = rng.multinomial(n_draws, weights / weights.sum()).astype(np.float64)
    drawn = counts > 0
    if np.count_nonzero(drawn) < k:
        return _Agreement(float("nan"), np.full(k, np.nan))
    resample = Sample(sample.hashes[drawn], sample.rows[drawn], counts[drawn])
    (refitted,) = _init.init_plus_plus(resample, len(resample.rows), k, _BUDGET, tol, rng, 1)
    new_labels = label_block(sample.rows, refitted)
    labels = label_block(sample.rows, np.asarray(centers, np.float64))
    table = contingency_matrix(labels[drawn], new_labels[drawn], weights[drawn])
    table = np.pad(table, ((0, k - len(table)), (0, 0)))
    return _Agreement(adjusted_rand_score(labels, new_labels, weights), _find_best_jaccard(table))


def _summarize(refits: Sequence[_Agreement], n_rows: int) -> Stability:
    rand = np.array([refit.rand for refit in refits])
    resampled, reseeded = rand[:_N_RESAMPLES], rand[_N_RESAMPLES:]
    jaccard = np.array([refit.jaccard for refit in refits[:_N_RESAMPLES]])
    # A resample without rows of a cluster says nothing about it; a mean of few resamples is noise.
    n_measured = np.isfinite(jaccard).sum(axis=0)
    means = np.where(
        2 * n_measured >= _N_RESAMPLES,
        np.nansum(jaccard, axis=0) / np.maximum(n_measured, 1),
        np.nan,
    )
    if 2 * np.isfinite(resampled).sum() < _N_RESAMPLES:
        resampled = resampled[:0]
    return Stability(
        resampled[np.isfinite(resampled)], reseeded[np.isfinite(reseeded)], means, n_rows
    )


def adjusted_rand_score(
    a: NDArray[np.integer[Any]], b: NDArray[np.integer[Any]], weights: NDArray[np.float64]
) -> float:
    """Return the adjusted Rand index of two labelings of weighted rows.

    Parameters
    ----------
    a, b
        Labels from 0; shape (n_samples,).
    weights
        Shape (n_samples,). If all are whole numbers, they count the copies of each row. Otherwise
        only their proportions matter: the result is the limit as all weights grow in proportion.

    Examples
    --------
    >>> import numpy as np
    >>> adjusted_rand_score(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]), np.ones(4))
    1.0
    """
    table = contingency_matrix(a, b, weights)
    # n copies of a row form n (n - 1) / 2 pairs; in the limit of large n, that is n² / 2.
    excluded = 1.0 if (weights == np.floor(weights)).all() else 0.0

    def count_pairs(counts: NDArray[np.float64]) -> float:
        return float((counts * (counts - excluded) / 2).sum())

    in_both = count_pairs(table)
    in_a, in_b = count_pairs(table.sum(axis=1)), count_pairs(table.sum(axis=0))
    n_pairs = max(count_pairs(np.array([table.sum()])), np.finfo(float).tiny)
    expected = in_a * in_b / n_pairs
    maximum = (in_a + in_b) / 2
    # Both labelings have a single cluster, or one row in every cluster: they agree.
    return 1.0 if maximum == expected else float((in_both - expected) / (maximum - expected))


def contingency_matrix(
    a: NDArray[np.integer[Any]], b: NDArray[np.integer[Any]], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the total weight of the rows for each pair of labels; labels start from 0."""
    shape = (int(a.max()) + 1, int(b.max()) + 1)
    flat = np.bincount(a * shape[1] + b, weights, minlength=shape[0] * shape[1])
    return np.asarray(flat.reshape(shape), np.float64)


def _find_best_jaccard(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest Jaccard similarity of each cluster to a cluster of the other labeling.

    ``table`` is a contingency matrix with the clusters as rows. Empty clusters get NaN.
    """
    union = table.sum(axis=1)[:, None] + table.sum(axis=0)[None] - table
    with np.errstate(invalid="ignore"):
        best = np.where(union > 0, table / np.where(union > 0, union, 1.0), 0.0).max(axis=1)
    return np.where(table.sum(axis=1) > 0, best, np.nan)
