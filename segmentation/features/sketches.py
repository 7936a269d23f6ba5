"""Small samples of a partition's users: to count distinct users, and to choose block boundaries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Maximum number of user ids in a quantile sketch.
_SKETCH_SIZE = 64
#: A hash sample holds about one user in this many.
_SAMPLING_INTERVAL = 64
#: Odd, and near 2**64 over the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def quantile_sketch(users: NDArray[Any]) -> NDArray[Any]:
    """Return evenly spaced ids from sorted user ids, including the first and the last.

    Examples
    --------
    >>> import numpy as np
    >>> sketch = quantile_sketch(np.arange(1000))
    >>> len(sketch), int(sketch[0]), int(sketch[-1])
    (64, 0, 999)
    """
    n = len(users)
    return users[np.linspace(0, n - 1, min(n, _SKETCH_SIZE)).astype(np.int64)] if n else users


def hash_sample(users: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the hashes of about one user in :data:`_SAMPLING_INTERVAL`.

    Whether a user is in the sample depends only on the id, so that the union of the samples of
    several partitions is the sample of their distinct users.

    Parameters
    ----------
    users : ndarray of shape (n_users,), int64 or S
        Distinct ids.
    """
    hashes = hash_ids(users)
    return np.asarray(hashes[hashes < np.uint64(2**64 // _SAMPLING_INTERVAL)])


def hash_ids(users: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the hash of each id, int64 or S, whatever the width of the array."""
    if users.dtype.kind == "S":
        # Zero bytes, with which shorter ids are padded, add nothing to the hash.
        width = users.dtype.itemsize
        letters = np.ascontiguousarray(users).view(np.uint8).reshape(len(users), width)
        hashes = np.zeros(len(users), np.uint64)
        # One position at a time: all products at once would take eight times the memory of the ids.
        for position, weight in enumerate(_MULTIPLIER ** np.arange(1, width + 1, dtype=np.uint64)):
            hashes += letters[:, position].astype(np.uint64) * weight
    else:
        hashes = users.astype(np.uint64) * _MULTIPLIER
    return mix_bits(hashes)


def mix_bits(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return values each of whose upper bits depends on all bits of the original."""
    return np.asarray((values ^ (values >> np.uint64(32))) * _MULTIPLIER)


def estimate_n_users(samples: Sequence[NDArray[np.uint64]]) -> int:
    """Estimate the number of distinct users of the partitions that the hash samples come from."""
    return _SAMPLING_INTERVAL * (len(np.unique(np.concatenate(samples))) + 1)


def block_boundaries(
    sketches: Sequence[NDArray[Any]], sizes: Sequence[int], n_blocks: int
) -> list[Any]:
    """Return at most ``n_blocks - 1`` user ids that split the users into blocks of similar size.

    The sketches only balance the blocks: results are the same for any boundaries.

    Parameters
    ----------
    sketches
        A quantile sketch of each partition's users.
    sizes
        The number of users of each partition, for which the ids in its sketch stand.
    n_blocks
        The number of blocks.
    """
    # An empty sketch is an int64 array, and would change the dtype of byte strings.
    filled = [(ids, size) for ids, size in zip(sketches, sizes, strict=True) if len(ids)]
    if n_blocks <= 1 or not filled:
        return []
    pool = np.concatenate([ids for ids, _ in filled])
    weights = np.concatenate([np.full(len(ids), size / len(ids)) for ids, size in filled])
    order = np.argsort(pool, kind="stable")
    pool, ends = pool[order], np.cumsum(weights[order])
    targets = np.arange(1, n_blocks) * (ends[-1] / n_blocks)
    positions = np.searchsorted(ends, targets, side="right")
    return [user.item() for user in np.unique(pool[positions]) if user > pool[0]]
