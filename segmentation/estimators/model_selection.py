"""Choose the number of clusters: fit every k in the same passes, evaluate, and repeat the fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.estimators import metrics, stability
from segmentation.estimators._blockwise import check_array
from segmentation.estimators._k_means import k_means_path
from segmentation.estimators.exceptions import TooFewDistinctRowsError
from segmentation.schema import SOUND, KFigures, KSearch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import dask.array as da
    from numpy.typing import NDArray

    from segmentation.estimators._k_means import KMeansResult


def choose_k(
    X: Any,
    low: int,
    high: int,
    seed: int,
    compare: int | None = None,
    callback: Callable[[int, int], None] | None = None,
) -> KSearch:
    """Fit every number of clusters from ``low`` to ``high`` and recommend one.

    The largest k whose clusters are all stable is recommended: each has a mean Jaccard similarity
    of at least 0.75 to its match when the fit is repeated on resampled rows (Hennig 2007). If no k
    qualifies, the one whose repeated fits agree best by the adjusted Rand index is recommended.
    Metrics such as the silhouette are reported but not used: on rows without gaps between clusters
    they favor the smallest k.

    Parameters
    ----------
    X
        Array of shape (n_samples, n_features); persist a Dask array first.
    low, high
        Range of k, both ends included; ``low`` is at least 2.
    seed
        Seed of all random choices.
    compare
        A k to evaluate also where it is outside the range, which is then not recommended; left out
        if there are too few distinct rows.
    callback
        Called as ``callback(done, total)`` after each step but the last.

    Returns
    -------
    KSearch
        The recommended k and the figures of each k.

    Raises
    ------
    TooFewDistinctRowsError
        If ``X`` has fewer distinct rows than ``high``.
    ValueError
        If ``low`` is below 2 or above ``high``, or ``X`` holds NaN or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.repeat(10 * np.eye(3), 50, axis=0) + rng.normal(size=(150, 3))
    >>> choose_k(X, 2, 4, seed=0).recommended
    3
    """
    if not 2 <= low <= high:
        raise ValueError(f"low={low}, high={high}: use 2 <= low <= high")
    X = check_array(X)
    fits = _fit_range(X, low, high, seed, compare)
    center_sets = [fit.centers for fit in fits]
    n_steps = len(fits) + 3

    def report(done: int) -> None:
        if callback is not None:
            callback(done, n_steps)

    report(1)
    evaluations = metrics.evaluate_clusterings(X, center_sets)
    report(2)
    silhouettes, silhouette_rows = metrics.silhouette_scores(X, center_sets, seed)
    stabilities = stability.measure_stabilities(
        X, center_sets, seed, callback=lambda done, _: report(done + 3)
    )
    figures = tuple(
        KFigures(
            k=len(fit.centers),
            inertia=fit.inertia,
            n_iter=fit.n_iter,
            silhouette=silhouette,
            simplified_silhouette=evaluation["simplified_silhouette"],
            davies_bouldin=evaluation["davies_bouldin"],
            calinski_harabasz=evaluation["calinski_harabasz"],
            resampled_ari=_mean(refits.resampled),
            reseeded_ari=_mean(refits.reseeded),
            jaccard=tuple(None if np.isnan(value) else float(value) for value in refits.jaccard),
        )
        for fit, evaluation, silhouette, refits in zip(
            fits, evaluations, silhouettes, stabilities, strict=True
        )
    )
    k, is_stable = recommend([candidate for candidate in figures if low <= candidate.k <= high])
    return KSearch(figures, low, high, k, is_stable, silhouette_rows, stabilities[0].rows)


def _fit_range(
    X: da.Array, low: int, high: int, seed: int, compare: int | None
) -> list[KMeansResult]:
    ks = list(range(low, high + 1))
    if compare is None or compare in ks or compare > X.shape[0]:
        return k_means_path(X, ks, random_state=seed)
    try:
        return k_means_path(X, sorted([*ks, compare]), random_state=seed)
    except TooFewDistinctRowsError:
        # The rows may still have enough distinct ones for the range itself.
        return k_means_path(X, ks, random_state=seed)


def recommend(figures: Sequence[KFigures]) -> tuple[int, bool]:
    """Return the k to recommend, and whether all of its clusters are stable."""
    stable = [f.k for f in figures if f.weakest is not None and f.weakest >= SOUND]
    if stable:
        return max(stable), True
    # If several agree equally well, the smallest.
    best = max(figures, key=lambda f: (-1.0 if f.resampled_ari is None else f.resampled_ari, -f.k))
    return best.k, False


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
