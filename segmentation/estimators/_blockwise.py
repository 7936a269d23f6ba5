"""Passes over the rows of a Dask array: one task a block, then a small tree."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

#: How many partial results one task of the tree merges; as few come straight to the caller.
_FAN_IN = 16
_UNWEIGHTED = np.empty(0)


@dataclass(frozen=True)
class Rows:
    """The blocks of an array that have rows, each delayed, with where it starts and its weights.

    A block without weights of its own has an array of length 0.
    """

    blocks: list[Any]
    starts: list[int]
    lengths: list[int]
    weights: list[Any]
    n_features: int

    @property
    def n_rows(self) -> int:
        """Rows in all."""
        return sum(self.lengths)


def as_rows(X: Any) -> da.Array:
    """Return any array or frame as a Dask array of float rows, blocks cut along rows alone.

    What is in memory already becomes blocks that the current scheduler holds.

    Raises
    ------
    ValueError
        If it isn't two-dimensional, has no column, or has blocks of unknown length.
    TypeError
        If it is sparse.
    """
    if hasattr(X, "to_dask_array"):
        X = X.to_dask_array(lengths=True)
    elif not isinstance(X, da.Array):
        X = da.from_array(_in_memory(X), chunks="auto").persist()
    if X.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead. Reshape your data: "
            "X.reshape(-1, 1) if it has a single feature, X.reshape(1, -1) if a single sample"
        )
    if any(np.isnan(size) for size in X.shape):
        raise ValueError("blocks of unknown length: call X.compute_chunk_sizes() first")
    if X.shape[1] == 0:
        raise ValueError(
            f"Found array with 0 feature(s) (shape={X.shape}) while a minimum of 1 is required."
        )
    if X.numblocks[1] > 1:
        X = X.rechunk({1: -1})
    if X.dtype.kind != "f" or X.dtype.itemsize > 8:
        X = X.astype(np.float64)
    elif X.dtype.itemsize < 4:
        X = X.astype(np.float32)
    return X


def _in_memory(X: Any) -> NDArray[Any]:
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if hasattr(X, "tocsr"):
        raise TypeError(
            "Sparse data was passed, but dense data is required: X.toarray() makes it dense"
        )
    array = np.asarray(X)
    if array.dtype.kind == "c":
        raise ValueError("Complex data not supported: take the real part or the modulus")
    if array.dtype.kind not in "fiub":
        array = array.astype(np.float64)
    return array


def rows_of(X: da.Array, sample_weight: Any = None) -> Rows:
    """Return the non-empty blocks of ``X``, as :func:`as_rows` gives it, and their weights.

    Raises
    ------
    ValueError
        If the weights are not one a row.
    """
    delayed = X.to_delayed().ravel()
    starts = np.concatenate([[0], np.cumsum(X.chunks[0])])
    if sample_weight is None:
        weights: list[Any] = [_UNWEIGHTED] * len(delayed)
    else:
        given = sample_weight if isinstance(sample_weight, da.Array) else _in_memory(sample_weight)
        if given.shape != (X.shape[0],):
            raise ValueError(
                f"sample_weight.shape == {given.shape}, expected {(X.shape[0],)}: one a row"
            )
        if isinstance(given, da.Array):
            weights = list(given.astype(np.float64).rechunk(X.chunks[:1]).to_delayed())
        else:
            given = given.astype(np.float64)
            weights = [given[starts[i] : starts[i + 1]] for i in range(len(delayed))]
    kept = [i for i, size in enumerate(X.chunks[0]) if size]
    return Rows(
        [delayed[i] for i in kept],
        [int(starts[i]) for i in kept],
        [int(X.chunks[0][i]) for i in kept],
        [weights[i] for i in kept],
        X.shape[1],
    )


def map_blocks(rows: Rows, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Compute ``function(block, weights, *arguments)`` for every block, in the blocks' order."""
    task = dask.delayed(function, pure=False)
    pairs = zip(rows.blocks, rows.weights, strict=True)
    return list(dask.compute(*(task(block, weights, *arguments) for block, weights in pairs)))


def reduce_blocks(
    rows: Rows, function: Callable[..., Any], merge: Callable[[Any, Any], Any], *arguments: Any
) -> Any:
    """Merge ``function(block, weights, *arguments)`` over all blocks, two at a time."""
    return join_blocks(rows, function, functools.partial(fold, merge=merge), *arguments)


def join_blocks(
    rows: Rows, function: Callable[..., Any], join: Callable[[list[Any]], Any], *arguments: Any
) -> Any:
    """Join ``function(block, weights, *arguments)`` of all blocks, some at a time.

    With more than a few blocks, partial results are joined on the workers in a tree whose shape
    hangs on their number alone.
    """
    if len(rows.blocks) <= _FAN_IN:
        return join(map_blocks(rows, function, *arguments))
    task = dask.delayed(function, pure=False)
    parts = [
        task(block, weights, *arguments)
        for block, weights in zip(rows.blocks, rows.weights, strict=True)
    ]
    joined = dask.delayed(join, pure=False)
    while len(parts) > _FAN_IN:
        parts = [joined(parts[i : i + _FAN_IN]) for i in range(0, len(parts), _FAN_IN)]
    return join(list(dask.compute(*parts)))


def fold(parts: Sequence[Any], merge: Callable[[Any, Any], Any]) -> Any:
    """Merge partial results from the first to the last."""
    return functools.reduce(merge, parts)


def sample_row_numbers(n_rows: int, size: int, seed: int) -> NDArray[np.int64]:
    """Draw sorted row numbers without replacement; they hang on the seed and ``n_rows`` alone."""
    if size >= n_rows:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(seed).choice(n_rows, size, replace=False))


def gather(rows: Rows, numbers: NDArray[np.int64]) -> NDArray[Any]:
    """Return the rows with the given sorted numbers, whatever the chunks."""
    take = dask.delayed(_take, pure=False)
    parts = []
    for block, start, length in zip(rows.blocks, rows.starts, rows.lengths, strict=True):
        low, high = np.searchsorted(numbers, [start, start + length])
        if low < high:
            parts.append(take(block, numbers[low:high] - start))
    return np.concatenate(dask.compute(*parts))


def held(value: Any) -> Any:
    """Return something for delayed tasks that stands for ``value``, which travels once.

    With a `distributed` client its workers hold it, so that it isn't part of any graph.
    """
    try:
        from distributed import get_client

        return get_client().scatter([value], hash=False)[0]
    except ValueError:  # there is no client
        return dask.delayed(value, pure=False)


def unused_name(name: str) -> str:
    """Return a name for an array that no earlier one has, so that no result is another's."""
    import uuid

    return f"{name}-{uuid.uuid4().hex}"


def _take(block: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    return np.asarray(block)[rows]
