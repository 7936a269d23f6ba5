"""Incremental PCA on Dask arrays, with dask-ml's interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import dask_ml.decomposition
import numpy as np
from sklearn.utils.validation import check_is_fitted

from segmentation.estimators._blockwise import check_array, check_finite
from segmentation.estimators._incremental_pca import fit_incremental_pca, project

if TYPE_CHECKING:
    from numpy.typing import NDArray


class IncrementalPCA(dask_ml.decomposition.IncrementalPCA):  # type: ignore[misc]
    """Incremental PCA of a Dask array, a drop-in replacement for dask-ml's.

    Each block is one batch. The workers reduce all blocks in parallel to factors of at most
    n_features rows; the factors are then merged one by one by the update of Ross et al. (2008).
    ``rank`` directions, not ``n_components``, are kept between updates: with as many as there are
    features, the result is exact PCA whatever the order of the rows. Each fit measures the angle
    to exact PCA.

    Parameters
    ----------
    n_components : int or None, default None
        Number of components; None for min(n_samples, n_features).
    whiten : bool, default False
        Scale the projection to unit variance.
    copy, batch_size, svd_solver, iterated_power, random_state
        Accepted for compatibility with dask-ml and ignored: a batch is a block, and no step is
        random.
    rank : int, default 256
        Number of directions kept between updates; ``n_components`` if that is larger.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Orthonormal axes by decreasing variance. The loading of largest absolute value is positive.
    explained_variance_, explained_variance_ratio_ : ndarray of shape (n_components,)
        Variance of each component, and its share of the total variance.
    singular_values_ : ndarray of shape (n_components,)
        Singular values of the centered rows.
    mean_, var_ : ndarray of shape (n_features,)
        Mean and variance of each feature.
    noise_variance_ : float
        Mean variance of the components that are left out; 0 if there are none.
    angle_to_exact_degrees_ : float
        Largest principal angle to the components of exact PCA, which come from the scatter matrix
        of the same pass; NaN if nothing varies along one of them.
    n_samples_seen_, n_features_in_, n_components_ : int
        Numbers of rows, features and components.

    References
    ----------
    Ross, Lim, Lin & Yang (2008), Incremental learning for robust visual tracking.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> X = da.from_array(np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]), chunks=(2, 2))
    >>> IncrementalPCA(n_components=1).fit(X).components_.round(3).tolist()
    [[0.6, 0.8]]
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

    def fit(self, X: Any, y: None = None) -> IncrementalPCA:
        """Compute the components of ``X``, an array of shape (n_samples, n_features).

        Raises
        ------
        ValueError
            If ``n_components`` is not between 1 and min(n_samples, n_features), or ``X`` holds
            NaN or infinity.
        """
        result = fit_incremental_pca(X, self.n_components, self.rank)
        self.mean_, self.var_ = result.mean, result.var
        self.components_ = result.components
        self.singular_values_ = result.singular_values
        self.explained_variance_ = result.explained_variance
        self.explained_variance_ratio_ = result.explained_variance_ratio
        self.noise_variance_ = result.noise_variance
        self.n_samples_seen_ = self.n_samples_ = result.n_samples
        self.n_features_in_ = len(result.mean)
        self.n_components_ = len(result.components)
        self.angle_to_exact_degrees_ = result.angle_to_exact_degrees
        return self

    def fit_transform(self, X: Any, y: None = None) -> da.Array | NDArray[np.float64]:
        """Fit, and return the projection of the same rows, as :meth:`transform` does."""
        return self.fit(X).transform(X)

    def transform(self, X: Any) -> da.Array | NDArray[np.float64]:
        """Project rows onto the components; float64 of shape (n_samples, n_components).

        The result is lazy if ``X`` is a Dask array, else a NumPy array.
        """
        check_is_fitted(self, ["components_", "mean_"])
        if not isinstance(X, da.Array):
            X = np.asarray(X)
            check_finite(X)
            return project(X, self.mean_, self._scale_components())
        X = check_array(X)
        return X.map_blocks(
            project,
            self.mean_,
            self._scale_components(),
            dtype=np.float64,
            chunks=(X.chunks[0], (self.n_components_,)),
        )

    def inverse_transform(self, X: Any) -> Any:
        """Return the rows, of shape (n_samples, n_features), that have the given projections."""
        check_is_fitted(self, ["components_", "mean_"])
        scale = np.sqrt(self.explained_variance_)[:, None] if self.whiten else 1.0
        return X @ (scale * self.components_) + self.mean_

    def _scale_components(self) -> NDArray[np.float64]:
        if not self.whiten:
            return np.asarray(self.components_)
        return np.asarray(self.components_ / np.sqrt(self.explained_variance_)[:, None])
