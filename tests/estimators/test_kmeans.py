"""K-Means: scikit-learn's results from the same initial centres, for any chunking."""

from __future__ import annotations

import warnings

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import sklearn.cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from segmentation import KMeans
from segmentation.estimators import TooFewDistinctRowsError
from tests import oracles


def blobs(n: int = 600, d: int = 4, k: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.normal(0, 5, (k, d))
    return centers[rng.integers(k, size=n)] + rng.normal(0, 1, (n, d))


def dask_rows(X: np.ndarray, chunk: int) -> da.Array:
    return da.from_array(X, chunks=(chunk, X.shape[1]))


def test_four_points_by_hand() -> None:
    X = dask_rows(np.array([[0.0], [1.0], [10.0], [12.0]]), 3)
    model = KMeans(2, random_state=0).fit(X)
    assert sorted(model.cluster_centers_.ravel()) == [0.5, 11.0]
    assert model.inertia_ == 0.25 + 0.25 + 1 + 1
    labels = model.labels_.compute()
    assert labels.dtype == np.int32
    assert labels[0] == labels[1] != labels[2] == labels[3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tol", [0.0, 1e-4, 1e-2])
def test_scikit_learn_from_the_same_start(dtype: type, tol: float) -> None:
    X = blobs(d=6, k=6, seed=3).astype(dtype)
    init = X[:5].astype(np.float64)
    theirs = sklearn.cluster.KMeans(5, init=init, n_init=1, tol=tol).fit(X.astype(np.float64))
    ours = KMeans(5, init=init, tol=tol).fit(dask_rows(X, 77))
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, atol=1e-6)
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-9)
    np.testing.assert_array_equal(ours.labels_.compute(), theirs.labels_)
    # scikit-learn makes one more pass if only unchanged labels show that it has converged.
    assert abs(ours.n_iter_ - theirs.n_iter_) <= 1


def test_inertia_belongs_to_the_returned_centres() -> None:
    X = blobs(seed=5)
    for max_iter in (1, 2, 300):
        model = KMeans(4, init=X[:4], max_iter=max_iter).fit(dask_rows(X, 100))
        assert model.inertia_ == pytest.approx(oracles.inertia(X, model.cluster_centers_))


def test_inertia_is_near_the_best_of_many_restarts() -> None:
    X = blobs(n=3000, d=8, k=9, seed=1)
    best = min(
        sklearn.cluster.KMeans(7, n_init=1, random_state=s).fit(X).inertia_ for s in range(30)
    )
    ours = KMeans(7, random_state=0).fit(dask_rows(X, 500))
    assert ours.inertia_ <= best * 1.005


def test_initial_centres_come_from_a_bounded_sample() -> None:
    X = blobs(n=5000, seed=2)
    small = KMeans(3, random_state=0, sample_size=200).fit(dask_rows(X, 999))
    whole = KMeans(3, random_state=0).fit(dask_rows(X, 999))
    assert small.inertia_ == pytest.approx(whole.inertia_, rel=1e-3)


@settings(max_examples=20)
@given(
    chunks=st.lists(st.integers(1, 200), min_size=1, max_size=8),
    seed=st.integers(0, 3),
    sample=st.sampled_from([50, 20_000]),
)
def test_same_model_for_any_chunking(chunks: list[int], seed: int, sample: int) -> None:
    X = blobs(n=sum(chunks) + 5, seed=seed).astype(np.float32)
    whole = KMeans(4, random_state=seed, sample_size=sample).fit(dask_rows(X, len(X)))
    cut = da.from_array(X, chunks=((*chunks, 5), 4))
    parts = KMeans(4, random_state=seed, sample_size=sample).fit(cut)
    np.testing.assert_allclose(parts.cluster_centers_, whole.cluster_centers_, atol=1e-6)
    np.testing.assert_array_equal(parts.labels_.compute(), whole.labels_.compute())


def test_empty_and_single_row_blocks() -> None:
    X = blobs(n=20)
    with_empty = da.from_array(X, chunks=((0, 1, 1, 0, 3, 15), 4))
    assert with_empty.numblocks == (6, 1)
    one = KMeans(3, random_state=0).fit(with_empty)
    other = KMeans(3, random_state=0).fit(dask_rows(X, 20))
    np.testing.assert_allclose(one.cluster_centers_, other.cluster_centers_, atol=1e-9)
    assert one.labels_.compute().shape == (20,)


def test_an_empty_cluster_takes_the_farthest_row() -> None:
    X = np.array([[0.0], [1.0], [2.0], [30.0]])
    init = np.array([[0.5], [1000.0]])
    ours = KMeans(2, init=init).fit(dask_rows(X, 2))
    theirs = sklearn.cluster.KMeans(2, init=init, n_init=1).fit(X)
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_)
    assert ours.inertia_ == pytest.approx(2.0)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_as_many_clusters_as_distinct_rows(k: int) -> None:
    X = np.repeat(np.array([[0.0, 0.0], [0.0, 5.0], [9.0, 0.0]]), 4, axis=0)
    model = KMeans(k, random_state=0).fit(dask_rows(X, 5))
    assert (model.inertia_ == pytest.approx(0.0)) == (k == 3)
    assert len(np.unique(model.labels_.compute())) == k


