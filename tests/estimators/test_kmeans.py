"""K-Means: scikit-learn's results from the same start, whatever the chunks."""

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
from segmentation.estimators import _k_means_inmemory, _kernels
from segmentation.estimators._k_means import Task, fit_together, seed_of
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
    # scikit-learn makes one pass more where only the labels tell that it has converged.
    assert abs(ours.n_iter_ - theirs.n_iter_) <= 1


def test_inertia_is_that_of_the_returned_centres() -> None:
    X = blobs(seed=5)
    for max_iter in (1, 2, 300):
        model = KMeans(4, init=X[:4], max_iter=max_iter).fit(dask_rows(X, 100))
        assert model.inertia_ == pytest.approx(oracles.inertia(X, model.cluster_centers_))


def test_start_is_near_the_best_of_many() -> None:
    X = blobs(n=3000, d=8, k=9, seed=1)
    best = min(
        sklearn.cluster.KMeans(7, n_init=1, random_state=s).fit(X).inertia_ for s in range(30)
    )
    ours = KMeans(7, random_state=0).fit(dask_rows(X, 500))
    assert ours.inertia_ <= best * 1.005


def test_the_start_looks_at_a_bounded_sample() -> None:
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


def test_an_empty_cluster_takes_the_worst_fitted_row() -> None:
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


def test_errors_hold_their_remedy() -> None:
    X = np.repeat(np.array([[0.0, 0.0], [0.0, 5.0]]), 6, axis=0)
    with pytest.raises(ValueError, match="2 distinct rows for n_clusters=3: use n_clusters=2"):
        KMeans(3, random_state=0).fit(dask_rows(X, 5))
    with pytest.raises(ValueError, match="2 distinct rows for n_clusters=3: use n_clusters=2"):
        KMeans(3, init=np.array([[0.0, 0], [0, 5], [1, 1]])).fit(dask_rows(X, 5))
    with pytest.raises(
        ValueError, match="n_samples=12 is fewer than n_clusters=13: use n_clusters=12"
    ):
        KMeans(13).fit(dask_rows(X, 5))
    with pytest.raises(ValueError, match="n_clusters=0: at least 1 is needed"):
        KMeans(0).fit(dask_rows(X, 5))
    with pytest.raises(ValueError, match="max_iter=0: at least 1 is needed"):
        KMeans(1, max_iter=0).fit(dask_rows(X, 5))
    with pytest.raises(ValueError, match=r"init has shape \(2, 3\) where .* = \(2, 2\) belongs"):
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
    for given_as in (X, pd.DataFrame(X)):
        model = KMeans(3, random_state=0).fit(given_as)
        np.testing.assert_allclose(model.cluster_centers_, expected.cluster_centers_)


def test_reorder() -> None:
    X = blobs()
    model = KMeans(3, random_state=0).fit(dask_rows(X, 100))
    centers, labels = model.cluster_centers_.copy(), model.labels_.compute()
    model.reorder([2, 0, 1])
    np.testing.assert_array_equal(model.cluster_centers_, centers[[2, 0, 1]])
    np.testing.assert_array_equal(model.labels_.compute(), np.array([1, 2, 0])[labels])
    with pytest.raises(ValueError, match="is no order of 3 clusters"):
        model.reorder([0, 0, 1])


def test_clone_and_parameters() -> None:
    model = KMeans(3, tol=0.5, sample_size=7)
    assert clone(model).get_params() == model.get_params()
    assert model.get_params()["n_clusters"] == 3


@pytest.mark.parametrize("init", ["k-means||", "random"])
def test_starts_of_dask_ml(init: str) -> None:
    X = blobs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dask-ml's own
        model = KMeans(3, init=init, random_state=0).fit(dask_rows(X, 100))
    assert model.cluster_centers_.shape == (3, 4)
    assert model.inertia_ == pytest.approx(oracles.inertia(X, model.cluster_centers_))


