"""Read data sets of ratings: the catalogue of items, and the ratings in partitions.

:func:`detect_layout` finds the files of a folder or URL, :func:`load_catalogue` maps each item to
its categories, and :func:`probe_files`, :func:`plan_partitions` and :func:`read_chunks` turn files
of ratings into typed rows.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmentation.datasets.catalogue import load_catalogue
    from segmentation.datasets.csv_reader import parse_lines
    from segmentation.datasets.format import ParsedChunk, RatingsFormat
    from segmentation.datasets.layouts import Layout, detect_layout
    from segmentation.datasets.partitions import (
        Fragment,
        plan_partitions,
        probe_files,
        read_chunks,
    )

__all__ = [
    "Fragment",
    "Layout",
    "ParsedChunk",
    "RatingsFormat",
    "detect_layout",
    "load_catalogue",
    "parse_lines",
    "plan_partitions",
    "probe_files",
    "read_chunks",
]

_MODULES = {
    "Fragment": "partitions",
    "Layout": "layouts",
    "ParsedChunk": "format",
    "RatingsFormat": "format",
    "detect_layout": "layouts",
    "load_catalogue": "catalogue",
    "parse_lines": "csv_reader",
    "plan_partitions": "partitions",
    "probe_files": "partitions",
    "read_chunks": "partitions",
}


def __getattr__(name: str) -> Any:
    # Importing fsspec and NumPy takes 0.1 s; importing this package alone must be fast.
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
