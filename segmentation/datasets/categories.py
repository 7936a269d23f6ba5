"""The categories of items: read them in the forms that catalogues have, and name each one way."""

from __future__ import annotations

import ast
import html
import json
import re
import warnings
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from segmentation.errors import DataError
from segmentation.schema import RESERVED_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

#: Largest number of categories.
MAX_CATEGORIES = 1_000
#: What a category that is called like a column of the outputs gets.
_SUFFIX = " (category)"
#: Separators that are recognized, in the order of preference.
_SEPARATORS = ("|", ";", ",")
#: Names that stand for no category, in lower case.
_MISSING = frozenset(("", "(no genres listed)", "nan", "none", "null", "n/a", "na", "unknown"))
#: MovieLens 100K and 1M spell one genre differently from later data sets.
_SYNONYMS = {"children's": "children"}
#: The form of nearly all of Kaggle's genre lists; matching it is ten times as fast as
#: `ast.literal_eval`.
_PLAIN_NAME = re.compile(r"\{'id': (?:0|[1-9][0-9]{0,17}), 'name': '([^'\\\r\n]*)'\}")
_PLAIN_LIST = re.compile(rf"\[(?:{_PLAIN_NAME.pattern}(?:, (?=\{{)|(?=\])))*\]")
#: A list with more levels or characters is damage.
_MAX_LIST = 100_000


class UnreadableError(ValueError):
    """A text is no list of categories."""


class CategoryForm(NamedTuple):
    """How a column holds categories: as lists, or as text with a separator, if any."""

    has_lists: bool
    separator: str | None


def recognize_form(
    texts: Collection[str], separator: str | None = None, known: Collection[str] = ()
) -> CategoryForm:
    """Return the form of a column of categories.

    Parameters
    ----------
    texts
        The fields of the column.
    separator
        What the user says; None to recognize it.
    known
        The layout's categories.

    Examples
    --------
    >>> recognize_form(["Action | Comedy", "Drama"]).separator
    '|'
    >>> recognize_form(["Rock, Pop", "Pop", "Pop, Rock"]).separator
    ','
    >>> recognize_form(["Little, Brown", "Simon &amp; Schuster"]).separator
    >>> recognize_form(["['Action']", "[]"]).has_lists
    True
    """
    plain = [text for text in texts if text.strip() and not _is_list(text)]
    n_lists = sum(map(_is_list, texts))
    if separator is None:
        plain = [html.unescape(text) for text in plain]
        keys = {_make_key(name) for name in known}
        separator = next((mark for mark in _SEPARATORS if _separates(mark, plain, keys)), None)
    return CategoryForm(n_lists > 0 and n_lists >= len(plain), separator)


def _separates(mark: str, texts: Collection[str], known: Collection[str]) -> bool:
    """Return whether a mark separates names, rather than being part of them.

    Most of the names between two marks then occur in other texts, too, or are known.
    """
    if mark == _SEPARATORS[0]:
        return any(mark in text for text in texts)
    keys = {text: {_make_key(_normalize(name)) for name in text.split(mark)} for text in texts}
    n_texts = Counter(key for names in keys.values() for key in names)
    pieces = {key for text, names in keys.items() if mark in text for key in names} - _MISSING
    return 2 * sum(n_texts[key] > 1 or key in known for key in pieces) > len(pieces)


def count_unsplit(texts: Collection[str], form: CategoryForm) -> int:
    """Return how many texts hold a mark that may separate names, if that is most of them.

    Examples
    --------
    >>> count_unsplit(["Folk / Jazz", "Soul / Pop", "Rock"], CategoryForm(False, None))
    2
    """
    if form.has_lists or form.separator is not None:
        return 0
    n_marked = sum(re.search(r"[,;/|]", html.unescape(text)) is not None for text in texts)
    return n_marked if 2 * n_marked > len(texts) else 0


def _normalize(name: str) -> str:
    return " ".join(name.split())


def _is_list(text: str) -> bool:
    return text.lstrip().startswith(("[", "{"))


def parse_names(text: str, form: CategoryForm) -> list[str]:
    """Return the names in a field: a delimited text, or a list in JSON or as Python writes it.

    Raises
    ------
    UnreadableError
        If it should be a list and is none.

    Examples
    --------
    >>> parse_names("Action | Comedy", CategoryForm(False, "|"))
    ['Action', 'Comedy']
    >>> parse_names('[{"id": 28, "name": "Action"}]', CategoryForm(True, None))
    ['Action']
    """
    text = html.unescape(text).strip()
    if _PLAIN_LIST.fullmatch(text):
        names = _PLAIN_NAME.findall(text)
    elif _is_list(text):
        names = _parse_list(text)
    elif form.has_lists and text.casefold() not in _MISSING:
        raise UnreadableError(text[:80])
    else:
        names = text.split(form.separator) if form.separator else [text]
    names = [_normalize(name) for name in names]
    return [name for name in names if name.casefold() not in _MISSING]


