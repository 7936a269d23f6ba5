"""Incremental PCA on Dask arrays: a batch a block, a fixed sign, and its angle to exact PCA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import dask_ml.decomposition
import numpy as np
from sklearn.utils.validation import check_is_fitted

from segmentation.estimators import _incremental_pca
from segmentation.estimators._blockwise import as_rows
from segmentation.estimators._incremental_pca import project

if TYPE_CHECKING:
    from numpy.typing import NDArray


class IncrementalPCA(dask_ml.decomposition.IncrementalPCA):  # type: ignore[misc]
    """Incremental PCA of a Dask array, a drop-in for dask-ml's with a batch a block.

    Each block is condensed where it lies to a triangular factor of at most
    (n_features, n_features), all blocks in parallel; the factors are then folded in one after the
    other by the update of Ross et al. (2008). Between updates ``rank`` directions are kept, not
    ``n_components``: with as many as there are features the result is exact PCA, whatever the
    order of the rows. How far it is from exact is measured each time.

    Parameters
    ----------
    n_components : int or None, default None
        Axes to return; None for all.
    whiten : bool, default False
        Scale the projection to unit variance.
    rank : int, default 256
        Directions kept between updates; at least ``n_components``.
    copy, batch_size, svd_solver, iterated_power, random_state
        Taken for compatibility with dask-ml and not used: a batch is a block, and no step is
        random.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Orthonormal axes by falling variance; the largest loading of each is positive.
    explained_variance_, explained_variance_ratio_, singular_values_ : (n_components,)
    mean_, var_ : (n_features,)
    noise_variance_ : float
    angle_to_exact_degrees_ : float
        Largest principal angle between the plane found and that of exact PCA, which comes from
        the covariance matrix summed up in the same pass; NaN where nothing varies.
    n_samples_seen_, n_features_in_, n_components_ : int

    References
    ----------
    Ross, Lim, Lin & Yang (2008), Incremental learning for robust visual tracking.
    """

    def __init__(
        self,
        n_components: int | None = None,
        whiten: bool = False,
        copy: bool = True,
        batch_size: int | None = None,
        svd_solver: str = "auto",
        iterated_power: int = 0,
        random_state: int | None = None,
        rank: int = 256,
    ) -> None:
        self.n_components = n_components
        self.whiten = whiten
        self.copy = copy
        self.batch_size = batch_size
        self.svd_solver = svd_solver
        self.iterated_power = iterated_power
        self.random_state = random_state
        self.rank = rank

    def fit(self, X: Any, y: Any = None) -> IncrementalPCA:
        """Find the axes of ``X``, of shape (n_samples, n_features).

        Raises
        ------
        ValueError
            If ``n_components`` is not between 1 and min(n_samples, n_features), or ``X`` holds
            NaN or infinity.
        """
        found = _incremental_pca.fit_incremental_pca(X, self.n_components, self.rank)
        self.mean_, self.var_ = found.mean, found.var
        self.components_ = found.components
        self.singular_values_ = found.singular_values
        self.explained_variance_ = found.explained_variance
        self.explained_variance_ratio_ = found.explained_variance_ratio
        self.noise_variance_ = found.noise_variance
        self.n_samples_seen_ = self.n_samples_ = found.n
        self.n_features_in_ = len(found.mean)
        self.n_components_ = len(found.components)
        self.angle_to_exact_degrees_ = found.angle_to_exact_degrees
        return self

    def transform(self, X: Any) -> Any:
        """Project rows onto the axes; lazily for a Dask array. (n_samples, n_components)."""
        check_is_fitted(self, ["components_", "mean_"])
        if not isinstance(X, da.Array):
            return project(np.asarray(X), self.mean_, self._scaled())
        X = as_rows(X)
        return X.map_blocks(
            project,
            self.mean_,
            self._scaled(),
            dtype=np.float64,
            chunks=(X.chunks[0], (self.n_components_,)),
        )

    def inverse_transform(self, X: Any) -> Any:
        """Return rows of the original space from projections."""
        check_is_fitted(self, ["components_", "mean_"])
        scale = np.sqrt(self.explained_variance_)[:, None] if self.whiten else 1.0
        return X @ (scale * self.components_) + self.mean_

    def _scaled(self) -> NDArray[np.float64]:
        if not self.whiten:
            return np.asarray(self.components_)
        return np.asarray(self.components_ / np.sqrt(self.explained_variance_)[:, None])
