"""What the user says about how ratings are read, and which column of a file is which."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from segmentation.datasets.text_form import TextOptions
from segmentation.errors import DataError, UsageError
from segmentation.schema import ITEM, RATING, TIMESTAMP, USER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

IdKind = Literal["auto", "integer", "text"]
#: The parts of a rating as ``--columns`` calls them → the columns of a partition.
ROLES = {"user": USER, "item": ITEM, "rating": RATING, "time": TIMESTAMP}
_REQUIRED = ("user", "item")
#: A file with more columns may be a matrix.
_MATRIX_COLUMNS = 50
#: Names that columns often have, in lower case and without marks, to propose them in a message.
_COMMON_NAMES = {
    "user": {
        *("user", "userid", "reviewerid", "customerid", "customer", "custid", "memberid", "member"),
        *("membernumber", "memberno", "uid"),
    },
    "item": {
        *("item", "itemid", "movieid", "movie", "productid", "product", "asin", "parentasin"),
        *("isbn", "bookid", "artistid", "itemdescription", "businessid", "tmdbid", "iid"),
    },
    "rating": {"rating", "ratings", "score", "stars", "overall", "bookrating", "starrating"},
    "time": {"timestamp", "time", "date", "unixreviewtime", "ts"},
}


@dataclass(frozen=True)
class ReadingOptions:
    """What the user says about the ratings.

    Parameters
    ----------
    columns
        The name, or the number from 1, of the column for each of :data:`ROLES`; empty for those of
        the layout.
    text
        How the text files are written.
    scale
        The lowest and the highest rating; None for the layout's.
    unrated
        Ratings that stand for "not rated".
    ids
        Whether ids are integers or texts; ``auto`` decides by what the files hold.
    implicit
        Whether the rows are no ratings: each counts one, or has a count in the column that
        ``columns`` names for the rating.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    text: TextOptions = field(default_factory=TextOptions)
    scale: tuple[float, float] | None = None
    unrated: tuple[float, ...] = ()
    ids: IdKind = "auto"
    implicit: bool = False

    @property
    def has_counts(self) -> bool:
        """Whether the rows have counts in place of ratings."""
        return self.implicit and "rating" in self.columns

    @property
    def kind(self) -> str:
        """What ratings are: ``ratings``, ``counts``, or ``rows``, each of which counts one."""
        if self.has_counts:
            return "counts"
        return "rows" if self.implicit else "ratings"

    @property
    def roles(self) -> dict[str, str]:
        """The column of each role: what the user says, or those of GroupLens."""
        if self.columns:
            return dict(self.columns)
        names = (*_REQUIRED, *(() if self.implicit else ("rating",)))
        return {role: ROLES[role] for role in names}


@dataclass(frozen=True)
class CatalogueOptions:
    """What the user says about a table of items of their own.

    Parameters
    ----------
    path
        The file.
    item, category
        The names of the columns with the item's id, and with its category or categories; in a table
        without a header, their numbers from 1. Several names with commas between them are columns
        of flags, one per category.
    separator
        The characters between two categories of one item; None for what is recognized.
    top
        Keep only so many categories, those of the most items; None keeps all.
    weight
        The column of weights in a table with one row per item and category.
    """

    path: str
    item: str
    category: str
    separator: str | None = None
    top: int | None = None
    weight: str | None = None

    @property
    def is_numbered(self) -> bool:
        """Whether the table has no header, so that its columns are numbered."""
        return _is_number(self.item)


def _is_number(name: str) -> bool:
    """Return whether a name may be the number of a column."""
    return re.fullmatch("[1-9][0-9]{0,3}", name) is not None


def parse_columns(text: str) -> dict[str, str]:
    """Return the column of each role.

    Raises
    ------
    UsageError
        If it is not of the form ``user=NAME,item=NAME[,rating=NAME][,time=NAME]``.

    Examples
    --------
    >>> parse_columns("user=1,item=2,rating=4")
    {'user': '1', 'item': '2', 'rating': '4'}
    """
    # A comma may be part of a name, an equals sign can't be part of a role.
    pairs = re.findall(r"(?:\A|,)\s*([a-z]+)\s*=\s*(.*?)\s*(?=,\s*[a-z]+\s*=|\Z)", text)
    columns = dict(pairs)
    missing = [role for role in _REQUIRED if not columns.get(role)]
    if missing or not {*columns} <= {*ROLES} or len(pairs) > len(columns):
        raise UsageError(
            "{columns} {value!r}: give user=NAME,item=NAME,rating=NAME, and time=NAME if there is "
            "a column for it",
            "columns",
            value=text,
        )
    return columns


