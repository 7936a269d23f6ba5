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
import pandas as pd

from segmentation.schema import MOVIE, RATING, RATING_DTYPES, USER

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIECE_BYTES = 1 << 16
#: Stands for "::" while pyarrow, which wants one character, splits a .dat line.
_UNIT_SEPARATOR = b"\x1f"
_ID = re.compile(rb"[ \t]*-?\d{1,25}[ \t]*\Z")
_STARS = re.compile(rb"[ \t]*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?[ \t]*\Z")
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class RatingsFormat:
    """How one ratings file is read.

    ``columns`` are its header's names; ``data_start`` is the byte at which the first row begins
    and ``header_lines`` the number of lines before it. ``codec`` is None for plain text, else what
    it is packed as, or ``parquet``; ``size`` is that of the file as it lies there, bytes.
    """

    path: str
    size: int
    delimiter: bytes
    columns: tuple[str, ...]
    data_start: int
    header_lines: int
    scale: tuple[float, float]
    codec: str | None = None

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


def parse(file: RatingsFormat, data: bytes) -> Partition:
    """Type the rows of ``data``, whole lines of a ratings file."""
    lines = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    columns = _strict(file, data)
    if columns is not None:
        return Partition(_frame(*columns), (), lines)
    pieces: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    rejected: list[LineReject] = []
    start = line = 0
    while start < len(data):
        stop = data.find(b"\n", start + _PIECE_BYTES) + 1 or len(data)
        piece = data[start:stop]
        strict = _strict(file, piece)
        if strict is None:
            strict, rejects = _by_line(file, piece, line)
            rejected += rejects
        pieces.append(strict)
        start, line = stop, line + piece.count(b"\n")
    if not pieces:
        return Partition(_frame(*_by_line(file, b"", 0)[0]), (), lines)
    users, movies, stars = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return Partition(_frame(users, movies, stars), tuple(rejected), lines)


def parse_line(file: RatingsFormat, text: bytes) -> tuple[int, int, float] | str:
    """Read one line: user, movie and stars, or the reason why it is not a rating."""
    if b'"' in text and file.delimiter == b",":
        row = next(csv.reader([text.decode("latin-1")]), [])
        fields = [field.encode("latin-1") for field in row]
    else:
        fields = text.split(file.delimiter)
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


def _strict(
    file: RatingsFormat, data: bytes
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]] | None:
    """Let pyarrow read lines that hold nothing but ratings; None if it can't, or may not."""
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
    try:
        table = pa_csv.read_csv(
            pa.py_buffer(data),
            pa_csv.ReadOptions(
                use_threads=False, block_size=8 << 20, column_names=list(file.columns)
            ),
            pa_csv.ParseOptions(delimiter=delimiter.decode(), quote_char=False),
            pa_csv.ConvertOptions(
                include_columns=list(RATING_DTYPES),
                column_types={
                    name: pa.from_numpy_dtype(dtype) for name, dtype in RATING_DTYPES.items()
                },
                null_values=[],
                check_utf8=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    users, movies, stars = (table[name].to_numpy() for name in RATING_DTYPES)
    low, high = file.scale
    if len(stars) and not (stars.min() >= low and stars.max() <= high):
        return None
    return users, movies, stars


def _by_line(
    file: RatingsFormat, data: bytes, first_line: int
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]], list[LineReject]]:
    users: list[int] = []
    movies: list[int] = []
    stars: list[float] = []
    rejected = []
    for number, raw in enumerate(data.split(b"\n"), start=first_line):
        text = raw.removesuffix(b"\r")
        if not text:
            continue
        row = parse_line(file, text)
        if isinstance(row, str):
            rejected.append(LineReject(number, row, text))
        else:
            users.append(row[0])
            movies.append(row[1])
            stars.append(row[2])
    columns = (np.array(users, np.int64), np.array(movies, np.int64), np.array(stars, np.float64))
    return columns, rejected


def _frame(
    users: NDArray[np.int64], movies: NDArray[np.int64], stars: NDArray[np.float64]
) -> pd.DataFrame:
    return pd.DataFrame({USER: users, MOVIE: movies, RATING: stars}, copy=False)
