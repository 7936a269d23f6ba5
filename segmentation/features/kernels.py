"""Compiled loops over plain arrays; ``tests/naive.py`` holds a NumPy version of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def accumulate(
    user_rows: NDArray[np.int64],
    item_rows: NDArray[np.int32],
    ratings: NDArray[np.float64],
    offsets: NDArray[np.int32],
    codes: NDArray[np.int32],
    items: NDArray[np.int64],
    rating_sum: NDArray[np.float64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int32],
    seen: NDArray[np.bool_],
) -> None:
    """Add each rating to its user's totals and to those of its item's categories.

    Outputs are added to, so pass zeros.

    Parameters
    ----------
    user_rows, item_rows, ratings : ndarray of shape (n_ratings,)
        Per rating, its user's row in the outputs, its item's row in the catalogue, and its stars.
        A rating with a negative item is not added.
    offsets, codes
        The catalogue's item × category matrix in compressed rows, as in
        :class:`segmentation.schema.ItemTable`.
    items, rating_sum : ndarray of shape (n_users,)
        Output: number and sum of the user's ratings.
    sums, counts : ndarray of shape (n_users, n_categories)
        Output: the same per category.
    seen : ndarray of shape (n_items,)
        Output: which items have a rating.
    """
    for i in range(len(ratings)):
        user = user_rows[i]
        item = item_rows[i]
        if item < 0:
            continue
        rating = ratings[i]
        items[user] += 1
        rating_sum[user] += rating
        seen[item] = True
        for j in range(offsets[item], offsets[item + 1]):
            category = codes[j]
            sums[user, category] += rating
            counts[user, category] += 1


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def digest_rows(
    ids: NDArray[np.uint64],
    items: NDArray[np.integer[Any]],
    sums: NDArray[np.uint64],
    counts: NDArray[np.integer[Any]],
) -> np.uint64:
    """Return the sum of one hash per row, which is the same in any order of the rows.

    Parameters
    ----------
    ids
        Hashes of the users, of shape (n_users,).
    items, sums
        Number of ratings, and the bits of their sum, of shape (n_users,).
    counts
        Number of ratings per category, of shape (n_users, n_categories).
    """
    # Odd, and near 2**64 over the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
    multiplier, shift = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)
    total = np.uint64(0)
    for i in range(len(ids)):
        value = (ids[i] ^ np.uint64(items[i])) * multiplier
        value = ((value ^ (value >> shift)) ^ sums[i]) * multiplier
        for g in range(counts.shape[1]):
            value = ((value ^ (value >> shift)) ^ np.uint64(counts[i, g])) * multiplier
        total += (value ^ (value >> shift)) * multiplier
    return total


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def find_run_starts(values: NDArray[np.int64], starts: NDArray[np.int64]) -> int:
    """Write the start of each run of equal values to ``starts``.

    One pass replaces a sort: ratings files are usually sorted by user.

    Returns
    -------
    int
        The number of runs, or −1 if the values are not sorted.
    """
    n = 0
    for i in range(len(values)):
        if i == 0 or values[i] != values[i - 1]:
            if i > 0 and values[i] < values[i - 1]:
                return -1
            starts[n] = i
            n += 1
    return n


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def mean_columns(
    sums: NDArray[Any], counts: NDArray[Any], means: NDArray[np.float32], valid: NDArray[np.uint8]
) -> None:
    """Divide sums by counts into a column of means per category, each with Arrow's validity bitmap.

    Parameters
    ----------
    sums, counts : ndarray of shape (n_users, n_categories)
    means : ndarray of shape (n_categories, n_users), float32
        Output: means, 0 where the count is 0.
    valid : ndarray of shape (n_categories, ceil(n_users / 8)), uint8
        Output: bit ``i % 8``, from the least significant, of byte ``i // 8`` is set if user ``i``
        has a mean. Pass zeros.
    """
    for i in range(sums.shape[0]):
        bit = np.uint8(1 << (i & 7))
        for g in range(sums.shape[1]):
            n = np.int64(counts[i, g])
            if n > 0:
                means[g, i] = np.float32(np.float64(sums[i, g]) / n)
                valid[g, i >> 3] |= bit