def test_errors_say_what_to_do() -> None:
    X = np.repeat(np.array([[0.0, 0.0], [0.0, 5.0]]), 6, axis=0)
    few = r"2 distinct rows for n_clusters=3 \(n_samples=12\): use n_clusters=2 or fewer"
    with pytest.raises(TooFewDistinctRowsError, match=few) as error:
        KMeans(3, random_state=0).fit(dask_rows(X, 5))
    assert (error.value.n_distinct, error.value.n_clusters) == (2, 3)
    with pytest.raises(TooFewDistinctRowsError, match=few):
        KMeans(3, init=np.array([[0.0, 0], [0, 5], [1, 1]])).fit(dask_rows(X, 5))
    with pytest.raises(
        TooFewDistinctRowsError, match="n_clusters=13 .*: use n_clusters=2"
    ) as error:
        KMeans(13).fit(dask_rows(X, 5))
    assert error.value.n_distinct == 2
    with pytest.raises(TooFewDistinctRowsError, match="0 distinct rows .*: pass at least one row"):
        KMeans(1).fit(np.empty((0, 2)))
    with pytest.raises(ValueError, match="n_clusters=0: must be an integer of at least 1"):
        KMeans(0).fit(dask_rows(X, 5))
    with pytest.raises(ValueError, match="max_iter=0: must be an integer of at least 1"):
        KMeans(1, max_iter=0).fit(dask_rows(X, 5))
    with pytest.raises(ValueError, match=r"init has shape \(2, 3\), expected .* = \(2, 2\)"):
        KMeans(2, init=np.zeros((2, 3))).fit(dask_rows(X, 5))
    with pytest.raises(ValueError, match="NaN or infinity in init"):
        KMeans(2, init=np.full((2, 2), np.nan)).fit(dask_rows(X, 5))
    for bad in (np.nan, np.inf):
        Y = X.copy()
        Y[7, 1] = bad
        with pytest.raises(ValueError, match="NaN or infinity in the input: fill or drop"):
            KMeans(2).fit(dask_rows(Y, 5))
    model = KMeans(2, random_state=0).fit(dask_rows(X, 5))
    with pytest.raises(ValueError, match="X has 3 features, but KMeans is expecting 2 features"):
        model.predict(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"Expected 2D array, got 1D array instead"):
        model.predict(np.zeros(4))
    with pytest.raises(sklearn.exceptions.NotFittedError):
        KMeans(2).predict(X)
    unknown = dask_rows(X, 5)
    unknown = unknown[unknown[:, 0] >= 0]
    with pytest.raises(ValueError, match=r"unknown length: call X.compute_chunk_sizes\(\) first"):
        KMeans(2).fit(unknown)


def test_transform_and_predict_agree_with_scikit_learn() -> None:
    X = blobs()
    theirs = sklearn.cluster.KMeans(3, init=X[:3], n_init=1).fit(X)
    ours = KMeans(3, init=X[:3]).fit(dask_rows(X, 100))
    new = blobs(n=50, seed=9)
    np.testing.assert_array_equal(ours.predict(dask_rows(new, 7)).compute(), theirs.predict(new))
    np.testing.assert_allclose(
        ours.transform(dask_rows(new, 7)).compute(), theirs.transform(new), atol=1e-6
    )


def test_numpy_pandas_and_integers() -> None:
    X = np.rint(blobs()).astype(np.int64)
    expected = KMeans(3, random_state=0).fit(dask_rows(X.astype(float), 100))
    for rows in (X, pd.DataFrame(X)):
        model = KMeans(3, random_state=0).fit(rows)
        np.testing.assert_allclose(model.cluster_centers_, expected.cluster_centers_)


def test_reorder() -> None:
    X = blobs()
    model = KMeans(3, random_state=0).fit(dask_rows(X, 100))
    centers, labels = model.cluster_centers_.copy(), model.labels_.compute()
    model.reorder([2, 0, 1])
    np.testing.assert_array_equal(model.cluster_centers_, centers[[2, 0, 1]])
    np.testing.assert_array_equal(model.labels_.compute(), np.array([1, 2, 0])[labels])
    with pytest.raises(ValueError, match=r"order=\[0, 0, 1\] is not a permutation of range\(3\)"):
        model.reorder([0, 0, 1])


def test_clone_and_parameters() -> None:
    model = KMeans(3, tol=0.5, sample_size=7)
    assert clone(model).get_params() == model.get_params()
    assert model.get_params()["n_clusters"] == 3


@pytest.mark.parametrize("init", ["k-means||", "random"])
def test_inits_of_dask_ml(init: str) -> None:
    X = blobs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dask-ml's own warnings
        model = KMeans(3, init=init, random_state=0).fit(dask_rows(X, 100))
    assert model.cluster_centers_.shape == (3, 4)
    assert model.inertia_ == pytest.approx(oracles.inertia(X, model.cluster_centers_))


def test_through_a_client_without_run_spec_warnings(client, caplog) -> None:
    X = dask_rows(blobs(n=2000, k=5), 250).persist()
    with caplog.at_level("WARNING", logger="distributed"):
        first = KMeans(5, random_state=0).fit(X)
        second = KMeans(5, random_state=0).fit(X)
    assert "run_spec" not in caplog.text
    np.testing.assert_array_equal(first.cluster_centers_, second.cluster_centers_)


@pytest.mark.parametrize("n", [3_500, 6_000])
def test_one_start_on_a_few_thousand_rows(n: int) -> None:
    X = blobs(n=n, k=3)
    assert KMeans(3, n_init=1, random_state=0).fit(dask_rows(X, 1_000)).inertia_ > 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_score_refuses_what_is_no_number(value: float) -> None:
    model = KMeans(n_clusters=2).fit(np.random.default_rng(0).normal(size=(50, 4)))
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.score(np.full((3, 4), value))
