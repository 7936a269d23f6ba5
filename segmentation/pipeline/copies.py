"""The copies that the convert job leaves, and whether one still is what its manifest says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from segmentation.datasets import filesystem
from segmentation.errors import DataError
from segmentation.storage.run_folder import MANIFEST

if TYPE_CHECKING:
    from segmentation.datasets.layouts import Layout


#: The job that leaves a copy, and the folder of its parts.
JOB = "convert"
PARTS = "ratings.parquet"


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
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    files = layout.ratings_files
    size = sum(int(filesystem.file_info(file)["size"] or 0) for file in files)
    if (len(files), size) != (n_parts, n_bytes):
        raise DataError(
            f"{layout.ratings}: holds {len(files):,} parts of {size:,} bytes, but its {MANIFEST} "
            f"lists {n_parts:,} of {n_bytes:,}: copy or convert it again (or remove {MANIFEST} if "
            "you changed the parts on purpose)"
        )
