"""Phrases of the reports that depend on what the data are, and on how they are rated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segmentation.schema import SegmentProfile


@dataclass(frozen=True)
class Phrases:
    """What a report says about the means of categories, in the words of the data.

    Parameters
    ----------
    high_heading
        The heading of a segment's high-rated categories.
    high_column
        The same, for a narrow column.
    none_high
        The sentence for a segment without one.
    mean
        What the mean of a category is.
    footnote
        How a category without any of a user's ratings counts, ahead of other notes.
    caption
        What the heat map shows.
    """

    high_heading: str
    high_column: str
    none_high: str
    mean: str
    footnote: str
    caption: str


def make_phrases(profile: SegmentProfile) -> Phrases:
    """Return the phrases for the segments of a run; any of them gives its words and its scale.

    Examples
    --------
    >>> import numpy as np
    >>> from segmentation.schema import SegmentProfile
    >>> words = Words(categories="genres")
    >>> profile = SegmentProfile(
    ...     0, 1, 1.0, 1.0, 1.0, 7.0, *[np.zeros(0)] * 4, scale=(1, 10), words=words
    ... )
    >>> make_phrases(profile).high_heading
    'Genres rated 6 points or better'
    """
    words, high = profile.words, profile.high_rating
    if not words.has_ratings:
        share = f"{high:.0%}"
        return Phrases(
            high_heading=f"{capitalize(words.categories)} of at least {share} of the users",
            high_column=f"{words.categories} of ≥ {share}",
            none_high=f"No {words.category} is shared by {share} of the users.",
            mean="share of users",
            footnote="",
            caption=f"Share of each segment's users who have any {words.ratings} in a "
            f"{words.category}.",
        )
    # Counts are points, too, but nobody has rated anything.
    verb = "rated" if words.ratings == "ratings" else "with"
    return Phrases(
        high_heading=f"{capitalize(words.categories)} {verb} {high:g} {words.unit} or better",
        high_column=f"{words.categories} {verb} ≥ {high:g}",
        none_high=f"No {words.category} reaches {high:g} {words.unit} on average.",
        mean=f"mean {words.unit}",
        footnote="none counts as 0; ",
        caption=f"Mean {words.unit} per {words.category} and segment. A {words.category} without "
        f"{words.ratings} of a user counts as 0.",
    )


def describe_engagement(profile: SegmentProfile) -> str:
    """Return the mean and median number of ratings per user, such as "57 ratings each (median 23)".

    Ratings rather than items, since a user may rate an item several times.
    """
    words = profile.words
    mean, median = (
        format_number(value) for value in (profile.items_per_user, profile.median_items_per_user)
    )
    if profile.users == 1:
        return f"{mean} {words.ratings}"
    return f"{mean} {words.ratings} each (median {median})"


def describe_breadth(profile: SegmentProfile, n_high: int) -> str:
    """Return how many categories are high-rated, as a clause."""
    words = profile.words
    phrase = (
        f"{n_high} of {len(profile.mean)} {words.categories}" if n_high else f"no {words.category}"
    )
    verb = "reach" if n_high > 1 else "reaches"
    if words.has_ratings:
        return f"{phrase} {verb} a mean of {profile.high_rating:g} {words.unit}"
    return f"{phrase} {verb} {profile.high_rating:.0%} of them"


def describe_average(profile: SegmentProfile) -> str:
    """Return the mean rating as a noun, such as "an average of 3.52 stars"."""
    words = profile.words
    if words.has_ratings:
        return f"an average of {profile.mean_rating:.2f} {words.unit}"
    return f"no ratings to tell how much they like the {words.items}"


def capitalize(text: str) -> str:
    """Return a text whose first letter is large.

    Examples
    --------
    >>> capitalize("TV genres"), capitalize("movies")
    ('TV genres', 'Movies')
    """
    return text[:1].upper() + text[1:]


def format_number(value: float) -> str:
    """Return a number per user, with a decimal place if it is not whole.

    Examples
    --------
    >>> format_number(3.14), format_number(1234.0)
    ('3.1', '1,234')
    """
    return f"{value:,.1f}".removesuffix(".0")


def round_number(value: float) -> float:
    """Return the number that :func:`format_number` shows."""
    return round(value, 1)
