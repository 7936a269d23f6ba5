"""Files that are written next to their place and renamed, and the careful removal of old ones."""

from __future__ import annotations

import contextlib
import csv
import errno
import itertools
import json
import math
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import IO

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def jsonable(value: Any) -> Any:
    """Return ``value`` in the types that JSON has; NaN and infinity become None."""
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


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under its name only once it is complete and on disk.

    A link that lies in its place is replaced, not followed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with create_file(partial) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def create_file(path: Path) -> IO[bytes]:
    """Open a new file for writing; what lies in its place is removed first, and never followed."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")


def sync_folder(folder: Path, *, with_files: bool = False) -> None:
    """Wait until the names in a folder are on disk; ``with_files``, also the files below it."""
    if with_files:
        for entry in folder.iterdir():
            if entry.is_dir():
                sync_folder(entry, with_files=True)
            else:
                sync_file(entry)
    try:
        sync_file(folder)
    except OSError as error:
        # Not every file system, and no Windows, can sync a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with open_atomic(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, atomically."""
    text = json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8"))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file in UTF-8 with LF line ends, atomically and without holding it in memory.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    with open_atomic(path) as file:
        writer = csv.writer(_Utf8Writer(file))
        for row in itertools.chain([header], rows):
            writer.writerow([neutralize_formula(cell) for cell in row])


def neutralize_formula(cell: Any) -> Any:
    """Return a text that a spreadsheet would take for a formula with an apostrophe in front."""
    # OWASP's list for CSV injection, with the full-width forms that some locales accept.
    if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS):
        return "'" + cell
    return cell


class _Utf8Writer:
    """A text stream for the rows of the csv module; it leaves the binary file open."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        # csv quotes both characters only if both end its lines.
        return self._file.write((text.removesuffix("\r\n") + "\n").encode("utf-8"))


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Wait until no other process holds a lock file, and hold it; the lock ends with the process.

    Go on without a lock where the file can't be written, or the system has no such locks.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)
        yield


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; do nothing where there is neither."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file. A folder in its place belongs to someone else and stays."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)


def remove_if_empty(path: Path) -> None:
    """Remove a folder unless it holds anything."""
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
