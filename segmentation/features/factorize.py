"""Users and movies of a data frame's rows: distinct ids, sorted, and which of them each row has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.features.kernels import run_starts

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def factorize(column: pd.Series) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the sorted distinct ids of a column, and each row's place among them.

    Ids are int64, or byte strings (dtype ``S``) of UTF-8, which sort as their texts do.
    """
    if isinstance(column.dtype, np.dtype):
        return user_rows(column.to_numpy())
    import pyarrow as pa

    whole = pa.chunked_array(pa.array(column.array)).combine_chunks()
    found = whole.dictionary_encode()
    names = np.array([text.encode() for text in found.dictionary.to_pylist()], np.bytes_)
    order = np.argsort(names)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return names[order], ranks[found.indices.to_numpy(zero_copy_only=False)]


def user_rows(users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the sorted distinct users and each rating's row among them."""
    starts = np.empty(len(users), np.int64)
    n = run_starts(users, starts)
    if n < 0:
        distinct, inverse = np.unique(users, return_inverse=True)
        return distinct, inverse.astype(np.int64, copy=False)
    starts = starts[:n]
    lengths = np.diff(starts, append=len(users))
    return users[starts], np.repeat(np.arange(n), lengths)


def format_id(key: Any) -> str:
    """Return an id as it is shown to people."""
    return key.decode() if isinstance(key, bytes) else str(key)
