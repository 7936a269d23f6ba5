"""Tables that workers build, a block of users each → one Parquet file, or a folder of parts.

Many blocks are packed where they are built: the driver writes bytes, and packs nothing itself.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.tasks import map_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


#: Up to so many blocks make one file; half a million users at the usual size of a block.
ONE_FILE = 8
_PACKED = {"compression": "zstd", "compression_level": 1}


def part_path(folder: Path, number: int) -> Path:
    """Return where one block of a folder of parts lies."""
    return folder / f"part-{number:05d}.parquet"


def write_parts(
    client: Any,
    path: Path,
    make: Callable[..., Any],
    columns: Sequence[Any],
    ahead: int,
    after: Callable[[int], None] = lambda number: None,
) -> None:
    """Write a table a block, beside their place and renamed.

    Parameters
    ----------
    make
        Makes one Arrow table, on a worker.
    columns
        What it is given, as for :func:`segmentation.tasks.map_tasks`; a list for what differs.
    ahead
        How many are built at a time, beyond those that are being written.
    after
        Told the number of blocks that have been asked for, each time.
    """
    n = next(len(column) for column in columns if isinstance(column, list))
    partial = path.with_name(path.name + ".partial")
    for old in (partial, path):
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    if n <= ONE_FILE:
        _write_file(partial, _built(client, make, columns, n, ahead, after))
    else:
        partial.mkdir()
        parts = _built(client, _packed, [make, *columns], n, ahead, after)
        for number, part in enumerate(parts):
            part_path(partial, number).write_bytes(part)
    os.replace(partial, path)


def _built(
    client: Any,
    make: Callable[..., Any],
    columns: Sequence[Any],
    n: int,
    ahead: int,
    after: Callable[[int], None],
) -> Iterator[Any]:
    waiting: deque[Any] = deque()
    for at in range(0, n, ahead):
        some = [c[at : at + ahead] if isinstance(c, list) else c for c in columns]
        waiting += map_tasks(client, "table", make, *some)
        del some
        after(min(at + ahead, n))
        while len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _packed(make: Callable[..., Any], *arguments: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(make(*arguments), sink, **_PACKED)
    return bytes(sink.getvalue())


def _write_file(path: Path, tables: Iterator[Any]) -> None:
    import pyarrow.parquet as pq

    writer = None
    try:
        for table in tables:
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema, **_PACKED)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def list_parts(path: Path) -> list[Path]:
    """Return the one file, or the parts in the order of the blocks."""
    return sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]


def arrow_array(values: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> Any:
    """Return numbers, (n,), as an Arrow array that shares their memory; null where ``missing``.

    As ``pyarrow.array`` does, which imports pandas first, a tenth of a second and 30 MB.
    """
    import pyarrow as pa

    if values.dtype.kind == "S":
        return _arrow_ids(values)
    values = np.ascontiguousarray(values)
    valid = None
    if missing is not None:
        valid = pa.py_buffer(np.packbits(~missing, bitorder="little"))
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(values)])


def _arrow_ids(ids: NDArray[np.bytes_]) -> Any:
    """Return byte strings of UTF-8 as Arrow texts."""
    import pyarrow as pa

    lengths = np.char.str_len(ids)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = np.ascontiguousarray(ids).view(np.uint8).reshape(len(ids), ids.dtype.itemsize)
    content = flat[np.arange(ids.dtype.itemsize) < lengths[:, None]]
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(content.tobytes())]
    return pa.Array.from_buffers(pa.string(), len(ids), buffers)


def arrow_strings(values: Sequence[str]) -> Any:
    """Return texts as an Arrow array, without pandas as well."""
    import pyarrow as pa

    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)
