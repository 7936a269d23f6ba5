"""The format of a ratings file, and what parsing a chunk of it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.datasets.reading import ReadingOptions
from segmentation.schema import COUNT_SCALE, ITEM, RATING, USER

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

#: float64 represents every integer below this exactly.
_EXACT_INTEGERS = 2**53

#: How many rejected lines are listed of one fragment and of all files, the first ones, and how many
#: bytes of each. Further ones are only counted.
MAX_FRAGMENT_REJECTS, MAX_LISTED_REJECTS, MAX_REJECT_BYTES = 100_000, 500_000, 1_000

#: First bytes of a compressed file → pyarrow's name of the codec.
CODECS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}

_SEPARATOR_NAMES = {b";": "semicolons", b"\t": "tabs", b"|": "bars between fields"}

#: The timestamp of a row without a valid one; it sorts before all others.
NO_TIMESTAMP = -(2**63)

#: Users, items and ratings; also timestamps and line numbers if a reader is called with
#: ``detailed=True``. Each is a NumPy array of shape (n_rows,), or an Arrow array for string ids.
Columns = tuple[Any, ...]


@dataclass(frozen=True)
class RatingsFormat:
    """The format of one ratings file.

    Parameters
    ----------
    path
        A local path or a URL.
    size
        Size of the file as stored, in bytes.
    delimiter
        The bytes between the fields of a line; empty for Parquet.
    columns
        The columns in the order of the file: ``userId``, ``movieId``, ``rating``, ``timestamp``, or
        another name, which may be empty, for one that is not read.
    data_start
        Offset of the first row, in bytes of decompressed text; ``size`` if there are no rows.
    header_lines
        Number of lines before the first row.
    scale
        The lowest and the highest rating; of counts, the least above 0 and infinity.
    codec
        None for plain text, else ``gzip``, ``zstd`` or ``parquet``.
    is_streamed
        Whether the file's server does not support range requests.
    string_columns
        The id columns whose ids are strings.
    allow_padding
        Whether zeros before an integer id mean nothing; if not, such a row is rejected.
    encoding
        The encoding of the text.
    decimal_comma
        Whether numbers have a decimal comma.
    unrated
        Ratings that stand for "not rated"; their rows are left out.
    is_cut
        Whether the last line has no line end.
    source_columns
        The names of the columns in a Parquet file, if they are not ``columns``.
    has_datetime_timestamps
        Whether timestamps are dates or datetimes, which are read as microseconds.
    reading
        What the user says about the ratings.
    version
        The version of the file that tasks must read; empty for any.

    Examples
    --------
    >>> RatingsFormat("a.csv", 99, b",", ("movieId", "userId", "rating"), 22, 1, (0.5, 5)).positions
    (1, 0, 2)
    """

    path: str
    size: int
    delimiter: bytes
    columns: tuple[str, ...]
    data_start: int
    header_lines: int
    scale: tuple[float, float]
    codec: str | None = None
    is_streamed: bool = False
    string_columns: tuple[str, ...] = ()
    allow_padding: bool = False
    encoding: str = "utf-8"
    decimal_comma: bool = False
    unrated: tuple[float, ...] = ()
    is_cut: bool = False
    source_columns: tuple[str, ...] = ()
    has_datetime_timestamps: bool = False
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    version: str = ""

    @property
    def notes(self) -> list[str]:
        """What is unusual about the file, in a few words each."""
        notes = []
        if self.encoding not in ("utf-8", "ascii"):
            notes.append(self.encoding.upper())
        if self.delimiter not in (b",", b"::", b""):
            notes.append(
                _SEPARATOR_NAMES.get(
                    self.delimiter, f"fields separated by {self.delimiter.decode()!r}"
                )
            )
        if self.decimal_comma:
            notes.append("decimal commas")
        return notes

    @property
    def has_counts(self) -> bool:
        """Whether ratings are counts, which :func:`convert_counts` makes points of."""
        return self.reading.has_counts

    @property
    def has_ratings(self) -> bool:
        """Whether there is a column of ratings, or of counts; if not, each row counts 1."""
        return RATING in self.columns

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that every row needs."""
        return (USER, ITEM, RATING) if self.has_ratings else (USER, ITEM)

    @property
    def positions(self) -> tuple[int, ...]:
        """Indices of the fields of user and item, from 0, and of the rating if there is one."""
        return tuple(self.columns.index(name) for name in self.required)

    def describe_outside(self) -> str:
        """Return why a rating outside the scale is rejected."""
        if self.has_counts:
            return f"{RATING} is outside the counts above 0"
        low, high = self.scale
        return f"{RATING} is outside {low:g} to {high:g}"


class LineReject(NamedTuple):
    """A rejected line: its number within the chunk (from 0), the reason, and its text in UTF-8.

    For Parquet, the line is a row, and its text the cells joined by commas. A longer text than
    :data:`MAX_REJECT_BYTES` is cut.
    """

    line: int
    reason: str
    text: bytes


def append_rejects(listed: list[LineReject], rejects: Sequence[LineReject], first_line: int) -> int:
    """Append rejected lines to a list while it is short enough; return how many were left out.

    ``first_line`` is added to their line numbers.
    """
    n_free = max(0, MAX_FRAGMENT_REJECTS - len(listed))
    listed += [
        reject._replace(line=first_line + reject.line, text=reject.text[:MAX_REJECT_BYTES])
        for reject in rejects[:n_free]
    ]
    return max(0, len(rejects) - n_free)


class ParsedChunk(NamedTuple):
    """The typed rows of a chunk, its rejected lines, and its number of lines, blank ones too.

    ``unlisted`` is the number of rejected lines that are not listed, ``unrated`` that of the rows
    left out because their rating stands for "not rated".
    """

    ratings: pd.DataFrame
    rejected: tuple[LineReject, ...]
    lines: int
    unlisted: int = 0
    unrated: int = 0


def convert_counts(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert counts to points: 1 for a count up to 1, one more per factor of ten, at most 5.

    Examples
    --------
    >>> convert_counts(np.array([1.0, 10.0, 316.2277, 1e9])).round(3).tolist()
    [1.0, 2.0, 3.5, 5.0]
    """
    low, high = COUNT_SCALE
    return np.asarray(np.clip(low + np.log10(counts), low, high))


def is_exact_integer(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return a mask of the floats that are integers below 2**53 in magnitude.

    From 2**53 on, the parsed float may differ from the integer in the file.

    Examples
    --------
    >>> is_exact_integer(np.array([1.0, 1.5, 2.0**53])).tolist()
    [True, False, False]
    """
    return np.asarray((values == np.trunc(values)) & (np.abs(values) < _EXACT_INTEGERS))
