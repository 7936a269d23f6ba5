"""Read names and advice from a playbook of personas, and assign them to segments."""

from __future__ import annotations

import errno
import hashlib
import math
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.errors import UsageError
from segmentation.reporting import wording
from segmentation.reporting.text import join_names
from segmentation.schema import Persona, SegmentProfile, Words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

#: The playbook of films, and that of any other items.
_FILMS, _ITEMS = "playbook.toml", "playbook_items.toml"
_TRAITS = ("items_per_user", "high_rated_share", "satisfaction")
#: What a persona's texts may depend on, and the highest value of each; the lowest is 0.
_LIMITS = {"activity": 1.0, "rating": 1.0, "median": math.inf}
_TEXTS = ("name", "tagline", "summary", "product_strategy", "marketing_actions")
#: The placeholders that texts of a playbook may use.
_PLACEHOLDERS = (
    *("users", "people", "share", "engagement", "activity", "average", "breadth"),
    *("top_categories", "best_category", "weak_categories", "lift_categories"),
    *(word.name for word in fields(Words)),
)
#: Cost of each reuse of a prototype; small compared with distances between traits (0 to 1).
_REUSE_COST = 0.02
#: Costs of a prototype once more than needed, and of one that the figures contradict; each larger
#: than all lower ones together.
_EXTRA_COST, _CONTRADICTION_COST = 1_000.0, 1e6

#: Largest number of a prototype's traits.
_MAX_TRAIT = 1e9

#: Most characters of a word, of a persona's name, and of another text.
_MAX_WORD, _MAX_NAME, _MAX_TEXT = 40, 60, 5_000


@dataclass(frozen=True)
class Prototype:
    """An entry of the playbook.

    ``traits`` are the typical items per user, share of high-rated categories and satisfaction; None
    for an entry that is not matched. The texts hold between ``limits``: the lowest and the highest
    rank of a segment by items per user, place of its mean rating on the scale, both from 0 to 1,
    and median number of items.
    """

    name: str
    tagline: str
    summary: str
    product_strategy: tuple[str, ...]
    marketing_actions: tuple[str, ...]
    traits: tuple[float, float, float] | None = None
    limits: tuple[tuple[float, float], ...] = tuple((0.0, highest) for highest in _LIMITS.values())


@dataclass(frozen=True)
class Playbook:
    """Prototypes by rising items per user, two other entries, and words for items and categories.

    ``everyone`` is for a run with a single segment, ``other`` for a segment whose figures
    contradict the texts of all prototypes that are left.
    """

    prototypes: tuple[Prototype, ...]
    everyone: Prototype
    other: Prototype
    words: Mapping[str, str] = field(default_factory=dict)

    def choose_words(self, words: Words) -> Words:
        """Return a layout's words, replaced by those that the playbook has."""
        # Without ratings there is nothing to count in a unit.
        changes = {k: v for k, v in self.words.items() if k != "unit" or words.has_ratings}
        return replace(words, **changes)


def load_playbook(path: str | Path | None = None, *, films: bool = True) -> Playbook:
    """Read a playbook; what it leaves out is taken from the package's own.

    Parameters
    ----------
    path
        The file; None for the package's playbook.
    films
        Whether the package's playbook for films is meant, or that for any items.

    Raises
    ------
    UsageError
        If the file can't be read, two personas share a name, or an entry has a missing or unknown
        key, an invalid value or an unknown placeholder.

    Examples
    --------
    >>> [prototype.name for prototype in load_playbook().prototypes][:2]
    ['Quiet Viewers', 'New Explorers']
    """
    changes: dict[str, Any] = {}
    if path is not None:
        try:
            content = _read_playbook(path, films=films)
        except OSError as error:
            raise UsageError(f"{path}: can't be read as a playbook: {error}") from error
        changes = _parse_playbook(str(path), content)
    # Other words don't fit the texts for films.
    films = films and "words" not in changes
    default = _FILMS if films else _ITEMS
    file = str(path) if path else default
    raw = _parse_playbook(default, _read_playbook(None, films=films)) | changes
    entries = raw["persona"]
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{file}: persona: write at least one [[persona]], or leave it out")
    prototypes = [_parse_entry(entry, file, has_traits=True) for entry in entries]
    names = [prototype.name for prototype in prototypes]
    if len(set(names)) < len(names):
        raise UsageError(f"{file}: two personas share a name: make each unique")
    prototypes.sort(key=lambda prototype: prototype.traits or (0.0, 0.0, 0.0))
    return Playbook(
        tuple(prototypes),
        _parse_entry(raw["everyone"], file, has_traits=False),
        _parse_entry(raw["other"], file, has_traits=False),
        _parse_words(raw.get("words", {}), file),
    )


