"""The general reader: lines of a ratings file → typed rows, rejects set aside.

A partition is first offered to pyarrow with strict types. What pyarrow refuses, or reads more
generously than the contract, is cut into small pieces and offered again; a piece that fails
still is read line by line by :func:`parse_line`, which defines what a rating is.
"""

from __future__ import annotations

import contextlib
import csv
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.datasets import identifiers
from segmentation.datasets.format import (
    NO_TIMESTAMP,
    Columns,
    LineReject,
    Partition,
    RatingsFormat,
    are_whole,
)
from segmentation.schema import LINE, MOVIE, RATING, RATING_DTYPES, TIMESTAMP, USER

if TYPE_CHECKING:
    import pandas as pd

_PIECE_BYTES = 1 << 16
#: Stands for "::" while pyarrow, which wants one character, splits a .dat line.
_UNIT_SEPARATOR = b"\x1f"
_STARS = re.compile(rb"[ \t]*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?[ \t]*\Z")
#: A whole number, also as pandas writes a column with gaps.
_WHOLE = re.compile(rb"[ \t]*-?\d{1,19}(\.0*)?[ \t]*\Z")
#: Signs of what a float's grammar has and that of a timestamp hasn't.
_NOT_WHOLE = re.compile(rb"[eEnNiI+]|(?<![0-9])\.")


def parse_lines(file: RatingsFormat, data: bytes, *, detailed: bool = False) -> Partition:
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
    whole = tuple(identifiers.joined(column) for column in zip(*pieces, strict=True))
    return Partition(_frame(whole), tuple(rejected), lines)


def _lines_in(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n") and bool(data))


def parse_line(file: RatingsFormat, text: bytes) -> tuple[int | bytes, int | bytes, float] | str:
    """Read one line: user, movie and stars, or the reason why it is not a rating."""
    fields = split(file, text)
    if len(fields) != len(file.columns):
        plural = "s" if len(fields) != 1 else ""
        return f"{len(fields)} field{plural} where {len(file.columns)} belong"
    user_at, movie_at, rating_at = file.positions
    keys = []
    for name, at in ((USER, user_at), (MOVIE, movie_at)):
        key = identifiers.text(fields[at]) if name in file.texts else identifiers.number(fields[at])
        if isinstance(key, str):
            return f"{name} {key}"
        keys.append(key)
    if not _STARS.match(fields[rating_at]):
        return f"{RATING} is no number"
    stars = float(fields[rating_at])
    low, high = file.scale
    if not low <= stars <= high:
        return f"{RATING} is outside {low:g} to {high:g}"
    return keys[0], keys[1], stars


def split(file: RatingsFormat, text: bytes) -> list[bytes]:
    """Cut a line into its fields."""
    if b'"' in text and file.delimiter == b",":
        # A lone CR is the end of a line to the csv module, and none here.
        with contextlib.suppress(csv.Error):
            row = next(csv.reader([text.decode("latin-1")]), [])
            return [field.encode("latin-1") for field in row]
    return text.split(file.delimiter)


def _timestamp(file: RatingsFormat, text: bytes) -> int:
    """Return the timestamp of a line that is a rating."""
    if TIMESTAMP not in file.columns:
        return NO_TIMESTAMP
    field = split(file, text)[file.columns.index(TIMESTAMP)]
    if not _WHOLE.match(field):
        return NO_TIMESTAMP
    found = identifiers.number(field.partition(b".")[0])
    return NO_TIMESTAMP if isinstance(found, str) else found


def _strict(file: RatingsFormat, data: bytes, first_line: int, *, detailed: bool) -> Columns | None:
    """Let pyarrow read lines that hold nothing but ratings; None if it can't, or may not."""
    names = [*RATING_DTYPES, *([TIMESTAMP] if detailed and TIMESTAMP in file.columns else [])]
    table = _table(file, data, names)
    if table is None and TIMESTAMP in names and not (file.texts or _NOT_WHOLE.search(data)):
        table = _whole_stamps(_table(file, data, names, np.float64))
    if table is None:
        return None
    columns = tuple(_column(table[name], text=name in file.texts) for name in names)
    if any(column is None for column in columns):
        return None
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


def _whole_stamps(table: Any) -> Any:
    """Return a table whose timestamps were read as floats with whole ones; None if some aren't."""
    import pyarrow as pa

    if table is None:
        return None
    at = table.schema.get_field_index(TIMESTAMP)
    stamps = table[TIMESTAMP].to_numpy()
    if not are_whole(stamps).all():
        return None
    return table.set_column(at, TIMESTAMP, pa.array(stamps.astype(np.int64)))


def _table(
    file: RatingsFormat, data: bytes, names: list[str], stamps: type[np.generic] = np.int64
) -> Any:
    """Return an Arrow table of some columns under strict types; None where pyarrow refuses."""
    import pyarrow as pa
    from pyarrow import csv as pa_csv

    # pyarrow would take hexadecimal ids, end a line at a lone CR, and let a quote span lines.
    odd = (b'"',) if file.texts else (b'"', b"x", b"X")
    if any(byte in data for byte in odd) or data.count(b"\r") != data.count(b"\r\n"):
        return None
    delimiter = file.delimiter
    if len(delimiter) > 1:
        if _UNIT_SEPARATOR in data:
            return None
        data, delimiter = data.replace(delimiter, _UNIT_SEPARATOR), _UNIT_SEPARATOR
    types = {name: pa.from_numpy_dtype(RATING_DTYPES.get(name, stamps)) for name in names}
    if file.texts:
        # An x may be part of them, so that numbers beside them are looked at one by one.
        types |= {name: pa.string() for name in names if name != RATING}
    try:
        return pa_csv.read_csv(
            pa.py_buffer(data),
            pa_csv.ReadOptions(
                use_threads=False, block_size=8 << 20, column_names=list(file.columns)
            ),
            pa_csv.ParseOptions(delimiter=delimiter.decode(), quote_char=False),
            pa_csv.ConvertOptions(
                include_columns=names,
                column_types=types,
                null_values=[],
                check_utf8=bool(file.texts),
            ),
        )
    except pa.ArrowInvalid:
        return None


def _by_line(
    file: RatingsFormat, data: bytes, first_line: int, *, detailed: bool
) -> tuple[Columns, list[LineReject]]:
    rows: list[tuple[Any, ...]] = []
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
        _typed([row[i] for row in rows], None if name in file.texts else dtype)
        for i, (name, dtype) in enumerate(RATING_DTYPES.items())
    ]
    if detailed:
        columns += [np.array([pair[i] for pair in more], np.int64) for i in range(2)]
    return tuple(columns), rejected


def _column(column: Any, *, text: bool) -> Any:
    """Return a column that pyarrow read; None where it holds what is no id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if text:
        found, sound = identifiers.sound_texts(column)
        # Blanks around an id are rare enough to be left to the slow way.
        return (
            column if sound.all() and pc.all(pc.equal(found, column), min_count=0).as_py() else None
        )
    if pa.types.is_string(column.type):
        column = identifiers.numbers_in(column)
    return None if column is None else column.to_numpy()


def _typed(values: list[Any], dtype: type[np.generic] | None) -> Any:
    if dtype is not None:
        return np.array(values, dtype)
    import pyarrow as pa

    return pa.array([value.decode() for value in values], pa.string())


def _frame(columns: Columns) -> pd.DataFrame:
    names = (*RATING_DTYPES, TIMESTAMP, LINE)[: len(columns)]
    found: pd.DataFrame = identifiers.framed(dict(zip(names, columns, strict=True)))
    return found
