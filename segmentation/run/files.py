"""Files of a run: written beside their place and renamed, in formats that can't execute."""

from __future__ import annotations

import csv
import json
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.schema import USER, UserStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from segmentation.schema import RejectedRow


def jsonable(value: Any) -> Any:
    """Return ``value`` with NumPy types and NaN as JSON has them."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside its place and rename it."""
    text = json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file beside its place and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_rejected(path: Path, rows: Iterable[RejectedRow]) -> None:
    """Write rejected rows with their place and reason, one CSV line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "line", "reason", "text"))
        writer.writerows(rows)
    os.replace(partial, path)


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


def arrow_texts(values: Sequence[str]) -> Any:
    """Return texts as an Arrow array, without pandas as well."""
    import pyarrow as pa

    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def statistics_table(block: UserStatistics, genres: Sequence[str]) -> Any:
    """Return a block of user statistics as an Arrow table."""
    import pyarrow as pa

    columns = {
        USER: block.users,
        "movies": block.movies.astype(np.int64),
        "rating_sum": block.rating_sum.astype(np.float64),
        **{f"sum:{name}": block.sums[:, g].astype(np.float64) for g, name in enumerate(genres)},
        **{f"count:{name}": block.counts[:, g].astype(np.int32) for g, name in enumerate(genres)},
    }
    return pa.table({name: arrow_array(column) for name, column in columns.items()})


def read_statistics(path: Path, group: int = 0) -> UserStatistics:
    """Read one row group that was a :func:`statistics_table` back."""
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read_row_group(group)
    width = (table.num_columns - 3) // 2
    columns = [column.to_numpy() for column in table.columns]
    if columns[0].dtype.kind == "O":
        columns[0] = np.array([text.encode() for text in columns[0]], np.bytes_)
    return UserStatistics(
        columns[0],
        columns[1],
        columns[2],
        np.column_stack(columns[3 : 3 + width]),
        np.column_stack(columns[3 + width :]),
    )