def _parse_playbook(file: str, content: bytes) -> dict[str, Any]:
    try:
        raw = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: can't be read as a playbook: {error}") from error
    if unknown := set(raw) - {"persona", "everyone", "other", "words"}:
        raise UsageError(
            f"{file}: unknown: {', '.join(sorted(unknown))}: keep [[persona]], [everyone], [other] "
            "and [words] alone"
        )
    return raw


def _parse_words(words: object, file: str) -> dict[str, str]:
    known = [word.name for word in fields(Words)]
    if not isinstance(words, dict) or not {*words} <= {*known}:
        raise UsageError(f"{file}: [words] may have {', '.join(known)} alone")
    for name, word in words.items():
        if not isinstance(word, str) or not word.strip() or not word.isprintable():
            raise UsageError(f"{file}: [words] {name}: write one or a few words in one line")
        if len(word) > _MAX_WORD:
            raise UsageError(f"{file}: [words] {name}: has more than {_MAX_WORD} characters")
    return dict(words)


def playbook_digest(path: str | Path | None, *, films: bool = True) -> str:
    """Return the SHA-256 of a playbook's content, as hexadecimal digits."""
    return hashlib.sha256(_read_playbook(path, films=films)).hexdigest()


def _read_playbook(path: str | Path | None, *, films: bool) -> bytes:
    if path is None:
        name = _FILMS if films else _ITEMS
        return resources.files(__package__).joinpath(name).read_bytes()
    # A pipe would be waited for, and could be read only once.
    if Path(path).exists() and not Path(path).is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return Path(path).read_bytes()


def _parse_entry(entry: object, file: str, *, has_traits: bool) -> Prototype:
    values = entry if isinstance(entry, dict) else {}
    where = f"{file}: persona {values.get('name', '?')!r}"
    expected = {*_TEXTS, "recognised_by"} if has_traits else set(_TEXTS)
    optional = {"limits"} if has_traits else set()
    if wrong := expected.symmetric_difference(values) - optional:
        raise UsageError(f"{where}: missing or unknown: {', '.join(sorted(wrong))}")
    _check_texts(values, where)
    return Prototype(
        values["name"],
        values["tagline"],
        values["summary"],
        tuple(values["product_strategy"]),
        tuple(values["marketing_actions"]),
        _parse_traits(values["recognised_by"], where) if has_traits else None,
        _parse_limits(values.get("limits", {}), where),
    )


def _check_texts(values: dict[str, Any], where: str) -> None:
    strings = [values[key] for key in ("name", "tagline", "summary")]
    lists = [values[key] for key in ("product_strategy", "marketing_actions")]
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
    if len(values["name"]) > _MAX_NAME or max(map(len, texts)) > _MAX_TEXT:
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
        items, share, satisfaction = (float(traits[name]) for name in _TRAITS)
        if len(traits) != len(_TRAITS):
            raise KeyError
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UsageError(
            f"{where}: recognised_by needs the numbers {', '.join(_TRAITS)} alone"
        ) from None
    if not (items > 0 and all(abs(trait) <= _MAX_TRAIT for trait in (items, share, satisfaction))):
        raise UsageError(f"{where}: recognised_by needs finite numbers, and items_per_user above 0")
    return items, share, satisfaction


