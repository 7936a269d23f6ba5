"""Initial centers for Lloyd's iterations: k-means++ on a sample, k-means||, or random rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.estimators import _k_means_inmemory, _kernels
from segmentation.estimators._blockwise import RowBlocks, add_fields, reduce_blocks
from segmentation.estimators._lloyd import LloydSums, lloyd_block, stack_centers
from segmentation.estimators._sampling import Sample, hash_block, make_salt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

#: A restart runs a few iterations on a slice of the sample with at least this many rows, and at
#: least this many per cluster: enough to show which optimum it approaches.
_SLICE_ROWS, _SLICE_ROWS_PER_CLUSTER, _SLICE_ITER = 2_000, 80, 5
#: Restarts are ranked on this many rows. The best distinct ones run a few iterations there, and the
#: finalists among them converge on the first ``fit_rows`` rows of the sample.
_RANKING_ROWS, _REFINING_ITER = 6_000, 6
_SAMPLE_ITER = 100
#: Restarts that are ranked in one pass over the ranking rows.
_RANKING_BATCH = 8
#: On a small sample every restart converges. Their number is scaled by `_REFERENCE_ROWS` over the
#: number of rows, at most by the maximum factor, so that the cost does not depend on the rows.
_MAX_RESTART_FACTOR, _REFERENCE_ROWS = 3, 3_000
#: Squared distance from which two centers count as different, relative to the inertia per row.
_MIN_SEPARATION = 0.05
#: Relative difference of inertia up to which two results count as the same optimum.
_SAME_OPTIMUM = 1e-4
#: A restart with an inertia above this multiple of the best on the ranking rows is dropped.
_FINALIST_RATIO = 1.01


class RestartBudget(NamedTuple):
    """How many restarts to try, how many of them to refine, and how many to run to convergence."""

    restarts: int = 64
    refined: int = 16
    finalists: int = 4


class InMemoryFit(NamedTuple):
    """Result of K-Means on rows in memory; ``centers`` has shape (n_clusters, n_features)."""

    centers: NDArray[np.float64]
    inertia: float


def _draw_uniforms(k: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the random numbers of one k-means++ start, with ``2 + log k`` trials per step."""
    return rng.random((k, 2 + int(np.log(k))))


