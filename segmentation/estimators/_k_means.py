"""K-Means as functions: initial centers from a sample, then Lloyd's iterations over all rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from dask.system import CPU_COUNT
from sklearn.utils import check_random_state

from segmentation.estimators import _init, _lloyd
from segmentation.estimators._blockwise import check_array, split_rows
from segmentation.estimators._sampling import scan_rows
from segmentation.estimators.exceptions import TooFewDistinctRowsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import dask.array as da
    from numpy.typing import ArrayLike, NDArray

    from segmentation.estimators._blockwise import RowBlocks
    from segmentation.estimators._sampling import Sample

#: Number of starts of ``random`` and of callables if ``n_init`` is "auto".
_RANDOM_INIT = 10
#: The best of several optima is chosen on this many times ``sample_size`` rows.
_SELECTION_FACTOR = 4
#: Default rounds of k-means||; Bahmani et al. (2012) found five to be enough.
_PARALLEL_ROUNDS = 5
_INIT_NAMES = ("k-means++", "k-means||", "random")


class KMeansResult(NamedTuple):
    """Result of :func:`k_means`.

    Attributes
    ----------
    centers
        Shape (n_clusters, n_features), float64.
    inertia
        Weighted sum of squared distances of the rows to their nearest center.
    n_iter
        Number of Lloyd passes.
    """

    centers: NDArray[np.float64]
    inertia: float
    n_iter: int


def k_means(X: Any, n_clusters: int, **parameters: Any) -> KMeansResult:
    """Cluster the rows of ``X`` by K-Means.

    Parameters
    ----------
    X
        Array of shape (n_samples, n_features); persist a Dask array first.
    n_clusters
        Number of clusters.
    **parameters
        The keyword parameters of :func:`k_means_path`.

    Raises
    ------
    TooFewDistinctRowsError
        If ``X`` has fewer distinct rows than ``n_clusters``.
    ValueError
        If ``X`` is not finite, or a parameter or a weight is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> result = k_means(X, 2, random_state=0)
    >>> sorted(result.centers.ravel().tolist()), result.inertia
    ([0.5, 10.5], 1.0)
    """
    return k_means_path(X, [n_clusters], **parameters)[0]


def k_means_path(
    X: Any,
    n_clusters: Sequence[int],
    *,
    sample_weight: ArrayLike | da.Array | None = None,
    init: str | ArrayLike | Callable[..., ArrayLike] = "k-means++",
    oversampling_factor: float = 2,
    max_iter: int = 300,
    tol: float = 1e-4,
    random_state: int | np.random.RandomState | None = None,
    init_max_iter: int | None = None,
    n_init: int | str = "auto",
    sample_size: int = 20_000,
) -> list[KMeansResult]:
    """Cluster the rows of ``X`` for several numbers of clusters in the same passes.

    Each result is the one that :func:`k_means` gives with the same integer ``random_state``.

    Parameters
    ----------
    X
        Array of shape (n_samples, n_features); persist a Dask array first.
    n_clusters
        The numbers of clusters, in any order.
    sample_weight
        How often each row counts; shape (n_samples,).
    init, oversampling_factor, max_iter, tol, random_state, init_max_iter, n_init, sample_size
        As in :class:`segmentation.estimators.kmeans.KMeans`.

    Returns
    -------
    list
        One :class:`KMeansResult` per entry of ``n_clusters``.

    Raises
    ------
    TooFewDistinctRowsError
        If ``X`` has fewer distinct rows than the largest of ``n_clusters``.
    ValueError
        If ``X`` is not finite, or a parameter or a weight is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> [result.inertia for result in k_means_path(X, [1, 2, 4], random_state=0)]
    [101.0, 1.0, 0.0]
    """
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    starts = _Starts(init, oversampling_factor, init_max_iter, n_init, sample_size, seed)
    array = check_array(X)
    for k in n_clusters:
        _check_at_least_one("n_clusters", k)
    _check_at_least_one("max_iter", max_iter)
    if not tol >= 0:
        raise ValueError(f"tol={tol}: must be at least 0")
    starts.check()
    rows = split_rows(array, sample_weight)
    max_clusters = max(n_clusters)
    if rows.n_rows == 0:
        raise TooFewDistinctRowsError(0, max_clusters, 0)
    scan = scan_rows(rows, _SELECTION_FACTOR * sample_size, seed, max_clusters)
    n_distinct = len(scan.sample.rows)
    if n_distinct < max_clusters:
        raise TooFewDistinctRowsError(n_distinct, max_clusters, rows.n_rows)
    scaled_tol = scan.features.scale_tol(tol)
    groups = [starts.choose(X, rows, scan.sample, k, scaled_tol) for k in n_clusters]
    # Only k-means++ starts near an optimum, where a set that is behind stays behind.
    center_sets, n_iter = _lloyd.run_lloyd_passes(
        rows,
        [centers for group in groups for centers in group],
        scaled_tol,
        max_iter,
        _lloyd.choose_distance_dtype(array.dtype, scan.features),
        group_sizes=[len(group) for group in groups] if starts.is_plus_plus else None,
    )
    inertia = _lloyd.lloyd_pass(rows, center_sets).inertia
    results = []
    start = 0
    for group in groups:
        best = start + int(np.argmin(inertia[start : start + len(group)]))
        start += len(group)
        results.append(KMeansResult(center_sets[best], float(inertia[best]), n_iter[best]))
    return results


@dataclass(frozen=True)
class _Starts:
    """The parameters of K-Means that decide where Lloyd's iterations start."""

    init: Any
    oversampling_factor: float
    init_max_iter: int | None
    n_init: int | str
    sample_size: int
    seed: int

    @property
    def is_plus_plus(self) -> bool:
        """Whether ``init`` is "k-means++"."""
        return isinstance(self.init, str) and self.init == "k-means++"

    def check(self) -> None:
        """Raise ValueError if a parameter is out of range."""
        _check_at_least_one("sample_size", self.sample_size)
        n_init: Any = self.n_init
        if n_init != "auto" and not (isinstance(n_init, Integral) and int(n_init) >= 1):
            raise ValueError(f"n_init={n_init!r}: must be an integer of at least 1, or 'auto'")
        if not self.oversampling_factor > 0:
            raise ValueError(f"oversampling_factor={self.oversampling_factor}: must be above 0")
        if isinstance(self.init, str) and self.init not in _INIT_NAMES:
            raise ValueError(
                f"init={self.init!r}: use 'k-means++', 'k-means||', 'random', an array or a "
                "callable"
            )

    def choose(
        self, X: Any, rows: RowBlocks, sample: Sample, k: int, tol: float
    ) -> list[NDArray[np.float64]]:
        """Choose one set of ``k`` centers per start; a callable ``init`` is passed ``X``."""
        rng = np.random.default_rng([self.seed, 11])
        shape = (k, rows.n_features)
        if callable(self.init):
            return [
                _init.check_centers(self.init(X, k, random_state=self.seed + i), shape)
                for i in range(self._count_starts(_RANDOM_INIT))
            ]
        if not isinstance(self.init, str):
            return [_init.check_centers(self.init, shape)]
        if self.is_plus_plus:
            return self._choose_plus_plus(sample, k, tol, rng)
        if self.init == "k-means||":
            rounds = _PARALLEL_ROUNDS if self.init_max_iter is None else self.init_max_iter
            return [
                _init.init_parallel(
                    rows, sample, k, self.oversampling_factor, rounds, self.seed + 1_000 * i
                )
                for i in range(self._count_starts(1))
            ]
        return _init.init_random(sample, k, self._count_starts(_RANDOM_INIT), rng)

    def _choose_plus_plus(
        self, sample: Sample, k: int, tol: float, rng: np.random.Generator
    ) -> list[NDArray[np.float64]]:
        n_init = None if self.n_init == "auto" else int(self.n_init)
        budget = (
            _init.RestartBudget() if n_init is None else _init.RestartBudget(n_init, n_init, n_init)
        )
        # The kernels release the GIL, and the client is idle otherwise.
        with ThreadPoolExecutor(CPU_COUNT) as pool:
            return _init.init_plus_plus(
                sample, self.sample_size, k, budget, tol, rng, n_init, pool.map
            )

    def _count_starts(self, default: int) -> int:
        return default if self.n_init == "auto" else int(self.n_init)


def _check_at_least_one(name: str, value: Any) -> None:
    if not isinstance(value, Integral) or int(value) < 1:
        raise ValueError(f"{name}={value}: must be an integer of at least 1")
