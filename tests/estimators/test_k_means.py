"""The functions under :class:`KMeans`: the same models, several in the same passes."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import sklearn.cluster

from segmentation import KMeans
from segmentation.estimators import TooFewDistinctRowsError, _lloyd, k_means, k_means_path
from tests.estimators.test_kmeans import blobs, dask_rows


def test_defaults_are_those_of_the_estimator() -> None:
    def defaults(function: Any) -> dict[str, Any]:
        parameters = inspect.signature(function).parameters
        return {name: p.default for name, p in parameters.items() if p.default is not p.empty}

    expected = defaults(KMeans)
    del expected["n_clusters"]
    assert defaults(k_means_path) == {"sample_weight": None, **expected}


@pytest.mark.parametrize("options", [{}, {"n_init": 3}, {"init": "random", "n_init": 2}])
def test_a_path_gives_the_models_of_single_fits(options: dict[str, Any]) -> None:
    X = dask_rows(blobs(n=900, k=5), 200)
    ks = (2, 5, 1, 7)
    path = k_means_path(X, ks, random_state=3, **options)
    for k, result in zip(ks, path, strict=True):
        model = KMeans(k, random_state=3, **options).fit(X)
        np.testing.assert_allclose(result.centers, model.cluster_centers_, atol=1e-12)
        assert result.inertia == pytest.approx(model.inertia_)
        assert result.n_iter == model.n_iter_


def test_a_path_makes_the_passes_of_its_slowest_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    X = dask_rows(blobs(n=900, k=5), 200)
    n_passes, lloyd_pass = [], _lloyd.lloyd_pass

    def count_pass(*arguments: Any) -> Any:
        n_passes.append(1)
        return lloyd_pass(*arguments)

    monkeypatch.setattr(_lloyd, "lloyd_pass", count_pass)
    path = k_means_path(X, (2, 4, 6), init="random", n_init=1, random_state=0)
    # One more for the inertia of the final centres.
    assert len(n_passes) == max(result.n_iter for result in path) + 1


def test_the_estimator_gives_the_same_bits() -> None:
    X, weights = blobs(n=700, k=4), np.random.default_rng(0).random(700)
    result = k_means(dask_rows(X, 200), 4, sample_weight=weights, random_state=8)
    model = KMeans(4, random_state=8).fit(dask_rows(X, 200), sample_weight=weights)
    np.testing.assert_array_equal(result.centers, model.cluster_centers_)
    assert (result.inertia, result.n_iter) == (model.inertia_, model.n_iter_)


def test_against_scikit_learn() -> None:
    X = blobs(n=400, k=5, seed=1)
    centers, _, inertia = sklearn.cluster.k_means(X, 3, init=X[:3], n_init=1)
    result = k_means(X, 3, init=X[:3])
    np.testing.assert_allclose(result.centers, centers, atol=1e-6)
    assert result.inertia == pytest.approx(inertia)


def test_a_generator_moves_on_from_fit_to_fit() -> None:
    X, generator = blobs(n=300, k=6), np.random.RandomState(0)
    one = k_means(X, 6, init="random", n_init=1, max_iter=1, random_state=generator)
    other = k_means(X, 6, init="random", n_init=1, max_iter=1, random_state=generator)
    assert np.abs(one.centers - other.centers).max() > 0


def test_too_few_distinct_rows_for_the_largest_k() -> None:
    X = np.repeat([[0.0], [1.0], [2.0]], 4, axis=0)
    with pytest.raises(TooFewDistinctRowsError) as error:
        k_means_path(X, [2, 5])
    assert (error.value.n_distinct, error.value.n_clusters) == (3, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_init": 0}, "n_init=0: must be an integer of at least 1, or 'auto'"),
        ({"sample_size": 0}, "sample_size=0: must be an integer of at least 1"),
        ({"tol": -1}, "tol=-1: must be at least 0"),
        ({"oversampling_factor": 0}, "oversampling_factor=0: must be above 0"),
        ({"init": "first"}, "init='first': use 'k-means\\+\\+', 'k-means\\|\\|', 'random'"),
    ],
)
def test_parameters_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        k_means(np.arange(6.0)[:, None], 2, **options)
