"""The general reader: lines of a ratings file → typed rows, rejects set aside.

A partition is first offered to pyarrow with strict types. What pyarrow refuses, or reads more
generously than the contract, is cut into small pieces and offered again; a piece that fails
still is read line by line by :func:`parse_line`, which defines what a rating is.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segmentation.schema import LINE, MOVIE, RATING, RATING_DTYPES, TIMESTAMP, USER

if TYPE_CHECKING:
    import pandas as pd

_PIECE_BYTES = 1 << 16
#: Stands for "::" while pyarrow, which wants one character, splits a .dat line.
_UNIT_SEPARATOR = b"\x1f"
_ID = re.compile(rb"[ \t]*-?\d{1,25}[ \t]*\Z")
_STARS = re.compile(rb"[ \t]*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?[ \t]*\Z")
_INT64 = range(-(2**63), 2**63)
#: Where a row has no timestamp that is one: before every other.
NO_TIMESTAMP = -(2**63)

#: Users, movies and stars, and where details are wanted timestamps and lines; a row each.
Columns = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class RatingsFormat:
    """How one ratings file is read.

    ``columns`` are its header's names; ``data_start`` is the byte at which the first row begins
    and ``header_lines`` the number of lines before it. ``codec`` is None for plain text, else what
    it is packed as, or ``parquet``; ``size`` is that of the file as it lies there, bytes.
    ``streamed`` tells that its server gives no ranges of it.
    """

    path: str
    size: int
    delimiter: bytes
    columns: tuple[str, ...]
    data_start: int
    header_lines: int
    scale: tuple[float, float]
    codec: str | None = None
    streamed: bool = False

    @property
    def positions(self) -> tuple[int, int, int]:
        """Field numbers of user, movie and rating."""
        at = self.columns.index
        return at(USER), at(MOVIE), at(RATING)


class LineReject(NamedTuple):
    """A rejected line of one partition: its 0-based number there, the reason, its bytes."""

    line: int
    reason: str
    text: bytes


class Partition(NamedTuple):
    """Typed rows of one part of a file, its rejects, and its number of lines (blank ones too)."""

    ratings: pd.DataFrame
    rejected: tuple[LineReject, ...]
    lines: int


def parse(file: RatingsFormat, data: bytes, *, detailed: bool = False) -> Partition:
    """Type the rows of ``data``, whole lines of a ratings file.

    ``detailed`` adds the columns ``timestamp`` (:data:`NO_TIMESTAMP` where it is no whole number)
    and ``line``, counted from 0 within ``data``, both int64.
    """
    lines = _lines_in(data)
    columns = _strict(file, data, 0, detailed=detailed)
    if columns is not None:
        return Partition(_frame(columns), (), lines)
    pieces: list[Columns] = [_by_line(file, b"", 0, detailed=detailed)[0]]
    rejected: list[LineReject] = []
    start = line = 0
    while start < len(data):
        stop = data.find(b"\n", start + _PIECE_BYTES) + 1 or len(data)
        piece = data[start:stop]
        strict = _strict(file, piece, line, detailed=detailed)
        if strict is None:
            strict, rejects = _by_line(file, piece, line, detailed=detailed)
            rejected += rejects
        pieces.append(strict)
        start, line = stop, line + piece.count(b"\n")
    whole = tuple(np.concatenate(column) for column in zip(*pieces, strict=True))
    return Partition(_frame(whole), tuple(rejected), lines)


def _lines_in(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n") and bool(data))


def parse_line(file: RatingsFormat, text: bytes) -> tuple[int, int, float] | str:
    """Read one line: user, movie and stars, or the reason why it is not a rating."""
    fields = _fields(file, text)
    if len(fields) != len(file.columns):
        plural = "s" if len(fields) != 1 else ""
        return f"{len(fields)} field{plural} where {len(file.columns)} belong"
    user_at, movie_at, rating_at = file.positions
    ids = []
    for name, at in ((USER, user_at), (MOVIE, movie_at)):
        if not _ID.match(fields[at]):
            return f"{name} is no whole number"
        ids.append(int(fields[at]))
        if ids[-1] not in _INT64:
            return f"{name} is beyond 64 bits"
    if not _STARS.match(fields[rating_at]):
        return f"{RATING} is no number"
    stars = float(fields[rating_at])
    low, high = file.scale
    if not low <= stars <= high:
        return f"{RATING} is outside {low:g} to {high:g}"
    return ids[0], ids[1], stars


def _fields(file: RatingsFormat, text: bytes) -> list[bytes]:
    if b'"' in text and file.delimiter == b",":
        row = next(csv.reader([text.decode("latin-1")]), [])
        return [field.encode("latin-1") for field in row]
    return text.split(file.delimiter)


def _timestamp(file: RatingsFormat, text: bytes) -> int:
    """Return the timestamp of a line that is a rating."""
    if TIMESTAMP not in file.columns:
        return NO_TIMESTAMP
    field = _fields(file, text)[file.columns.index(TIMESTAMP)]
    return int(field) if _ID.match(field) and int(field) in _INT64 else NO_TIMESTAMP


def _strict(file: RatingsFormat, data: bytes, first_line: int, *, detailed: bool) -> Columns | None:
    """Let pyarrow read lines that hold nothing but ratings; None if it can't, or may not."""
    names = [*RATING_DTYPES, *([TIMESTAMP] if detailed and TIMESTAMP in file.columns else [])]
    table = _table(file, data, names)
    if table is None:
        return None
    columns = tuple(table[name].to_numpy() for name in names)
    stars = columns[2]
    low, high = file.scale
    if len(stars) and not (stars.min() >= low and stars.max() <= high):
        return None
    if detailed:
        if len(stars) != _lines_in(data):
            # Blank lines are among them, and nothing tells where.
            return None
        if len(columns) == len(RATING_DTYPES):
            columns = (*columns, np.full(len(stars), NO_TIMESTAMP))
        columns = (*columns, np.arange(first_line, first_line + len(stars)))
    return columns


