"""What is counted of an audience, compared with NumPy, in any blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.features.population import count_population, make_grid, merge_populations
from segmentation.schema import Grid


@given(
    n=st.integers(1, 60),
    cuts=st.lists(st.integers(0, 60), max_size=3),
    seed=st.integers(0, 99),
)
def test_blocks_add_up_to_what_numpy_counts(n: int, cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = np.where(rng.random((n, 2)) < 0.3, 0, rng.uniform(0.5, 5.0, (n, 2)))
    features = features.astype(np.float32)
    labels, distance = rng.integers(0, 3, n).astype(np.int32), rng.random(n)
    p99, grid = np.array([0.2, 0.5, 0.9]), Grid(0.0, 5.0)
    bounds = [0, *sorted(min(cut, n) for cut in cuts), n]
    merged = merge_populations(
        [
            count_population(features[a:b], labels[a:b], distance[a:b], p99, grid)
            for a, b in itertools.pairwise(bounds)
        ]
    )
    for s in range(3):
        mine = labels == s
        assert merged.users[s] == mine.sum()
        assert merged.outliers[s] == (distance[mine] > p99[s]).sum()
        assert merged.squares[s] == pytest.approx((distance[mine] ** 2).sum())
        np.testing.assert_allclose(merged.sums[s], features[mine].sum(axis=0), rtol=1e-6)
    edges = np.linspace(0, 5, 41)
    for g in range(2):
        positive = features[:, g][features[:, g] != 0]
        expected, _ = np.histogram(positive.astype(np.float64), edges)
        assert merged.cells[g].tolist() == [n - len(positive), *expected]


def test_cells_hold_the_ends_of_the_scale() -> None:
    grid = make_grid("taste", (1.0, 10.0))
    features = np.array([[-9.0], [9.0], [0.0], [-0.1]])
    labels = np.zeros(4, np.int32)
    counts = count_population(features, labels, np.zeros(4), np.ones(1), grid)
    assert counts.cells[0, [0, 1, 20, 40]].tolist() == [1, 1, 1, 1]
    assert grid.midpoints[[1, 40]].tolist() == pytest.approx([-8.775, 8.775])


def test_a_scale_below_zero() -> None:
    assert make_grid("engagement", (-10.0, 10.0)) == Grid(-10.0, 10.0)
    assert make_grid("engagement", (-5.0, -1.0)) == Grid(-5.0, 0.0)
