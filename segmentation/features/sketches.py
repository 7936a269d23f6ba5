"""Small samples of a partition's users: how many there are in all, and where to cut blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


#: How many evenly spaced user ids of a partition tell where its users lie.
_SKETCH = 64


#: One user in so many is told of by a partition, to count them over all.
SAMPLED = 64


#: Odd, and near the golden ratio of 2 to the 64th (Knuth, The Art of Computer Programming 3, 6.4).
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def quantile_sketch(users: NDArray[Any]) -> NDArray[Any]:
    """Return evenly spaced ones of sorted user ids, the first and the last among them."""
    n = len(users)
    return users[np.linspace(0, n - 1, min(n, _SKETCH)).astype(np.int64)] if n else users


def hash_sample(users: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the hashes of about one user in :data:`SAMPLED`, the same ones in every partition.

    How many there are in several partitions together tells how many users these have.

    Parameters
    ----------
    users : ndarray of shape (n_users,), int64 or S
        Distinct ids.
    """
    if users.dtype.kind == "S":
        # What an id is padded with is zero, and adds nothing.
        width = users.dtype.itemsize
        letters = np.ascontiguousarray(users).view(np.uint8).reshape(len(users), width)
        mixed = np.zeros(len(users), np.uint64)
        # A letter's place at a time: a product of all would hold eight times the ids.
        for place, weight in enumerate(_SPREAD ** np.arange(1, width + 1, dtype=np.uint64)):
            mixed += letters[:, place].astype(np.uint64) * weight
    else:
        mixed = users.astype(np.uint64) * _SPREAD
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _SPREAD
    return np.asarray(mixed[mixed < np.uint64(2**64 // SAMPLED)])


def estimate_n_users(samples: Sequence[NDArray[np.uint64]]) -> int:
    """Return about how many different users there are where these samples are from."""
    return SAMPLED * (len(np.unique(np.concatenate(samples))) + 1)


def block_boundaries(sketches: Sequence[NDArray[Any]], n_blocks: int) -> list[Any]:
    """Choose at most ``n_blocks - 1`` user ids that cut the audience into blocks of like size.

    Any cut gives the same results; the sketches only keep the blocks balanced.
    """
    # Those of nobody are numbers, and would make numbers of texts.
    known = [sketch for sketch in sketches if len(sketch)]
    pool = np.sort(np.concatenate(known)) if known else np.empty(0, np.int64)
    if n_blocks <= 1 or len(pool) == 0:
        return []
    at = (np.arange(1, n_blocks) * len(pool)) // n_blocks
    return [user.item() for user in np.unique(pool[at]) if user > pool[0]]
