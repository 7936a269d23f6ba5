"""The copies that the convert job leaves, and whether one still is what its manifest says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from segmentation.datasets import filesystem
from segmentation.datasets.filesystem import join_path
from segmentation.errors import DataError, format_error
from segmentation.storage.integrity import MAX_JSON_BYTES
from segmentation.storage.run_folder import MANIFEST

if TYPE_CHECKING:
    from segmentation.datasets.layouts import Layout


#: The job that leaves a copy, and the folder of its parts.
JOB = "convert"
PARTS = "ratings.parquet"


def check_copy(layout: Layout) -> None:
    """Compare the number and bytes of a copy's parts with the manifest next to them.

    Other ratings pass, and so does a copy without a manifest. Damage within a page is found by its
    checksum, when the page is read.

    Raises
    ------
    DataError
        If parts are missing or differ in size, or the manifest can't be read.
    """
    folder, _, name = layout.ratings.rstrip("/").rpartition("/")
    path = join_path(folder or ".", MANIFEST)
    if name != PARTS or not filesystem.exists(path):
        return
    try:
        manifest = _read_manifest(path)
        if manifest["job"] != JOB:
            return
        n_parts, n_bytes = (int(manifest["parquet"][name]) for name in ("parts", "bytes"))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path}: is no manifest of {layout.ratings} ({format_error(error)}): copy or convert "
            "it again (or remove the manifest if you changed the parts on purpose)"
        ) from error
    files = layout.ratings_files
    size = sum(int(filesystem.file_info(file)["size"] or 0) for file in files)
    if (len(files), size) != (n_parts, n_bytes):
        raise DataError(
            f"{layout.ratings}: holds {len(files):,} parts of {size:,} bytes, but its {MANIFEST} "
            f"lists {n_parts:,} of {n_bytes:,}: copy or convert it again (or remove {MANIFEST} if "
            "you changed the parts on purpose)"
        )


def _read_manifest(path: str) -> Any:
    info = filesystem.file_info(path)
    if info["type"] != "file" or (info["size"] or 0) > MAX_JSON_BYTES:
        raise ValueError("not a small regular file")
    return json.loads(filesystem.read_bytes(path))
