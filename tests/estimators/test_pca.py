"""Incremental PCA: the components of scikit-learn's exact PCA, in any order of the rows."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import sklearn.decomposition
import sklearn.exceptions
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation import IncrementalPCA, KMeans
from segmentation.estimators import _incremental_pca


def rows(n: int = 500, d: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(0, 10, d)


def test_two_points_by_hand() -> None:
    X = da.from_array(np.array([[1.0, 0.0], [-1.0, 0.0], [3.0, 0.0], [-3.0, 0.0]]), chunks=(2, 2))
    model = IncrementalPCA(1).fit(X)
    np.testing.assert_allclose(model.components_, [[1.0, 0.0]])
    assert model.explained_variance_[0] == pytest.approx(20 / 3)
    assert model.explained_variance_ratio_[0] == pytest.approx(1.0)
    np.testing.assert_allclose(model.transform(X).compute().ravel(), [1, -1, 3, -3])


@settings(max_examples=20)
@given(
    chunks=st.lists(st.integers(1, 90), min_size=1, max_size=6),
    seed=st.integers(0, 5),
    ordered=st.booleans(),
)
def test_exact_for_any_chunking_and_row_order(chunks, seed, ordered) -> None:
    X = rows(sum(chunks) + 10, seed=seed)
    if ordered:
        X = X[np.argsort(X[:, 0])]
    exact = sklearn.decomposition.PCA(2).fit(X)
    ours = IncrementalPCA(2).fit(da.from_array(X, chunks=((*chunks, 10), X.shape[1])))
    assert ours.angle_to_exact_degrees_ < 1e-5
    assert _incremental_pca.principal_angle(ours.components_, exact.components_) < 1e-5
    np.testing.assert_allclose(ours.explained_variance_, exact.explained_variance_)
    np.testing.assert_allclose(ours.explained_variance_ratio_, exact.explained_variance_ratio_)
    np.testing.assert_allclose(ours.singular_values_, exact.singular_values_)
    np.testing.assert_allclose(ours.mean_, exact.mean_)
    np.testing.assert_allclose(ours.noise_variance_, exact.noise_variance_, rtol=1e-6)


def test_too_few_directions_show_in_the_angle() -> None:
    rng = np.random.default_rng(1)
    block = rng.normal(size=(400, 8)) * np.array([9, 1, 1, 1, 1, 1, 1, 1])
    late = rng.normal(size=(400, 8)) * np.array([1, 1, 1, 1, 1, 1, 8, 7.5])
    X = da.from_array(np.vstack([block, late]), chunks=(100, 8))
    assert IncrementalPCA(2).fit(X).angle_to_exact_degrees_ < 1e-5
    truncated = IncrementalPCA(2, rank=2).fit(X)
    exact = sklearn.decomposition.PCA(2).fit(np.vstack([block, late]))
    assert truncated.angle_to_exact_degrees_ > 0.5
    assert truncated.angle_to_exact_degrees_ == pytest.approx(
        _incremental_pca.principal_angle(truncated.components_, exact.components_), abs=1e-6
    )


def test_signs_are_fixed() -> None:
    X = rows()
    one = IncrementalPCA(3).fit(da.from_array(X, chunks=(100, 6))).components_
    other = IncrementalPCA(3).fit(da.from_array(X[::-1], chunks=(37, 6))).components_
    np.testing.assert_allclose(one, other, atol=1e-9)
    assert (one[np.arange(3), np.abs(one).argmax(axis=1)] > 0).all()


def test_whitening_and_back() -> None:
    X = da.from_array(rows(), chunks=(100, 6))
    model = IncrementalPCA(6, whiten=True).fit(X)
    projected = model.transform(X).compute()
    np.testing.assert_allclose(np.cov(projected.T), np.eye(6), atol=1e-9)
    np.testing.assert_allclose(model.inverse_transform(projected), X.compute(), atol=1e-9)
    plain = IncrementalPCA(6).fit(X)
    np.testing.assert_allclose(plain.inverse_transform(plain.transform(X)).compute(), X.compute())


def test_constant_columns_and_one_row() -> None:
    X = rows()
    X[:, 2] = 7.0
    assert IncrementalPCA(2).fit(da.from_array(X, chunks=(100, 6))).angle_to_exact_degrees_ < 1e-5
    flat = IncrementalPCA(1).fit(da.from_array(np.ones((5, 3)), chunks=(2, 3)))
    assert flat.explained_variance_ratio_.tolist() == [0.0]


def test_errors_say_what_to_do() -> None:
    X = da.from_array(rows(n=4), chunks=(2, 6))
    with pytest.raises(ValueError, match=r"n_components=5 must be between 1 and .* = 4"):
        IncrementalPCA(5).fit(X)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        IncrementalPCA(2).transform(X)
    bad = rows()
    bad[3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity in the input"):
        IncrementalPCA(2).fit(da.from_array(bad, chunks=(100, 6)))


def test_fit_transform_and_pipelines_take_any_array() -> None:
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X = np.random.default_rng(0).normal(size=(60, 4)) * [1, 2, 3, 4]
    expected = np.abs(PCA(2).fit_transform(X))
    for data in (X, pd.DataFrame(X), da.from_array(X, chunks=(20, 4))):
        projected = IncrementalPCA(n_components=2).fit_transform(data)
        np.testing.assert_allclose(np.abs(np.asarray(projected)), expected, atol=1e-9)
    pipeline = make_pipeline(StandardScaler(), IncrementalPCA(n_components=2), KMeans(n_clusters=2))
    for data in (X, pd.DataFrame(X)):
        assert pipeline.fit_predict(data).shape == (60,)
        assert pipeline.transform(data).shape == (60, 2)
    with pytest.raises(ValueError, match="NaN or infinity"):
        IncrementalPCA(n_components=2).fit(X).transform(np.full((3, 4), np.nan))


def test_no_angle_along_an_axis_without_variance() -> None:
    x = np.random.default_rng(0).normal(size=50)
    flat = IncrementalPCA(n_components=2).fit(np.column_stack([x, x, 0 * x]))
    assert np.isnan(flat.angle_to_exact_degrees_)
    assert IncrementalPCA(n_components=1).fit(np.column_stack([x, x])).angle_to_exact_degrees_ < 1
