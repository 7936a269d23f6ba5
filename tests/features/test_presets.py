"""The feature matrix of each preset, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from segmentation.features import presets
from tests.features.helpers import aggregate

#: One user who rated a movie of genres 0 and 1, one of genre 1, and one without genres.
STATISTICS = aggregate([(7, 1, 4.0), (7, 2, 2.0), (7, 5, 0.5)]).statistics


def test_genre_means() -> None:
    np.testing.assert_array_equal(presets.category_means(STATISTICS), [[4.0, 3.0, np.nan]])


@pytest.mark.parametrize("preset", ["engagement", "original"])
def test_means_with_zero_for_unseen(preset: str) -> None:
    features = presets.compute_features(STATISTICS, preset)
    assert features.dtype == np.float32
    assert features.tolist() == [[4.0, 3.0, 0.0]]


def test_taste_shrinks_deviations() -> None:
    mean = (4.0 + 2.0 + 0.5) / 3
    expected = [[(4.0 - mean) * 1 / 6, (3.0 - mean) * 2 / 7, 0.0]]
    features = presets.compute_features(STATISTICS, "taste")
    np.testing.assert_allclose(features, expected, rtol=1e-6)


def test_chunks_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    ratings = [(user, (1, 2, 9)[user % 3], 0.5 + user % 10 / 2) for user in range(20)]
    statistics = aggregate(ratings).statistics
    expected = np.zeros((20, 3))
    for user, movie, stars in ratings:
        for genre in {1: [0, 1], 2: [1], 9: [2]}[movie]:
            expected[user, genre] = stars
    monkeypatch.setattr(presets, "_CHUNK_USERS", 7)
    np.testing.assert_array_equal(presets.compute_features(statistics, "engagement"), expected)


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match="unknown preset 'x': use one of engagement"):
        presets.compute_features(STATISTICS, "x")
