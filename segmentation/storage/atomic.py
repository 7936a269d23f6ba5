"""Files of a run: written beside their place and renamed, in formats that can't execute."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.schema import USER, UserStatistics
from segmentation.storage.parquet import arrow_array

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

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


#: What a part of a folder of parts is called.
PART = "part-*.parquet"
#: Results that are folders of parts where there are many users.
IN_PARTS = ("assignments.parquet", "user_statistics.parquet")


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file."""
    # A folder in a file's place is not ours.
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)


def remove_product(path: Path) -> None:
    """Remove a result, in one file or in parts."""
    if path.name in IN_PARTS:
        remove_parts(path)
    remove_file(path)


def move(source: Path, target: Path) -> None:
    """Move a file, or the parts in a folder into a folder that may hold others' files."""
    if not source.is_dir():
        os.replace(source, target)
        return
    target.mkdir(exist_ok=True)
    for part in source.glob(PART):
        os.replace(part, target / part.name)


def remove_parts(folder: Path) -> None:
    """Remove the parts in a folder, and itself unless it holds anything else."""
    for part in folder.glob(PART):
        part.unlink()
    remove_if_empty(folder)


def remove_if_empty(path: Path) -> None:
    """Remove a folder unless it holds anything."""
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