def _parse_list(text: str) -> list[str]:
    if len(text) > _MAX_LIST:
        raise UnreadableError(text[:80])
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        try:
            with warnings.catch_warnings():
                # Odd escapes are not worth a line on stderr.
                warnings.simplefilter("ignore", SyntaxWarning)
                entries = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise UnreadableError(text[:80]) from None
    if isinstance(entries, dict):
        entries = [entries]
    if not isinstance(entries, (list, tuple, set, frozenset)):
        raise UnreadableError(text[:80])
    values = [entry.get("name") if isinstance(entry, dict) else entry for entry in entries]
    names = [value for value in values if isinstance(value, str)]
    if len(names) < len(values):
        raise UnreadableError(text[:80])
    return sorted(names) if isinstance(entries, (set, frozenset)) else names


def name_categories(
    path: str,
    names: Mapping[str, int],
    known: Sequence[str],
    *,
    top: int | None = None,
    is_closed: bool = False,
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Choose one spelling per category, and their order.

    Case makes no difference. If the layout knows all of them, the categories are the layout's;
    otherwise they are those that occur, first in the layout's order, then by the alphabet.

    Parameters
    ----------
    path
        The catalogue, to name in an error.
    names
        Each name as the catalogue spells it, and its number of items.
    known
        The layout's categories.
    top
        Keep only so many, those of the most items; None keeps all.
    is_closed
        Whether the categories are ``known``, as an earlier call returned them, and no others.

    Returns
    -------
    categories : tuple of str
    codes : dict
        The place of each name in ``categories``; names that are left out are missing.

    Raises
    ------
    DataError
        If there are more than :data:`MAX_CATEGORIES`.

    Examples
    --------
    >>> name_categories("a.csv", {"rock": 2, "Rock": 5, "Pop": 1}, ())
    (('Pop', 'Rock'), {'rock': 1, 'Rock': 1, 'Pop': 0})
    """
    spellings: dict[str, Counter[str]] = {}
    for name, n_items in names.items():
        spellings.setdefault(_make_key(name), Counter())[name] += n_items
    known_keys = {_make_key(name): name for name in known}
    if top is not None:
        sizes = {key: sum(counter.values()) for key, counter in spellings.items()}
        largest = sorted(sizes, key=lambda key: (-sizes[key], key))[:top]
        spellings = {key: spellings[key] for key in largest}
    if is_closed:
        codes_by_key = {_make_key(_restore_reserved(name)): i for i, name in enumerate(known)}
        codes = {n: codes_by_key[key] for n in names if (key := _make_key(n)) in codes_by_key}
        return tuple(known), codes
    if len(spellings) > MAX_CATEGORIES:
        raise DataError(
            "{path}: has {found:,} categories, and at most {most:,} can be used: keep those of the "
            "most items with {top_categories} 100, or name another column with {category}",
            "top_categories",
            "category",
            path=path,
            found=len(spellings),
            most=MAX_CATEGORIES,
        )
    if known and spellings.keys() <= known_keys.keys():
        categories = tuple(known)
    else:
        chosen = {
            key: known_keys.get(key) or _most_common(counter) for key, counter in spellings.items()
        }
        order = {key: i for i, key in enumerate(known_keys)}
        keys = sorted(chosen, key=lambda key: (order.get(key, len(order)), chosen[key]))
        categories = tuple(chosen[key] for key in keys)
    place = {_make_key(name): i for i, name in enumerate(categories)}
    codes = {name: place[key] for name in names if (key := _make_key(name)) in place}
    return _rename_reserved(categories), codes


def _most_common(counter: Counter[str]) -> str:
    return min(counter, key=lambda name: (-counter[name], name))


def _make_key(name: str) -> str:
    key = name.casefold()
    return _SYNONYMS.get(key, key)


def _rename_reserved(categories: tuple[str, ...]) -> tuple[str, ...]:
    """Rename categories that are called like a column of the outputs."""
    taken = {*RESERVED_COLUMNS, *categories}
    renamed = []
    for name in categories:
        new = name
        while name in RESERVED_COLUMNS and new in taken:
            new += _SUFFIX
        taken.add(new)
        renamed.append(new)
    return tuple(renamed)


def _restore_reserved(name: str) -> str:
    """Return what :func:`_rename_reserved` renamed; other names as they are."""
    original = name
    while original.endswith(_SUFFIX):
        original = original.removesuffix(_SUFFIX)
    return original if original in RESERVED_COLUMNS else name
