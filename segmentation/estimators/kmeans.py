"""K-Means on Dask arrays with dask-ml's interface and scikit-learn's results."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import dask_ml.cluster
import numpy as np
from sklearn.utils.validation import check_is_fitted

from segmentation.estimators.blocks import (
    as_rows,
    blocks_of,
    compute,
    gather,
    moments,
    reduce,
    sample_rows,
)
from segmentation.estimators.lloyd import (
    Step,
    add_steps,
    block_distances,
    block_labels,
    farthest_rows,
    lloyd_block,
    merge_farthest,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


#: Rows that restarts may look at in all: small samples have room for more of them.
_RESTART_ROWS = 400_000


class KMeans(dask_ml.cluster.KMeans):  # type: ignore[misc]
    """K-Means clustering of a Dask array, a drop-in for :class:`dask_ml.cluster.KMeans`.

    What differs from dask-ml: the start is k-means++ with restarts on a bounded sample that does
    not hang on the chunks; a Lloyd pass is one task a block; ``tol`` means what it does in
    scikit-learn; an empty cluster takes the worst-fitted row instead of falling to the origin;
    ``inertia_`` is the sum of squared distances to the centres that are returned.

    Parameters
    ----------
    n_clusters : int, default 8
        Number of clusters.
    init : {"k-means++", "k-means||", "random"} or array of shape (n_clusters, n_features)
        ``k-means++`` fits scikit-learn's K-Means with ``n_init`` restarts to a sample of at most
        ``sample_size`` rows and starts from its best centres (Arthur & Vassilvitskii 2007).
        ``k-means||`` and ``random`` are dask-ml's own.
    n_init : int or "auto", default "auto"
        Restarts on the sample; "auto" is as many as make 400,000 rows, from 10 to 50.
    max_iter : int, default 300
        Lloyd passes at most.
    tol : float, default 1e-4
        Stop when the squared shift of all centres is at most ``tol`` times the mean variance of
        the features.
    random_state : int or None, default None
        Seed; the same seed gives the same model for any chunking.
    sample_size : int, default 20000
        Rows that the start looks at.
    oversampling_factor, init_max_iter
        Passed on to dask-ml where ``init="k-means||"``.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features), float64
    labels_ : dask array of shape (n_samples,), int32
        Computed when asked for.
    inertia_ : float
        Sum of squared distances of rows to their nearest centre.
    n_iter_ : int
        Lloyd passes made.
    n_features_in_ : int

    References
    ----------
    Lloyd (1982), Least squares quantization in PCM.
    Arthur & Vassilvitskii (2007), k-means++: the advantages of careful seeding.

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
        oversampling_factor: int = 2,
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: int | None = None,
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

    def fit(self, X: Any, y: Any = None) -> KMeans:
        """Find the centres of ``X``, of shape (n_samples, n_features).

        Raises
        ------
        ValueError
            If ``X`` holds NaN or infinity, or fewer distinct rows than clusters, or ``init`` is
            an array of the wrong shape.
        """
        X = as_rows(X)
        if self.n_clusters < 1:
            raise ValueError(f"n_clusters={self.n_clusters}: at least 1 is needed")
        if self.max_iter < 1:
            raise ValueError(f"max_iter={self.max_iter}: at least 1 is needed")
        if X.shape[0] < self.n_clusters:
            raise ValueError(
                f"{X.shape[0]} rows for n_clusters={self.n_clusters}: "
                f"use n_clusters={X.shape[0]} or fewer"
            )
        spread = moments(X)
        tol = self.tol * float(np.diag(spread.scatter).mean()) / spread.n
        centers = self._start(X)
        if not np.isfinite(centers).all():
            raise ValueError("NaN or infinity in init: give finite centres")
        n_iter, shift = 0, np.inf
        while shift > tol and n_iter < self.max_iter:
            step = lloyd_pass(X, centers)
            if not step.counts.all():
                step = self._fill_empty(X, centers, step)
            filled = step.counts > 0
            # Rows that differ may be fewer than the empty clusters for now: those wait in place.
            moved = np.where(
                filled[:, None], step.sums / np.maximum(step.counts, 1)[:, None], centers
            )
            shift = float(((moved - centers) ** 2).sum()) if filled.all() else np.inf
            centers = moved
            n_iter += 1
        self._set(centers, X, lloyd_pass(X, centers).inertia, n_iter)
        return self

    def predict(self, X: Any) -> da.Array:
        """Return the number of each row's nearest centre, lazily; int32 of shape (n_samples,)."""
        X = self._check_fitted_width(X)
        return X.map_blocks(
            block_labels, self.cluster_centers_, dtype=np.int32, drop_axis=1, name=_name("labels")
        )

    def transform(self, X: Any, y: Any = None) -> da.Array:
        """Return each row's distance to each centre, lazily; (n_samples, n_clusters), float64."""
        X = self._check_fitted_width(X)
        return X.map_blocks(
            block_distances,
            self.cluster_centers_,
            dtype=np.float64,
            chunks=(X.chunks[0], (self.n_clusters,)),
            name=_name("distances"),
        )

    def reorder(self, order: Sequence[int]) -> KMeans:
        """Renumber the clusters: the new cluster ``i`` is the old cluster ``order[i]``."""
        if sorted(order) != list(range(self.n_clusters)):
            raise ValueError(f"{list(order)} is no order of {self.n_clusters} clusters")
        X, inertia, n_iter = self._X, self.inertia_, self.n_iter_
        self._set(self.cluster_centers_[list(order)], X, inertia, n_iter)
        return self

    def _set(self, centers: NDArray[np.float64], X: da.Array, inertia: float, n_iter: int) -> None:
        self.cluster_centers_ = centers
        self.n_features_in_ = X.shape[1]
        self._X = X
        self.inertia_ = inertia
        self.n_iter_ = n_iter
        self.labels_ = self.predict(X)

    def _start(self, X: da.Array) -> NDArray[np.float64]:
        if not isinstance(self.init, str):
            centers = np.array(self.init, np.float64)
            if centers.shape != (self.n_clusters, X.shape[1]):
                raise ValueError(
                    f"init has shape {centers.shape} where (n_clusters, n_features) = "
                    f"{(self.n_clusters, X.shape[1])} belongs"
                )
            return centers
        if self.init == "k-means++":
            return self._start_from_sample(X)
        from dask_ml.cluster.k_means import k_init

        return np.asarray(
            k_init(
                X,
                self.n_clusters,
                init=self.init,
                random_state=self.random_state,
                max_iter=self.init_max_iter,
                oversampling_factor=self.oversampling_factor,
            ),
            np.float64,
        )

    def _start_from_sample(self, X: da.Array) -> NDArray[np.float64]:
        import sklearn.cluster
        from sklearn.utils import check_random_state

        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        rows = sample_rows(X.shape[0], max(self.sample_size, self.n_clusters), seed)
        sample = np.asarray(compute(gather(X, rows)), np.float64)
        distinct = len(np.unique(sample, axis=0))
        if distinct < self.n_clusters and len(sample) == X.shape[0]:
            raise ValueError(
                f"{distinct} distinct rows for n_clusters={self.n_clusters}: "
                f"use n_clusters={distinct} or fewer"
            )
        if distinct < self.n_clusters:
            # Nearly all rows are alike: copies of one row start apart by the next Lloyd pass.
            return sample[np.linspace(0, len(sample) - 1, self.n_clusters).astype(np.int64)]
        fitted = sklearn.cluster.KMeans(
            self.n_clusters,
            n_init=_restarts(len(sample)) if self.n_init == "auto" else self.n_init,
            random_state=seed,
        ).fit(sample)
        return np.asarray(fitted.cluster_centers_, np.float64)

    def _fill_empty(self, X: da.Array, centers: NDArray[np.float64], step: Step) -> Step:
        """Give each empty cluster the row that fits its own worst, as scikit-learn does."""
        far = dask.delayed(farthest_rows, pure=False)
        k = self.n_clusters
        parts = [far(block, start, centers, k) for start, block in blocks_of(X)]
        worst = iter(compute(reduce(parts, partial(merge_farthest, k), "farthest")))
        sums, counts = step.sums.copy(), step.counts.copy()
        taken: list[NDArray[np.float64]] = []
        for cluster in np.flatnonzero(step.counts == 0):
            for candidate in worst:
                fresh = not any(np.array_equal(candidate.row, row) for row in taken)
                if fresh and candidate.distance > 0 and counts[candidate.label] > 1:
                    taken.append(candidate.row)
                    sums[candidate.label] -= candidate.row
                    counts[candidate.label] -= 1
                    sums[cluster], counts[cluster] = candidate.row, 1
                    break
        if not taken:
            found = int((counts > 0).sum())
            raise ValueError(
                f"{found} distinct rows for n_clusters={k}: use n_clusters={found} or fewer"
            )
        return Step(sums, counts, step.inertia)

    def _check_fitted_width(self, X: Any) -> da.Array:
        check_is_fitted(self, "cluster_centers_")
        X = as_rows(X)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features and the model was fitted on {self.n_features_in_}"
            )
        return X


def lloyd_pass(X: da.Array, centers: NDArray[np.float64]) -> Step:
    """Assign every row to its nearest centre and sum up, in one pass."""
    one = dask.delayed(lloyd_block, pure=False)
    parts = [one(block, centers) for _, block in blocks_of(X)]
    step: Step = compute(reduce(parts, add_steps, "lloyd-tree"))
    return step


def _restarts(rows: int) -> int:
    return min(50, max(10, _RESTART_ROWS // rows))


def _name(what: str) -> str:
    import uuid

    return f"{what}-{uuid.uuid4().hex}"
