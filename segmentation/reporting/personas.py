"""What a segment is called and what to do for it: the playbook, matched as a whole."""

from __future__ import annotations

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
from segmentation.schema import HIGH_RATED, Persona, SegmentProfile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_TRAITS = ("movies_per_user", "high_rated_share", "satisfaction")
_TEXTS = ("name", "tagline", "summary", "product_strategy", "marketing_actions")
_WORDS = (
    "users",
    "people",
    "share",
    "movies",
    "activity",
    "rating",
    "breadth",
    "genre_count",
    "top_genres",
    "best_genre",
    "weak_genres",
    "lift_genres",
)
#: Cost of taking a prototype a second time: small beside any real distance (traits span 0 to 1).
_REUSE = 0.02


@dataclass(frozen=True)
class Prototype:
    """One entry of the playbook; ``traits`` are ``None`` for the one that stands for everybody."""

    name: str
    tagline: str
    summary: str
    product_strategy: tuple[str, ...]
    marketing_actions: tuple[str, ...]
    traits: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Playbook:
    """The prototypes by rising activity, and the one for a single segment."""

    prototypes: tuple[Prototype, ...]
    everyone: Prototype


def load_playbook(path: str | Path | None = None) -> Playbook:
    """Read a playbook, by default the one that ships with the package.

    Raises
    ------
    UsageError
        If it can't be read, or an entry lacks a key, has an unknown one, or uses unknown words.
    """
    where = str(path) if path else "playbook.toml"
    try:
        if path is None:
            text = resources.files(__package__).joinpath("playbook.toml").read_text("utf-8")
        else:
            text = Path(path).read_text("utf-8")
        raw = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{where}: can't be read as a playbook: {error}") from error
    entries = raw.get("persona", [])
    if not isinstance(entries, list) or not entries or "everyone" not in raw:
        raise UsageError(f"{where}: needs at least one [[persona]] and one [everyone]")
    prototypes = [_prototype(entry, where, traits=True) for entry in entries]
    names = [prototype.name for prototype in prototypes]
    if len(set(names)) < len(names):
        raise UsageError(f"{where}: two personas share a name: make each unique")
    prototypes.sort(key=lambda prototype: prototype.traits or (0.0, 0.0, 0.0))
    return Playbook(tuple(prototypes), _prototype(raw["everyone"], where, traits=False))


def playbook_digest(path: str | Path | None) -> str:
    """Return the SHA-256 of a playbook's content."""
    if path is None:
        content = resources.files(__package__).joinpath("playbook.toml").read_bytes()
    else:
        content = Path(path).read_bytes()
    return hashlib.sha256(content).hexdigest()


def _prototype(entry: Any, where: str, *, traits: bool) -> Prototype:
    name = entry.get("name", "?") if isinstance(entry, dict) else "?"
    wanted = {*_TEXTS, "recognised_by"} if traits else set(_TEXTS)
    if not isinstance(entry, dict) or set(entry) != wanted:
        odd = wanted.symmetric_difference(entry if isinstance(entry, dict) else ())
        raise UsageError(f"{where}: persona {name!r}: missing or unknown: {', '.join(sorted(odd))}")
    lists = [entry["product_strategy"], entry["marketing_actions"]]
    if not all(isinstance(entry[key], str) for key in ("name", "tagline", "summary")) or not all(
        isinstance(lines, list) and lines and all(isinstance(line, str) for line in lines)
        for lines in lists
    ):
        raise UsageError(
            f"{where}: persona {name!r}: texts are strings, the two lists are not empty"
        )
    texts = [entry["name"], entry["tagline"], entry["summary"], *lists[0], *lists[1]]
    if not all(text.strip() and text.isprintable() for text in texts):
        raise UsageError(
            f"{where}: persona {name!r}: a text is empty or holds a line break or control character"
        )
    for line in texts[1:]:
        template = Template(line)
        unknown = set(template.get_identifiers()) - set(_WORDS) if template.is_valid() else {"$"}
        if unknown:
            raise UsageError(
                f"{where}: persona {name!r}: unknown word ${', $'.join(sorted(unknown))}: "
                f"use ${', $'.join(_WORDS)}"
            )
    values: tuple[float, float, float] | None = None
    if traits:
        known = entry["recognised_by"]
        try:
            movies, share, satisfaction = (float(known[trait]) for trait in _TRAITS)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UsageError(
                f"{where}: persona {name!r}: recognised_by needs the numbers {', '.join(_TRAITS)}"
            ) from None
        if not (movies > 0 and all(map(math.isfinite, (movies, share, satisfaction)))):
            raise UsageError(
                f"{where}: persona {name!r}: recognised_by needs finite numbers, and "
                "movies_per_user above 0"
            )
        values = (movies, share, satisfaction)
    return Prototype(
        entry["name"], entry["tagline"], entry["summary"], tuple(lists[0]), tuple(lists[1]), values
    )


