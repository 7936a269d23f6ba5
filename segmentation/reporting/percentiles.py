"""The 99th percentile of each segment's distances, exact, over blocks of users.

A float's bits sort like the float, so its upper bits are a bin of their own: counts of bins are
added up over blocks, which tells in which bins the wanted values lie, and those alone are fetched.
No driver holds a number for each user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SHARE = 0.99
#: Bits of a float64 that make a bin: its exponent and the first 8 of its fraction.
_BIN_BITS, _DROPPED_BITS = 20, 44


class Histogram(NamedTuple):
    """Sorted distinct bins, a segment's after the other's, and how many distances lie in each."""

    keys: NDArray[np.int64]
    counts: NDArray[np.int64]


def build_histogram(labels: NDArray[np.int32], distance: NDArray[np.float64]) -> Histogram:
    """Count one block's distances, (n_users,) from 0 on, by segment and bin."""
    return Histogram(*np.unique(_keys(labels, distance), return_counts=True))


def merge_histograms(parts: Sequence[Histogram]) -> Histogram:
    """Add up what blocks counted."""
    keys, at = np.unique(np.concatenate([part.keys for part in parts]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, at, np.concatenate([part.counts for part in parts]))
    return Histogram(keys, counts)


def bins_needed(bins: Histogram, n_segments: int) -> NDArray[np.int64]:
    """Return the bins whose distances have to be known, sorted."""
    return np.unique([key for s in range(n_segments) for key, _ in _places(bins, s)]).astype(
        np.int64
    )


def values_in_bins(
    labels: NDArray[np.int32], distance: NDArray[np.float64], keys: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    """Return one block's distances in each of some bins."""
    own = _keys(labels, distance)
    return [distance[own == key] for key in keys]


def percentile_99(
    bins: Histogram,
    keys: NDArray[np.int64],
    fetched: Sequence[list[NDArray[np.float64]]],
    n_segments: int,
) -> NDArray[np.float64]:
    """Return each segment's 99th percentile as NumPy defines it, NaN for one without users."""
    values = {
        int(key): np.sort(np.concatenate([block[i] for block in fetched]))
        for i, key in enumerate(keys)
    }
    found = np.full(n_segments, np.nan)
    for s in range(n_segments):
        places = _places(bins, s)
        if places:
            low, high = (float(values[key][rank]) for key, rank in places)
            own = bins.keys >> _BIN_BITS == s
            at = (int(bins.counts[own].sum()) - 1) * _SHARE
            found[s] = low + (high - low) * (at - np.floor(at))
    return found


def _keys(labels: NDArray[np.int32], distance: NDArray[np.float64]) -> NDArray[np.int64]:
    # Adding 0 makes of a negative zero the other one, whose bits are none.
    bits = (distance + 0.0).view(np.int64) >> _DROPPED_BITS
    return (labels.astype(np.int64) << _BIN_BITS) + bits


def _places(bins: Histogram, segment: int) -> list[tuple[int, int]]:
    """Return where the values below and above the percentile lie: bin, and rank within it."""
    own = bins.keys >> _BIN_BITS == segment
    keys, ends = bins.keys[own], np.cumsum(bins.counts[own])
    if not len(keys):
        return []
    n = int(ends[-1])
    below = int((n - 1) * _SHARE)
    found = []
    for rank in (below, min(below + 1, n - 1)):
        at = int(np.searchsorted(ends, rank, side="right"))
        found.append((int(keys[at]), rank - (int(ends[at - 1]) if at else 0)))
    return found