def _to_number(value: object) -> float:
    """Return a number; raise TypeError for text and truth values."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _parse_limits(limits: Any, where: str) -> tuple[tuple[float, float], ...]:
    """Return the limits in the order of ``_LIMITS``."""
    try:
        pairs = {name: (_to_number(low), _to_number(high)) for name, (low, high) in limits.items()}
        if not all(0 <= low <= high <= _LIMITS[name] for name, (low, high) in pairs.items()):
            raise ValueError
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise UsageError(
            f"{where}: limits may give {join_names([*_LIMITS])}, each as the lowest and the "
            "highest value; activity and rating go from 0 to 1"
        ) from None
    return tuple(pairs.get(name, (0.0, highest)) for name, highest in _LIMITS.items())


def assign_personas(
    profiles: Sequence[SegmentProfile],
    categories: tuple[str, ...],
    playbook: Playbook,
    names: Sequence[str | None] | None = None,
    retired: Sequence[str] = (),
) -> list[Persona]:
    """Assign a persona with a unique name to each segment, at the lowest total cost.

    Segments and prototypes are compared by activity (the logarithm of items per user), breadth
    (share of high-rated categories) and satisfaction. Each trait is scaled to 0…1, separately for
    segments and prototypes. With more segments than prototypes, some prototypes are used again; the
    name of the more active segment then includes its category of highest lift that makes it unique.
    A segment outside the limits of each prototype that is left gets the entry for other segments,
    and a single segment that for the whole audience.

    Parameters
    ----------
    profiles
        The segments by rising items per user.
    categories
        Category names, in the order of the profiles' arrays.
    playbook
        The prototypes.
    names
        The names that segments have already, and keep, even where their texts become others; None
        for a new segment.
    retired
        Names that no new segment gets.
    """
    earlier = names or [None] * len(profiles)
    if len(profiles) == 1:
        prototypes = [playbook.everyone]
    else:
        prototypes = [
            match if name is None else _find_prototype(name, profile, profiles, playbook)
            for name, profile, match in zip(
                earlier, profiles, _match_prototypes(profiles, playbook), strict=True
            )
        ]
    unique_names = _make_unique_names(profiles, categories, prototypes, earlier, retired)
    return [
        _fill_texts(prototype, name, profile, categories, _describe_activity(profile, profiles))
        for prototype, name, profile in zip(prototypes, unique_names, profiles, strict=True)
    ]


def find_contradicted(
    profiles: Sequence[SegmentProfile], names: Sequence[str | None], playbook: Playbook
) -> list[int]:
    """Return the segments whose figures contradict the name that they have already."""
    if len(profiles) == 1:
        return []
    return [
        s
        for s, (name, profile) in enumerate(zip(names, profiles, strict=True))
        if name is not None
        and name != playbook.other.name
        and _find_prototype(name, profile, profiles, playbook) is playbook.other
    ]


def _find_prototype(
    name: str, profile: SegmentProfile, profiles: Sequence[SegmentProfile], playbook: Playbook
) -> Prototype:
    """Return the prototype with this name; that for other segments if the figures contradict it."""
    for prototype in playbook.prototypes:
        is_meant = name == prototype.name or name.startswith(f"{prototype.name} (")
        if is_meant and not _is_contradicted(profile, profiles, prototype):
            return prototype
    return playbook.other


def _match_prototypes(profiles: Sequence[SegmentProfile], playbook: Playbook) -> list[Prototype]:
    """Return the prototype of each segment."""
    from scipy.optimize import linear_sum_assignment

    segments = _min_max_scale(
        [
            (np.log(p.items_per_user), float((p.mean >= p.high_rating).mean()), p.satisfaction)
            for p in profiles
        ]
    )
    traits = [prototype.traits or (1.0, 0.0, 0.0) for prototype in playbook.prototypes]
    prototypes = _min_max_scale([(np.log(items), *rest) for items, *rest in traits])
    copies = -(-len(profiles) // len(prototypes))
    distance = ((segments[:, None] - prototypes[None]) ** 2).sum(axis=2)
    contradicted = np.array(
        [[_is_contradicted(p, profiles, entry) for entry in playbook.prototypes] for p in profiles]
    )
    distance += _CONTRADICTION_COST * contradicted
    costs = [distance + _REUSE_COST * copy for copy in range(copies)]
    # A persona once more rather than one that the figures contradict.
    cost = np.concatenate([*costs, distance + _EXTRA_COST, distance + 2 * _EXTRA_COST], axis=1)
    rows, columns = linear_sum_assignment(cost)
    return [
        playbook.other if contradicted[row, p] else playbook.prototypes[p]
        for row, p in sorted(zip(rows, columns % len(prototypes), strict=True))
    ]


def _is_contradicted(
    profile: SegmentProfile, profiles: Sequence[SegmentProfile], prototype: Prototype
) -> bool:
    """Return whether a segment is outside the limits between which a persona's texts hold."""
    n_others = len(profiles) - 1
    ranks = [below / n_others for below, _ in _rank_activity(profile, profiles)]
    ratings = [profile.rating_position] if profile.words.has_ratings else []
    values = [ranks, ratings, [profile.median_items_per_user]]
    return any(
        not low <= value <= high
        for (low, high), checked in zip(prototype.limits, values, strict=True)
        for value in checked
    )


