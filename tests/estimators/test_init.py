"""Initial centres: near the best of many restarts, distinct, and independent of chunking."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import dask.array as da
import numpy as np
import pytest
import sklearn.cluster

from segmentation.estimators import _init
from segmentation.estimators._blockwise import split_rows
from segmentation.estimators._init import InMemoryFit, RestartBudget
from segmentation.estimators._sampling import Sample, scan_rows
from tests import oracles
from tests.estimators.test_kmeans import blobs


def as_sample(X: np.ndarray) -> Sample:
    return Sample(np.arange(len(X), dtype=np.uint64), X, np.ones(len(X)))


@pytest.mark.parametrize("n", [2_000, 9_000])
def test_plus_plus_finds_planted_centres(n: int) -> None:
    """Both ways of restarting: on few rows to the end, on many on slices first."""
    X = blobs(n=n, d=3, k=6, seed=3)
    (centers,) = _init.init_plus_plus(
        as_sample(X), n, 6, RestartBudget(), 1e-8, np.random.default_rng(0)
    )
    best = sklearn.cluster.KMeans(6, n_init=20, random_state=0).fit(X).inertia_
    assert oracles.inertia(X, centers) <= best * (1 + 1e-6)


@pytest.mark.parametrize("n", [500, 8_000])
def test_optima_are_distinct_and_in_order(n: int) -> None:
    X = blobs(n=n, d=2, k=12, seed=1)
    budget, rng = RestartBudget(30, 12, 12), np.random.default_rng(0)
    optima = _init.init_plus_plus(as_sample(X), n, 8, budget, 1e-8, rng, n_init=4)
    inertia = [oracles.inertia(X, centers) for centers in optima]
    assert 1 <= len(optima) <= 4
    assert all(b > a * 1.00005 for a, b in itertools.pairwise(inertia))


def test_a_pool_of_threads_gives_the_same_centres() -> None:
    X = blobs(n=7_000, d=2, k=5, seed=2)
    arguments = as_sample(X), 7_000, 5, RestartBudget(16, 4, 2), 1e-8
    with ThreadPoolExecutor(3) as pool:
        one = _init.init_plus_plus(*arguments, np.random.default_rng(4), map_restarts=pool.map)
    other = _init.init_plus_plus(*arguments, np.random.default_rng(4))
    np.testing.assert_array_equal(one, other)


def test_duplicates_by_hand() -> None:
    fits = [InMemoryFit(np.array([[i]]), value) for i, value in enumerate([2.0, 1.0, 1.00005, 3.0])]
    assert [fit.inertia for fit in _init._drop_duplicates(fits)] == [1.0, 2.0, 3.0]


def test_similar_sets_by_hand() -> None:
    """A set is dropped if each of its centres is near one of an earlier set, and vice versa."""
    sets = [np.array(centers)[:, None] for centers in ([0.0, 5], [5.1, 0.1], [0.0, 0.1], [9.0, 5])]
    distinct = _init._drop_similar(sets, 0.5, 3)
    assert [centers.ravel().tolist() for centers in distinct] == [[0.0, 5], [0.0, 0.1], [9.0, 5]]
    assert len(_init._drop_similar(sets, 0.5, 2)) == 2


@pytest.mark.parametrize("chunk", [1_500, 113])
def test_parallel_covers_planted_clusters(chunk: int) -> None:
    rng = np.random.default_rng(0)
    corners = 40.0 * np.eye(5)
    X = corners[rng.integers(5, size=1_500)] + rng.normal(size=(1_500, 5))
    rows = split_rows(da.from_array(X, chunks=(chunk, 5)))
    centers = _init.init_parallel(rows, scan_rows(rows, 100, 0).sample, 5, 2, 5, 0)
    distances = np.sqrt(((centers[:, None] - corners[None]) ** 2).sum(axis=2))
    assert distances.min(axis=0).max() < 3


def test_parallel_on_few_distinct_rows() -> None:
    X = np.repeat(np.arange(4.0)[:, None], 50, axis=0)
    rows = split_rows(da.from_array(X, chunks=(60, 1)))
    centers = _init.init_parallel(rows, scan_rows(rows, 10, 0).sample, 4, 0.1, 1, 0)
    assert sorted(centers.ravel()) == [0, 1, 2, 3]


def test_random_rows_are_distinct() -> None:
    X = np.arange(20.0)[:, None]
    sets = _init.init_random(as_sample(X), 5, 3, np.random.default_rng(0))
    assert len(sets) == 3
    assert all(len(set(centers.ravel())) == 5 for centers in sets)
