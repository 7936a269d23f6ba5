"""The explanation, table and figure of a search for k, from figures worked out by hand."""

from __future__ import annotations

import pytest

from segmentation.reporting import k_selection
from segmentation.schema import KFigures, KSearch


def figures(k: int, inertia: float, weakest: float | None = 0.9, ari: float = 0.8) -> KFigures:
    return KFigures(
        k, inertia, 3, 1.0 / k, 0.4, 1.0 + k, 100.0 + k, ari, 0.7, (weakest, *[0.95] * (k - 1))
    )


def search(recommended: int, sound: bool, *rows: KFigures) -> KSearch:
    return KSearch(rows, rows[0].k, rows[-1].k, recommended, sound, 5000, 20000)


ROWS = (figures(2, 100.0), figures(3, 40.0), figures(4, 30.0, 0.6), figures(5, 22.0, 0.5))


def test_elbow_by_hand() -> None:
    # The points in between lie 0.44 and 0.23 below the chord: 3.
    assert k_selection.find_elbow(search(3, True, *ROWS)) == 3
    assert k_selection.find_elbow(search(2, True, *ROWS[:2])) is None
    straight = [figures(k, 100.0 - 10 * k) for k in (2, 3, 4)]
    assert k_selection.find_elbow(search(2, True, *straight)) is None
    assert k_selection.find_elbow(search(2, True, *[figures(k, 7.0) for k in (2, 3, 4)])) is None


def test_figures_outside_the_range_do_not_count() -> None:
    compared = search(3, True, *ROWS)._replace(high=3)
    assert k_selection.find_elbow(compared) is None
    assert "elbow" not in k_selection.explain_choice(compared)


def test_stable_recommendation() -> None:
    text = k_selection.explain_choice(search(3, True, *ROWS))
    assert text.startswith(
        "Take k = 3: the largest number of segments from 2 to 5 that are all found again"
    )
    assert "(the least stable has a Jaccard similarity of 0.90; 0.75 is required)" in text
    assert "With 4, the least stable has 0.60." in text
    assert text.endswith(
        "The silhouette and Davies–Bouldin favour 2, Caliński–Harabasz favours 5, the elbow of the "
        "inertia favours 3."
    )


def test_end_of_the_range() -> None:
    text = k_selection.explain_choice(search(3, True, *ROWS)._replace(high=3))
    assert "With 4, the least stable has 0.60." in text
    assert "wider" not in text
    rows = (*ROWS[:3], figures(5, 22.0, 0.8))
    assert "With 5, the least stable has 0.80, too: a wider range may allow more." in (
        k_selection.explain_choice(search(4, True, *rows)._replace(high=4))
    )
    # A range can't be wider than the number of users.
    text = "a wider range may allow more"
    assert text in k_selection.explain_choice(search(3, True, *ROWS[:2]))
    assert text not in k_selection.explain_choice(
        search(3, True, *ROWS[:2])._replace(stability_rows=3)
    )


def test_low_end_of_the_range() -> None:
    assert "fewer segments may be stable" in k_selection.explain_choice(search(4, False, *ROWS[2:]))
    assert "fewer segments may be stable" not in k_selection.explain_choice(
        search(3, False, *ROWS[:2])
    )
    assert "fewer segments may be stable" not in k_selection.explain_choice(
        search(2, False, *ROWS[:2])
    )


def test_few_users_per_segment() -> None:
    text = k_selection.explain_choice(search(3, True, *ROWS)._replace(stability_rows=29))
    assert "There are only 29 distinct users" in text
    assert "distinct" not in k_selection.explain_choice(
        search(3, True, *ROWS)._replace(stability_rows=30)
    )


def test_ticks() -> None:
    assert k_selection._choose_ticks(list(range(2, 11)), 4) == list(range(2, 11))
    assert k_selection._choose_ticks(list(range(2, 51)), 7) == [
        2,
        7,
        12,
        17,
        22,
        27,
        32,
        37,
        42,
        47,
    ]
    assert k_selection._choose_ticks(list(range(2, 51)), 9) == [2, 9, 17, 22, 27, 32, 37, 42, 47]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (100.0, "100"), (6_012_172.2, "6,012,172"), (0.01234, "0.01234"), (1e20, "1e+20")],
)
def test_inertia_at_any_scale(value: float, text: str) -> None:
    assert k_selection._format_inertia(value) == text


def test_recommendation_that_is_not_stable() -> None:
    text = k_selection.explain_choice(search(4, False, *ROWS))
    assert text.startswith(
        "Take k = 4 with care: for no k from 2 to 5 are all segments found again"
    )
    assert "adjusted Rand index 0.80" in text


def test_too_few_resampled_users() -> None:
    rows = (ROWS[0], figures(3, 40.0, None))
    assert rows[1].weakest is None
    assert "With 3, there are too few resampled users" in k_selection.explain_choice(
        search(2, True, *rows)._replace(high=3)
    )
    assert k_selection.format_k_table(search(2, True, *rows)).splitlines()[3].endswith("–")


def test_table() -> None:
    lines = k_selection.format_k_table(search(3, True, *ROWS)).splitlines()
    assert lines[0].split() == [
        "k",
        "inertia",
        "saved",
        "silhouette",
        "Davies–Bouldin",
        "Caliński–Harabasz",
        "agreement",
        "least",
        "stable",
    ]
    assert lines[2].split() == ["2", "100", "0.500", "3.00", "102", "0.80", "0.90"]
    assert lines[3].split() == ["→", "3", "40", "60.0%", "0.333", "4.00", "103", "0.80", "0.90"]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], (figures(2, 0.0),)])
def test_figure_is_deterministic(rows: tuple[KFigures, ...]) -> None:
    png = k_selection.draw_k_figure(search(2, True, *rows))
    assert png[:4] == b"\x89PNG"
    assert png == k_selection.draw_k_figure(search(2, True, *rows))


def test_missing_figures() -> None:
    nothing = KFigures(2, 0.0, 1, None, None, None, None, None, None, (None, None))
    bare = search(2, False, nothing, nothing._replace(k=3, jaccard=(None,) * 3))
    assert k_selection.draw_k_figure(bare)[:4] == b"\x89PNG"
    assert "agrees best." in k_selection.explain_choice(bare)
