"""Where Lloyd's iterations begin: k-means++ on a sample, k-means||, or rows at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.estimators import _k_means_inmemory, _kernels
from segmentation.estimators._blockwise import Rows, reduce_blocks
from segmentation.estimators._lloyd import Step, add_steps, lloyd_block, stacked
from segmentation.estimators._sampling import Sample, hash_salt, hashes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

#: A restart looks at this many rows of the sample, or at a multiple of the clusters, and makes so
#: many passes over them: enough to tell which optimum it is bound for.
_SLICE_ROWS, _SLICE_PER_CLUSTER, _SLICE_PASSES = 2_000, 80, 5
#: Restarts are ranked on so many rows; the best that differ make a few passes over those, and the
#: ones that are not far behind then, the contenders, converge on all of them.
_RANKING_ROWS, _REFINING_PASSES = 6_000, 6
_SAMPLE_PASSES = 100
#: Restarts that are ranked in one reading of those rows.
_RANKED_AT_ONCE = 8
#: With few rows there may be up to so many times as many restarts, as long as they look at so many
#: rows for each that was asked for.
_MOST_TIMES, _CHEAP_ROWS = 3, 3_000
#: Squared distance of two centres, beside the inertia a row, from which on they are two.
_ALIKE = 0.05
#: Two starts whose inertia differs by less are taken for the same optimum.
_SAME = 1e-4
#: A start this much above the best on the sample will hardly be the best on all rows.
_NEAR = 1.01


class Effort(NamedTuple):
    """How much is tried on a sample: restarts, those that are refined, and those that converge."""

    restarts: int = 64
    refined: int = 16
    contenders: int = 4


def plus_plus(
    rows: NDArray[np.float64], weights: NDArray[np.float64], k: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Choose ``k`` rows by weighted k-means++ with ``2 + log k`` greedy trials."""
    return _at(rows, weights, _uniforms(k, rng))


