"""Detect files and records that differ from what was written."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from segmentation.storage.atomic import jsonable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

#: The field of a record that holds the checksum of all others.
CHECKSUM = "checksum"
#: Largest record that is read.
MAX_JSON_BYTES = 64 << 20


class FileDigest(NamedTuple):
    """The size of a file in bytes, and its SHA-256 in hexadecimal."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileDigest:
        """Read a file and return its digest."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(os.fstat(file.fileno()).st_size, sha256)


def are_digests(value: Any) -> bool:
    """Whether a value read from JSON maps paths within a folder to digests of files."""
    return isinstance(value, dict) and all(
        isinstance(digest, list)
        and len(digest) == 2
        and isinstance(digest[0], int)
        and isinstance(digest[1], str)
        and not name.startswith("/")
        and ".." not in name.split("/")
        for name, digest in value.items()
    )


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises
    ------
    OSError
        If it can't be read.
    ValueError
        If it is no regular file, is too large, or holds no JSON.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is not a regular file")
    if status.st_size > MAX_JSON_BYTES:
        raise ValueError(f"is larger than {MAX_JSON_BYTES >> 20} MiB")
    try:
        return json.loads(path.read_text("utf-8"))
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def list_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the files at some paths in ``folder``; for a path that is a folder, the files in it.

    Paths without a file are left out.
    """
    files = []
    for name in names:
        path = folder / name
        if path.is_dir():
            files += [f"{name}/{file.name}" for file in sorted(path.iterdir())]
        elif path.exists():
            files.append(name)
    return files


def find_damage(folder: Path, digests: Mapping[str, Any]) -> Path | None:
    """Return the first file that is missing or differs from its digest; None if all are intact.

    Parameters
    ----------
    folder
        The folder that the paths start from.
    digests
        Path → the size and SHA-256 that :class:`FileDigest` has, as JSON returns it.
    """
    for name, (size, sha256) in digests.items():
        path = folder / name
        try:
            # The size is compared first: it costs nothing, and reveals most kinds of damage.
            is_intact = path.stat().st_size == size and FileDigest.of(path).sha256 == sha256
        except OSError:
            is_intact = False
        if not is_intact:
            return path
    return None


def add_checksum(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as JSON types, with a checksum of all its fields as the last one.

    Examples
    --------
    >>> verify_checksum(add_checksum({"k": 5}))
    True
    >>> verify_checksum({**add_checksum({"k": 5}), "k": 6})
    False
    """
    values: dict[str, Any] = jsonable(dict(record))
    return {**values, CHECKSUM: _compute_checksum(values)}


def verify_checksum(record: Any) -> bool:
    """Whether a value is a record that :func:`add_checksum` returned, unchanged."""
    if not isinstance(record, dict) or CHECKSUM not in record:
        return False
    return bool(record[CHECKSUM] == _compute_checksum(record))


def _compute_checksum(record: Mapping[str, Any]) -> str:
    values = {name: value for name, value in record.items() if name != CHECKSUM}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