def name_columns(place: str, header: Sequence[str], roles: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns of a file by what they hold; others keep their names, or lose them.

    Parameters
    ----------
    place
        The file, and the line of the header, to name in an error.
    header
        The names in the file; ``""`` for each column without one.
    roles
        See :class:`ReadingOptions`.

    Raises
    ------
    DataError
        If a column is missing, or there is more than one of its name.

    Examples
    --------
    >>> roles = {"user": "who", "item": "what", "rating": "stars"}
    >>> name_columns("a.csv, line 1", ["id", "who", "what", "stars"], roles)
    ('id', 'userId', 'movieId', 'rating')
    """
    names = dict(roles)
    if all(map(_is_number, names.values())) and any(header) and _looks_like_data(header):
        raise DataError(
            "{place}: is no header (it reads {header!r}), and {columns} has numbers: pass "
            "{no_header}",
            *("columns", "no_header"),
            place=place,
            header=", ".join(header)[:80],
        )
    if "time" not in names and header.count(TIMESTAMP) == 1:
        names["time"] = TIMESTAMP
    places: dict[int, str] = {}
    missing = []
    for role, name in names.items():
        n_columns = header.count(name)
        if n_columns > 1:
            raise DataError(f"{place}: names column {name} twice; keep one of them")
        if n_columns:
            index = header.index(name)
        elif _is_number(name) and int(name) <= len(header):
            index = int(name) - 1
        else:
            missing.append(name)
            continue
        if index in places:
            raise DataError(
                "{place}: {columns} names column {name} twice; name another one",
                "columns",
                place=place,
                name=name,
            )
        places[index] = ROLES[role]
    if missing:
        raise _missing_columns_error(place, header, missing)
    reserved = {*ROLES.values()}
    return tuple(places.get(i, "" if name in reserved else name) for i, name in enumerate(header))


def _missing_columns_error(place: str, header: Sequence[str], missing: Sequence[str]) -> DataError:
    guesses = {
        role: next((n for n in header if re.sub(r"[\W_]", "", n).lower() in names), None)
        for role, names in _COMMON_NAMES.items()
    }
    listed = ", ".join(header)
    if not any(header):
        return DataError(
            "{place}: no column {missing}; its rows have {n_columns} columns: give {columns} their "
            "numbers, from 1",
            "columns",
            place=place,
            missing=" and no ".join(missing),
            n_columns=len(header),
        )
    if all(guesses[role] for role in (*_REQUIRED, "rating")):
        pairs = ",".join(f"{role}={name}" for role, name in guesses.items() if name)
        remedy = f"if these are the ones, pass {{columns}} {pairs}"
    elif _looks_like_data(header):
        remedy = (
            "if its first line is no header, pass {no_header} and {columns} "
            "user=1,item=2,rating=3 with the numbers of its columns"
        )
    elif len(header) > _MATRIX_COLUMNS:
        remedy = (
            "if it has one column per item, write one row per user, item and rating instead "
            "(pandas: melt)"
        )
    else:
        remedy = "name its columns with {columns} user=…,item=…,rating=…"
    return DataError(
        "{place}: no column {missing} (it reads {header!r}); " + remedy,
        "columns",
        "no_header",
        place=place,
        missing=" and no ".join(missing),
        header=listed[:80],
    )


def looks_like_header(fields: Sequence[str], columns: Sequence[str]) -> bool:
    """Return whether a field is a name that its column often has.

    Examples
    --------
    >>> columns = ("userId", "movieId", "rating")
    >>> looks_like_header(["Member", "thing", "points"], columns)
    True
    >>> looks_like_header(["7", "42", "8"], columns)
    False
    """
    names = {ROLES[role]: common for role, common in _COMMON_NAMES.items()}
    return any(
        re.sub(r"[\W_]", "", field).lower() in names.get(column, ())
        for field, column in zip(fields, columns, strict=True)
    )


def _looks_like_data(header: Sequence[str]) -> bool:
    """Return whether a first line holds numbers, as rows do and names do not."""
    return any(re.fullmatch(r"-?[0-9]+([.,][0-9]+)?", name) for name in header)
