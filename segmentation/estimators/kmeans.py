"""K-Means on Dask arrays, with dask-ml's interface and scikit-learn's results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import dask_ml.cluster
import numpy as np
from sklearn.base import ClusterMixin
from sklearn.utils.validation import check_is_fitted

from segmentation.estimators import _lloyd
from segmentation.estimators._blockwise import check_array, check_finite, split_rows, unique_name
from segmentation.estimators._k_means import k_means

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray


class KMeans(ClusterMixin, dask_ml.cluster.KMeans):  # type: ignore[misc]
    """K-Means clustering of a Dask array, a drop-in replacement for dask-ml's.

    Persist ``X`` first: each pass reads it once. Differences from dask-ml:

    - A Lloyd pass is one task per block.
    - The model depends neither on chunking nor on the order of the rows, and two copies of a row
      count as one row of weight 2.
    - ``tol`` and ``n_init`` mean what they mean in scikit-learn.
    - An empty cluster takes the row farthest from its center instead of moving to the origin.
    - ``inertia_`` is the sum of squared distances to the returned centers.

    Parameters
    ----------
    n_clusters : int, default 8
        Number of clusters.
    init : {"k-means++", "k-means||", "random"}, array of shape (n_clusters, n_features), callable
        ``k-means++`` restarts greedy k-means++ on a sample of at most ``sample_size`` distinct
        rows, runs the best of them to convergence there, and starts from the best result (Arthur &
        Vassilvitskii 2007). That is chosen on up to four times as many rows.
        ``k-means||`` makes ``init_max_iter`` passes over all rows (Bahmani et al. 2012).
        ``random`` takes random rows of the sample. A callable is called with
        ``(X, n_clusters, random_state=int)``.
    oversampling_factor : float, default 2
        For ``k-means||``: candidates per round, as a multiple of ``n_clusters``.
    max_iter : int, default 300
        Maximum number of Lloyd passes.
    tol : float, default 1e-4
        Stop when the squared shift of all centers is at most ``tol`` times the mean variance of
        the features.
    random_state : int, RandomState or None, default None
        Seed. The same integer gives the same model.
    init_max_iter : int or None, default None
        Rounds of ``k-means||``; None for 5.
    n_init : int or "auto", default "auto"
        Number of starts. All starts share the Lloyd passes, and the one with the least inertia
        wins. For ``k-means++``, starts that reach the same optimum of the sample continue as one,
        and a start that is clearly behind is dropped. "auto" means 64 for ``k-means++`` (32 to
        192 on a small sample), of which only the best continues; 10 for ``random`` and callables;
        1 for ``k-means||`` and arrays.
    sample_size : int, default 20000
        Maximum number of distinct rows that ``k-means++`` restarts on. With more than 200 features
        it restarts on fewer.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features), float64
        Centers of the clusters.
    labels_ : array of shape (n_samples,), int32
        Label of each row; a lazy Dask array if ``X`` was a Dask collection, else a NumPy array.
    inertia_ : float
        Weighted sum of squared distances of the rows to their nearest center.
    n_iter_ : int
        Number of Lloyd passes.
    n_features_in_ : int
        Number of features of ``X``.

    References
    ----------
    Lloyd (1982), Least squares quantization in PCM.
    Arthur & Vassilvitskii (2007), k-means++: the advantages of careful seeding.
    Bahmani, Moseley, Vattani, Kumar & Vassilvitskii (2012), Scalable k-means++.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> X = da.from_array(np.array([[0.0], [1.0], [10.0], [11.0]]), chunks=(2, 1))
    >>> KMeans(n_clusters=2, random_state=0).fit(X).inertia_
    1.0
    """

    def __init__(
        self,
        n_clusters: int = 8,
        init: str | ArrayLike | Callable[..., ArrayLike] = "k-means++",
        oversampling_factor: float = 2,
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: int | np.random.RandomState | None = None,
        init_max_iter: int | None = None,
        n_init: int | str = "auto",
        sample_size: int = 20_000,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.oversampling_factor = oversampling_factor
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.init_max_iter = init_max_iter
        self.n_init = n_init
        self.sample_size = sample_size

    def fit(
        self, X: Any, y: None = None, sample_weight: ArrayLike | da.Array | None = None
    ) -> KMeans:
        """Compute the centers of ``X``.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Dask, NumPy or pandas.
        y : None
            Ignored.
        sample_weight : array of shape (n_samples,), optional
            How often each row counts.

        Raises
        ------
        TooFewDistinctRowsError
            If ``X`` has fewer distinct rows than ``n_clusters``.
        ValueError
            If ``X`` holds NaN or infinity, if a parameter or a weight is out of range, or if
            ``init`` is an array of the wrong shape.
        """
        rows = check_array(X)
        parameters = self.get_params(deep=False)
        if callable(self.init):
            # A callable is passed the caller's X, not the Dask array made of it.
            init = self.init
            parameters["init"] = lambda _, *args, **kwargs: init(X, *args, **kwargs)
        result = k_means(rows, sample_weight=sample_weight, **parameters)
        self._in_memory = not dask.is_dask_collection(X)
        self._set_centers(result.centers, rows, result.inertia, result.n_iter)
        return self

    def fit_predict(
        self, X: Any, y: None = None, sample_weight: ArrayLike | da.Array | None = None
    ) -> da.Array | NDArray[np.int32]:
        """Fit, and return ``labels_``."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def predict(self, X: Any) -> da.Array | NDArray[np.int32]:
        """Return the label of each row's nearest center; int32 of shape (n_samples,).

        The result is lazy if ``X`` is a Dask collection, else a NumPy array.
        """
        labels = self._label_rows(self._check_features(X))
        return labels if dask.is_dask_collection(X) else labels.compute()

    def transform(self, X: Any, y: None = None) -> da.Array | NDArray[np.float64]:
        """Return each row's distance to each center; float64 of shape (n_samples, n_clusters).

        The result is lazy if ``X`` is a Dask collection, else a NumPy array.
        """
        rows = self._check_features(X)
        distances = rows.map_blocks(
            _lloyd.compute_distances,
            self.cluster_centers_,
            dtype=np.float64,
            chunks=(rows.chunks[0], (self.n_clusters,)),
            name=unique_name("distances"),
        )
        return distances if dask.is_dask_collection(X) else distances.compute()

    def score(
        self, X: Any, y: None = None, sample_weight: ArrayLike | da.Array | None = None
    ) -> float:
        """Return the negative inertia of ``X`` for the fitted centers.

        Raises
        ------
        ValueError
            If ``X`` holds NaN or infinity.
        """
        rows = split_rows(self._check_features(X), sample_weight)
        inertia = _lloyd.lloyd_pass(rows, [self.cluster_centers_]).inertia
        check_finite(inertia)
        return -float(inertia[0])

    def reorder(self, order: Sequence[int]) -> KMeans:
        """Renumber the clusters: the new cluster ``i`` is the old cluster ``order[i]``.

        Raises
        ------
        ValueError
            If ``order`` is not a permutation of ``range(n_clusters)``.
        """
        if sorted(order) != list(range(self.n_clusters)):
            raise ValueError(
                f"order={list(order)} is not a permutation of range({self.n_clusters})"
            )
        self._set_centers(self.cluster_centers_[list(order)], self._X, self.inertia_, self.n_iter_)
        return self

    def _set_centers(
        self, centers: NDArray[np.float64], X: da.Array, inertia: float, n_iter: int
    ) -> None:
        self.cluster_centers_ = centers
        self.n_features_in_ = X.shape[1]
        self._X = X
        self.inertia_ = inertia
        self.n_iter_ = n_iter
        labels = self._label_rows(X)
        self.labels_ = labels.compute() if self._in_memory else labels

    def _label_rows(self, X: da.Array) -> da.Array:
        return X.map_blocks(
            _lloyd.label_block,
            self.cluster_centers_,
            dtype=np.int32,
            drop_axis=1,
            name=unique_name("labels"),
        )

    def _check_features(self, X: Any) -> da.Array:
        check_is_fitted(self, "cluster_centers_")
        X = check_array(X)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        return X
