"""Read names and advice from a playbook of personas, and assign them to segments."""

from __future__ import annotations

import errno
import hashlib
import math
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.errors import UsageError
from segmentation.reporting.text import join_names
from segmentation.schema import Persona, SegmentProfile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_TRAITS = ("movies_per_user", "high_rated_share", "satisfaction")
_TEXTS = ("name", "tagline", "summary", "product_strategy", "marketing_actions")
#: The placeholders that texts of a playbook may use.
_PLACEHOLDERS = (
    "users",
    "people",
    "share",
    "movies",
    "activity",
    "rating",
    "unit",
    "breadth",
    "genre_count",
    "top_genres",
    "best_genre",
    "weak_genres",
    "lift_genres",
)
#: Cost of each reuse of a prototype; small compared with distances between traits (0 to 1).
_REUSE_COST = 0.02


#: Most characters of a persona's name, and of another text.
_MAX_NAME, _MAX_TEXT = 60, 5_000


@dataclass(frozen=True)
class Prototype:
    """An entry of the playbook.

    ``traits`` are the typical movies per user, share of high-rated genres and satisfaction; None
    for the entry that describes the whole audience.
    """

    name: str
    tagline: str
    summary: str
    product_strategy: tuple[str, ...]
    marketing_actions: tuple[str, ...]
    traits: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Playbook:
    """Prototypes by rising movies per user, and the entry for a run with a single segment."""

    prototypes: tuple[Prototype, ...]
    everyone: Prototype


