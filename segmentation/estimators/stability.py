"""Whether clusters come back when the fit is repeated on other rows, or from another start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.estimators import starts
from segmentation.estimators.blocks import as_rows, rows_of
from segmentation.estimators.lloyd import block_labels
from segmentation.estimators.survey import survey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Distinct rows that fits are repeated on; the cost of each grows with them.
SAMPLE_ROWS = 20_000
_RESAMPLES, _SEEDS, _STARTS = 20, 10, 3
_TOL = 1e-4


class Stability(NamedTuple):
    """How well a clustering comes back; 1 is always and exactly.

    Attributes
    ----------
    resampled
        Adjusted Rand index (Hubert & Arabie 1985) between the clustering and that of each fit on a
        bootstrap resample; float64 of shape (n_resamples,).
    reseeded
        The same for fits on the sample itself from a single k-means++ start each, (n_seeds,).
    jaccard
        For each cluster the mean over the resamples of its best Jaccard similarity to one of
        theirs (Hennig 2007): below 0.6 it should not be trusted, from 0.75 on it is a pattern
        in the data, from 0.85 on highly stable. (n_clusters,).
    rows
        Distinct rows in the sample.
    """

    resampled: NDArray[np.float64]
    reseeded: NDArray[np.float64]
    jaccard: NDArray[np.float64]
    rows: int


def stability(
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
    found = survey(rows_of(as_rows(X), sample_weight), size, seed)
    _, rows, weights = found.sample
    k = len(centers)
    tol = _TOL * float(found.spread.squares.mean()) / found.spread.weight
    labels = block_labels(rows, np.asarray(centers, np.float64))
    rng = np.random.default_rng([seed, 21])
    total = max(len(rows), round(float(weights.sum())))
    resampled, similar = [], []
    for _ in range(_RESAMPLES):
        counts = rng.multinomial(total, weights / weights.sum()).astype(np.float64)
        drawn = counts > 0
        if np.count_nonzero(drawn) < k:
            continue
        again = _fit(rows[drawn], counts[drawn], rows, k, tol, rng, _STARTS)
        resampled.append(adjusted_rand(labels, again, weights))
        table = contingency(labels[drawn], again[drawn], weights[drawn])
        table = np.pad(table, ((0, k - len(table)), (0, 0)))
        similar.append(_best_jaccard(table))
    reseeded = [
        adjusted_rand(labels, _fit(rows, weights, rows, k, tol, rng, 1), weights)
        for _ in range(_SEEDS)
    ]
    # A cluster that a resample does not hold says nothing about it.
    with np.errstate(invalid="ignore"):
        jaccard = np.array(similar).reshape(-1, k)
        seen = np.isfinite(jaccard).sum(axis=0)
        means = np.where(seen > 0, np.nansum(jaccard, axis=0) / np.maximum(seen, 1), np.nan)
    return Stability(np.array(resampled), np.array(reseeded), means, len(rows))


def adjusted_rand(one: NDArray[Any], other: NDArray[Any], weights: NDArray[np.float64]) -> float:
    """Return the adjusted Rand index of two labellings of rows that count ``weights`` times."""
    table = contingency(one, other, weights)
    together = _pairs(table)
    first, second = _pairs(table.sum(axis=1)), _pairs(table.sum(axis=0))
    expected = first * second / max(_pairs(np.array([table.sum()])), np.finfo(float).tiny)
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


def _pairs(counts: NDArray[np.float64]) -> float:
    return float((counts * (counts - 1) / 2).sum())


def _best_jaccard(table: NDArray[np.float64]) -> NDArray[np.float64]:
    union = table.sum(axis=1)[:, None] + table.sum(axis=0)[None] - table
    with np.errstate(invalid="ignore"):
        best = np.where(union > 0, table / np.where(union > 0, union, 1.0), 0.0).max(axis=1)
    return np.where(table.sum(axis=1) > 0, best, np.nan)


def _fit(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    everyone: NDArray[np.float64],
    k: int,
    tol: float,
    rng: np.random.Generator,
    n_starts: int,
) -> NDArray[np.int32]:
    """Fit some rows from the best of a few starts, and label all of them."""
    fits: Sequence[tuple[NDArray[np.float64], float]] = [
        starts.fit_in_memory(rows, weights, starts.plus_plus(rows, weights, k, rng), tol)
        for _ in range(n_starts)
    ]
    return block_labels(everyone, min(fits, key=lambda pair: pair[1])[0])
