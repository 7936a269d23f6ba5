"""Compute the exact 99th percentile of each segment's distances to its center, block by block.

The bit patterns of non-negative floats sort like the floats, so the upper bits serve as a histogram
bin. Counts per bin add up over blocks and show which bins hold the percentiles; only the values in
those bins are fetched, at most two bins per segment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SHARE = 0.99
#: A float64's bin is its sign, its exponent and the first 8 bits of its fraction.
_BIN_BITS, _DROPPED_BITS = 20, 44


class Histogram(NamedTuple):
    """Number of distances per segment and bin.

    Attributes
    ----------
    keys
        Sorted distinct keys, segment first and bin second, int64 of shape (n_bins,).
    counts
        Distances per key, int64 of shape (n_bins,).
    """

    keys: NDArray[np.int64]
    counts: NDArray[np.int64]


def build_histogram(labels: NDArray[np.int32], distance: NDArray[np.float64]) -> Histogram:
    """Count the distances of one block, non-negative and of shape (n_users,)."""
    return Histogram(*np.unique(_compute_bin_keys(labels, distance), return_counts=True))


def merge_histograms(parts: Sequence[Histogram]) -> Histogram:
    """Add the histograms of disjoint blocks."""
    keys, inverse = np.unique(np.concatenate([part.keys for part in parts]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, inverse, np.concatenate([part.counts for part in parts]))
    return Histogram(keys, counts)


def bins_needed(histogram: Histogram, n_segments: int) -> NDArray[np.int64]:
    """Return the keys of the bins whose distances determine the percentiles, sorted."""
    keys = [key for s in range(n_segments) for key, _ in _locate_neighbors(histogram, s)]
    return np.unique(np.array(keys, np.int64))


def values_in_bins(
    labels: NDArray[np.int32], distance: NDArray[np.float64], keys: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    """Return the distances of one block in each of the bins ``keys``, one array per bin."""
    row_keys = _compute_bin_keys(labels, distance)
    return [distance[row_keys == key] for key in keys]


def percentile_99(
    histogram: Histogram,
    keys: NDArray[np.int64],
    values: Sequence[list[NDArray[np.float64]]],
    n_segments: int,
) -> NDArray[np.float64]:
    """Return the 99th percentile of each segment, NaN for a segment without users.

    Interpolates linearly, as :func:`numpy.percentile` does by default.

    Parameters
    ----------
    histogram
        The merged histogram of all blocks.
    keys
        The result of :func:`bins_needed`.
    values
        The result of :func:`values_in_bins` for each block.
    n_segments
        Number of segments.

    Examples
    --------
    >>> labels, distance = np.array([0, 0, 1], np.int32), np.array([1.0, 2.0, 5.0])
    >>> histogram = build_histogram(labels, distance)
    >>> keys = bins_needed(histogram, 2)
    >>> percentile_99(histogram, keys, [values_in_bins(labels, distance, keys)], 2)
    array([1.99, 5.  ])
    """
    by_key = {
        int(key): np.sort(np.concatenate([block[i] for block in values]))
        for i, key in enumerate(keys)
    }
    percentiles = np.full(n_segments, np.nan)
    for s in range(n_segments):
        neighbors = _locate_neighbors(histogram, s)
        if neighbors:
            low, high = (float(by_key[key][rank]) for key, rank in neighbors)
            n = int(histogram.counts[histogram.keys >> _BIN_BITS == s].sum())
            position = (n - 1) * _SHARE
            percentiles[s] = low + (high - low) * (position - np.floor(position))
    return percentiles


def _compute_bin_keys(
    labels: NDArray[np.int32], distance: NDArray[np.float64]
) -> NDArray[np.int64]:
    # Adding 0 turns a negative zero, whose sign bit is set, into a positive one.
    bits = (distance + 0.0).view(np.int64) >> _DROPPED_BITS
    return (labels.astype(np.int64) << _BIN_BITS) + bits


def _locate_neighbors(histogram: Histogram, segment: int) -> list[tuple[int, int]]:
    """Locate the two values that the percentile lies between, each by key and rank in its bin.

    Return an empty list for a segment without users.
    """
    mask = histogram.keys >> _BIN_BITS == segment
    keys, ends = histogram.keys[mask], np.cumsum(histogram.counts[mask])
    if not len(keys):
        return []
    n = int(ends[-1])
    below = int((n - 1) * _SHARE)
    neighbors = []
    for rank in (below, min(below + 1, n - 1)):
        i = int(np.searchsorted(ends, rank, side="right"))
        neighbors.append((int(keys[i]), rank - (int(ends[i - 1]) if i else 0)))
    return neighbors
