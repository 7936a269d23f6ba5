"""From partitions of ratings to a feature matrix.

:func:`aggregate_ratings` streams ratings files into sums and counts per user and genre, on any
``distributed`` client; :func:`compute_features` turns them into the matrix that is clustered.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmentation.features.aggregate import AggregatedRatings, aggregate_ratings
    from segmentation.features.presets import PRESETS, compute_features, genre_means
    from segmentation.features.user_blocks import UserBlocks, load_blocks, save_blocks

__all__ = [
    "PRESETS",
    "AggregatedRatings",
    "UserBlocks",
    "aggregate_ratings",
    "compute_features",
    "genre_means",
    "load_blocks",
    "save_blocks",
]

_MODULES = {
    "aggregate": ("AggregatedRatings", "aggregate_ratings"),
    "presets": ("PRESETS", "compute_features", "genre_means"),
    "user_blocks": ("UserBlocks", "load_blocks", "save_blocks"),
}


def __getattr__(name: str) -> Any:
    # Numba takes a while to import; importing the package alone must stay light.
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
