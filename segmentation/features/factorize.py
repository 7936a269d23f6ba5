"""Factorize a column of ids: its sorted distinct ids, and the position of each row's id among them.

Like ``numpy.unique`` with ``return_inverse=True``, but faster if integer ids are sorted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.features.kernels import find_run_starts

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def factorize(column: pd.Series) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the sorted distinct ids of a column and the codes of its rows.

    Parameters
    ----------
    column : pandas.Series of shape (n_rows,)
        int64 ids, or strings.

    Returns
    -------
    ids : ndarray of shape (n_ids,)
        int64, or byte strings of UTF-8 (dtype ``S``), which sort as their strings do.
    codes : ndarray of shape (n_rows,), int64
        ``ids[codes]`` is the column.

    Examples
    --------
    >>> import pandas as pd
    >>> ids, codes = factorize(pd.Series([7, 3, 7]))
    >>> ids.tolist(), codes.tolist()
    ([3, 7], [1, 0, 1])
    """
    if isinstance(column.dtype, np.dtype):
        return factorize_integers(column.to_numpy())
    import pyarrow as pa

    encoded = pa.chunked_array(pa.array(column.array)).combine_chunks().dictionary_encode()
    ids = np.array([string.encode() for string in encoded.dictionary.to_pylist()], np.bytes_)
    order = np.argsort(ids)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ids[order], ranks[encoded.indices.to_numpy(zero_copy_only=False)]


def factorize_integers(ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the sorted distinct ids and the code of each entry; one pass if ``ids`` is sorted."""
    starts = np.empty(len(ids), np.int64)
    n = find_run_starts(ids, starts)
    if n < 0:
        distinct, codes = np.unique(ids, return_inverse=True)
        return distinct, codes.astype(np.int64, copy=False)
    starts = starts[:n]
    lengths = np.diff(starts, append=len(ids))
    return ids[starts], np.repeat(np.arange(n), lengths)


def format_id(key: int | bytes) -> str:
    """Format an id as text."""
    return key.decode() if isinstance(key, bytes) else str(key)
