"""Personas: the assignment of least total cost, each name once, for any number of segments."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.errors import UsageError
from segmentation.reporting import personas
from segmentation.schema import KAGGLE_GENRES, SegmentProfile, Words

ORIGINAL_FIVE = [
    "Quiet Viewers",
    "New Explorers",
    "Expanding Enthusiasts",
    "Loyalists",
    "Premium Loyalists",
]

#: What the layouts of films call things.
FILM_WORDS = Words("movie", "movies", "genre", "genres", unit="stars")


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
        *(segment, 100, 0.2, movies, movies // 2, 3.4),
        *(mean, np.maximum(mean, 0.5), np.ones(n), lifts),
        words=FILM_WORDS,
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


def test_segments_keep_names_that_they_have() -> None:
    """Even where figures now fit another persona; only texts that they contradict are left out."""
    profiles = [profile(0, 149, 19, 3.4), profile(1, 12.7, 3, 1.2), profile(2, 60, 13, 3.1)]
    earlier = ["Quiet Viewers", "Premium Loyalists (Drama)", None]
    playbook = personas.load_playbook()
    assigned = personas.assign_personas(profiles, KAGGLE_GENRES, playbook, earlier)
    assert [persona.name for persona in assigned][:2] == earlier[:2]
    assert assigned[2].name not in earlier
    # The most active are not described as quiet.
    other = playbook.other.summary.split("$", maxsplit=1)[0]
    assert assigned[0].summary.startswith(other)


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
    assert "100 people (20% of the audience) with 5 ratings each (median 2)" in low.summary
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
def test_rank_by_items_per_user(segment: int, text: str) -> None:
    profiles = [profile(s, 5 * 3**s, 3 * s) for s in range(4)]
    playbook = personas.load_playbook()
    assert text in personas.assign_personas(profiles, KAGGLE_GENRES, playbook)[segment].summary


PERSONA = """
[[persona]]
name = "Us"
tagline = "t"
recognised_by = { items_per_user = 5, high_rated_share = 0.0, satisfaction = 1.5 }
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
        ("persona = []", "write at least one"),
        ("persona = 1", "write at least one"),
        ("everyone = 1", "missing or unknown: marketing_actions, name"),
        ("words = 1", r"\[words\] may have item, items, category"),
        ("[words]\nmovie = 'film'", r"\[words\] may have item, items, category"),
        ("[words]\nitem = 3", r"\[words\] item: write one or a few words"),
        ("[words]\nitem = ''", r"\[words\] item: write one or a few words"),
        ('[words]\nitem = "a\\nb"', r"\[words\] item: write one or a few words"),
        (f"[words]\nitem = '{'x' * 41}'", "has more than 40 characters"),
        (PERSONA + "limits = { activity = [0, 2] }", "limits may give activity, rating and median"),
        (PERSONA + "limits = { activity = [1, 0] }", "limits may give activity, rating and median"),
        (PERSONA + "limits = { taste = [0, 1] }", "limits may give activity, rating and median"),
        (
            PERSONA + f"limits = {{ median = [0, 1{'0' * 400}] }}",
            "limits may give activity, rating",
        ),
        (PERSONA + "limits = { activity = '01' }", "limits may give activity, rating"),
        (PERSONA + "limits = { rating = [false, true] }", "limits may give activity, rating"),
        (PERSONA.replace("= 1.5", "= 1e308") + EVERYONE, "needs finite numbers"),
        (PERSONA + "limits = 5", "limits may give activity, rating and median"),
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
            "needs finite numbers, and items_per_user above 0",
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
    words = Words("book", "books", "genre", "genres")
    high = dataclasses.replace(profile(0, 10, 3, 2.5), scale=(1.0, 10.0), words=words)
    assert high.high_rating == 6.0
    assert high.high_rated(KAGGLE_GENRES) == []
    (persona,) = personas.assign_personas([high], KAGGLE_GENRES, personas.load_playbook())
    assert "points" in persona.summary
    assert "star" not in persona.summary
    assert "no genre reaches a mean of 6 points" in persona.summary


