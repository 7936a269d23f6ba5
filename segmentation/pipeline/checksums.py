"""Whether a converted copy is still what its manifest says."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from segmentation.datasets import filesystem
from segmentation.errors import DataError, UsageError
from segmentation.storage.run_folder import CONVERT, MANIFEST, PARTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from segmentation.datasets.layouts import Layout


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_copy(layout: Layout) -> None:
    """Hold the parts of a copy to the manifest that lies beside them; whatever else, let be.

    Looks at their number and bytes; what changed within a page is found by its checksum, when it
    is read.

    Raises
    ------
    DataError
        If parts are missing, or are others.
    """
    if layout.ratings != f"{layout.folder}/{PARTS}":
        return
    place = f"{layout.folder}/{MANIFEST}"
    if not filesystem.exists(place):
        return
    try:
        manifest = json.loads(filesystem.read_bytes(place))
        if manifest["job"] != CONVERT:
            return
        told = manifest["parquet"]
        expected = (int(told["parts"]), int(told["bytes"]))
    except (ValueError, KeyError, TypeError):
        return
    found = (
        len(layout.ratings_files),
        sum(int(filesystem.file_info(path)["size"] or 0) for path in layout.ratings_files),
    )
    if found != expected:
        raise DataError(
            f"{layout.ratings}: holds {found[0]:,} parts of {found[1]:,} bytes, and its "
            f"{MANIFEST} tells of {expected[0]:,} of {expected[1]:,}: copy or convert it anew (or "
            f"remove {MANIFEST}, if that is meant)"
        )


def check_finished(folder: Path, manifest: Mapping[str, Any]) -> None:
    """See that the files of a finished copy are those that were written, byte by byte.

    Raises
    ------
    UsageError
        If one isn't: ``--resume`` can't mend it.
    """
    wrong = first_corrupt_file(folder / PARTS, manifest["parquet"].get("sha256", {}))
    if wrong is not None:
        raise UsageError(
            f"{wrong}: is missing or not what was written: add --overwrite in place of --resume"
        )


def first_corrupt_file(folder: Path, digests: Mapping[str, str]) -> Path | None:
    """Return the first file, of those whose SHA-256 is given by name, that has another or none."""
    for name, known in digests.items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != known:
            return path
    return None
