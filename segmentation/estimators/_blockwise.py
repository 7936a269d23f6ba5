"""Run one task per block of rows of a Dask array, and reduce the results in a tree."""

from __future__ import annotations

import functools
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import dask
import numpy as np

from segmentation import tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import dask.array as da
    from dask.delayed import Delayed
    from distributed import Future
    from numpy.typing import ArrayLike, NDArray

#: Partial results that one task of the tree combines; the caller combines the last ones.
_FAN_IN = 16
#: Results of blocks that are held at once.
_RESULTS_BYTES = 128 * 2**20
_UNWEIGHTED = np.empty(0)

T = TypeVar("T")
N = TypeVar("N", bound="NamedTuple")


@dataclass(frozen=True)
class RowBlocks:
    """The non-empty blocks of rows of an array, and the weights of their rows.

    Attributes
    ----------
    blocks
        One delayed array of shape (n_block_rows, n_features) per block.
    starts, lengths
        Index of each block's first row in the whole array, and its number of rows.
    weights
        One array per block, of shape (n_block_rows,), possibly delayed; of length 0 if every
        row has weight 1.
    source
        The array that the blocks come from. Persisted blocks stay on the cluster only while an
        array that holds their futures exists; the delayed blocks do not hold them.
    """

    blocks: list[Delayed]
    starts: list[int]
    lengths: list[int]
    weights: list[Delayed | NDArray[np.float64]]
    source: da.Array

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.source.shape[1])

    @property
    def n_rows(self) -> int:
        """Number of rows in all blocks."""
        return sum(self.lengths)


def check_array(X: Any) -> da.Array:
    """Convert an array or data frame to a Dask array of floats that is chunked along rows only.

    Data in memory becomes persisted blocks.

    Raises
    ------
    ValueError
        If ``X`` is not two-dimensional, has no columns, or has chunks of unknown length, or if data
        in memory is complex.
    TypeError
        If data in memory is sparse.
    """
    # It takes 0.2 s to import, and most of what imports this module needs only a block at a time.
    import dask.array as da

    if hasattr(X, "to_dask_array"):
        X = X.to_dask_array(lengths=True)
    elif not isinstance(X, da.Array):
        X = da.from_array(_to_numpy(X), chunks="auto").persist()
    if X.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead. Reshape your data: "
            "X.reshape(-1, 1) if it has a single feature, X.reshape(1, -1) if a single sample"
        )
    if any(np.isnan(size) for size in X.shape):
        raise ValueError("X has chunks of unknown length: call X.compute_chunk_sizes() first")
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


def _to_numpy(X: Any) -> NDArray[Any]:
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if hasattr(X, "tocsr"):
        raise TypeError(
            "Sparse data was passed, but dense data is required: convert it with X.toarray()"
        )
    array = np.asarray(X)
    if array.dtype.kind == "c":
        raise ValueError("Complex data not supported: pass the real part or the modulus")
    if array.dtype.kind not in "fiub":
        array = array.astype(np.float64)
    return array


def check_finite(values: NDArray[np.float64]) -> None:
    """Raise ValueError if values that were computed from rows are NaN or infinite."""
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinity in the input: fill or drop those rows first")


def split_rows(X: da.Array, sample_weight: ArrayLike | da.Array | None = None) -> RowBlocks:
    """Split an array from :func:`check_array` into its non-empty blocks and their weights.

    Raises
    ------
    ValueError
        If ``sample_weight`` does not have shape (n_samples,).
    """
    blocks = X.to_delayed().ravel()
    starts = np.concatenate([[0], np.cumsum(X.chunks[0])])
    weights = _split_weights(X, sample_weight, starts)
    non_empty = [i for i, length in enumerate(X.chunks[0]) if length]
    return RowBlocks(
        [blocks[i] for i in non_empty],
        [int(starts[i]) for i in non_empty],
        [int(X.chunks[0][i]) for i in non_empty],
        [weights[i] for i in non_empty],
        X,
    )