def assign_personas(
    profiles: Sequence[SegmentProfile], genres: tuple[str, ...], playbook: Playbook
) -> list[Persona]:
    """Name each segment: the assignment of least total cost, each name used once.

    Segments and prototypes are compared by activity (the logarithm of movies per user), breadth
    (share of high-rated genres) and satisfaction, each stretched to 0…1 over the segments and
    over the prototypes. With more segments than prototypes some serve twice; the more active of
    the two then bears the genre that sets it apart in its name.
    """
    if len(profiles) == 1:
        names, chosen = [playbook.everyone.name], [playbook.everyone]
    else:
        chosen = [playbook.prototypes[p] for p in _match(profiles, playbook)]
        names = _unique_names(profiles, genres, chosen)
    return [
        _fill(prototype, name, profile, genres, _activity(profile, profiles))
        for prototype, name, profile in zip(chosen, names, profiles, strict=True)
    ]


def _match(profiles: Sequence[SegmentProfile], playbook: Playbook) -> list[int]:
    from scipy.optimize import linear_sum_assignment

    segments = _stretch(
        [
            (np.log(p.movies_per_user), float((p.mean >= HIGH_RATED).mean()), p.satisfaction)
            for p in profiles
        ]
    )
    traits = [prototype.traits or (1.0, 0.0, 0.0) for prototype in playbook.prototypes]
    prototypes = _stretch([(np.log(movies), *rest) for movies, *rest in traits])
    copies = -(-len(profiles) // len(prototypes))
    distance = ((segments[:, None] - prototypes[None]) ** 2).sum(axis=2)
    cost = np.concatenate([distance + _REUSE * copy for copy in range(copies)], axis=1)
    rows, columns = linear_sum_assignment(cost)
    # Segments come by rising activity; copies of one prototype are told apart by name later.
    return [int(column) % len(prototypes) for _, column in sorted(zip(rows, columns, strict=True))]


def _stretch(rows: Sequence[tuple[float, ...]]) -> NDArray[np.float64]:
    values = np.array(rows, np.float64)
    low, high = values.min(axis=0), values.max(axis=0)
    return np.asarray((values - low) / np.where(high > low, high - low, 1.0))


def _unique_names(
    profiles: Sequence[SegmentProfile], genres: tuple[str, ...], chosen: Sequence[Prototype]
) -> list[str]:
    names: list[str] = []
    for profile, prototype in zip(profiles, chosen, strict=True):
        name = prototype.name
        if name in names:
            lift = np.nan_to_num(profile.lift, nan=0.0)
            marks = [genres[g] for g in np.argsort(-lift, kind="stable")]
            candidates = [f"{name} ({mark})" for mark in marks]
            candidates += [f"{name} ({number})" for number in range(2, len(profiles) + 2)]
            name = next(candidate for candidate in candidates if candidate not in names)
        names.append(name)
    return names


def _fill(
    prototype: Prototype,
    name: str,
    profile: SegmentProfile,
    genres: tuple[str, ...],
    activity: str,
) -> Persona:
    words = {**_words(profile, genres), "activity": activity}

    def fill(text: str) -> str:
        return Template(text).substitute(words)

    return Persona(
        name,
        fill(prototype.tagline),
        fill(prototype.summary),
        tuple(fill(line) for line in prototype.product_strategy),
        tuple(fill(line) for line in prototype.marketing_actions),
    )


def _words(profile: SegmentProfile, genres: tuple[str, ...]) -> dict[str, str]:
    best = [genres[g] for g in np.argsort(-profile.mean, kind="stable") if profile.coverage[g] > 0]
    high = profile.high_rated(genres)
    weak = [g for g in np.argsort(profile.mean, kind="stable") if profile.mean[g] < HIGH_RATED]
    lift = np.nan_to_num(profile.lift, nan=0.0)
    lifted = [genres[g] for g in np.argsort(-lift, kind="stable") if lift[g] > 1.0][:3]
    breadth = (
        f"{len(high)} of {len(genres)} genres reach a mean of {HIGH_RATED:g} stars"
        if high
        else f"no genre reaches a mean of {HIGH_RATED:g} stars"
    )
    return {
        "users": f"{profile.users:,}",
        "people": "1 person" if profile.users == 1 else f"{profile.users:,} people",
        "share": _percent(profile.share),
        "movies": _number(profile.movies_per_user),
        "rating": f"{profile.mean_rating:.2f}",
        "breadth": breadth,
        "genre_count": str(len(high)),
        "top_genres": _listed((high or best)[:3]) or "no genre in particular",
        "best_genre": best[0] if best else "no genre in particular",
        "weak_genres": _listed([genres[g] for g in weak[:3]]) or "no genre in particular",
        "lift_genres": _listed(lifted) if lifted else "none in particular",
    }


def _activity(profile: SegmentProfile, profiles: Sequence[SegmentProfile]) -> str:
    """Say where a segment stands by films per user among all."""
    rank = sum(p.movies_per_user > profile.movies_per_user for p in profiles)
    below = sum(p.movies_per_user < profile.movies_per_user for p in profiles)
    if len(profiles) == 1:
        return "on average"
    if rank == 0:
        return f"the most of the {len(profiles)} segments"
    if below == 0:
        return f"the fewest of the {len(profiles)} segments"
    way, place = ("most", rank) if rank <= below else ("fewest", below)
    nth = {1: "second", 2: "third", 3: "fourth", 4: "fifth"}.get(place, f"{place + 1}th")
    return f"the {nth} {way} of the {len(profiles)} segments"


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
