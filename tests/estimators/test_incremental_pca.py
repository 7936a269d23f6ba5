"""The parts of incremental PCA against NumPy's SVD and cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.estimators import _incremental_pca
from segmentation.estimators._incremental_pca import principal_angle


def test_angle_between_planes_by_hand() -> None:
    flat = np.array([[1.0, 0, 0], [0, 1, 0]])
    half = np.sqrt(0.5)
    tilted = np.array([[1.0, 0, 0], [0, half, half]])
    assert principal_angle(flat, tilted) == pytest.approx(45)
    assert principal_angle(flat, flat[::-1]) == pytest.approx(0)
    tiny = 1e-9
    nearly = np.array([[1.0, 0, 0], [0, np.cos(tiny), np.sin(tiny)]])
    assert principal_angle(flat, nearly) == pytest.approx(np.degrees(tiny), rel=1e-6)


def test_signs_by_hand() -> None:
    components = np.array([[0.6, -0.8], [0.8, 0.6], [0.0, 0.0]])
    fixed = _incremental_pca.fix_signs(components)
    np.testing.assert_array_equal(fixed, [[-0.6, 0.8], [0.8, 0.6], [0.0, 0.0]])


@given(n=st.integers(1, 30), d=st.integers(1, 5), seed=st.integers(0, 9))
def test_a_condensed_block_has_the_scatter_of_its_rows(n: int, d: int, seed: int) -> None:
    X = np.random.default_rng(seed).normal(3, 2, (n, d))
    moments, factor = _incremental_pca.condense_block(X)
    centered = X - X.mean(axis=0)
    assert len(factor) <= max(d, min(n, d))
    np.testing.assert_allclose(factor.T @ factor, centered.T @ centered, atol=1e-9)
    np.testing.assert_allclose(moments.scatter, centered.T @ centered, atol=1e-9)


def test_fit_against_the_svd_of_all_rows() -> None:
    X = np.random.default_rng(0).normal(size=(300, 5)) @ np.diag([5.0, 3, 2, 1, 0.5]) + 7
    result = _incremental_pca.fit_incremental_pca(X, 2)
    _, singular_values, axes = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(result.singular_values, singular_values[:2])
    assert principal_angle(result.components, axes[:2]) < 1e-6
    variance = singular_values**2 / 299
    np.testing.assert_allclose(result.explained_variance_ratio, variance[:2] / variance.sum())
    assert result.noise_variance == pytest.approx(variance[2:].mean())
    np.testing.assert_allclose(result.var, X.var(axis=0))
    assert result.n_samples == 300
