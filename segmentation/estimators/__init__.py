"""Clustering, PCA and their metrics for any Dask array.

``kmeans`` and ``pca`` hold the estimators, with dask-ml's interface. ``metrics``, ``stability`` and
``model_selection`` evaluate clusterings and choose the number of clusters. Importing this package
alone is cheap: the names below are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmentation.estimators._k_means import KMeansResult, k_means, k_means_path
    from segmentation.estimators.exceptions import TooFewDistinctRowsError
    from segmentation.estimators.kmeans import KMeans
    from segmentation.estimators.metrics import (
        evaluate_clustering,
        evaluate_clusterings,
        silhouette_score,
        silhouette_scores,
    )
    from segmentation.estimators.model_selection import choose_k
    from segmentation.estimators.pca import IncrementalPCA
    from segmentation.estimators.stability import Stability, measure_stabilities, measure_stability

__all__ = [
    "IncrementalPCA",
    "KMeans",
    "KMeansResult",
    "Stability",
    "TooFewDistinctRowsError",
    "choose_k",
    "evaluate_clustering",
    "evaluate_clusterings",
    "k_means",
    "k_means_path",
    "measure_stabilities",
    "measure_stability",
    "silhouette_score",
    "silhouette_scores",
]

_MODULES = {
    "IncrementalPCA": "pca",
    "KMeans": "kmeans",
    "KMeansResult": "_k_means",
    "Stability": "stability",
    "TooFewDistinctRowsError": "exceptions",
    "choose_k": "model_selection",
    "evaluate_clustering": "metrics",
    "evaluate_clusterings": "metrics",
    "k_means": "_k_means",
    "k_means_path": "_k_means",
    "measure_stabilities": "stability",
    "measure_stability": "stability",
    "silhouette_score": "metrics",
    "silhouette_scores": "metrics",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
