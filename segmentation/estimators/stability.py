"""Stability: whether clusters recur when the fit is repeated on other rows or with other seeds."""

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
#: Each repeated fit runs few restarts, since there are many fits; only the best one converges.
_BUDGET = _init.RestartBudget(restarts=16, refined=4, finalists=1)
_TOL = 1e-4


class Stability(NamedTuple):
    """Agreement of a clustering with repeated fits; 1 is perfect.

    Attributes
    ----------
    resampled
        Adjusted Rand index (Hubert & Arabie 1985) between the clustering and each fit on a
        bootstrap resample; shape (n_resamples,), float64.
    reseeded
        The same for fits on the sample itself with other seeds; shape (n_seeds,), float64.
    jaccard
        For each cluster, the mean over the resamples of its largest Jaccard similarity to a
        cluster of the resample's fit; shape (n_clusters,), float64. Below 0.6 a cluster should not
        be trusted, from 0.75 it is a pattern in the data, from 0.85 it is highly stable (Hennig
        2007). NaN if fewer than half of the resamples have rows of the cluster, or fewer than half
        have as many distinct rows as clusters.
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
    """Repeat the fit of ``X``'s clustering by its nearest centers on a sample of rows.

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
        Number of distinct rows in the sample.

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
    """Repeat the fits of several clusterings as :func:`measure_stability` does, one task per fit.

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
    """Agreement of a clustering with one repeated fit; NaN where the resample does not tell."""

    rand: float
    jaccard: NDArray[np.float64]


def _refit(
    sample: Sample, centers: NDArray[np.float64], tol: float, seed: int, number: int
) -> _Agreement:
    """Repeat the fit: the first numbers on a bootstrap resample, the others on the sample."""
    k, weights = len(centers), sample.weights
    rng = np.random.default_rng([seed, 21, number])
    counts = weights
    if number < _N_RESAMPLES:
        n_draws = max(len(weights), round(float(weights.sum())))
        counts = rng.multinomial(n_draws, weights / weights.sum()).astype(np.float64)
    drawn = counts > 0
    if np.count_nonzero(drawn) < k:
        return _Agreement(float("nan"), np.full(k, np.nan))
    resample = Sample(sample.hashes[drawn], sample.rows[drawn], counts[drawn])
    (refitted,) = _init.init_plus_plus(resample, len(resample.rows), k, _BUDGET, tol, rng, 1)
    new_labels = label_block(sample.rows, refitted)
    labels = label_block(sample.rows, np.asarray(centers, np.float64))
    table = contingency(labels[drawn], new_labels[drawn], weights[drawn])
    table = np.pad(table, ((0, k - len(table)), (0, 0)))
    return _Agreement(adjusted_rand_score(labels, new_labels, weights), _best_jaccard(table))


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
    one: NDArray[np.integer[Any]], other: NDArray[np.integer[Any]], weights: NDArray[np.float64]
) -> float:
    """Return the adjusted Rand index of two labelings of weighted rows.

    Parameters
    ----------
    one, other
        Labels from 0; shape (n_samples,).
    weights
        Shape (n_samples,). Integers count copies of a row. Fractions are taken as shares of very
        many rows: the result is the limit as all weights grow in proportion.

    Examples
    --------
    >>> import numpy as np
    >>> adjusted_rand_score(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]), np.ones(4))
    1.0
    """
    table = contingency(one, other, weights)
    # Two copies of a row are a pair, a row with itself is not; of very many rows, that is nothing.
    self_pair = 1.0 if (weights == np.floor(weights)).all() else 0.0

    def count_pairs(counts: NDArray[np.float64]) -> float:
        return float((counts * (counts - self_pair) / 2).sum())

    in_both = count_pairs(table)
    in_one, in_other = count_pairs(table.sum(axis=1)), count_pairs(table.sum(axis=0))
    n_pairs = max(count_pairs(np.array([table.sum()])), np.finfo(float).tiny)
    expected = in_one * in_other / n_pairs
    maximum = (in_one + in_other) / 2
    # Both labelings are a single cluster, or all clusters of one row: they agree.
    return 1.0 if maximum == expected else float((in_both - expected) / (maximum - expected))


def contingency(
    one: NDArray[np.integer[Any]], other: NDArray[np.integer[Any]], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weight of the rows with each pair of labels; labels start from 0."""
    shape = (int(one.max()) + 1, int(other.max()) + 1)
    flat = np.bincount(one * shape[1] + other, weights, minlength=shape[0] * shape[1])
    return np.asarray(flat.reshape(shape), np.float64)


def _best_jaccard(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row label's largest Jaccard similarity to a column label; NaN if it is empty."""
    union = table.sum(axis=1)[:, None] + table.sum(axis=0)[None] - table
    with np.errstate(invalid="ignore"):
        best = np.where(union > 0, table / np.where(union > 0, union, 1.0), 0.0).max(axis=1)
    return np.where(table.sum(axis=1) > 0, best, np.nan)
