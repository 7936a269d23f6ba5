"""Check that a converted copy still is what its manifest says."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from segmentation.datasets import filesystem
from segmentation.errors import DataError, UsageError
from segmentation.storage.run_folder import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from segmentation.datasets.layouts import Layout


#: The job that leaves a copy, and the folder of its parts.
JOB = "convert"
PARTS = "ratings.parquet"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_copy(layout: Layout) -> None:
    """Compare the number and bytes of a copy's parts with the manifest next to them.

    Other layouts pass, and so does a copy without a manifest. Damage within a page is found by its
    checksum, when the page is read.

    Raises
    ------
    DataError
        If parts are missing, or differ in size.
    """
    if layout.ratings != f"{layout.folder}/{PARTS}":
        return
    path = f"{layout.folder}/{MANIFEST}"
    if not filesystem.exists(path):
        return
    try:
        manifest = json.loads(filesystem.read_bytes(path))
        if manifest["job"] != JOB:
            return
        n_parts, n_bytes = (int(manifest["parquet"][name]) for name in ("parts", "bytes"))
    except (ValueError, KeyError, TypeError):
        return
    files = layout.ratings_files
    size = sum(int(filesystem.file_info(file)["size"] or 0) for file in files)
    if (len(files), size) != (n_parts, n_bytes):
        raise DataError(
            f"{layout.ratings}: holds {len(files):,} parts of {size:,} bytes, but its {MANIFEST} "
            f"lists {n_parts:,} of {n_bytes:,}: copy or convert it again (or remove {MANIFEST} if "
            "you changed the parts on purpose)"
        )


def check_finished(folder: Path, parquet: Mapping[str, Any]) -> None:
    """Compare the files of a finished copy with their digests in its manifest.

    Parameters
    ----------
    folder
        The folder of the run.
    parquet
        What the manifest records of the copy.

    Raises
    ------
    UsageError
        If a file is missing or differs: a finished copy can't be resumed.
    """
    corrupt = first_corrupt_file(folder / PARTS, parquet.get("sha256", {}))
    if corrupt is not None:
        raise UsageError(
            "{path}: is missing or differs from what was written: add {overwrite} in place of "
            "{resume}",
            "overwrite",
            "resume",
            path=corrupt,
        )


def first_corrupt_file(folder: Path, digests: Mapping[str, str]) -> Path | None:
    """Return the first file that is missing or has another SHA-256 than ``digests`` says.

    ``digests`` maps names of files in the folder to their SHA-256.
    """
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != digest:
            return path
    return None