def test_no_persona_whose_text_the_figures_contradict() -> None:
    """Few ratings that are all high are no sign of people who drift away."""
    few, many = profile(0, 6, 0, 1.5), profile(1, 50, 10, 3)
    change = dataclasses.replace
    assert names([few, many]) == ["Quiet Viewers", "Premium Loyalists"]
    assert "Quiet Viewers" not in names([change(few, mean_rating=4.7), many])
    # Nobody is the most active where another segment is as active, by what is shown.
    same = change(many, items_per_user=6.04, median_items_per_user=3)
    assert "Premium Loyalists" not in names([few, same])
    # A mean that a few people make: most of the segment have as little as the others.
    assert "Premium Loyalists" not in names([few, change(many, median_items_per_user=2)])
    # Who rates everything low is no premium loyalist, however active.
    assert names([few, change(many, mean_rating=0.9)]) == ["Quiet Viewers", "Other Viewers"]


@given(
    st.lists(
        st.tuples(st.integers(1, 300), st.integers(1, 300), st.floats(0.5, 5), st.integers(0, 20)),
        min_size=2,
        max_size=8,
    )
)
def test_limits_hold_for_any_segments(figures: list[tuple[int, int, float, int]]) -> None:
    playbook = personas.load_playbook()
    profiles = [
        dataclasses.replace(
            profile(s, items, high), median_items_per_user=median, mean_rating=rating
        )
        for s, (items, median, rating, high) in enumerate(sorted(figures))
    ]
    limits = {prototype.name: prototype.limits for prototype in playbook.prototypes}
    for name, segment in zip(names(profiles), profiles, strict=True):
        persona = name.split(" (")[0]
        if persona == "Other Viewers":
            continue
        activity, rating, median = limits[persona]
        assert rating[0] <= (segment.mean_rating - 0.5) / 4.5 <= rating[1]
        assert median[0] <= segment.median_items_per_user <= median[1]
        for of in ("items_per_user", "median_items_per_user"):
            own = getattr(segment, of)
            below = sum(getattr(other, of) < own for other in profiles) / (len(profiles) - 1)
            assert activity[0] <= below <= activity[1]


def test_a_rank_that_the_median_contradicts() -> None:
    few, many = profile(0, 5, 3), profile(1, 50, 3)
    outlier = dataclasses.replace(many, median_items_per_user=2)
    ranks = [personas._describe_activity(p, [few, outlier]) for p in (few, outlier)]
    assert ranks == [f"the {which} of the 2 segments by the mean" for which in ("fewest", "most")]
    shown_alike = dataclasses.replace(many, items_per_user=5.04)
    assert (
        personas._describe_activity(few, [few, shown_alike]) == "as many as in every other segment"
    )


def test_words_of_a_playbook(tmp_path: Path) -> None:
    path = tmp_path / "words.toml"
    path.write_text('[words]\nitem = "book"\nitems = "books"\nratings = "loans"\n')
    playbook = personas.load_playbook(path, films=False)
    words = playbook.choose_words(Words(unit="points"))
    assert words == Words("book", "books", "category", "categories", "loans", "points")
    segments = [
        dataclasses.replace(profile(i, 10 + i, 3 * i), words=words)
        for i in range(len(ORIGINAL_FIVE))
    ]
    assigned = personas.assign_personas(segments, KAGGLE_GENRES, playbook)
    text = " ".join(
        " ".join((p.summary, *p.product_strategy, *p.marketing_actions)) for p in assigned
    )
    assert "loans each" in text
    assert "books" in text
    assert not re.search("movie|film|watch|genre|star|rating", re.sub("start", "", text).lower())


def test_each_row_counts_one() -> None:
    """Without ratings, no text may speak of them."""
    words = Words("product", "products", "department", "departments", "purchases", unit="")
    bought = dataclasses.replace(profile(0, 10, 3, 2.5), scale=(0.0, 1.0), words=words)
    bought = dataclasses.replace(bought, mean=bought.mean / 5, mean_rating=1.0)
    segments = [bought, dataclasses.replace(bought, segment=1, items_per_user=20)]
    for persona in personas.assign_personas(
        segments, KAGGLE_GENRES, personas.load_playbook(films=False)
    ):
        assert "3 of 20 departments reach 56% of them" in persona.summary
        assert "no ratings to tell how much they like the products" in persona.summary
        assert "1.00" not in persona.summary
