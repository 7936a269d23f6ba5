"""Parse lines of text into typed rows, and set rejected lines aside.

This reader handles every text format; ``features/compiled_reader.py`` is a faster one.

pyarrow parses a chunk with strict types. If pyarrow fails, or might accept lines that are not
ratings, the chunk is split into small pieces and each is tried again. A piece that still
fails is parsed line by line with :func:`parse_line`, which defines what a rating is.
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
    ParsedChunk,
    RatingsFormat,
    append_rejects,
    is_exact_integer,
)
from segmentation.schema import LINE, MOVIE, RATING, RATING_DTYPES, TIMESTAMP, USER

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_PIECE_BYTES = 1 << 16
#: Replaces "::" for pyarrow, which splits at a single character.
_UNIT_SEPARATOR = b"\x1f"
_RATING = re.compile(rb"[ \t]*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?[ \t]*\Z")
#: An integer, possibly written as a float: pandas does so if the column has missing values.
_TIMESTAMP = re.compile(rb"[ \t]*-?\d{1,19}(\.0*)?[ \t]*\Z")
#: Characters that pyarrow accepts in a float, but :data:`_TIMESTAMP` does not.
_NOT_IN_TIMESTAMPS = re.compile(rb"[eEnNiI+]|(?<![0-9])\.")


def parse_lines(file: RatingsFormat, data: bytes, *, detailed: bool = False) -> ParsedChunk:
    r"""Parse whole lines of a ratings file.

    Parameters
    ----------
    file
        The format of the file.
    data
        Whole lines; the last one may lack a line end.
    detailed
        Add the int64 columns ``timestamp`` (:data:`NO_TIMESTAMP` where the field is not an
        integer) and ``line`` (from 0 within ``data``).

    Examples
    --------
    >>> file = RatingsFormat("a.csv", 99, b",", ("userId", "movieId", "rating"), 0, 0, (0.5, 5))
    >>> chunk = parse_lines(file, b"1,10,4.5\n2,20,9\n")
    >>> chunk.ratings
       userId  movieId  rating
    0       1       10     4.5
    >>> chunk.rejected
    (LineReject(line=1, reason='rating is outside 0.5 to 5', text=b'2,20,9'),)
    """
    n_lines = _count_lines(data)
    columns = _parse_strictly(file, data, 0, detailed=detailed)
    if columns is not None:
        return ParsedChunk(_to_frame(columns), (), n_lines)
    pieces: list[Columns] = [_parse_each_line(file, b"", 0, detailed=detailed)[0]]
    rejected: list[LineReject] = []
    start = line = unlisted = 0
    while start < len(data):
        stop = data.find(b"\n", start + _PIECE_BYTES) + 1 or len(data)
        piece = data[start:stop]
        columns = _parse_strictly(file, piece, line, detailed=detailed)
        if columns is None:
            columns, rejects = _parse_each_line(file, piece, line, detailed=detailed)
            unlisted += append_rejects(rejected, rejects, 0)
        pieces.append(columns)
        start, line = stop, line + piece.count(b"\n")
    merged = tuple(identifiers.concat_columns(column) for column in zip(*pieces, strict=True))
    return ParsedChunk(_to_frame(merged), tuple(rejected), n_lines, unlisted)


def parse_line(file: RatingsFormat, line: bytes) -> tuple[int | bytes, int | bytes, float] | str:
    """Return the user, movie and rating of a line, or as a string why it is rejected.

    Examples
    --------
    >>> file = RatingsFormat("a.csv", 99, b",", ("userId", "movieId", "rating"), 0, 0, (0.5, 5))
    >>> parse_line(file, b"1,10,4.5")
    (1, 10, 4.5)
    >>> parse_line(file, b"1,10")
    '2 fields, expected 3'
    """
    fields = split_line(file, line)
    if len(fields) != len(file.columns):
        plural = "s" if len(fields) != 1 else ""
        return f"{len(fields)} field{plural}, expected {len(file.columns)}"
    user_index, movie_index, rating_index = file.positions
    ids = []
    for name, index in ((USER, user_index), (MOVIE, movie_index)):
        is_string = name in file.string_columns
        parse_id = identifiers.parse_string if is_string else identifiers.parse_integer
        value = parse_id(fields[index])
        if isinstance(value, str):
            return f"{name} {value}"
        ids.append(value)
    if not _RATING.match(fields[rating_index]):
        return f"{RATING} is not a number"
    rating = float(fields[rating_index])
    low, high = file.scale
    if not low <= rating <= high:
        return f"{RATING} is outside {low:g} to {high:g}"
    return ids[0], ids[1], rating


def split_line(file: RatingsFormat, line: bytes) -> list[bytes]:
    """Split a line into fields, and remove their quotes."""
    if b'"' in line and file.delimiter == b",":
        # The csv module fails at a lone CR, which is part of a field here.
        with contextlib.suppress(csv.Error):
            fields = next(csv.reader([line.decode("latin-1")]), [])
            return [field.encode("latin-1") for field in fields]
    return line.split(file.delimiter)


def _count_lines(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n") and bool(data))


def _parse_timestamp(file: RatingsFormat, line: bytes) -> int:
    """Return the timestamp of a valid line; :data:`NO_TIMESTAMP` if it is not an integer."""
    if TIMESTAMP not in file.columns:
        return NO_TIMESTAMP
    field = split_line(file, line)[file.columns.index(TIMESTAMP)]
    if not _TIMESTAMP.match(field):
        return NO_TIMESTAMP
    value = identifiers.parse_integer(field.partition(b".")[0])
    return NO_TIMESTAMP if isinstance(value, str) else value


def _parse_strictly(
    file: RatingsFormat, data: bytes, first_line: int, *, detailed: bool
) -> Columns | None:
    """Parse lines with pyarrow; return None if it can't, or if a line is not a rating."""
    has_timestamps = detailed and TIMESTAMP in file.columns
    names = [*RATING_DTYPES, *([TIMESTAMP] if has_timestamps else [])]
    table = _read_table(file, data, names)
    if table is None and has_timestamps:
        table = _read_float_timestamps(file, data, names)
    if table is None:
        return None
    columns = tuple(
        _to_column(table[name], is_string=name in file.string_columns) for name in names
    )
    if any(column is None for column in columns):
        return None
    ratings = columns[2]
    low, high = file.scale
    if len(ratings) and not (ratings.min() >= low and ratings.max() <= high):
        return None
    if not detailed:
        return columns
    if len(ratings) != _count_lines(data):
        # pyarrow skips blank lines and does not report where they were.
        return None
    if not has_timestamps:
        columns = (*columns, np.full(len(ratings), NO_TIMESTAMP))
    return (*columns, np.arange(first_line, first_line + len(ratings)))


