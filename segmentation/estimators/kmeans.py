"""K-Means on Dask arrays with dask-ml's interface and scikit-learn's results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import dask_ml.cluster
import numpy as np
from sklearn.base import ClusterMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from segmentation.estimators import _k_means, _lloyd
from segmentation.estimators._blockwise import as_rows, rows_of, unused_name
from segmentation.estimators._lloyd import block_distances, block_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class KMeans(ClusterMixin, dask_ml.cluster.KMeans):  # type: ignore[misc]
    """K-Means clustering of a Dask array, a drop-in for :class:`dask_ml.cluster.KMeans`.

    Persist ``X`` first: each pass reads it once. What differs from dask-ml: a Lloyd pass is one
    task a block; the model does not hang on the chunks, on the order of the rows, or on whether
    copies or weights say how often a row counts; ``tol`` and ``n_init`` mean what they do in
    scikit-learn; an empty cluster takes the worst-fitted row instead of falling to the origin;
    ``inertia_`` is the sum of squared distances to the centres that are returned.

    Parameters
    ----------
    n_clusters : int, default 8
        Number of clusters.
    init : {"k-means++", "k-means||", "random"}, array of shape (n_clusters, n_features), callable
        ``k-means++`` restarts greedy k-means++ on a sample of at most ``sample_size`` distinct
        rows, converges there, and goes on with the best (Arthur & Vassilvitskii 2007), which is
        told on a sample four times as large.
        ``k-means||`` makes ``init_max_iter`` passes over all rows (Bahmani et al. 2012).
        ``random`` takes rows of the sample. A callable gets ``(X, n_clusters, random_state)``.
    oversampling_factor : float, default 2
        For ``k-means||``: candidates a round, as a multiple of ``n_clusters``.
    max_iter : int, default 300
        Lloyd passes at most.
    tol : float, default 1e-4
        Stop when the squared shift of all centres is at most ``tol`` times the mean variance of
        the features.
    random_state : int, RandomState or None, default None
        Seed; the same integer gives the same model.
    init_max_iter : int or None, default None
        Rounds of ``k-means||``; None for 5.
    n_init : int or "auto", default "auto"
        Starts. All go through Lloyd's iterations together, one pass over the rows serving every
        one of them, and that with the least inertia stays. For ``k-means++``, starts that meet in
        one optimum of the sample go on as one, and only while they are not clearly behind; "auto"
        is 64, of which the best goes on. "auto" is 10 for ``random`` and callables, 1 for
        ``k-means||`` and arrays.
    sample_size : int, default 20000
        Distinct rows that the start looks at.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features), float64
    labels_ : array of shape (n_samples,), int32
        For a Dask array lazy, computed when asked for; else a NumPy array.
    inertia_ : float
        Sum of squared distances of rows to their nearest centre, times their weights.
    n_iter_ : int
        Lloyd passes made.
    n_features_in_ : int

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
        init: Any = "k-means++",
        oversampling_factor: float = 2,
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: Any = None,
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

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KMeans:
        """Find the centres of ``X``, of shape (n_samples, n_features).

        ``sample_weight`` is an array of shape (n_samples,): how often each row counts.

        Raises
        ------
        ValueError
            If ``X`` holds NaN or infinity, or fewer distinct rows than clusters; if a parameter
            or a weight is out of range; if ``init`` is an array of the wrong shape.
        """
        array = as_rows(X)
        found = _k_means.fit_together([self._task()], array, sample_weight, given=X)[0]
        self._in_memory = not dask.is_dask_collection(X)
        self._set(found.centers, array, found.inertia, found.n_iter)
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, and return ``labels_``."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def predict(self, X: Any) -> Any:
        """Return the number of each row's nearest centre; int32 of shape (n_samples,).

        Lazy for a Dask array, else a NumPy array.
        """
        labels = self._labels(self._check_fitted_width(X))
        return labels if dask.is_dask_collection(X) else labels.compute()

    def transform(self, X: Any, y: Any = None) -> Any:
        """Return each row's distance to each centre; float64 of shape (n_samples, n_clusters).

        Lazy for a Dask array, else a NumPy array.
        """
        rows = self._check_fitted_width(X)
        distances = rows.map_blocks(
            block_distances,
            self.cluster_centers_,
            dtype=np.float64,
            chunks=(rows.chunks[0], (self.n_clusters,)),
            name=unused_name("distances"),
        )
        return distances if dask.is_dask_collection(X) else distances.compute()

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the inertia of ``X`` under the fitted centres, negated."""
        rows = rows_of(self._check_fitted_width(X), sample_weight)
        return -float(_lloyd.lloyd_pass(rows, [self.cluster_centers_]).inertia[0])

    def reorder(self, order: Sequence[int]) -> KMeans:
        """Renumber the clusters: the new cluster ``i`` is the old cluster ``order[i]``."""
        if sorted(order) != list(range(self.n_clusters)):
            raise ValueError(f"{list(order)} is no order of {self.n_clusters} clusters")
        self._set(self.cluster_centers_[list(order)], self._X, self.inertia_, self.n_iter_)
        return self

    def _set(self, centers: NDArray[np.float64], X: da.Array, inertia: float, n_iter: int) -> None:
        self.cluster_centers_ = centers
        self.n_features_in_ = X.shape[1]
        self._X = X
        self.inertia_ = inertia
        self.n_iter_ = n_iter
        labels = self._labels(X)
        self.labels_ = labels.compute() if self._in_memory else labels

    def _labels(self, X: da.Array) -> da.Array:
        return X.map_blocks(
            block_labels,
            self.cluster_centers_,
            dtype=np.int32,
            drop_axis=1,
            name=unused_name("labels"),
        )

    def _task(self) -> _k_means.Task:
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        return _k_means.Task(
            self.n_clusters,
            seed,
            self.init,
            self.oversampling_factor,
            self.max_iter,
            self.tol,
            self.init_max_iter,
            self.n_init,
            self.sample_size,
        )

    def _check_fitted_width(self, X: Any) -> da.Array:
        check_is_fitted(self, "cluster_centers_")
        X = as_rows(X)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        return X
