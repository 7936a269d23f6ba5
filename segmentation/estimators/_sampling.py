"""Scan the rows once: statistics per feature, and a sample that depends on their content only."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.estimators import _covariance, _kernels
from segmentation.estimators._blockwise import RowBlocks, check_finite, reduce_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MAX_HASH = np.iinfo(np.uint64).max
#: Rows requested per row needed, so that one pass is enough if rows are distinct.
_OVERSAMPLING = 1.3
#: Bytes of a sample's rows: 80,000 rows of 200 features. The limit binds with more features.
_MAX_SAMPLE_BYTES = 128_000_000


class Sample(NamedTuple):
    """Distinct rows in ascending order of their hashes.

    Attributes
    ----------
    hashes
        Shape (n_sampled,), uint64.
    rows
        Shape (n_sampled, n_features), float64.
    weights
        Total weight of all copies of each row; shape (n_sampled,), float64.
    """

    hashes: NDArray[np.uint64]
    rows: NDArray[np.float64]
    weights: NDArray[np.float64]


class FeatureStatistics(NamedTuple):
    """Statistics of the features over all rows.

    Attributes
    ----------
    weight
        Total weight of the rows.
    mean, squared_deviations
        Weighted mean, and weighted sum of squared deviations from it; shape (n_features,).
    max_abs
        Largest absolute value in any feature; NaN or infinite if the rows are not finite.
    """

    weight: float
    mean: NDArray[np.float64]
    squared_deviations: NDArray[np.float64]
    max_abs: float

    def scale_tol(self, tol: float) -> float:
        """Return ``tol`` times the mean variance of the features, as scikit-learn scales it."""
        return tol * float(self.squared_deviations.mean()) / self.weight


class Scan(NamedTuple):
    """Result of one pass over the rows."""

    features: FeatureStatistics
    sample: Sample


def scan_rows(X: RowBlocks, size: int, seed: int, min_size: int = 1) -> Scan:
    """Compute the features' statistics and a sample of at most ``size`` distinct rows.

    With hundreds of features it has fewer, as many as :data:`_MAX_SAMPLE_BYTES` hold, and at least
    ``min_size``.

    The sample holds the rows with the smallest hashes: a bottom-k sample (Cohen & Kaplan 2007).
    It depends on the rows' content and on ``seed`` only: not on their order or chunking, and not on
    whether a row is repeated or has a larger weight. Usually one pass is enough; data with many
    duplicate rows takes a few.

    Raises
    ------
    ValueError
        If the rows hold NaN or infinity, or a weight is negative, NaN or infinite, or every weight
        is 0.
    """
    size = max(min(size, _MAX_SAMPLE_BYTES // (8 * X.n_features)), min_size)
    salt = make_salt(seed)
    threshold = _to_threshold(_OVERSAMPLING * size / max(X.n_rows, 1))
    while True:
        scan: Scan = reduce_blocks(X, scan_block, merge_scans, salt, threshold)
        _check_features(scan.features)
        n_sampled = len(scan.sample.hashes)
        if n_sampled >= size or threshold == _MAX_HASH:
            break
        share = int(threshold) / int(_MAX_HASH)
        threshold = _to_threshold(share * 1.5 * size / max(n_sampled, 1))
    return Scan(scan.features, Sample._make(column[:size] for column in scan.sample))


def make_salt(seed: int) -> np.uint64:
    """Derive a salt for :func:`hash_block` from a seed."""
    return np.uint64(np.random.SeedSequence([seed, 0x5EED]).generate_state(1, np.uint64)[0])


def hash_block(block: NDArray[Any], salt: np.uint64) -> NDArray[np.uint64]:
    """Hash the rows of a block of floats; uint64 of shape (n_rows,)."""
    unsigned = np.uint32 if block.dtype.itemsize == 4 else np.uint64
    negative_zero = unsigned(1) << unsigned(8 * block.dtype.itemsize - 1)
    hashes = np.empty(len(block), np.uint64)
    _kernels.hash_rows(np.ascontiguousarray(block).view(unsigned), negative_zero, salt, hashes)
    return hashes


def scan_block(
    block: NDArray[Any], weights: NDArray[np.float64], salt: np.uint64, threshold: np.uint64
) -> Scan:
    """Scan one block; its sample holds every distinct row whose hash is at most ``threshold``."""
    block = np.ascontiguousarray(block)
    hashes = hash_block(block, salt)
    chosen = np.flatnonzero(hashes <= threshold)
    if len(weights):
        chosen = chosen[weights[chosen] > 0]
    chosen_weights = weights[chosen] if len(weights) else np.ones(len(chosen))
    first, unique_hashes, total_weights = _group_by_hash(hashes[chosen], chosen_weights)
    sample = Sample(unique_hashes, np.asarray(block[chosen[first]], np.float64), total_weights)
    return Scan(_describe_block(block, weights), sample)


def _describe_block(block: NDArray[Any], weights: NDArray[np.float64]) -> FeatureStatistics:
    n_features = block.shape[1]
    shift = np.asarray(block[0], np.float64)
    shift = np.where(np.isfinite(shift), shift, 0.0)
    sums, squares = np.zeros(n_features), np.zeros(n_features)
    with np.errstate(invalid="ignore", over="ignore"):
        max_abs = _covariance.sum_deviations(block, weights, shift, sums, squares)
        # A negative weight makes the total NaN: positive ones can't hide it from the check.
        if len(weights) and not (weights >= 0).all():
            weight = float("nan")
        else:
            weight = float(weights.sum()) if len(weights) else float(len(block))
        mean = shift + sums / weight if weight else shift
        squared_deviations = squares - sums**2 / weight if weight else squares
    return FeatureStatistics(weight, mean, squared_deviations, float(max_abs))


def _group_by_hash(
    hashes: NDArray[np.uint64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.float64]]:
    """Return the first position, the hash and the weight of each distinct hash, sorted by hash."""
    # NumPy's stable sort merges sorted runs, such as the samples of several blocks.
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    if len(starts) == 0:
        return order, ordered, weights
    return order[starts], ordered[starts], np.add.reduceat(weights[order], starts)


def merge_scans(scans: Sequence[Scan]) -> Scan:
    """Merge the scans of disjoint blocks."""
    # All samples at once: merging them pairwise fragmented the heap by 170 MB.
    samples = [scan.sample for scan in scans]
    first, hashes, weights = _group_by_hash(
        np.concatenate([sample.hashes for sample in samples]),
        np.concatenate([sample.weights for sample in samples]),
    )
    rows = np.empty((len(first), samples[0].rows.shape[1]))
    start = 0
    for sample in samples:
        end = start + len(sample.hashes)
        in_sample = (first >= start) & (first < end)
        rows[in_sample] = sample.rows[first[in_sample] - start]
        start = end
    features = functools.reduce(_merge_features, [scan.features for scan in scans])
    return Scan(features, Sample(hashes, rows, weights))


def _merge_features(left: FeatureStatistics, right: FeatureStatistics) -> FeatureStatistics:
    weight = left.weight + right.weight
    with np.errstate(invalid="ignore", over="ignore"):
        delta = right.mean - left.mean
        share = right.weight / weight if weight else 0.0
        mean = left.mean + delta * share
        squared_deviations = (
            left.squared_deviations + right.squared_deviations + delta**2 * left.weight * share
        )
    max_abs = float(np.maximum(left.max_abs, right.max_abs))
    return FeatureStatistics(weight, mean, squared_deviations, max_abs)


def _check_features(features: FeatureStatistics) -> None:
    if not np.isfinite(features.weight):
        raise ValueError("sample_weight: weights must be finite and at least 0")
    check_finite(np.array(features.max_abs))
    if features.weight <= 0:
        raise ValueError("sample_weight: every weight is zero; at least one must be positive")


def _to_threshold(share: float) -> np.uint64:
    """Return the threshold that ``share`` of all hashes are below."""
    return np.uint64(_MAX_HASH) if share >= 1 else np.uint64(int(share * int(_MAX_HASH)))