def _rank_activity(
    profile: SegmentProfile, profiles: Sequence[SegmentProfile]
) -> list[tuple[int, int]]:
    """Return how many segments have fewer ratings per user, and more, by mean and by median.

    Figures that look the same in a text are the same.
    """
    ranks = []
    for name in ("items_per_user", "median_items_per_user"):
        value = wording.round_number(getattr(profile, name))
        others = [wording.round_number(getattr(other, name)) for other in profiles]
        ranks.append((sum(v < value for v in others), sum(v > value for v in others)))
    return ranks


def _min_max_scale(rows: Sequence[tuple[float, ...]]) -> NDArray[np.float64]:
    values = np.array(rows, np.float64)
    low, high = values.min(axis=0), values.max(axis=0)
    return np.asarray((values - low) / np.where(high > low, high - low, 1.0))


def _make_unique_names(
    profiles: Sequence[SegmentProfile],
    categories: tuple[str, ...],
    prototypes: Sequence[Prototype],
    earlier: Sequence[str | None],
    retired: Sequence[str],
) -> list[str]:
    names: list[str] = []
    reserved = {*earlier, *retired}
    for profile, prototype, earlier_name in zip(profiles, prototypes, earlier, strict=True):
        name = earlier_name or prototype.name
        if earlier_name is None and (name in names or name in reserved):
            lift = np.nan_to_num(profile.lift, nan=0.0)
            by_lift = [categories[g] for g in np.argsort(-lift, kind="stable")]
            candidates = [f"{name} ({category})" for category in by_lift]
            candidates += [f"{name} ({number})" for number in range(2, len(profiles) + 2)]
            taken = {*names, *reserved}
            name = next(candidate for candidate in candidates if candidate not in taken)
        names.append(name)
    return names


def _fill_texts(
    prototype: Prototype,
    name: str,
    profile: SegmentProfile,
    categories: tuple[str, ...],
    activity: str,
) -> Persona:
    words = {**_describe_profile(profile, categories), "activity": activity}

    def fill(text: str) -> str:
        return Template(text).substitute(words)

    return Persona(
        name,
        fill(prototype.tagline),
        fill(prototype.summary),
        tuple(fill(line) for line in prototype.product_strategy),
        tuple(fill(line) for line in prototype.marketing_actions),
    )


def _describe_profile(profile: SegmentProfile, categories: tuple[str, ...]) -> dict[str, str]:
    """Return the values of the playbook's placeholders, except ``activity``."""
    best = [
        categories[g] for g in np.argsort(-profile.mean, kind="stable") if profile.coverage[g] > 0
    ]
    high = profile.high_rated(categories)
    weak = [
        g for g in np.argsort(profile.mean, kind="stable") if profile.mean[g] < profile.high_rating
    ]
    lift = np.nan_to_num(profile.lift, nan=0.0)
    lifted = [categories[g] for g in np.argsort(-lift, kind="stable") if lift[g] > 1.0][:3]
    none = f"no {profile.words.category} in particular"
    return {
        **asdict(profile.words),
        "users": f"{profile.users:,}",
        "people": "1 person" if profile.users == 1 else f"{profile.users:,} people",
        "share": _format_percent(profile.share),
        "engagement": wording.describe_engagement(profile),
        "average": wording.describe_average(profile),
        "breadth": wording.describe_breadth(profile, len(high)),
        "top_categories": join_names((high or best)[:3]) or none,
        "best_category": best[0] if best else none,
        "weak_categories": join_names([categories[g] for g in weak[:3]]) or none,
        "lift_categories": join_names(lifted) if lifted else "none in particular",
    }


def _describe_activity(profile: SegmentProfile, profiles: Sequence[SegmentProfile]) -> str:
    """Describe the rank of a segment by items per user."""
    if len(profiles) == 1:
        return "on average"
    by_mean, by_median = _rank_activity(profile, profiles)
    below, above = by_mean
    n_same = len(profiles) - above - below - 1
    if n_same == len(profiles) - 1:
        return "as many as in every other segment"
    if n_same:
        return f"as many as in {n_same} other segment{'s' if n_same > 1 else ''}"
    which = f"of the {len(profiles)} segments" + (" by the mean" if by_mean != by_median else "")
    if above == 0:
        return f"the most {which}"
    if below == 0:
        return f"the fewest {which}"
    extreme, rank = ("most", above) if above <= below else ("fewest", below)
    nth = {1: "second", 2: "third", 3: "fourth", 4: "fifth"}.get(rank, _format_ordinal(rank + 1))
    return f"the {nth} {extreme} {which}"


def _format_ordinal(n: int) -> str:
    suffix = "th" if n in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


def _format_percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"
