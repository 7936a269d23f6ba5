"""Out-of-core audience segmentation of ratings logs on Dask.

The jobs are in the package ``jobs``, and :func:`load_model` reads the model of a run. The two
estimators that they fit work on any Dask array:

>>> import dask.array as da
>>> import segmentation
>>> X = da.random.default_rng(0).normal(size=(1_000, 4), chunks=(250, 4))
>>> segmentation.KMeans(n_clusters=3, random_state=0).fit(X).cluster_centers_.shape
(3, 4)
>>> segmentation.IncrementalPCA(n_components=2).fit(X).transform(X).shape
(1000, 2)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segmentation.estimators.kmeans import KMeans
    from segmentation.estimators.pca import IncrementalPCA
    from segmentation.pipeline.model import load_model

__version__ = "0.1.0"
__all__ = ["IncrementalPCA", "KMeans", "__version__", "load_model"]


def __getattr__(name: str) -> Any:
    # The estimators import dask-ml, scikit-learn and Numba; `import segmentation` stays light.
    if name == "KMeans":
        from segmentation.estimators.kmeans import KMeans

        return KMeans
    if name == "IncrementalPCA":
        from segmentation.estimators.pca import IncrementalPCA

        return IncrementalPCA
    if name == "load_model":
        from segmentation.pipeline.model import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
