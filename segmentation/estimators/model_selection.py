"""Choosing the number of clusters: every k fitted in the same passes, judged, and repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.estimators import metrics, stability
from segmentation.estimators._blockwise import as_rows
from segmentation.estimators._k_means import Fitted, Task, TooFewRowsError, fit_together, seed_of
from segmentation.schema import SOUND, KFigures, KSearch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


def choose_k(
    X: Any,
    low: int,
    high: int,
    seed: int,
    compare: int | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> KSearch:
    """Fit every number of clusters from ``low`` to ``high`` and recommend one.

    Recommended is the largest k all of whose clusters come back when the fit is repeated on
    resampled rows: a mean Jaccard similarity of at least 0.75 for each (Hennig 2007). Where there
    is none, it is the k whose fits agree best by the adjusted Rand index. Figures such as the
    silhouette are given beside it: on rows without gaps between clusters they favour the fewest.

    Parameters
    ----------
    X
        Array of shape (n_samples, n_features); persist a Dask array first.
    low, high
        The range, both ends included; ``low`` is at least 2.
    seed
        Every random choice follows from it.
    compare
        A k that is fitted as well, whether or not it is in the range, where there are rows enough.
    told
        Called now and then with the steps that are done and their number.

    Raises
    ------
    ValueError
        If the range is empty or begins below 2, if there are fewer distinct rows than ``high``, or
        ``X`` holds NaN or infinity.
    """
    if not 2 <= low <= high:
        raise ValueError(
            f"from {low} to {high} clusters: the range must rise and begin at 2 or more"
        )
    X = as_rows(X)
    ks = list(range(low, high + 1))
    if compare is not None and compare > X.shape[0]:
        compare = None
    try:
        fits = _fit(X, sorted({*ks, compare or low}), seed)
    except TooFewRowsError:
        if compare is None or compare in ks:
            raise
        # The number to compare with may be more than these rows can tell apart; the range may not.
        fits = _fit(X, ks, seed)
    sets = [fit.centers for fit in fits]
    steps = len(sets) + 3
    told(1, steps)
    judged = metrics.evaluate_clusterings(X, sets)
    told(2, steps)
    silhouettes, silhouette_rows = metrics.silhouette_scores(X, sets, seed)
    repeated = stability.measure_stabilities(
        X, sets, seed, told=lambda done, _: told(done + 3, steps)
    )
    figures = tuple(
        KFigures(
            k=len(fit.centers),
            inertia=fit.inertia,
            n_iter=fit.n_iter,
            silhouette=silhouette,
            simplified_silhouette=judgement["simplified_silhouette"],
            davies_bouldin=judgement["davies_bouldin"],
            calinski_harabasz=judgement["calinski_harabasz"],
            resampled_ari=_mean(again.resampled),
            reseeded_ari=_mean(again.reseeded),
            jaccard=tuple(None if np.isnan(value) else float(value) for value in again.jaccard),
        )
        for fit, judgement, silhouette, again in zip(
            fits, judged, silhouettes, repeated, strict=True
        )
    )
    k, sound = recommend([found for found in figures if low <= found.k <= high])
    return KSearch(figures, low, high, k, sound, silhouette_rows, repeated[0].rows)


def recommend(figures: Sequence[KFigures]) -> tuple[int, bool]:
    """Return the k to take, and whether all of its clusters come back."""
    sound = [f.k for f in figures if f.weakest is not None and f.weakest >= SOUND]
    if sound:
        return max(sound), True
    # The smaller of two that agree as well.
    return max(
        figures, key=lambda f: (-1.0 if f.resampled_ari is None else f.resampled_ari, -f.k)
    ).k, False


def _fit(X: Any, ks: Sequence[int], seed: int) -> list[Fitted]:
    return fit_together([Task(k, seed_of(seed)) for k in ks], X)


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