def _split_weights(
    X: da.Array, sample_weight: Any, starts: NDArray[np.int64]
) -> list[Delayed | NDArray[np.float64]]:
    import dask.array as da

    if sample_weight is None:
        return [_UNWEIGHTED] * X.numblocks[0]
    if not isinstance(sample_weight, da.Array):
        sample_weight = _to_numpy(sample_weight)
    if sample_weight.shape != (X.shape[0],):
        raise ValueError(
            f"sample_weight.shape == {sample_weight.shape}, expected {(X.shape[0],)}: "
            "pass one weight per row"
        )
    sample_weight = sample_weight.astype(np.float64)
    if isinstance(sample_weight, da.Array):
        return list(sample_weight.rechunk(X.chunks[:1]).to_delayed())
    return np.split(sample_weight, starts[1:-1])


def iterate_blocks(
    X: RowBlocks, function: Callable[..., T], *arguments: Any, result_bytes: int
) -> Iterator[T]:
    """Yield ``function(block, weights, *arguments)`` for each block, in block order.

    Only as many blocks are computed at once as have results of 128 MiB together, where one result
    takes ``result_bytes``: neither the workers nor the caller hold them all.
    """
    parts = _map_blocks(X, function, *arguments)
    size = max(1, _RESULTS_BYTES // result_bytes)
    for start in range(0, len(parts), size):
        yield from dask.compute(*parts[start : start + size])


def reduce_blocks(
    X: RowBlocks, function: Callable[..., T], combine: Callable[[list[T]], T], *arguments: Any
) -> T:
    """Combine ``function(block, weights, *arguments)`` of all blocks into one result.

    ``combine`` takes a list of results in block order. With more than 16 blocks, the workers
    combine 16 results at a time, in a tree whose shape depends on the number of blocks only.
    """
    parts = _map_blocks(X, function, *arguments)
    delayed_combine = dask.delayed(combine, pure=False)
    while len(parts) > _FAN_IN:
        parts = [delayed_combine(parts[i : i + _FAN_IN]) for i in range(0, len(parts), _FAN_IN)]
    return combine(list(dask.compute(*parts)))


def _map_blocks(X: RowBlocks, function: Callable[..., Any], *arguments: Any) -> list[Delayed]:
    delayed_function = dask.delayed(function, pure=False)
    return [
        delayed_function(block, weights, *arguments)
        for block, weights in zip(X.blocks, X.weights, strict=True)
    ]


def add_fields(parts: Sequence[N]) -> N:
    """Add named tuples of arrays field by field; a ``combine`` for :func:`reduce_blocks`."""
    return parts[0]._make(functools.reduce(np.add, column) for column in zip(*parts, strict=True))


def sample_row_numbers(n_rows: int, size: int, seed: int) -> NDArray[np.int64]:
    """Draw ``size`` distinct row numbers in ascending order; all rows if there are no more."""
    if size >= n_rows:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(seed).choice(n_rows, size, replace=False))


def take_rows(X: RowBlocks, numbers: NDArray[np.int64]) -> Delayed:
    """Return the rows with the given sorted numbers as one delayed array."""
    take = dask.delayed(_take, pure=False)
    parts = []
    for block, start, length in zip(X.blocks, X.starts, X.lengths, strict=True):
        low, high = np.searchsorted(numbers, [start, start + length])
        if low < high:
            parts.append(take(block, numbers[low:high] - start))
    return dask.delayed(np.concatenate, pure=False)(parts)


def _take(block: NDArray[Any], numbers: NDArray[np.int64]) -> NDArray[Any]:
    return np.asarray(block)[numbers]


def share_value(value: Any) -> Future | Delayed:
    """Wrap ``value`` as an argument of delayed calls.

    With a ``distributed`` client, the value is the result of a task: it is sent once, not with
    every graph, and recomputed if its worker is lost.
    """
    from distributed import get_client

    try:
        client = get_client()
    except ValueError:  # there is no client
        return dask.delayed(value, pure=False)
    return tasks.submit_value(client, "value", value)


def unique_name(prefix: str) -> str:
    """Return a name for a Dask array that differs from the names of all other arrays."""
    return f"{prefix}-{uuid.uuid4().hex}"
