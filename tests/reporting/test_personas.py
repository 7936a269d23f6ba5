"""Personas: the assignment of least total cost, each name once, for any number of segments."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.errors import UsageError
from segmentation.reporting import personas
from segmentation.schema import KAGGLE_GENRES, SegmentProfile

ORIGINAL_FIVE = [
    "Quiet Viewers",
    "New Explorers",
    "Expanding Enthusiasts",
    "Loyalists",
    "Premium Loyalists",
]


def profile(
    segment: int, movies: float, high: int, stars: float = 2.5, lift: int = 0
) -> SegmentProfile:
    """A segment with ``high`` genres at 3.5 stars, the others such that the mean is ``stars``."""
    n = len(KAGGLE_GENRES)
    rest = np.clip((stars * n - 3.5 * high) / max(n - high, 1), 0, 2.9)
    mean = np.full(n, rest)
    mean[:high] = 3.5 - 0.01 * np.arange(high)
    lifts = np.ones(n)
    lifts[lift] = 2.0
    return SegmentProfile(
        segment, 100, 0.2, movies, 3.4, mean, np.maximum(mean, 0.5), np.ones(n), lifts
    )


def names(profiles: list[SegmentProfile]) -> list[str]:
    playbook = personas.load_playbook()
    return [p.name for p in personas.assign_personas(profiles, KAGGLE_GENRES, playbook)]


def test_names_of_the_original_analysis() -> None:
    steps = [(5, 0, 1.5), (9, 3, 2.4), (18, 9, 2.7), (69, 14, 3.2), (135, 15, 3.4)]
    assert names([profile(i, *step) for i, step in enumerate(steps)]) == ORIGINAL_FIVE


def test_names_of_the_small_data_set() -> None:
    steps = [(12.7, 3, 1.2), (28.9, 11, 2.4), (30.2, 11, 2.6), (82.6, 17, 3.1), (149, 19, 3.4)]
    assert names([profile(i, *step) for i, step in enumerate(steps)]) == ORIGINAL_FIVE


def test_traits_are_scaled_over_the_segments() -> None:
    """Unscaled, both segments would be nearest to Loyalists."""
    profiles = [profile(0, 60, 13, 3.1), profile(1, 70, 14, 3.2)]
    assert names(profiles) == ["Quiet Viewers", "Premium Loyalists"]


@pytest.mark.parametrize("k", range(1, 13))
def test_any_number_of_segments(k: int) -> None:
    profiles = [profile(s, 5 * 1.6**s, min(19, 2 * s), 1.2 + 0.15 * s, s % 20) for s in range(k)]
    labels = names(profiles)
    assert len(set(labels)) == k
    if k == 1:
        assert labels == ["Whole Audience"]
    if k == 5:
        assert labels == ORIGINAL_FIVE
    if k > 5:
        assert set(ORIGINAL_FIVE) <= {name.split(" (")[0] for name in labels}


@given(
    movies=st.lists(st.floats(1, 2000), min_size=2, max_size=9),
    data=st.data(),
)
def test_names_are_unique_whatever_the_segments(movies: list[float], data: st.DataObject) -> None:
    profiles = [
        profile(
            s,
            m,
            data.draw(st.integers(0, 20)),
            data.draw(st.floats(0.5, 4)),
            data.draw(st.integers(0, 19)),
        )
        for s, m in enumerate(sorted(movies))
    ]
    assert len(set(names(profiles))) == len(profiles)


def test_placeholders_are_filled_with_the_figures_of_the_run() -> None:
    low, high = personas.assign_personas(
        [profile(0, 5, 0, 1.5), profile(1, 50, 10, 3)], KAGGLE_GENRES, personas.load_playbook()
    )
    for persona in (low, high):
        texts = [persona.summary, *persona.product_strategy, *persona.marketing_actions]
        assert not any("$" in text for text in texts)
        assert len(persona.product_strategy) >= 2
        assert len(persona.marketing_actions) >= 2
    assert "100 people (20% of the audience) with 5.0 movies each" in low.summary
    assert "the fewest of the 2 segments" in low.summary
    assert "no genre reaches a mean of 3 stars" in low.summary
    assert "10 of 20 genres" in high.summary


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        (0, "the fewest of the 4 segments"),
        (1, "the second fewest of the 4 segments"),
        (2, "the second most of the 4 segments"),
        (3, "the most of the 4 segments"),
    ],
)
def test_rank_by_movies_per_user(segment: int, text: str) -> None:
    profiles = [profile(s, 5 * 3**s, 3 * s) for s in range(4)]
    playbook = personas.load_playbook()
    assert text in personas.assign_personas(profiles, KAGGLE_GENRES, playbook)[segment].summary


PERSONA = """
[[persona]]
name = "Us"
tagline = "t"
recognised_by = { movies_per_user = 5, high_rated_share = 0.0, satisfaction = 1.5 }
summary = "We are $users."
product_strategy = ["a"]
marketing_actions = ["b"]
"""
EVERYONE = """
[everyone]
name = "All"
tagline = "t"
summary = "s"
product_strategy = ["a"]
marketing_actions = ["b"]
"""


def test_custom_playbook(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(PERSONA + PERSONA.replace('"Us"', '"Them"') + EVERYONE)
    assigned = personas.assign_personas(
        [profile(0, 5, 0), profile(1, 9, 2), profile(2, 20, 4, lift=3)],
        KAGGLE_GENRES,
        personas.load_playbook(path),
    )
    assert {p.name.split(" (")[0] for p in assigned} == {"Us", "Them"}
    assert assigned[0].summary == "We are 100."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"needs at least one \[\[persona\]\] and one \[everyone\]"),
        (PERSONA, r"needs at least one \[\[persona\]\] and one \[everyone\]"),
        ("not = toml = at all", "can't be read as a playbook"),
        (PERSONA + PERSONA + EVERYONE, "two personas share a name: make each unique"),
        (PERSONA.replace("tagline", "tag") + EVERYONE, "'Us': missing or unknown: tag, tagline"),
        (PERSONA.replace("$users", "$nobody") + EVERYONE, r"unknown word \$nobody: use \$users"),
        (
            PERSONA.replace('["a"]', "[]") + EVERYONE,
            "product_strategy and marketing_actions non-empty lists",
        ),
        (
            PERSONA.replace("= 5,", "= 0,") + EVERYONE,
            "needs finite numbers, and movies_per_user above 0",
        ),
        (PERSONA.replace("= 5,", "= nan,") + EVERYONE, "needs finite numbers"),
        (PERSONA.replace('"Us"', '""') + EVERYONE, "a text is empty or holds a line break"),
        (PERSONA.replace('"Us"', '"U\\ns"') + EVERYONE, "a text is empty or holds a line break"),
        (PERSONA.replace('"t"', '"$nobody"') + EVERYONE, r"unknown word \$nobody"),
        (PERSONA.replace("satisfaction = 1.5", "joy = 1") + EVERYONE, "recognised_by needs"),
    ],
)
def test_invalid_playbooks(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        personas.load_playbook(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_playbook(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read as a playbook"):
        personas.load_playbook(tmp_path / "none.toml")


def test_ordinals() -> None:
    texts = [personas._format_ordinal(n) for n in (6, 11, 12, 13, 20, 21, 22, 23, 24)]
    assert texts == ["6th", "11th", "12th", "13th", "20th", "21st", "22nd", "23rd", "24th"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PERSONA.replace("$users", "5 $ each") + EVERYONE, r"a \$ without a name .* write \$\$"),
        (PERSONA + EVERYONE + "\n[colours]\nred = 1\n", "unknown: colours: keep"),
        ("title = 'x'\n" + PERSONA + EVERYONE, "unknown: title: keep"),
        ("title = " + "9" * 5_000 + "\n" + PERSONA + EVERYONE, "can't be read as a playbook: "),
        (
            PERSONA.replace("$users", "x" * 5_001) + EVERYONE,
            "a name may have 60 characters, and another text 5,000",
        ),
    ],
)
def test_what_a_playbook_may_not_hold(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "playbook.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        personas.load_playbook(path)


def test_equal_activity_is_called_equal() -> None:
    profiles = [profile(i, 10, 3, 2.5) for i in range(3)]
    same = "as many as in every other segment"
    assert {personas._describe_activity(p, profiles) for p in profiles} == {same}
    more = [*profiles, profile(3, 20, 3, 2.5)]
    ranks = [personas._describe_activity(p, more) for p in more]
    assert ranks == ["as many as in 2 other segments"] * 3 + ["the most of the 4 segments"]


def test_another_scale() -> None:
    high = dataclasses.replace(profile(0, 10, 3, 2.5), scale=(1.0, 10.0))
    assert (high.high_rating, high.unit) == (6.0, "points")
    assert high.high_rated(KAGGLE_GENRES) == []
    (persona,) = personas.assign_personas([high], KAGGLE_GENRES, personas.load_playbook())
    assert "points" in persona.summary
    assert "star" not in persona.summary
    assert "no genre reaches a mean of 6 points" in persona.summary
