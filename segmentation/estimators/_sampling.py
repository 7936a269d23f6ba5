"""A first look at the rows: how far they spread, and a sample that only their content decides."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.estimators import _covariance, _kernels
from segmentation.estimators._blockwise import Rows, join_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_ALL = np.iinfo(np.uint64).max
#: How many more rows are asked for than wanted, so that one pass is enough for distinct rows.
_SPARE = 1.3


class Sample(NamedTuple):
    """Distinct rows by rising hash, float64, each with the weight of all its copies."""

    hashes: NDArray[np.uint64]
    rows: NDArray[np.float64]
    weights: NDArray[np.float64]


class Spread(NamedTuple):
    """Weight, mean and sum of squared deviations a feature, and the largest absolute value."""

    weight: float
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    largest: float


class Survey(NamedTuple):
    """What one pass over the rows finds."""

    spread: Spread
    sample: Sample


def survey(X: Rows, size: int, seed: int) -> Survey:
    """Look at all rows once, or a few times where most of them are copies of one another.

    The sample is the ``size`` distinct rows whose hashes are smallest: a bottom-k sample
    (Cohen & Kaplan 2007). It hangs on the rows' content and the seed alone, not on their order,
    their chunks, or whether copies or weights say how often a row counts.

    Raises
    ------
    ValueError
        If the rows hold NaN or infinity, or a weight is negative, NaN or infinite, or all are 0.
    """
    salt = hash_salt(seed)
    threshold = _threshold(_SPARE * size / max(X.n_rows, 1))
    while True:
        found: Survey = join_blocks(X, look, _joined, salt, threshold)
        _check(found.spread)
        count = len(found.sample.hashes)
        if count >= size or threshold == _ALL:
            break
        share = int(threshold) / int(_ALL)
        threshold = _threshold(share * 1.5 * size / max(count, 1))
    hashes, rows, weights = found.sample
    kept = Sample(hashes[:size], rows[:size], weights[:size])
    return Survey(found.spread, kept)


def hash_salt(seed: int) -> np.uint64:
    """Return a salt for :func:`row_hashes` that follows from the seed."""
    return np.uint64(np.random.SeedSequence([seed, 0x5EED]).generate_state(1, np.uint64)[0])


def hashes_of(block: NDArray[Any], salt: np.uint64) -> NDArray[np.uint64]:
    """Hash the rows of a block of floats."""
    unsigned = np.uint32 if block.dtype.itemsize == 4 else np.uint64
    out = np.empty(len(block), np.uint64)
    zero = unsigned(1) << unsigned(8 * block.dtype.itemsize - 1)
    _kernels.row_hashes(np.ascontiguousarray(block).view(unsigned), zero, salt, out)
    return out


def look(
    block: NDArray[Any], weights: NDArray[np.float64], salt: np.uint64, threshold: np.uint64
) -> Survey:
    """Survey one block; its sample is every distinct row whose hash is below ``threshold``."""
    block = np.ascontiguousarray(block)
    shift = np.asarray(block[0], np.float64) if len(block) else np.zeros(block.shape[1])
    shift = np.where(np.isfinite(shift), shift, 0.0)
    first, second = np.zeros(block.shape[1]), np.zeros(block.shape[1])
    with np.errstate(invalid="ignore", over="ignore"):
        largest = _covariance.shifted_moments(block, weights, shift, first, second)
        # A bad weight shows in the sum, which its sign can't hide from the check.
        if len(weights) and not (weights >= 0).all():
            weight = float("nan")
        else:
            weight = float(weights.sum()) if len(weights) else float(len(block))
        mean = shift + first / weight if weight else shift
        squares = second - first**2 / weight if weight else second
    hashes = hashes_of(block, salt)
    chosen = np.flatnonzero(hashes <= threshold)
    if len(weights):
        chosen = chosen[weights[chosen] > 0]
    own = weights[chosen] if len(weights) else np.ones(len(chosen))
    at, values, summed = _distinct(hashes[chosen], own)
    sample = Sample(values, np.asarray(block[chosen[at]], np.float64), summed)
    return Survey(Spread(weight, mean, squares, float(largest)), sample)


def _distinct(
    hashes: NDArray[np.uint64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.float64]]:
    """Return where each hash stands first, by rising hash, the hashes, and their weights."""
    # Stable, since it merges what is sorted already, as most of this is.
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    if len(starts) == 0:
        return order, ordered, weights
    return order[starts], ordered[starts], np.add.reduceat(weights[order], starts)


def _joined(parts: Sequence[Survey]) -> Survey:
    # All samples at once: merged two at a time they left 170 MB of holes in the heap.
    samples = [part.sample for part in parts]
    first, values, weights = _distinct(
        np.concatenate([sample.hashes for sample in samples]),
        np.concatenate([sample.weights for sample in samples]),
    )
    rows = np.empty((len(first), samples[0].rows.shape[1]))
    start = 0
    for sample in samples:
        end = start + len(sample.hashes)
        own = (first >= start) & (first < end)
        rows[own] = sample.rows[first[own] - start]
        start = end
    spread = functools.reduce(_add_spreads, [part.spread for part in parts])
    return Survey(spread, Sample(values, rows, weights))


def _add_spreads(a: Spread, b: Spread) -> Spread:
    weight = a.weight + b.weight
    with np.errstate(invalid="ignore", over="ignore"):
        delta = b.mean - a.mean
        part = b.weight / weight if weight else 0.0
        mean = a.mean + delta * part
        squares = a.squares + b.squares + delta**2 * a.weight * part
    return Spread(weight, mean, squares, float(np.maximum(a.largest, b.largest)))


def _check(spread: Spread) -> None:
    if not np.isfinite(spread.weight):
        raise ValueError("sample_weight: weights must be finite and at least 0")
    if not np.isfinite(spread.largest):
        raise ValueError("NaN or infinity in the input: fill or drop those rows first")
    if spread.weight <= 0:
        raise ValueError("sample_weight: every weight is zero: at least one must be positive")


def _threshold(share: float) -> np.uint64:
    return np.uint64(_ALL) if share >= 1 else np.uint64(int(share * int(_ALL)))
