"""Out-of-core audience segmentation of ratings logs on Dask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmentation.estimators.kmeans import KMeans
    from segmentation.estimators.pca import IncrementalPCA

__version__ = "0.1.0"
__all__ = ["IncrementalPCA", "KMeans", "__version__"]


def __getattr__(name: str) -> Any:
    # The estimators pull in dask-ml, SciPy and Numba; `import segmentation` alone must stay light.
    if name == "KMeans":
        from segmentation.estimators.kmeans import KMeans

        return KMeans
    if name == "IncrementalPCA":
        from segmentation.estimators.pca import IncrementalPCA

        return IncrementalPCA
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
