"""Say why most rejected rows were rejected, and which option reads them."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from segmentation.datasets.csv_reader import split_line
from segmentation.datasets.identifiers import IS_TEXT, IS_TOO_LARGE, LEADING_ZEROS
from segmentation.datasets.reading import ROLES
from segmentation.redaction import redact
from segmentation.schema import ITEM, RATING, USER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from segmentation.datasets.format import RatingsFormat
    from segmentation.datasets.reading import ReadingOptions
    from segmentation.schema import RejectedRow

#: Number of rejected rows that are looked at.
_MAX_ROWS = 10_000
#: Ratings that many logs write for "not rated".
_USUALLY_UNRATED = {0.0, -1.0}


class Cause(NamedTuple):
    """What most rejected rows have in common, and what to do; the text may name ``fields``."""

    text: str
    fields: tuple[str, ...] = ()


_EMPTY_RATINGS = Cause("their field for it is empty: fill it in, or leave such rows out")
#: The end of a reason → its cause. The first match counts.
_CAUSES = {
    f"{ITEM} {LEADING_ZEROS}": Cause(
        "ids have leading zeros, and those of the catalogue have none: pass {ids} integer to drop "
        "them",
        ("ids",),
    ),
    IS_TEXT: Cause(
        "ids are text: pass {ids} text to keep them as they are written",
        ("ids",),
    ),
    LEADING_ZEROS: Cause(
        "ids have leading zeros: pass {ids} text to keep them, or {ids} integer to drop them",
        ("ids",),
    ),
    "is not valid UTF-8": Cause(
        "their text is not UTF-8: pass {encoding} with its encoding, such as latin-1",
        ("encoding",),
    ),
    "a quoted field spans lines": Cause(
        "a quoted field spans lines, or its quote is not closed: write each rating in one line"
    ),
}


def find_cause(rows: Sequence[RejectedRow], files: Sequence[RatingsFormat]) -> Cause | None:
    """Return the cause that more than half of the rejected rows share; None without one."""
    rows = rows[:_MAX_ROWS]
    reasons = Counter(_group(row.reason) for row in rows)
    reason, count = reasons.most_common(1)[0]
    if 2 * count <= len(rows):
        return None
    if reason == f"{RATING} is outside":
        return _explain_scale([row for row in rows if _group(row.reason) == reason], files)
    if match := re.fullmatch(r"(\d+) fields?, expected (\d+)", reason):
        if match[1] == "1":
            return Cause(
                "they hold no separator of this file: pass {separator} with theirs",
                ("separator",),
            )
        return Cause(
            f"they have {match[1]} fields, and the file has {match[2]} columns: write the same "
            "columns in each row, or put fields that hold a separator in quotes"
        )
    if reason == f"{RATING} is not a number":
        by_path = _by_path(files)
        fields = {_get_field(row, by_path, RATING) for row in rows if row.reason == reason}
        return _EMPTY_RATINGS if fields == {""} else None
    return next((cause for end, cause in _CAUSES.items() if end in reason), None)


def label_column(reason: str, reading: ReadingOptions) -> str:
    """Return a reason with the user's name for the column that it begins with.

    Examples
    --------
    >>> from segmentation.datasets.reading import ReadingOptions
    >>> label_column("userId is empty", ReadingOptions({"user": "who", "item": "what"}))
    'who is empty'
    """
    for role, label in reading.columns.items():
        name = ROLES[role]
        if reason.startswith(f"{name} "):
            shown = f"column {label}" if label.isdigit() else label
            return shown + reason.removeprefix(name)
    return reason


def find_odd_id(rows: Sequence[RejectedRow]) -> RejectedRow | None:
    """Return the first row whose id may be one of a column of texts; None without one."""
    return next(
        (row for row in rows if row.reason.endswith((IS_TEXT, LEADING_ZEROS, IS_TOO_LARGE))), None
    )


def id_in_row(row: RejectedRow, files: Sequence[RatingsFormat]) -> str:
    """Return the id that a row was rejected for."""
    name = USER if row.reason.startswith(USER) else ITEM
    return _get_field(row, _by_path(files), name)


def _group(reason: str) -> str:
    """Return a reason without the figures of its file."""
    return f"{RATING} is outside" if reason.startswith(f"{RATING} is outside") else reason


def _by_path(files: Sequence[RatingsFormat]) -> dict[str, RatingsFormat]:
    return {redact(file.path): file for file in files}


def _get_field(row: RejectedRow, files: Mapping[str, RatingsFormat], name: str) -> str:
    """Return the field of a column in a rejected row; "" if it has none."""
    file = files.get(row.file)
    if file is None:
        return ""
    if file.codec == "parquet":
        fields, place = row.text.split(","), (USER, ITEM, RATING).index(name)
    else:
        fields = [field.decode("utf-8", "replace") for field in split_line(file, row.text.encode())]
        place = file.columns.index(name)
    return fields[place].strip() if place < len(fields) else ""


def _explain_scale(rows: Sequence[RejectedRow], files: Sequence[RatingsFormat]) -> Cause | None:
    by_path = _by_path(files)
    ratings = []
    for row in rows:
        try:
            ratings.append(float(_get_field(row, by_path, RATING).replace(",", ".")))
        except ValueError:
            continue
    if not ratings:
        return None
    if files[0].has_counts:
        return _explain_counts(ratings)
    low, high = files[0].scale
    smallest, largest = min(ratings), max(ratings)
    scale = f"the scale is {low:g} to {high:g}"
    if largest <= high:
        if set(ratings) <= _USUALLY_UNRATED:
            values = ",".join(f"{value:g}" for value in sorted(set(ratings)))
            return Cause(
                f"ratings are {values}, and {scale}: if that stands for 'not rated', pass "
                f"{{unrated}} {values}; otherwise pass {{scale}} {smallest:g}:{high:g}",
                ("unrated", "scale"),
            )
        return Cause(
            f"ratings go down to {smallest:g}, and {scale}: pass {{scale}} {smallest:g}:{high:g}",
            ("scale",),
        )
    bottom = min(smallest, 1.0) if smallest > 0 else smallest
    advice = f"pass {{scale}} {bottom:g}:{largest:g}"
    if smallest in _USUALLY_UNRATED:
        advice += (
            f", or {{scale}} 1:{largest:g} and {{unrated}} {smallest:g} if {smallest:g} stands for "
            "'not rated'"
        )
        return Cause(f"ratings reach {largest:g}, and {scale}: {advice}", ("scale", "unrated"))
    return Cause(f"ratings reach {largest:g}, and {scale}: {advice}", ("scale",))


def _explain_counts(counts: Sequence[float]) -> Cause:
    values = ",".join(f"{value:g}" for value in sorted(set(counts))[:3])
    if len(set(counts)) > 1:
        return Cause(f"counts are above 0, and these are {values}: name the column of counts")
    return Cause(
        f"counts are above 0, and these are {values}: pass {{unrated}} {values} to leave such rows "
        "out",
        ("unrated",),
    )
