"""From partitions of ratings to a feature matrix.

:func:`aggregate_ratings` streams ratings files into sums and counts per user and category, on any
``distributed`` client; :func:`feature_matrix` turns them into the matrix that is clustered.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmentation.features.aggregate import AggregatedRatings, aggregate_ratings
    from segmentation.features.presets import PRESETS, feature_matrix
    from segmentation.features.user_blocks import UserBlocks, load_blocks, save_blocks

__all__ = [
    "PRESETS",
    "AggregatedRatings",
    "UserBlocks",
    "aggregate_ratings",
    "feature_matrix",
    "load_blocks",
    "save_blocks",
]

_MODULES = {
    "PRESETS": "presets",
    "AggregatedRatings": "aggregate",
    "UserBlocks": "user_blocks",
    "aggregate_ratings": "aggregate",
    "feature_matrix": "presets",
    "load_blocks": "user_blocks",
    "save_blocks": "user_blocks",
}


def __getattr__(name: str) -> Any:
    # Numba takes a while to import; importing the package alone must stay light.
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
