"""Taking away and putting in place what runs leave, and nothing of anybody else's."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

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