def _choose_centers(
    rows: NDArray[np.float64], weights: NDArray[np.float64], uniforms: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Choose one row per row of ``uniforms`` by weighted greedy k-means++."""
    chosen = np.empty(len(uniforms), np.int64)
    _k_means_inmemory.choose_plus_plus(rows, weights, uniforms, chosen)
    return rows[chosen]


def fit_in_memory(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    centers: NDArray[np.float64],
    tol: float,
    max_iter: int = _SAMPLE_ITER,
) -> InMemoryFit:
    """Run Lloyd's iterations on weighted rows in memory, starting from ``centers``."""
    moving = np.array(centers, np.float64)
    inertia = _k_means_inmemory.run_lloyd(rows, weights, moving, tol, max_iter)
    return InMemoryFit(moving, float(inertia))


def init_plus_plus(
    sample: Sample,
    fit_rows: int,
    k: int,
    budget: RestartBudget,
    tol: float,
    rng: np.random.Generator,
    n_init: int | None = None,
    map_restarts: Callable[..., Iterable[Any]] = map,
) -> list[NDArray[np.float64]]:
    """Restart k-means++ on slices of a sample and return the best distinct optima.

    Each restart runs a few iterations on a slice of the sample. The best distinct ones are refined
    on more rows, those clearly behind are dropped, and the finalists converge on the first
    ``fit_rows`` rows. On a small sample every restart converges there. Restarts that reach the same
    optimum count once.

    Parameters
    ----------
    sample
        Distinct rows with their weights.
    fit_rows
        Number of rows of the sample to fit on. If ``n_init`` is None and the sample is large, all
        rows are used to choose the optimum and to run its last iterations.
    k
        Number of centers.
    budget
        Numbers of restarts to try, refine and run to convergence.
    tol
        Largest squared shift of all centers at which iterations stop.
    rng
        Source of all random choices. All draws are made in the calling thread.
    n_init
        Maximum number of optima to return; None returns the one with the least inertia.
    map_restarts
        Maps a function over restarts, such as the ``map`` of a thread pool; the results are the
        same.

    Returns
    -------
    list
        Arrays of shape (k, n_features), in ascending order of inertia.
    """
    head = Sample._make(column[:fit_rows] for column in sample)
    if len(sample.rows) <= _RANKING_ROWS:
        fits = _converge_all(head, k, budget, n_init, rng, map_restarts)
        return [fit.centers for fit in _drop_duplicates(fits)[: n_init or 1]]
    candidates = _rank_restarts(head, k, budget, tol, n_init, rng, map_restarts)
    ranking_rows, ranking_weights = head.rows[:_RANKING_ROWS], head.weights[:_RANKING_ROWS]

    def refine(centers: NDArray[np.float64]) -> InMemoryFit:
        return fit_in_memory(ranking_rows, ranking_weights, centers, tol, _REFINING_ITER)

    def converge(fit: InMemoryFit) -> InMemoryFit:
        return fit_in_memory(head.rows, head.weights, fit.centers, tol)

    refined = sorted(map_restarts(refine, candidates), key=lambda fit: fit.inertia)
    limit = refined[0].inertia * _FINALIST_RATIO
    finalists = refined[: max(n_init or 0, budget.finalists)]
    fits = list(map_restarts(converge, [fit for fit in finalists if fit.inertia <= limit]))
    optima = [fit.centers for fit in _drop_duplicates(fits)]
    if n_init is not None:
        return optima[:n_init]
    inertia = lloyd_block(sample.rows, sample.weights, *stack_centers(optima)).inertia
    best = optima[int(np.argmin(inertia))]
    return [fit_in_memory(sample.rows, sample.weights, best, tol).centers]


def _converge_all(
    head: Sample,
    k: int,
    budget: RestartBudget,
    n_init: int | None,
    rng: np.random.Generator,
    map_restarts: Callable[..., Iterable[Any]],
) -> list[InMemoryFit]:
    """Run every restart to convergence, which is cheap on few rows."""
    factor = min(_MAX_RESTART_FACTOR, _REFERENCE_ROWS / len(head.rows))
    n_restarts = max(n_init or 1, int(budget.restarts * factor))

    def restart(uniforms: NDArray[np.float64]) -> InMemoryFit:
        centers = _choose_centers(head.rows, head.weights, uniforms)
        return fit_in_memory(head.rows, head.weights, centers, 0.0)

    return list(map_restarts(restart, [_draw_uniforms(k, rng) for _ in range(n_restarts)]))


def _rank_restarts(
    head: Sample,
    k: int,
    budget: RestartBudget,
    tol: float,
    n_init: int | None,
    rng: np.random.Generator,
    map_restarts: Callable[..., Iterable[Any]],
) -> list[NDArray[np.float64]]:
    """Restart on slices; return the centers of the best distinct restarts, best first."""
    n = len(head.rows)
    n_slices = max(1, n // max(_SLICE_ROWS, _SLICE_ROWS_PER_CLUSTER * k))

    def restart(index: int, uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
        slice_index = index % n_slices
        part = slice(slice_index * n // n_slices, (slice_index + 1) * n // n_slices)
        rows, weights = head.rows[part], head.weights[part]
        centers = _choose_centers(rows, weights, uniforms)
        return fit_in_memory(rows, weights, centers, tol, _SLICE_ITER).centers

    draws = [_draw_uniforms(k, rng) for _ in range(budget.restarts)]
    center_sets = list(map_restarts(restart, range(budget.restarts), draws))
    rows, weights = head.rows[:_RANKING_ROWS], head.weights[:_RANKING_ROWS]

    def rank(start: int) -> NDArray[np.float64]:
        batch = center_sets[start : start + _RANKING_BATCH]
        return lloyd_block(rows, weights, *stack_centers(batch)).inertia

    starts = range(0, len(center_sets), _RANKING_BATCH)
    inertia = np.concatenate(list(map_restarts(rank, starts)))
    order = np.argsort(inertia, kind="stable")
    # The inertia per row is the mean squared distance of a row to its center.
    min_distance = _MIN_SEPARATION * float(inertia[order[0]]) / float(weights.sum())
    return _drop_similar(
        [center_sets[i] for i in order], min_distance, max(n_init or 0, budget.refined)
    )


def _drop_duplicates(fits: Sequence[InMemoryFit]) -> list[InMemoryFit]:
    """Sort fits by inertia and keep the best of each run of nearly equal inertia."""
    distinct: list[InMemoryFit] = []
    for fit in sorted(fits, key=lambda fit: fit.inertia):
        if not distinct or fit.inertia > distinct[-1].inertia * (1 + _SAME_OPTIMUM):
            distinct.append(fit)
    return distinct


def _drop_similar(
    center_sets: Sequence[NDArray[np.float64]], min_distance: float, limit: int
) -> list[NDArray[np.float64]]:
    """Return the first ``limit`` sets of centers that differ from all earlier ones.

    Two sets differ if a center of one has a squared distance of at least ``min_distance`` to every
    center of the other.
    """
    distinct: list[NDArray[np.float64]] = []
    for centers in center_sets:
        for other in distinct:
            squares = ((centers[:, None] - other[None]) ** 2).sum(axis=2)
            if max(squares.min(axis=0).max(), squares.min(axis=1).max()) < min_distance:
                break
        else:
            distinct.append(centers)
        if len(distinct) == limit:
            break
    return distinct


class _Round(NamedTuple):
    """One round of k-means||: the inertia of the candidates, and the rows that may be drawn.

    A row is drawn if its key is below the expected number of draws over the cost of all blocks.
    """

    cost: float
    keys: NDArray[np.float64]
    rows: NDArray[np.float64]


def init_parallel(
    X: RowBlocks, sample: Sample, k: int, oversampling_factor: float, rounds: int, seed: int
) -> NDArray[np.float64]:
    """Choose ``k`` centers by k-means|| (Bahmani et al. 2012) in at most ``rounds + 1`` passes.

    Each round draws every row with probability
    ``oversampling_factor · k · weight · distance² / cost``. A hash of the row decides the draw, so
    that neither chunking nor order matters. Each candidate then gets the weight of the rows nearest
    to it, and weighted k-means++ and Lloyd's iterations reduce the candidates to ``k`` centers.
    """
    n_draws = oversampling_factor * k
    candidates = sample.rows[:1]
    for index in range(rounds):
        salt = make_salt(seed + 1 + index)
        drawn: _Round = reduce_blocks(X, _draw_rows, _merge_rounds, candidates, salt, n_draws)
        if drawn.cost == 0:
            break
        rows = drawn.rows[drawn.keys < n_draws / drawn.cost]
        candidates = np.unique(np.concatenate([candidates, rows]), axis=0)
    if len(candidates) < k:
        # Too few rows were drawn: add those of the sample, of which at least k are distinct.
        candidates = np.unique(np.concatenate([candidates, sample.rows]), axis=0)
    offsets = np.array([0, len(candidates)])
    nearest: LloydSums = reduce_blocks(X, lloyd_block, add_fields, candidates, offsets)
    weights = np.maximum(nearest.counts, np.finfo(float).tiny)
    uniforms = _draw_uniforms(k, np.random.default_rng([seed, 12]))
    centers = _choose_centers(candidates, weights, uniforms)
    return fit_in_memory(candidates, weights, centers, 0.0).centers


def _draw_rows(
    block: NDArray[Any],
    weights: NDArray[np.float64],
    candidates: NDArray[np.float64],
    salt: np.uint64,
    n_draws: float,
) -> _Round:
    squares = np.empty(len(block))
    labels = np.empty(len(block), np.int32)
    _kernels.assign(
        np.ascontiguousarray(block), candidates, labels, squares, labels.copy(), squares.copy()
    )
    if len(weights):
        squares *= weights
    uniform = hash_block(block, salt) / float(np.iinfo(np.uint64).max)
    with np.errstate(divide="ignore", invalid="ignore"):
        keys = np.where(squares > 0, uniform / squares, np.inf)
    # All blocks together yield about `n_draws` rows; this limit per block leaves a wide margin.
    limit = min(len(block), int(8 * n_draws) + 64)
    chosen = np.argpartition(keys, limit - 1)[:limit]
    chosen = chosen[np.isfinite(keys[chosen])]
    return _Round(float(squares.sum()), keys[chosen], np.asarray(block[chosen], np.float64))


def _merge_rounds(rounds: Sequence[_Round]) -> _Round:
    cost = rounds[0].cost
    for part in rounds[1:]:
        cost += part.cost
    return _Round(
        cost,
        np.concatenate([part.keys for part in rounds]),
        np.concatenate([part.rows for part in rounds]),
    )


def init_random(
    sample: Sample, k: int, n_init: int, rng: np.random.Generator
) -> list[NDArray[np.float64]]:
    """Draw ``n_init`` sets of ``k`` distinct rows of the sample."""
    n = len(sample.rows)
    return [sample.rows[rng.choice(n, k, replace=False)] for _ in range(n_init)]


def check_centers(centers: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return a copy of a caller's centers as float64.

    Raises
    ------
    ValueError
        If their shape is not ``shape`` or they hold NaN or infinity.
    """
    array = np.array(centers, np.float64)
    if array.shape != shape:
        raise ValueError(
            f"init has shape {array.shape}, expected (n_clusters, n_features) = {shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError("NaN or infinity in init: pass finite centers")
    return array
