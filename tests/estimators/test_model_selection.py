"""Choosing k: planted clusters are recovered, and arbitrary ones are reported as such."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from segmentation import KMeans
from segmentation.estimators import TooFewDistinctRowsError
from segmentation.estimators.model_selection import choose_k, recommend
from segmentation.schema import KFigures
from tests.estimators.test_kmeans import dask_rows


def separate_clusters(k: int, n: int = 1200) -> np.ndarray:
    """``k`` clusters of unequal size on the corners of a simplex."""
    rng = np.random.default_rng(k)
    shares = np.arange(2, k + 2) / np.arange(2, k + 2).sum()
    return 12.0 * np.eye(8)[rng.choice(k, n, p=shares)] + rng.normal(size=(n, 8))


@pytest.mark.parametrize("k", [3, 4, 6])
def test_planted_clusters_are_recommended(k: int) -> None:
    search = choose_k(dask_rows(separate_clusters(k), 300), 2, 8, 0)
    assert (search.recommended, search.sound) == (k, True)
    assert [f.k for f in search.figures] == list(range(2, 9))


def test_figures_are_those_of_single_fits() -> None:
    X = dask_rows(separate_clusters(4), 300)
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


def test_a_k_to_compare_is_not_recommended() -> None:
    search = choose_k(dask_rows(separate_clusters(5), 300), 2, 3, 0, compare=5)
    assert [f.k for f in search.figures] == [2, 3, 5]
    assert search.of(5).weakest > 0.99
    assert search.recommended <= 3
    assert [f.k for f in search.in_range] == [2, 3]


def test_no_k_is_sound_without_structure() -> None:
    X = np.random.default_rng(0).normal(size=(600, 6))
    search = choose_k(dask_rows(X, 200), 4, 7, 0)
    assert not search.sound
    best = max(f.resampled_ari for f in search.figures)
    assert search.of(search.recommended).resampled_ari == best


def test_neither_chunks_nor_order_matter() -> None:
    X = separate_clusters(3, 500)
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
    with pytest.raises(TooFewDistinctRowsError, match="n_clusters=3 or fewer"):
        choose_k(X, 2, 4, 0)
    copies = dask_rows(np.repeat(np.arange(3.0)[:, None], 4, axis=0), 5)
    assert [f.k for f in choose_k(copies, 2, 3, 0, compare=5).figures] == [2, 3]
    for low, high in ((1, 3), (3, 2)):
        with pytest.raises(ValueError, match=f"low={low}, high={high}: use 2 <= low <= high"):
            choose_k(X, low, high, 0)


def figures(k: int, weakest: float | None, ari: float) -> KFigures:
    jaccard = (weakest, *[0.99] * (k - 1))
    return KFigures(k, 1.0, 1, None, None, None, None, ari, None, jaccard)


def test_recommendation_by_hand() -> None:
    rows = [figures(2, 0.9, 0.9), figures(3, 0.75, 0.5), figures(4, 0.74, 0.99)]
    assert recommend(rows) == (3, True)
    assert recommend([figures(2, 0.7, 0.5), figures(3, 0.6, 0.8), figures(4, 0.7, 0.8)]) == (
        3,
        False,
    )
    # A cluster that no sample holds is not known to be stable.
    assert recommend([figures(2, 0.8, 0.5), figures(3, None, 0.8)]) == (2, True)


def test_callback_counts_all_steps() -> None:
    steps: list[tuple[int, int]] = []
    X = dask_rows(separate_clusters(3, 200), 100)
    choose_k(X, 2, 3, 0, callback=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 5), (2, 5), (3, 5), (4, 5)]