def _uniforms(k: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.random((k, 2 + int(np.log(k))))


def _at(
    rows: NDArray[np.float64], weights: NDArray[np.float64], uniforms: NDArray[np.float64]
) -> NDArray[np.float64]:
    chosen = np.empty(len(uniforms), np.int64)
    _k_means_inmemory.plus_plus(rows, weights, uniforms, chosen)
    return rows[chosen]


def fit_in_memory(
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    centers: NDArray[np.float64],
    tol: float,
    passes: int = _SAMPLE_PASSES,
) -> tuple[NDArray[np.float64], float]:
    """Run Lloyd's iterations on weighted rows in memory; return centres and inertia."""
    ends = np.array(centers, np.float64)
    return ends, float(_k_means_inmemory.converge(rows, weights, ends, tol, passes))


def from_sample(
    sample: Sample,
    head: int,
    k: int,
    effort: Effort,
    tol: float,
    rng: np.random.Generator,
    keep: int | None,
    each: Callable[..., Iterable[Any]] = map,
) -> list[NDArray[np.float64]]:
    """Restart k-means++ on slices of the sample; return up to ``keep`` distinct optima.

    Every restart makes some passes over a slice of its own. The best few that differ converge on
    the first ``head`` rows; those that meet in one optimum count once, and those far behind are
    left out. With ``keep`` None, the one that fits the whole sample best converges there and is
    returned. ``each`` maps a function over restarts; that of a pool of threads gives the same.
    """
    first = Sample._make(column[:head] for column in sample)
    n = len(first.rows)
    if len(sample.rows) <= _RANKING_ROWS:
        # So few rows are cheap: every restart goes to its very end, and the best is the best.
        times = max(keep or 1, int(effort.restarts * min(_MOST_TIMES, _CHEAP_ROWS / n)))

        def whole(uniforms: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
            return fit_in_memory(*first[1:], _at(*first[1:], uniforms), 0.0)

        fits = list(each(whole, [_uniforms(k, rng) for _ in range(times)]))
        return [centers for centers, _ in _distinct(fits)[: keep or 1]]
    slices = max(1, n // max(_SLICE_ROWS, _SLICE_PER_CLUSTER * k))

    def begin(restart: int, uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
        part = slice(restart % slices * n // slices, (restart % slices + 1) * n // slices)
        rows, weights = first.rows[part], first.weights[part]
        return fit_in_memory(rows, weights, _at(rows, weights, uniforms), tol, _SLICE_PASSES)[0]

    draws = [_uniforms(k, rng) for _ in range(effort.restarts)]
    begun = list(each(begin, range(effort.restarts), draws))
    some = first.rows[:_RANKING_ROWS], first.weights[:_RANKING_ROWS]

    def rank(part: int) -> NDArray[np.float64]:
        return lloyd_block(*some, *stacked(begun[part : part + _RANKED_AT_ONCE])).inertia

    ranking = np.concatenate(list(each(rank, range(0, len(begun), _RANKED_AT_ONCE))))
    order = np.argsort(ranking, kind="stable")
    # Rows spread about their centres as the inertia says; optima lie further apart than that.
    limit = _ALIKE * float(ranking[order[0]]) / float(some[1].sum())
    chosen = _unlike([begun[i] for i in order], limit, max(keep or 0, effort.refined))

    def refine(centers: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        return fit_in_memory(*some, centers, tol, _REFINING_PASSES)

    def finish(centers: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        return fit_in_memory(first.rows, first.weights, centers, tol)

    short = sorted(each(refine, chosen), key=lambda pair: pair[1])
    contenders = short[: max(keep or 0, effort.contenders)]
    fits = list(each(finish, [c for c, value in contenders if value <= short[0][1] * _NEAR]))
    distinct = _distinct(fits)
    if keep is not None:
        return [centers for centers, _ in distinct[:keep]]
    everything, offsets = stacked([centers for centers, _ in distinct])
    inertia = lloyd_block(sample.rows, sample.weights, everything, offsets).inertia
    best = distinct[int(np.argmin(inertia))][0]
    return [fit_in_memory(sample.rows, sample.weights, best, tol)[0]]


def _distinct(
    fits: Sequence[tuple[NDArray[np.float64], float]],
) -> list[tuple[NDArray[np.float64], float]]:
    """Sort by inertia, and let those of nearly the same inertia count once."""
    found: list[tuple[NDArray[np.float64], float]] = []
    for centers, value in sorted(fits, key=lambda pair: pair[1]):
        if not found or value > found[-1][1] * (1 + _SAME):
            found.append((centers, value))
    return found


def _unlike(
    sets: Sequence[NDArray[np.float64]], limit: float, most: int
) -> list[NDArray[np.float64]]:
    """Return the first sets that differ: a centre of one is ``limit`` (squared) from the other."""
    chosen: list[NDArray[np.float64]] = []
    for centers in sets:
        for other in chosen:
            apart = ((centers[:, None] - other[None]) ** 2).sum(axis=2)
            if max(apart.min(axis=0).max(), apart.min(axis=1).max()) < limit:
                break
        else:
            chosen.append(centers)
        if len(chosen) == most:
            break
    return chosen


class _Round(NamedTuple):
    """One round of k-means||: the cost so far, and the rows most likely to be drawn."""

    cost: float
    keys: NDArray[np.float64]
    rows: NDArray[np.float64]


def parallel(
    X: Rows, sample: Sample, k: int, factor: float, rounds: int, seed: int
) -> NDArray[np.float64]:
    """Choose ``k`` centres by k-means|| (Bahmani et al. 2012) in ``rounds + 1`` passes.

    In each round every row is drawn with a chance of ``factor · k · weight · distance² / cost``;
    the chance is decided by a hash of the row, so that neither chunks nor order matter. Each
    candidate is then weighted with the rows that are nearest to it, and weighted k-means++ and
    Lloyd's iterations on the candidates make ``k`` centres of them.
    """
    wanted = factor * k
    candidates = sample.rows[:1]
    for number in range(rounds):
        salt = hash_salt(seed + 1 + number)
        found: _Round = reduce_blocks(X, _oversample, _merge_rounds, candidates, salt, wanted)
        if found.cost == 0:
            break
        drawn = found.keys < wanted / found.cost
        candidates = np.unique(np.concatenate([candidates, found.rows[drawn]]), axis=0)
    if len(candidates) < k:
        # Hardly any rows differ: the sample holds more of them.
        candidates = np.unique(np.concatenate([candidates, sample.rows]), axis=0)
    offsets = np.array([0, len(candidates)])
    step: Step = reduce_blocks(X, lloyd_block, add_steps, candidates, offsets)
    weights = np.maximum(step.counts, np.finfo(float).tiny)
    centers = plus_plus(candidates, weights, k, np.random.default_rng([seed, 12]))
    return fit_in_memory(candidates, weights, centers, 0.0)[0]


def _oversample(
    block: NDArray[Any],
    weights: NDArray[np.float64],
    candidates: NDArray[np.float64],
    salt: np.uint64,
    wanted: float,
) -> _Round:
    squares = np.empty(len(block))
    ignored = np.empty(len(block), np.int32)
    _kernels.assign(
        np.ascontiguousarray(block), candidates, ignored, squares, ignored.copy(), squares.copy()
    )
    if len(weights):
        squares *= weights
    uniform = hashes_of(block, salt) / float(np.iinfo(np.uint64).max)
    with np.errstate(divide="ignore", invalid="ignore"):
        keys = np.where(squares > 0, uniform / squares, np.inf)
    # Some `wanted` rows are drawn from all blocks together: many more than that are enough.
    most = min(len(block), int(8 * wanted) + 64)
    chosen = np.argpartition(keys, most - 1)[:most]
    chosen = chosen[np.isfinite(keys[chosen])]
    return _Round(float(squares.sum()), keys[chosen], np.asarray(block[chosen], np.float64))


def _merge_rounds(one: _Round, other: _Round) -> _Round:
    return _Round(
        one.cost + other.cost,
        np.concatenate([one.keys, other.keys]),
        np.concatenate([one.rows, other.rows]),
    )


def at_random(sample: Sample, k: int, n_starts: int, rng: np.random.Generator) -> list[Any]:
    """Choose ``n_starts`` sets of ``k`` distinct rows of the sample."""
    n = len(sample.rows)
    return [sample.rows[rng.choice(n, k, replace=False)] for _ in range(n_starts)]


def checked(centers: Any, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return centres that a caller gave, as float64.

    Raises
    ------
    ValueError
        If their shape is wrong or they hold NaN or infinity.
    """
    found = np.array(centers, np.float64)
    if found.shape != shape:
        raise ValueError(
            f"init has shape {found.shape} where (n_clusters, n_features) = {shape} belongs"
        )
    if not np.isfinite(found).all():
        raise ValueError("NaN or infinity in init: give finite centres")
    return found


def all_sets(sets: Sequence[Any], shape: tuple[int, int]) -> list[NDArray[np.float64]]:
    """Check several sets of centres."""
    return [checked(centers, shape) for centers in sets]
