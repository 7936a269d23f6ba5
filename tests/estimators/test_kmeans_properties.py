"""K-Means: properties that hold for any rows in any order, weighted or repeated."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import sklearn.cluster
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.utils.estimator_checks import parametrize_with_checks

from segmentation import KMeans
from tests import oracles
from tests.estimators.test_kmeans import blobs, dask_rows

SMALL = settings(max_examples=25)


def fit(
    X: np.ndarray, k: int, chunk: int = 10**6, sample_weight: object = None, **parameters: object
) -> KMeans:
    model = KMeans(k, random_state=0, **parameters)
    return model.fit(dask_rows(X, chunk), sample_weight=sample_weight)


@SMALL
@given(seed=st.integers(0, 99), k=st.integers(1, 6), sample=st.sampled_from([40, 20_000]))
def test_row_order_does_not_matter(seed: int, k: int, sample: int) -> None:
    X = blobs(n=300, k=4, seed=seed)
    order = np.random.default_rng(seed).permutation(len(X))
    one = fit(X, k, sample_size=sample)
    other = fit(X[order], k, 70, sample_size=sample)
    np.testing.assert_allclose(one.cluster_centers_, other.cluster_centers_, atol=1e-6)
    np.testing.assert_array_equal(one.labels_.compute()[order], other.labels_.compute())


@SMALL
@given(
    seed=st.integers(0, 99),
    k=st.integers(1, 4),
    sample=st.sampled_from([25, 20_000]),
    counts=st.lists(st.integers(0, 5), min_size=80, max_size=80),
)
def test_copies_are_weights(seed, k, sample, counts) -> None:
    assume(np.count_nonzero(counts) >= 10)
    X = blobs(n=80, k=3, seed=seed)
    weights = np.array(counts, float)
    copies = fit(np.repeat(X, counts, axis=0), k, 33, sample_size=sample)
    weighted = fit(X, k, 19, sample_size=sample, sample_weight=weights)
    np.testing.assert_allclose(copies.cluster_centers_, weighted.cluster_centers_, atol=1e-6)
    assert weighted.inertia_ == pytest.approx(copies.inertia_, rel=1e-9, abs=1e-9)


@SMALL
@given(
    rows=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=30),
    chunk=st.integers(1, 9),
)
def test_every_k_up_to_the_number_of_distinct_rows(rows, chunk: int) -> None:
    X = np.array(rows, float)
    distinct = len(set(rows))
    for k in {1, max(1, distinct // 2), distinct}:
        model = fit(X, k, chunk)
        labels = model.labels_.compute()
        assert len(np.unique(labels)) == k
        assert model.inertia_ == pytest.approx(oracles.inertia(X, model.cluster_centers_), abs=1e-9)
    assert model.inertia_ == pytest.approx(0, abs=1e-9) or k < distinct
    with pytest.raises(
        ValueError, match=f"^{distinct} distinct rows? for n_clusters={distinct + 1} "
    ):
        fit(X, distinct + 1, chunk)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_scales(scale: float, dtype: type) -> None:
    X = blobs(n=300, k=3, seed=1)
    plain = fit(X.astype(np.float32).astype(float), 3)
    Y = (X.astype(np.float32).astype(float) * scale).astype(dtype)
    model = fit(Y, 3, 77)
    np.testing.assert_allclose(
        np.sort(model.cluster_centers_ / scale, 0), np.sort(plain.cluster_centers_, 0), rtol=1e-5
    )
    assert model.inertia_ == pytest.approx(plain.inertia_ * scale**2, rel=1e-5)


def test_values_far_off_the_origin() -> None:
    X = (1e6 + blobs(n=400, k=3, seed=2)).astype(np.float32)
    theirs = sklearn.cluster.KMeans(3, init=X[:3].astype(float), n_init=1).fit(X.astype(float))
    ours = KMeans(3, init=X[:3]).fit(dask_rows(X, 90))
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-12)


@pytest.mark.parametrize("constant", [0.0, -0.0, 7.0])
def test_constant_columns(constant: float) -> None:
    X = blobs(n=200, k=3, seed=3)
    Y = np.column_stack([X, np.full(len(X), constant)])
    one, other = fit(X, 3), fit(Y, 3, 30)
    assert one.inertia_ == pytest.approx(other.inertia_, rel=1e-3)
    np.testing.assert_allclose(other.cluster_centers_[:, -1], constant, atol=1e-12)


def test_weights_in_any_form() -> None:
    X, weights = blobs(n=100), np.random.default_rng(0).random(100)
    theirs = sklearn.cluster.KMeans(3, init=X[:3], n_init=1).fit(X, sample_weight=weights)
    for sample_weight in (weights, weights.tolist(), da.from_array(weights, chunks=13)):
        ours = KMeans(3, init=X[:3]).fit(dask_rows(X, 30), sample_weight=sample_weight)
        np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, atol=1e-6)
        assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-9)
    assert ours.score(dask_rows(X, 30), sample_weight=weights) == pytest.approx(-ours.inertia_)
    for bad, message in (
        (-weights, "weights must be finite and at least 0"),
        (np.full(100, np.nan), "weights must be finite"),
        (np.full(100, np.inf), "weights must be finite"),
        (np.zeros(100), "every weight is zero"),
        (weights[:99], "expected \\(100,\\)"),
    ):
        with pytest.raises(ValueError, match=message):
            KMeans(3).fit(dask_rows(X, 30), sample_weight=bad)


@pytest.mark.parametrize("init", ["k-means++", "k-means||", "random"])
def test_restarts_can_only_help(init: str) -> None:
    X = dask_rows(blobs(n=1_500, k=9, seed=5), 400)
    inertia = [KMeans(9, init=init, n_init=n, random_state=1).fit(X).inertia_ for n in (1, 8)]
    assert inertia[1] <= inertia[0] * (1 + 1e-9)


def test_a_callable_init() -> None:
    X = blobs()
    seeds = []

    def first_rows(rows, k: int, random_state: int) -> np.ndarray:
        seeds.append(random_state)
        return X[:k]

    model = KMeans(3, init=first_rows, n_init=2, random_state=0).fit(dask_rows(X, 100))
    expected = KMeans(3, init=X[:3]).fit(dask_rows(X, 100))
    np.testing.assert_allclose(model.cluster_centers_, expected.cluster_centers_)
    assert len(set(seeds)) == 2


def test_k_means_parallel_is_near_the_best_and_independent_of_chunks() -> None:
    X = blobs(n=3_000, d=6, k=8, seed=6)
    best = sklearn.cluster.KMeans(8, n_init=20, random_state=0).fit(X).inertia_
    models = [
        KMeans(8, init="k-means||", random_state=0).fit(dask_rows(X, c)) for c in (3_000, 271)
    ]
    np.testing.assert_allclose(*(m.cluster_centers_ for m in models), atol=1e-6)
    assert models[0].inertia_ <= 1.3 * best


@parametrize_with_checks([KMeans(n_clusters=3, random_state=0)])
# Some checks warn that they are skipped.
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_estimator_checks(estimator, check) -> None:
    check(estimator)