def load_playbook(path: str | Path | None = None) -> Playbook:
    """Read a playbook, by default the one of the package.

    Raises
    ------
    UsageError
        If the file can't be read, it has no persona or no entry ``everyone``, two
        personas share a name, or an entry has a missing or unknown key, an invalid value or an
        unknown placeholder.

    Examples
    --------
    >>> [prototype.name for prototype in load_playbook().prototypes][:2]
    ['Quiet Viewers', 'New Explorers']
    """
    file = str(path) if path else "playbook.toml"
    try:
        raw = tomllib.loads(_read_playbook(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file}: can't be read as a playbook: {error}") from error
    if unknown := set(raw) - {"persona", "everyone"}:
        raise UsageError(
            f"{file}: unknown: {', '.join(sorted(unknown))}: keep [[persona]] and [everyone] alone"
        )
    entries = raw.get("persona", [])
    if not isinstance(entries, list) or not entries or "everyone" not in raw:
        raise UsageError(f"{file}: needs at least one [[persona]] and one [everyone]")
    prototypes = [_parse_entry(entry, file, has_traits=True) for entry in entries]
    names = [prototype.name for prototype in prototypes]
    if len(set(names)) < len(names):
        raise UsageError(f"{file}: two personas share a name: make each unique")
    prototypes.sort(key=lambda prototype: prototype.traits or (0.0, 0.0, 0.0))
    return Playbook(tuple(prototypes), _parse_entry(raw["everyone"], file, has_traits=False))


def playbook_digest(path: str | Path | None) -> str:
    """Return the SHA-256 of a playbook's content, as hexadecimal digits."""
    return hashlib.sha256(_read_playbook(path)).hexdigest()


def _read_playbook(path: str | Path | None) -> bytes:
    if path is None:
        return resources.files(__package__).joinpath("playbook.toml").read_bytes()
    # A pipe would be waited for, and could be read only once.
    if Path(path).exists() and not Path(path).is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return Path(path).read_bytes()


def _parse_entry(entry: object, file: str, *, has_traits: bool) -> Prototype:
    fields = entry if isinstance(entry, dict) else {}
    where = f"{file}: persona {fields.get('name', '?')!r}"
    expected = {*_TEXTS, "recognised_by"} if has_traits else set(_TEXTS)
    if set(fields) != expected:
        names = ", ".join(sorted(expected.symmetric_difference(fields)))
        raise UsageError(f"{where}: missing or unknown: {names}")
    _check_texts(fields, where)
    return Prototype(
        fields["name"],
        fields["tagline"],
        fields["summary"],
        tuple(fields["product_strategy"]),
        tuple(fields["marketing_actions"]),
        _parse_traits(fields["recognised_by"], where) if has_traits else None,
    )


def _check_texts(fields: dict[str, Any], where: str) -> None:
    strings = [fields[key] for key in ("name", "tagline", "summary")]
    lists = [fields[key] for key in ("product_strategy", "marketing_actions")]
    if not all(isinstance(text, str) for text in strings) or not all(
        isinstance(lines, list) and lines and all(isinstance(line, str) for line in lines)
        for lines in lists
    ):
        raise UsageError(
            f"{where}: name, tagline and summary must be strings, product_strategy and "
            "marketing_actions non-empty lists of strings"
        )
    texts = [*strings, *lists[0], *lists[1]]
    if not all(text.strip() and text.isprintable() for text in texts):
        raise UsageError(f"{where}: a text is empty or holds a line break or control character")
    if len(fields["name"]) > _MAX_NAME or max(map(len, texts)) > _MAX_TEXT:
        raise UsageError(
            f"{where[:200]}: a name may have {_MAX_NAME} characters, and another text {_MAX_TEXT:,}"
        )
    for text in texts[1:]:
        template = Template(text)
        if not template.is_valid():
            raise UsageError(
                f"{where}: a $ without a name in {text[:60]!r}: write $$ for a dollar sign, or use "
                f"${', $'.join(_PLACEHOLDERS)}"
            )
        unknown = set(template.get_identifiers()) - set(_PLACEHOLDERS)
        if unknown:
            raise UsageError(
                f"{where}: unknown word ${', $'.join(sorted(unknown))}: use "
                f"${', $'.join(_PLACEHOLDERS)}"
            )


def _parse_traits(traits: Any, where: str) -> tuple[float, float, float]:
    try:
        movies, share, satisfaction = (float(traits[name]) for name in _TRAITS)
        if len(traits) != len(_TRAITS):
            raise KeyError
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UsageError(
            f"{where}: recognised_by needs the numbers {', '.join(_TRAITS)} alone"
        ) from None
    if not (movies > 0 and all(map(math.isfinite, (movies, share, satisfaction)))):
        raise UsageError(
            f"{where}: recognised_by needs finite numbers, and movies_per_user above 0"
        )
    return movies, share, satisfaction


def assign_personas(
    profiles: Sequence[SegmentProfile], genres: tuple[str, ...], playbook: Playbook
) -> list[Persona]:
    """Assign a persona with a unique name to each segment, at the lowest total cost.

    Segments and prototypes are compared by activity (the logarithm of movies per user), breadth
    (share of high-rated genres) and satisfaction. Each trait is scaled to 0…1, separately for
    segments and prototypes. With more segments than prototypes, some prototypes are used again; the
    name of the more active segment then includes its genre of highest lift that makes it unique.
    A single segment gets the entry for the whole audience.

    Parameters
    ----------
    profiles
        The segments by rising movies per user.
    genres
        Genre names, in the order of the profiles' arrays.
    playbook
        The prototypes.
    """
    if len(profiles) == 1:
        names, prototypes = [playbook.everyone.name], [playbook.everyone]
    else:
        prototypes = [playbook.prototypes[p] for p in _match_prototypes(profiles, playbook)]
        names = _make_unique_names(profiles, genres, prototypes)
    return [
        _fill_texts(prototype, name, profile, genres, _describe_activity(profile, profiles))
        for prototype, name, profile in zip(prototypes, names, profiles, strict=True)
    ]


def _match_prototypes(profiles: Sequence[SegmentProfile], playbook: Playbook) -> list[int]:
    """Return the index of a prototype for each segment."""
    from scipy.optimize import linear_sum_assignment

    segments = _min_max_scale(
        [
            (np.log(p.movies_per_user), float((p.mean >= p.high_rating).mean()), p.satisfaction)
            for p in profiles
        ]
    )
    traits = [prototype.traits or (1.0, 0.0, 0.0) for prototype in playbook.prototypes]
    prototypes = _min_max_scale([(np.log(movies), *rest) for movies, *rest in traits])
    copies = -(-len(profiles) // len(prototypes))
    distance = ((segments[:, None] - prototypes[None]) ** 2).sum(axis=2)
    cost = np.concatenate([distance + _REUSE_COST * copy for copy in range(copies)], axis=1)
    rows, columns = linear_sum_assignment(cost)
    return [int(column) % len(prototypes) for _, column in sorted(zip(rows, columns, strict=True))]


def _min_max_scale(rows: Sequence[tuple[float, ...]]) -> NDArray[np.float64]:
    values = np.array(rows, np.float64)
    low, high = values.min(axis=0), values.max(axis=0)
    return np.asarray((values - low) / np.where(high > low, high - low, 1.0))


def _make_unique_names(
    profiles: Sequence[SegmentProfile], genres: tuple[str, ...], prototypes: Sequence[Prototype]
) -> list[str]:
    names: list[str] = []
    for profile, prototype in zip(profiles, prototypes, strict=True):
        name = prototype.name
        if name in names:
            lift = np.nan_to_num(profile.lift, nan=0.0)
            by_lift = [genres[g] for g in np.argsort(-lift, kind="stable")]
            candidates = [f"{name} ({genre})" for genre in by_lift]
            candidates += [f"{name} ({number})" for number in range(2, len(profiles) + 2)]
            name = next(candidate for candidate in candidates if candidate not in names)
        names.append(name)
    return names


def _fill_texts(
    prototype: Prototype,
    name: str,
    profile: SegmentProfile,
    genres: tuple[str, ...],
    activity: str,
) -> Persona:
    words = {**_describe_profile(profile, genres), "activity": activity}

    def fill(text: str) -> str:
        return Template(text).substitute(words)

    return Persona(
        name,
        fill(prototype.tagline),
        fill(prototype.summary),
        tuple(fill(line) for line in prototype.product_strategy),
        tuple(fill(line) for line in prototype.marketing_actions),
    )


def _describe_profile(profile: SegmentProfile, genres: tuple[str, ...]) -> dict[str, str]:
    """Return the values of the playbook's placeholders, except ``activity``."""
    best = [genres[g] for g in np.argsort(-profile.mean, kind="stable") if profile.coverage[g] > 0]
    high = profile.high_rated(genres)
    weak = [
        g for g in np.argsort(profile.mean, kind="stable") if profile.mean[g] < profile.high_rating
    ]
    lift = np.nan_to_num(profile.lift, nan=0.0)
    lifted = [genres[g] for g in np.argsort(-lift, kind="stable") if lift[g] > 1.0][:3]
    threshold = f"{profile.high_rating:g} {profile.unit}"
    breadth = (
        f"{len(high)} of {len(genres)} genres reach a mean of {threshold}"
        if high
        else f"no genre reaches a mean of {threshold}"
    )
    return {
        "users": f"{profile.users:,}",
        "people": "1 person" if profile.users == 1 else f"{profile.users:,} people",
        "share": _format_percent(profile.share),
        "movies": _format_number(profile.movies_per_user),
        "rating": f"{profile.mean_rating:.2f}",
        "unit": profile.unit,
        "breadth": breadth,
        "genre_count": str(len(high)),
        "top_genres": join_names((high or best)[:3]) or "no genre in particular",
        "best_genre": best[0] if best else "no genre in particular",
        "weak_genres": join_names([genres[g] for g in weak[:3]]) or "no genre in particular",
        "lift_genres": join_names(lifted) if lifted else "none in particular",
    }


def _describe_activity(profile: SegmentProfile, profiles: Sequence[SegmentProfile]) -> str:
    """Describe the rank of a segment by movies per user."""
    above = sum(p.movies_per_user > profile.movies_per_user for p in profiles)
    below = sum(p.movies_per_user < profile.movies_per_user for p in profiles)
    if len(profiles) == 1:
        return "on average"
    n_same = len(profiles) - above - below - 1
    if n_same == len(profiles) - 1:
        return "as many as in every other segment"
    if n_same:
        return f"as many as in {n_same} other segment{'s' if n_same > 1 else ''}"
    if above == 0:
        return f"the most of the {len(profiles)} segments"
    if below == 0:
        return f"the fewest of the {len(profiles)} segments"
    extreme, rank = ("most", above) if above <= below else ("fewest", below)
    nth = {1: "second", 2: "third", 3: "fourth", 4: "fifth"}.get(rank, _format_ordinal(rank + 1))
    return f"the {nth} {extreme} of the {len(profiles)} segments"


def _format_ordinal(n: int) -> str:
    suffix = "th" if n in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


def _format_number(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _format_percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"
