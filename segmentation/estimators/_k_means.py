"""The fit of K-Means: a start from a sample, then Lloyd's iterations in passes over all rows.

It needs neither dask-ml nor scikit-learn, whose import takes longer than a fit of a million rows;
:class:`segmentation.estimators.kmeans.KMeans` is the estimator that wraps it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from dask.system import CPU_COUNT

from segmentation.estimators import _init, _lloyd
from segmentation.estimators._blockwise import as_rows, rows_of
from segmentation.estimators._sampling import survey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from segmentation.estimators._blockwise import Rows
    from segmentation.estimators._sampling import Survey

#: Restarts of ``random`` and callables where ``n_init`` is "auto".
_RANDOM_RESTARTS = 10
#: The last choice between optima is made on so many times ``sample_size`` rows.
_LARGER_SAMPLE = 4
#: Rounds of k-means|| unless asked otherwise; Bahmani et al. found five to be enough.
_ROUNDS = 5


class TooFewRowsError(ValueError):
    """There are fewer distinct rows than clusters."""

    def __init__(self, distinct: int, clusters: int) -> None:
        super().__init__(
            f"{distinct} distinct rows for n_clusters={clusters}: "
            f"use n_clusters={distinct} or fewer"
        )
        self.distinct = distinct


class Fitted(NamedTuple):
    """What a fit finds: centres, (n_clusters, n_features), their inertia, and passes made."""

    centers: NDArray[np.float64]
    inertia: float
    n_iter: int


@dataclass(frozen=True)
class Task:
    """What is to be fitted; see :class:`segmentation.estimators.kmeans.KMeans`."""

    n_clusters: Any
    seed: int
    init: Any = "k-means++"
    oversampling_factor: float = 2
    max_iter: int = 300
    tol: float = 1e-4
    init_max_iter: int | None = None
    n_init: int | str = "auto"
    sample_size: int = 20_000

    def check(self, n_rows: int) -> None:
        """Raise ValueError if a parameter is out of range."""
        for name in ("n_clusters", "max_iter", "sample_size"):
            value: Any = getattr(self, name)
            if not isinstance(value, Integral) or int(value) < 1:
                raise ValueError(f"{name}={value}: at least 1 is needed")
        n_init: Any = self.n_init
        if n_init != "auto" and not (isinstance(n_init, Integral) and int(n_init) >= 1):
            raise ValueError(f"n_init={n_init!r}: give a number from 1 on, or 'auto'")
        if not self.tol >= 0:
            raise ValueError(f"tol={self.tol}: at least 0 is needed")
        if not self.oversampling_factor > 0:
            raise ValueError(f"oversampling_factor={self.oversampling_factor}: must be above 0")
        if n_rows < self.n_clusters:
            raise ValueError(
                f"n_samples={n_rows} is fewer than n_clusters={self.n_clusters}: "
                f"use n_clusters={n_rows} or fewer"
            )

    def starts(self, X: Any, rows: Rows, found: Survey, tol: float) -> list[NDArray[np.float64]]:
        """Return the centres to begin with; a callable ``init`` is handed ``X``."""
        k, seed, shape = self.n_clusters, self.seed, (self.n_clusters, rows.n_features)
        rng = np.random.default_rng([seed, 11])
        if callable(self.init):
            return _init.all_sets(
                [self.init(X, k, random_state=seed + i) for i in range(self._n(_RANDOM_RESTARTS))],
                shape,
            )
        if not isinstance(self.init, str):
            return [_init.checked(self.init, shape)]
        if self.init == "k-means++":
            keep = None if self.n_init == "auto" else int(self.n_init)
            effort = _init.Effort() if keep is None else _init.Effort(keep, keep, keep)
            # The loops let go of the interpreter, and the client has nothing else to do.
            with ThreadPoolExecutor(CPU_COUNT) as pool:
                return _init.from_sample(
                    found.sample, self.sample_size, k, effort, tol, rng, keep, pool.map
                )
        if self.init == "k-means||":
            rounds = _ROUNDS if self.init_max_iter is None else self.init_max_iter
            return [
                _init.parallel(
                    rows, found.sample, k, self.oversampling_factor, rounds, seed + 1_000 * i
                )
                for i in range(self._n(1))
            ]
        if self.init == "random":
            return _init.at_random(found.sample, k, self._n(_RANDOM_RESTARTS), rng)
        raise ValueError(
            f"init={self.init!r}: use 'k-means++', 'k-means||', 'random', an array or a callable"
        )

    def _n(self, automatic: int) -> int:
        return automatic if self.n_init == "auto" else int(self.n_init)


def seed_of(random_state: int) -> int:
    """Return the seed of a fit that scikit-learn's ``check_random_state`` leads to."""
    # The old generator, since the same integer has to give the same model as the estimator's.
    return int(np.random.RandomState(random_state).randint(np.iinfo(np.int32).max))


def fit_together(
    tasks: Sequence[Task], X: Any, sample_weight: Any = None, given: Any = None
) -> list[Fitted]:
    """Fit tasks that differ in ``n_clusters`` alone, in the passes of the slowest.

    Each ends as if it had been fitted alone. ``given`` is what a callable ``init`` is handed in
    place of ``X``.

    Raises
    ------
    ValueError
        As :meth:`segmentation.estimators.kmeans.KMeans.fit` does.
    """
    array = as_rows(X)
    for task in tasks:
        task.check(array.shape[0])
    first = tasks[0]
    rows = rows_of(array, sample_weight)
    most = max(task.n_clusters for task in tasks)
    found = survey(rows, max(_LARGER_SAMPLE * first.sample_size, most), first.seed)
    distinct = len(found.sample.rows)
    if distinct < most:
        raise TooFewRowsError(distinct, most)
    tol = first.tol * float(found.spread.squares.mean()) / found.spread.weight
    own = [task.starts(X if given is None else given, rows, found, tol) for task in tasks]
    ends, n_iter = _lloyd.advance(
        rows,
        [centers for sets in own for centers in sets],
        tol,
        first.max_iter,
        _lloyd.distance_dtype(array.dtype, found.spread),
        # Only sets that start near their optimum can be told to be behind.
        rivals=[len(sets) for sets in own]
        if isinstance(first.init, str) and first.init == "k-means++"
        else None,
    )
    inertia = _lloyd.lloyd_pass(rows, ends).inertia
    results = []
    at = 0
    for sets in own:
        best = at + int(np.argmin(inertia[at : at + len(sets)]))
        at += len(sets)
        results.append(Fitted(ends[best], float(inertia[best]), n_iter[best]))
    return results
