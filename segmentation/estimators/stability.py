"""Whether clusters come back when the fit is repeated on other rows, or from another start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import dask
import numpy as np

from segmentation.estimators import _init
from segmentation.estimators._blockwise import as_rows, held, rows_of
from segmentation.estimators._lloyd import block_labels
from segmentation.estimators._sampling import Sample, survey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

#: Distinct rows that fits are repeated on; the cost of each grows with them.
SAMPLE_ROWS = 20_000
_RESAMPLES, _SEEDS = 20, 10
#: Each repeated fit restarts so many times on slices, and the best goes on.
_EFFORT = _init.Effort(restarts=16, refined=4, contenders=1)
_TOL = 1e-4


class Stability(NamedTuple):
    """How well a clustering comes back; 1 is always and exactly.

    Attributes
    ----------
    resampled
        Adjusted Rand index (Hubert & Arabie 1985) between the clustering and that of each fit on a
        bootstrap resample; float64 of shape (n_resamples,).
    reseeded
        The same for fits on the sample itself with other seeds, (n_seeds,).
    jaccard
        For each cluster the mean over the resamples of its best Jaccard similarity to one of
        theirs (Hennig 2007): below 0.6 it should not be trusted, from 0.75 on it is a pattern
        in the data, from 0.85 on highly stable. NaN where fewer than half of the resamples hold
        it, or most have fewer distinct rows than clusters. (n_clusters,).
    rows
        Distinct rows in the sample.
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
    sample_weight: Any = None,
    size: int = SAMPLE_ROWS,
) -> Stability:
    """Repeat the fit of ``X``'s clustering by its nearest ``centers`` on a sample of its rows.

    Parameters
    ----------
    X
        Array of shape (n_samples, n_features).
    centers
        Shape (n_clusters, n_features).
    seed
        The sample, resamples and starts follow from it and from the rows' content.
    sample_weight
        How often each row counts, (n_samples,).
    size
        Distinct rows in the sample.
    """
    return measure_stabilities(X, [centers], seed, sample_weight=sample_weight, size=size)[0]


def measure_stabilities(
    X: Any,
    sets: Sequence[NDArray[np.float64]],
    seed: int,
    *,
    sample_weight: Any = None,
    size: int = SAMPLE_ROWS,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> list[Stability]:
    """Repeat the fits of several clusterings as :func:`stability` does, a task a fit.

    ``told`` is called with the clusterings that are done and their number.
    """
    found = survey(rows_of(as_rows(X), sample_weight), size, seed)
    tol = _TOL * float(found.spread.squares.mean()) / found.spread.weight
    sample, fit = held(found.sample), dask.delayed(_repeat, pure=False)
    results = []
    for done, centers in enumerate(sets):
        told(done, len(sets))
        fits = [fit(sample, centers, tol, seed, number) for number in range(_RESAMPLES + _SEEDS)]
        results.append(_summed_up(dask.compute(*fits), len(found.sample.rows)))
    return results


class _Again(NamedTuple):
    """How far one repeated fit agrees; NaN where the rows drawn can't tell."""

    rand: float
    jaccard: NDArray[np.float64]


def _repeat(
    sample: Sample, centers: NDArray[np.float64], tol: float, seed: int, number: int
) -> _Again:
    """Fit the first ``_RESAMPLES`` times on a bootstrap resample, then on the sample itself."""
    k, weights = len(centers), sample.weights
    rng = np.random.default_rng([seed, 21, number])
    counts = weights
    if number < _RESAMPLES:
        total = max(len(weights), round(float(weights.sum())))
        counts = rng.multinomial(total, weights / weights.sum()).astype(np.float64)
    drawn = counts > 0
    unknown = np.full(k, np.nan)
    if np.count_nonzero(drawn) < k:
        return _Again(float("nan"), unknown)
    part = Sample(sample.hashes[drawn], sample.rows[drawn], counts[drawn])
    again = block_labels(
        sample.rows, _init.from_sample(part, len(part.rows), k, _EFFORT, tol, rng, 1)[0]
    )
    labels = block_labels(sample.rows, np.asarray(centers, np.float64))
    table = contingency(labels[drawn], again[drawn], weights[drawn])
    table = np.pad(table, ((0, k - len(table)), (0, 0)))
    return _Again(adjusted_rand_score(labels, again, weights), _best_jaccard(table))


def _summed_up(fits: Sequence[_Again], rows: int) -> Stability:
    rand = np.array([fit.rand for fit in fits])
    jaccard = np.array([fit.jaccard for fit in fits[:_RESAMPLES]])
    resampled = rand[:_RESAMPLES]
    # A cluster that a resample does not hold says nothing about it, and few resamples say little.
    seen = np.isfinite(jaccard).sum(axis=0)
    enough = 2 * seen >= _RESAMPLES
    means = np.where(enough, np.nansum(jaccard, axis=0) / np.maximum(seen, 1), np.nan)
    if 2 * np.isfinite(resampled).sum() < _RESAMPLES:
        resampled = resampled[:0]
    reseeded = rand[_RESAMPLES:]
    return Stability(
        resampled[np.isfinite(resampled)], reseeded[np.isfinite(reseeded)], means, rows
    )


def adjusted_rand_score(
    one: NDArray[Any], other: NDArray[Any], weights: NDArray[np.float64]
) -> float:
    """Return the adjusted Rand index of two labellings of rows that count ``weights`` times.

    Where weights are fractions, it is what it tends to as all are multiplied alike.
    """
    table = contingency(one, other, weights)
    # Whole weights are copies, and a pair of copies is a pair; fractions stand for very many.
    alone = 1.0 if (weights == np.floor(weights)).all() else 0.0

    def pairs(counts: NDArray[np.float64]) -> float:
        return float((counts * (counts - alone) / 2).sum())

    together = pairs(table)
    first, second = pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    expected = first * second / max(pairs(np.array([table.sum()])), np.finfo(float).tiny)
    most = (first + second) / 2
    # Both in one cluster, or every row on its own: they agree.
    return 1.0 if most == expected else float((together - expected) / (most - expected))


def contingency(
    one: NDArray[Any], other: NDArray[Any], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weight of the rows with each pair of labels; labels count from 0."""
    shape = (int(one.max()) + 1, int(other.max()) + 1)
    flat = np.bincount(one * shape[1] + other, weights, minlength=shape[0] * shape[1])
    return np.asarray(flat.reshape(shape), np.float64)


def _best_jaccard(table: NDArray[np.float64]) -> NDArray[np.float64]:
    union = table.sum(axis=1)[:, None] + table.sum(axis=0)[None] - table
    with np.errstate(invalid="ignore"):
        best = np.where(union > 0, table / np.where(union > 0, union, 1.0), 0.0).max(axis=1)
    return np.where(table.sum(axis=1) > 0, best, np.nan)
