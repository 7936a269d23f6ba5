"""Parquet data sets: a folder of parts, one per block of users, packed on the workers.

The driver writes bytes in the order of the blocks and holds only a few of them at a time.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.storage.atomic import open_atomic, remove
from segmentation.tasks import map_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    from distributed import Client, Future
    from numpy.typing import NDArray

#: What the parts in a folder are called.
PART_PATTERN = "part-*.parquet"


def part_path(folder: Path, number: int) -> Path:
    """Return where one part of a data set lies."""
    return folder / f"part-{number:05d}.parquet"


def list_parts(folder: Path) -> list[Path]:
    """Return the parts of a data set in the order of their blocks."""
    return sorted(folder.glob(PART_PATTERN))


def count_rows(part: Path) -> int:
    """Return the number of rows of a part.

    Raises
    ------
    ValueError
        If it can't be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(part).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{part}: can't be read: {error}") from error


def write_column(path: Path, name: str, values: NDArray[Any]) -> None:
    """Write one column as a file, atomically; ids as integers or, from byte strings, as texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_atomic(path) as file:
        pq.write_table(
            pa.table({name: arrow_array(values)}),
            file,
            compression="zstd",
            write_page_checksum=True,
        )


def read_column(path: Path) -> NDArray[Any]:
    """Read what :func:`write_column` wrote.

    Raises
    ------
    ValueError
        If it can't be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        values = pq.ParquetFile(path, page_checksum_verification=True).read().column(0).to_numpy()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: can't be read: {error}") from error
    if values.dtype.kind == "O":
        values = np.array([value.encode() for value in values], np.bytes_)
    return np.asarray(values)


def write_parts(
    client: Client,
    path: Path,
    build_table: Callable[..., pa.Table],
    columns: Sequence[Any],
    n_pending: int,
    on_submit: Callable[[int], None] = lambda n_submitted: None,
) -> None:
    """Build one table per block on the workers and write each as a part, atomically as a whole.

    Parameters
    ----------
    path
        The folder; what was there before is removed.
    build_table
        Builds the table of one block, on a worker.
    columns
        Its arguments as for :func:`segmentation.tasks.map_tasks`: a list holds one value per
        block, anything else goes to all of them.
    n_pending
        How many tables are built at a time, beyond those that are being written.
    on_submit
        Called with the number of blocks submitted so far, each time it rises.
    """
    n_blocks = next(len(column) for column in columns if isinstance(column, list))
    partial = path.with_name(path.name + ".partial")
    remove(partial)
    remove(path)
    partial.mkdir(parents=True)
    parts = _build_parts(client, [build_table, *columns], n_blocks, n_pending, on_submit)
    for number, part in enumerate(parts):
        part_path(partial, number).write_bytes(part)
    os.replace(partial, path)


def _build_parts(
    client: Client,
    columns: Sequence[Any],
    n_blocks: int,
    n_pending: int,
    on_submit: Callable[[int], None],
) -> Iterator[bytes]:
    """Yield the packed parts in order, with at most twice ``n_pending`` of them under way."""
    pending: deque[Future] = deque()
    for start in range(0, n_blocks, n_pending):
        batch = [c[start : start + n_pending] if isinstance(c, list) else c for c in columns]
        pending += map_tasks(client, "table", _pack_part, *batch)
        # The statistics of these blocks must not be kept alive from here.
        del batch
        on_submit(min(start + n_pending, n_blocks))
        while len(pending) > n_pending:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _pack_part(build_table: Callable[..., pa.Table], *arguments: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(
        build_table(*arguments),
        sink,
        compression="zstd",
        compression_level=1,
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def arrow_array(values: NDArray[Any], is_null: NDArray[np.bool_] | None = None) -> pa.Array:
    """Return a column of shape (n_rows,) as an Arrow array, without copying numbers.

    ``pyarrow.array`` does the same, but imports pandas first: 0.2 s and 40 MB.

    Parameters
    ----------
    values
        Numbers, or byte strings (dtype ``S``) of UTF-8.
    is_null
        Where the result is null, of shape (n_rows,).
    """
    import pyarrow as pa

    if values.dtype.kind == "S":
        return _arrow_byte_strings(values)
    values = np.ascontiguousarray(values)
    validity = None
    if is_null is not None:
        validity = pa.py_buffer(np.packbits(~is_null, bitorder="little"))
    dtype = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(dtype, len(values), [validity, pa.py_buffer(values)])


def arrow_booleans(values: NDArray[np.bool_]) -> pa.Array:
    """Return booleans as an Arrow array, without importing pandas."""
    import pyarrow as pa

    bits = pa.py_buffer(np.packbits(values, bitorder="little"))
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, bits])


def arrow_strings(values: Sequence[str]) -> pa.Array:
    """Return strings as an Arrow array, without importing pandas."""
    return _arrow_byte_strings(np.array([value.encode() for value in values], np.bytes_))


def _arrow_byte_strings(values: NDArray[np.bytes_]) -> pa.Array:
    import pyarrow as pa

    width = values.dtype.itemsize
    lengths = np.char.str_len(values)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    padded = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), width)
    content = padded[np.arange(width) < lengths[:, None]]
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content.tobytes())]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)
