"""The search for k: planted clusters are found, and arbitrary ones are told."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from segmentation import KMeans
from segmentation.estimators.model_selection import choose_k, recommend
from segmentation.schema import KFigures
from tests.estimators.test_kmeans import dask_rows


def apart(k: int, n: int = 1200) -> np.ndarray:
    """``k`` clusters of unequal size on the corners of a simplex."""
    rng = np.random.default_rng(k)
    shares = np.arange(2, k + 2) / np.arange(2, k + 2).sum()
    return 12.0 * np.eye(8)[rng.choice(k, n, p=shares)] + rng.normal(size=(n, 8))


@pytest.mark.parametrize("k", [3, 4, 6])
def test_planted_clusters_are_recommended(k: int) -> None:
    found = choose_k(dask_rows(apart(k), 300), 2, 8, 0)
    assert (found.recommended, found.sound) == (k, True)
    assert [f.k for f in found.figures] == list(range(2, 9))


def test_every_row_is_what_one_fit_gives() -> None:
    X = dask_rows(apart(4), 300)
    for figures in choose_k(X, 2, 4, 7, compare=5).figures:
        model = KMeans(figures.k, random_state=7).fit(X)
        labels = model.labels_.compute()
        assert figures.inertia == pytest.approx(model.inertia_)
        assert figures.n_iter == model.n_iter_
        assert len(figures.jaccard) == figures.k
        assert figures.silhouette == pytest.approx(
            sklearn.metrics.silhouette_score(X.compute(), labels)
        )
        assert figures.calinski_harabasz == pytest.approx(
            sklearn.metrics.calinski_harabasz_score(X.compute(), labels)
        )


def test_what_is_only_compared_is_not_recommended() -> None:
    found = choose_k(dask_rows(apart(5), 300), 2, 3, 0, compare=5)
    assert [f.k for f in found.figures] == [2, 3, 5]
    assert found.of(5).weakest > 0.99
    assert found.recommended <= 3
    assert [f.k for f in found.in_range] == [2, 3]


def test_no_structure_is_told() -> None:
    X = np.random.default_rng(0).normal(size=(600, 6))
    found = choose_k(dask_rows(X, 200), 4, 7, 0)
    assert not found.sound
    best = max(f.resampled_ari for f in found.figures)
    assert found.of(found.recommended).resampled_ari == best


def test_neither_chunks_nor_order_matter() -> None:
    X = apart(3, 500)
    one = choose_k(dask_rows(X, 500), 2, 4, 1)
    order = np.random.default_rng(0).permutation(len(X))
    other = choose_k(dask_rows(X[order], 77), 2, 4, 1)
    assert one.recommended == other.recommended
    for a, b in zip(one.figures, other.figures, strict=True):
        assert a.inertia == pytest.approx(b.inertia)
        assert a.resampled_ari == pytest.approx(b.resampled_ari)
        assert sorted(a.jaccard) == pytest.approx(sorted(b.jaccard))


def test_few_rows() -> None:
    X = dask_rows(np.arange(3.0)[:, None] * np.ones(2), 2)
    assert [f.k for f in choose_k(X, 2, 3, 0, compare=5).figures] == [2, 3]
    with pytest.raises(ValueError, match="n_clusters=3 or fewer"):
        choose_k(X, 2, 4, 0)
    for low, high in ((1, 3), (3, 2)):
        with pytest.raises(ValueError, match="must rise"):
            choose_k(X, low, high, 0)


def figures(k: int, weakest: float | None, ari: float) -> KFigures:
    jaccard = (weakest, *[0.99] * (k - 1))
    return KFigures(k, 1.0, 1, None, None, None, None, ari, None, jaccard)


def test_the_rule_by_hand() -> None:
    rows = [figures(2, 0.9, 0.9), figures(3, 0.75, 0.5), figures(4, 0.74, 0.99)]
    assert recommend(rows) == (3, True)
    assert recommend([figures(2, 0.7, 0.5), figures(3, 0.6, 0.8), figures(4, 0.7, 0.8)]) == (
        3,
        False,
    )
    # A cluster too small to be in the sample vouches for nothing.
    assert recommend([figures(2, 0.8, 0.5), figures(3, None, 0.8)]) == (2, True)
