"""Files of a run: written beside their place and renamed, in formats that can't execute."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
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