def _read_float_timestamps(file: RatingsFormat, data: bytes, names: list[str]) -> pa.Table | None:
    """Read lines whose timestamps are integers written as floats; None if any is not."""
    import pyarrow as pa

    if file.string_columns or _NOT_IN_TIMESTAMPS.search(data):
        return None
    table = _read_table(file, data, names, np.float64)
    if table is None:
        return None
    timestamps = table[TIMESTAMP].to_numpy()
    if not is_exact_integer(timestamps).all():
        return None
    index = table.schema.get_field_index(TIMESTAMP)
    return table.set_column(index, TIMESTAMP, pa.array(timestamps.astype(np.int64)))


def _read_table(
    file: RatingsFormat,
    data: bytes,
    names: list[str],
    timestamp_dtype: type[np.generic] = np.int64,
) -> pa.Table | None:
    """Read the named columns with strict types; return None if pyarrow can't."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    # pyarrow accepts hexadecimal ids, ends a line at a lone CR and, without ``quote_char``, leaves
    # quotes in the fields: data with any of these takes the slow path.
    forbidden = (b'"',) if file.string_columns else (b'"', b"x", b"X")
    if any(byte in data for byte in forbidden) or data.count(b"\r") != data.count(b"\r\n"):
        return None
    delimiter = file.delimiter
    if len(delimiter) > 1:
        if _UNIT_SEPARATOR in data:
            return None
        data, delimiter = data.replace(delimiter, _UNIT_SEPARATOR), _UNIT_SEPARATOR
    types = {name: pa.from_numpy_dtype(RATING_DTYPES.get(name, timestamp_dtype)) for name in names}
    if file.string_columns:
        # String ids may contain an x, so integers are read as strings and checked one by one.
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
                check_utf8=bool(file.string_columns),
            ),
        )
    except pa.ArrowInvalid:
        return None


def _to_column(column: pa.ChunkedArray, *, is_string: bool) -> Any:
    """Convert a column from :func:`_read_table`; return None if a value needs the slow path."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if is_string:
        stripped, is_id = identifiers.strip_strings(column)
        # Ids with surrounding blanks are rare; the slow path strips them.
        is_clean = is_id.all() and pc.all(pc.equal(stripped, column), min_count=0).as_py()
        return column if is_clean else None
    if pa.types.is_string(column.type):
        integers = identifiers.cast_integers(column)
        return None if integers is None else integers.to_numpy()
    return column.to_numpy()


def _parse_each_line(
    file: RatingsFormat, data: bytes, first_line: int, *, detailed: bool
) -> tuple[Columns, list[LineReject]]:
    rows: list[tuple[int | bytes, int | bytes, float]] = []
    details: list[tuple[int, int]] = []
    rejected = []
    for number, raw in enumerate(data.split(b"\n"), start=first_line):
        line = raw.removesuffix(b"\r")
        if not line:
            continue
        row = parse_line(file, line)
        if isinstance(row, str):
            rejected.append(LineReject(number, row, line))
        else:
            rows.append(row)
            if detailed:
                details.append((_parse_timestamp(file, line), number))
    columns: list[Any] = [
        _to_strings([row[i] for row in rows])
        if name in file.string_columns
        else np.array([row[i] for row in rows], dtype)
        for i, (name, dtype) in enumerate(RATING_DTYPES.items())
    ]
    if detailed:
        columns += [np.array([pair[i] for pair in details], np.int64) for i in range(2)]
    return tuple(columns), rejected


def _to_strings(values: list[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array([value.decode() for value in values], pa.string())


def _to_frame(columns: Columns) -> pd.DataFrame:
    names = (*RATING_DTYPES, TIMESTAMP, LINE)[: len(columns)]
    return identifiers.to_frame(dict(zip(names, columns, strict=True)))