def _table(file: RatingsFormat, data: bytes, names: list[str]) -> Any:
    """Return an Arrow table of some columns under strict types; None where pyarrow refuses."""
    import pyarrow as pa
    from pyarrow import csv as pa_csv

    # pyarrow would take hexadecimal ids, end a line at a lone CR, and let a quote span lines.
    if any(odd in data for odd in (b'"', b"x", b"X")) or data.count(b"\r") != data.count(b"\r\n"):
        return None
    delimiter = file.delimiter
    if len(delimiter) > 1:
        if _UNIT_SEPARATOR in data:
            return None
        data, delimiter = data.replace(delimiter, _UNIT_SEPARATOR), _UNIT_SEPARATOR
    types = {name: pa.from_numpy_dtype(RATING_DTYPES.get(name, np.int64)) for name in names}
    try:
        return pa_csv.read_csv(
            pa.py_buffer(data),
            pa_csv.ReadOptions(
                use_threads=False, block_size=8 << 20, column_names=list(file.columns)
            ),
            pa_csv.ParseOptions(delimiter=delimiter.decode(), quote_char=False),
            pa_csv.ConvertOptions(
                include_columns=names, column_types=types, null_values=[], check_utf8=False
            ),
        )
    except pa.ArrowInvalid:
        return None


def _by_line(
    file: RatingsFormat, data: bytes, first_line: int, *, detailed: bool
) -> tuple[Columns, list[LineReject]]:
    rows: list[tuple[int, int, float]] = []
    more: list[tuple[int, int]] = []
    rejected = []
    for number, raw in enumerate(data.split(b"\n"), start=first_line):
        text = raw.removesuffix(b"\r")
        if not text:
            continue
        row = parse_line(file, text)
        if isinstance(row, str):
            rejected.append(LineReject(number, row, text))
        else:
            rows.append(row)
            if detailed:
                more.append((_timestamp(file, text), number))
    columns = [
        np.array([row[i] for row in rows], dtype) for i, dtype in enumerate(RATING_DTYPES.values())
    ]
    if detailed:
        columns += [np.array([pair[i] for pair in more], np.int64) for i in range(2)]
    return tuple(columns), rejected


def _frame(columns: Columns) -> pd.DataFrame:
    import pandas as pd

    names = (*RATING_DTYPES, TIMESTAMP, LINE)[: len(columns)]
    return pd.DataFrame(dict(zip(names, columns, strict=True)), copy=False)
