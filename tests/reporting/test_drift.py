"""Drift: the measures by hand, chance against change, and the texts."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from segmentation.features.population import count_population
from segmentation.reporting.drift import (
    LEVELS,
    Drift,
    format_drift_table,
    measure_drift,
    population_stability_index,
)
from segmentation.schema import Grid, Moves, Population

CENTERS = np.array([[1.0, 1.0], [4.0, 1.0], [1.0, 4.0]])
GRID = Grid(0.0, 5.0)


def draw(n: int, seed: int, shares=(0.3, 0.3, 0.4), shift=(0.0, 0.0)) -> np.ndarray:
    """Draw users around the centres; a fifth of them have nothing in the second category."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=shares).astype(np.int32)
    features = CENTERS[labels] + rng.normal(0, 0.4, (n, 2)) + np.array(shift)
    features[rng.random(n) < 0.2, 1] = 0.0
    return np.clip(features, 0, 5)


def assign(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distance = np.sqrt(((features[:, None] - CENTERS) ** 2).sum(axis=2))
    return distance.argmin(axis=1).astype(np.int32), distance.min(axis=1)


@functools.cache
def percentiles() -> np.ndarray:
    labels, distance = assign(draw(5_000, 99))
    return np.array([np.percentile(distance[labels == s], 99) for s in range(3)])


def population(n: int, seed: int, **changes: tuple[float, ...]) -> Population:
    features = draw(n, seed, **changes)
    return count_population(features, *assign(features), percentiles(), GRID)


def drift(now: Population, moves: Moves | None = None, agreement: float | None = None) -> Drift:
    before = population(5_000, 99)
    return measure_drift(before, now, CENTERS, GRID, ("Drama", "War"), moves, agreement)


def test_psi_by_hand() -> None:
    before, now = np.array([199, 799]), np.array([399, 599])
    p, q = (199.5 / 999, 799.5 / 999), (399.5 / 999, 599.5 / 999)
    expected = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert population_stability_index(before, now) == pytest.approx(expected)
    # An empty group is no infinity.
    assert population_stability_index(np.array([10, 0]), np.array([0, 10])) < 10


@pytest.mark.parametrize("n", [1, 50, 100, 200, 500, 5_000, 50_000])
def test_samples_of_one_audience_are_stable(n: int) -> None:
    levels = [drift(population(n, seed)).verdict for seed in range(40)]
    assert levels == ["stable"] * 40


@pytest.mark.parametrize("n", [2_000, 20_000])
def test_a_tenth_that_moves_is_seen(n: int) -> None:
    for seed in range(20):
        result = drift(population(n, seed, shares=(0.2, 0.4, 0.4)))
        assert result.verdict in ("watch", "refit")
        assert "sizes differ" in result.reason


@pytest.mark.parametrize("n", [500, 20_000])
def test_a_category_that_loses_half_a_star_is_seen(n: int) -> None:
    for seed in range(20):
        result = drift(population(n, seed, shift=(0.0, -0.5)))
        assert result.verdict in ("watch", "refit")
        assert "War" in result.reason
        psi = {entry["category"]: entry["psi"] for entry in result.categories}
        assert psi["War"] > 0.1 > psi["Drama"]


def test_outliers_are_counted_and_judged() -> None:
    now = population(5_000, 1)
    few = drift(now._replace(outliers=np.array([20, 20, 20])))
    many = drift(now._replace(outliers=np.array([100, 150, 100])))
    (few_outliers, many_outliers) = (
        next(measure for measure in result.measures if measure.name == "outliers")
        for result in (few, many)
    )
    assert (few_outliers.value, few_outliers.level) == (0.012, "stable")
    assert (many_outliers.value, many_outliers.level) == (0.07, "refit")


def test_movement_and_agreement() -> None:
    now = population(5_000, 1)
    moves = Moves(np.array([[90, 10, 0], [0, 80, 20], [0, 0, 100]]), 7, 3)
    result = drift(now, moves, 0.8)
    measures = {measure.name: measure for measure in result.measures}
    assert (measures["moved"].value, measures["moved"].level) == (pytest.approx(0.1), "watch")
    assert (measures["agreement"].value, measures["agreement"].level) == (0.8, "watch")
    assert drift(now, moves, 0.6).verdict == "refit"
    assert drift(now, moves, 0.95).verdict == "watch"
    assert result.to_json()["movement"]["entered"] == 7
    assert "agreement" not in {m.name for m in drift(now).measures}


def test_an_empty_segment_and_a_single_one() -> None:
    now = population(1_000, 1)
    empty = now._replace(users=np.array([0, 500, 500]), sums=now.sums * 0)
    assert math.isnan(drift(empty).segments[0]["center_shift"])
    alone = count_population(np.ones((5, 2)), np.zeros(5, np.int32), np.zeros(5), np.ones(1), GRID)
    result = measure_drift(alone, alone, np.ones((1, 2)), GRID, ("Drama", "War"))
    assert result.verdict == LEVELS[0]


def test_table() -> None:
    lines = format_drift_table(drift(population(1_000, 1)).to_json(), ("A", "B", "C")).splitlines()
    assert len(lines) == 5
    assert lines[0].split()[:2] == ["#", "segment"]