@given(
    n=st.integers(1, 40),
    d=st.integers(1, 5),
    k=st.integers(1, 6),
    seed=st.integers(0, 50),
    single=st.booleans(),
)
def test_kernels_and_their_twins(n: int, d: int, k: int, seed: int, single: bool) -> None:
    rng = np.random.default_rng(seed)
    X = np.rint(rng.normal(0, 3, (n, d))).astype(np.float32 if single else np.float64)
    centers = np.rint(rng.normal(0, 3, (k, d)))
    results = []
    for kernel in (_kernels.assign, _kernels.assign_numpy):
        out = (np.empty(n, np.int32), np.empty(n), np.empty(n, np.int32), np.empty(n))
        kernel(X, centers, *out)
        results.append(out)
    # Whole numbers: distances are exact, so ties are ties for both.
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    np.testing.assert_array_equal(results[0][3], results[1][3])
    np.testing.assert_array_equal(results[0][2], results[1][2])
    # Two sets of centres at once, with and without weights.
    both, offsets = np.concatenate([centers, centers[:1] + 1]), np.array([0, k, k + 1])
    wide = X.dtype.type
    for weights in (np.empty(0), rng.integers(0, 4, n).astype(float)):
        totals = []
        for kernel in (_kernels.assign_and_sum, _kernels.assign_and_sum_numpy):
            out = (np.zeros((k + 1, d)), np.zeros(k + 1), np.zeros(2))
            kernel(X, weights, both.astype(X.dtype), offsets, wide(0), wide(np.inf), *out)
            totals.append(out)
        for one, other in zip(*totals, strict=True):
            np.testing.assert_array_equal(one, other)
        judged = []
        for kernel in (_kernels.judge, _kernels.judge_numpy):
            out = tuple(np.zeros((k + 1, d)) if i == 1 else np.zeros(k + 1) for i in range(5))
            kernel(X, weights, both, offsets, *out)
            judged.append(out)
        for one, other in zip(*judged, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    rows = X.astype(np.float64)
    labels = rng.integers(0, k, (n, 2)) + np.array([0, k])
    apart = [np.zeros((n, 2 * k)), np.zeros((n, 2 * k))]
    _kernels.distance_sums(rows, labels, apart[0])
    _kernels.distance_sums_numpy(rows, labels, apart[1])
    np.testing.assert_allclose(*apart)
    bits = X.view(np.uint32 if single else np.uint64)
    hashes = [np.empty(n, np.uint64), np.empty(n, np.uint64)]
    zero = bits.dtype.type(1) << bits.dtype.type(8 * X.dtype.itemsize - 1)
    _kernels.row_hashes(bits, zero, np.uint64(seed), hashes[0])
    _kernels.row_hashes_numpy(bits, zero, np.uint64(seed), hashes[1])
    np.testing.assert_array_equal(*hashes)


def test_through_a_client_without_run_spec_warnings(client, caplog) -> None:
    X = dask_rows(blobs(n=2000, k=5), 250).persist()
    with caplog.at_level("WARNING", logger="distributed"):
        first = KMeans(5, random_state=0).fit(X)
        second = KMeans(5, random_state=0).fit(X)
    assert "run_spec" not in caplog.text
    np.testing.assert_array_equal(first.cluster_centers_, second.cluster_centers_)


@given(
    n=st.integers(1, 40),
    d=st.integers(1, 4),
    k=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_restarts_and_their_twins(n: int, d: int, k: int, seed: int) -> None:
    k = min(k, n)
    rng = np.random.default_rng(seed)
    # Whole numbers: distances are exact, so that ties are ties for both.
    rows = np.rint(rng.normal(0, 2, (n, d)))
    weights = rng.integers(0, 3, n).astype(float)
    weights[rng.integers(n)] = 1.0
    uniforms = rng.random((k, 3))
    chosen = [np.empty(k, np.int64), np.empty(k, np.int64)]
    _k_means_inmemory.plus_plus(rows, weights, uniforms, chosen[0])
    _k_means_inmemory.plus_plus_numpy(rows, weights, uniforms, chosen[1])
    np.testing.assert_array_equal(*chosen)
    ends = [rows[chosen[0]], rows[chosen[0]]]
    found = _k_means_inmemory.converge(rows, weights, ends[0], 0.0, 1)
    expected = _k_means_inmemory.converge_numpy(rows, weights, ends[1], 0.0, 1)
    np.testing.assert_allclose(*ends)
    assert found == pytest.approx(expected)


def test_converging_in_memory_ends_where_scikit_learn_does() -> None:
    X = blobs(n=500, k=6)
    weights = np.random.default_rng(0).integers(1, 4, 500).astype(float)
    centers = X[:5].copy()
    expected = sklearn.cluster.KMeans(5, init=centers, n_init=1, tol=0, max_iter=300).fit(
        X, sample_weight=weights
    )
    inertia = _k_means_inmemory.converge(X, weights, centers, 0.0, 300)
    np.testing.assert_allclose(centers, expected.cluster_centers_, atol=1e-9)
    assert inertia == pytest.approx(expected.inertia_, rel=1e-12)


@pytest.mark.parametrize("n", [3_500, 6_000])
def test_one_start_on_some_thousand_rows(n: int) -> None:
    X = blobs(n=n, k=3)
    assert KMeans(3, n_init=1, random_state=0).fit(dask_rows(X, 1_000)).inertia_ > 0


@pytest.mark.parametrize("options", [{}, {"n_init": 3}, {"init": "random", "n_init": 2}])
def test_fitted_together_as_alone(options) -> None:
    X = dask_rows(blobs(n=900, k=5), 200)
    ks = (2, 5, 1, 7)
    together = fit_together([Task(k, seed_of(3), **options) for k in ks], X)
    for k, fit in zip(ks, together, strict=True):
        alone = KMeans(k, random_state=3, **options).fit(X)
        np.testing.assert_allclose(fit.centers, alone.cluster_centers_, atol=1e-12)
        assert fit.inertia == pytest.approx(alone.inertia_)
        assert fit.n_iter == alone.n_iter_
