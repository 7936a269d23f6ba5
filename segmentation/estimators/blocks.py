"""Passes over a Dask array of rows: one task a block, then a small tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import dask
import dask.array as da
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

#: How many partial results one task of the tree adds up.
_FAN_IN = 16


class Moments(NamedTuple):
    """Rows, their mean and their centred scatter matrix, both in float64."""

    n: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]


def as_rows(X: Any) -> da.Array:
    """Return any array or frame as a Dask array of float rows, blocks cut along rows alone.

    Raises
    ------
    ValueError
        If it isn't two-dimensional, or has blocks of unknown length.
    """
    if hasattr(X, "to_dask_array"):
        X = X.to_dask_array(lengths=True)
    elif hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if not isinstance(X, da.Array):
        X = da.from_array(np.asarray(X), chunks="auto")
    if X.ndim != 2:
        raise ValueError(f"expected 2 dimensions, got {X.ndim}: reshape(-1, 1) makes one feature")
    if any(np.isnan(size) for size in X.shape):
        raise ValueError("blocks of unknown length: call X.compute_chunk_sizes() first")
    if X.numblocks[1] > 1:
        X = X.rechunk({1: -1})
    if X.dtype.kind != "f":
        X = X.astype(np.float64)
    elif X.dtype.itemsize < 4:
        X = X.astype(np.float32)
    return X


def blocks_of(X: da.Array) -> list[tuple[int, Any]]:
    """Return (first row, delayed block) of every block that has rows."""
    delayed = X.to_delayed().ravel()
    starts = np.concatenate([[0], np.cumsum(X.chunks[0])])
    return [
        (int(start), block)
        for start, block, size in zip(starts, delayed, X.chunks[0], strict=False)
        if size
    ]


def reduce(parts: Sequence[Any], combine: Callable[[list[Any]], Any], name: str) -> Any:
    """Combine delayed partial results in a tree whose shape hangs on their number alone."""
    parts = list(parts)
    task = dask.delayed(combine, pure=False)
    while True:
        parts = [
            task(parts[i : i + _FAN_IN], dask_key_name=f"{name}-{dask.base.tokenize(parts[i].key)}")
            for i in range(0, len(parts), _FAN_IN)
        ]
        if len(parts) == 1:
            return parts[0]


def compute(value: Any) -> Any:
    """Compute one delayed value with whatever scheduler or client is current."""
    (result,) = dask.compute(value)
    return result


def sample_rows(n_rows: int, size: int, seed: int) -> NDArray[np.int64]:
    """Draw sorted row numbers without replacement; they hang on the seed and ``n_rows`` alone."""
    if size >= n_rows:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(seed).choice(n_rows, size, replace=False))


def gather(X: da.Array, rows: NDArray[np.int64]) -> Any:
    """Return the given sorted rows of ``X`` as a delayed array, whatever the chunks."""
    take = dask.delayed(_take, pure=False)
    parts = []
    for start, block in blocks_of(X):
        stop = start + block_length(X, start)
        low, high = np.searchsorted(rows, [start, stop])
        if low < high:
            parts.append(take(block, rows[low:high] - start))
    return dask.delayed(np.concatenate, pure=False)(parts)


def block_length(X: da.Array, start: int) -> int:
    """Return the number of rows of the block that begins at row ``start``."""
    starts = np.concatenate([[0], np.cumsum(X.chunks[0])])
    at = int(np.searchsorted(starts, start, side="right")) - 1
    return int(X.chunks[0][at])


def moments(X: da.Array) -> Moments:
    """Compute mean and scatter in one pass, merged pairwise as Chan, Golub & LeVeque (1979).

    Raises
    ------
    ValueError
        If ``X`` holds NaN or infinity, or has no rows.
    """
    parts = [
        dask.delayed(block_moments, pure=False)(block, dask_key_name=_key("moments"))
        for _, block in blocks_of(X)
    ]
    if not parts:
        raise ValueError("no rows: at least one is needed")
    result: Moments = compute(reduce(parts, merge_moments, "moments-tree"))
    if not np.isfinite(result.scatter).all():
        raise ValueError("NaN or infinity in the input: fill or drop those rows first")
    return result


def block_moments(block: NDArray[Any]) -> Moments:
    """Return the moments of one block."""
    X = np.asarray(block, np.float64)
    # Infinity turns to NaN in here; who asked looks for it and says so.
    with np.errstate(invalid="ignore", over="ignore"):
        mean = X.mean(axis=0)
        centred = X - mean
        return Moments(len(X), mean, centred.T @ centred)


def merge_moments(parts: Sequence[Moments]) -> Moments:
    """Merge moments of disjoint rows."""
    n, mean, scatter = parts[0]
    with np.errstate(invalid="ignore", over="ignore"):
        for part in parts[1:]:
            total = n + part.n
            delta = part.mean - mean
            scatter = scatter + part.scatter + np.outer(delta, delta) * (n * part.n / total)
            mean = mean + delta * (part.n / total)
            n = total
    return Moments(n, mean, scatter)


def _take(block: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    return np.asarray(block)[rows]


def _key(name: str) -> str:
    """Return a key that no earlier pass has used, so that no result is taken for another's."""
    import uuid

    return f"{name}-{uuid.uuid4().hex}"
