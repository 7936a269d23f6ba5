"""Parse lines of text into typed rows, and set rejected lines aside.

This reader handles every text format; ``features/compiled_reader.py`` is a faster one.

pyarrow parses a chunk with strict types. If pyarrow fails, or might accept lines that are not
ratings, the chunk is split into small pieces and each is tried again. A piece that still
fails is parsed line by line with :func:`parse_line`, which defines what a rating is.
"""

from __future__ import annotations

import contextlib
import datetime
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
    convert_counts,
)
from segmentation.datasets.text_form import split_fields
from segmentation.schema import ITEM, LINE, RATING, RATING_DTYPES, TIMESTAMP, USER

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

_PIECE_BYTES = 1 << 16
#: Replaces "::" for pyarrow, which splits at a single character.
_UNIT_SEPARATOR = b"\x1f"
_RATING = re.compile(rb"[ \t]*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?[ \t]*\Z")
#: An integer, possibly written as a float: pandas does so if the column has missing values.
_TIMESTAMP = re.compile(rb"[ \t]*(-?\d{1,19})(?:\.0*)?[ \t]*\Z")
_BLANK_LINE = re.compile(rb"^\r?\n", re.MULTILINE)
#: Integers that pyarrow would read and :func:`identifiers.parse_integer` does not.
_OTHER_INTEGERS = re.compile(rb"[xX]|(?:\A|[^0-9.])0[0-9]")


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
        return _make_chunk(file, columns, (), n_lines, 0)
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
    return _make_chunk(file, merged, tuple(rejected), n_lines, unlisted)


def _make_chunk(
    file: RatingsFormat,
    columns: Columns,
    rejected: tuple[LineReject, ...],
    n_lines: int,
    unlisted: int,
) -> ParsedChunk:
    names = (*RATING_DTYPES, TIMESTAMP, LINE)[: len(columns)]
    ratings = identifiers.to_frame(dict(zip(names, columns, strict=True)))
    n_unrated = 0
    if file.unrated:
        is_rating = ~ratings[RATING].isin(file.unrated)
        n_unrated = len(ratings) - int(is_rating.sum())
        ratings = ratings[is_rating]
    if file.has_counts:
        ratings = ratings.assign(**{RATING: convert_counts(ratings[RATING].to_numpy())})
    return ParsedChunk(ratings, rejected, n_lines, unlisted, n_unrated)


def parse_line(file: RatingsFormat, line: bytes) -> tuple[int | bytes, int | bytes, float] | str:
    """Return the user, item and rating of a line, or as a string why it is rejected.

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
        if line.count(b'"') % 2:
            return "a quoted field spans lines, or its quote is not closed"
        plural = "s" if len(fields) != 1 else ""
        return f"{len(fields)} field{plural}, expected {len(file.columns)}"
    ids = []
    for name, index in zip((USER, ITEM), file.positions, strict=False):
        if name in file.string_columns:
            value: int | bytes | str = identifiers.parse_string(fields[index])
        else:
            value = identifiers.parse_integer(fields[index], allow_padding=file.allow_padding)
        if isinstance(value, str):
            return f"{name} {value}"
        ids.append(value)
    rating = _parse_rating(file, fields[file.positions[2]]) if file.has_ratings else 1.0
    return rating if isinstance(rating, str) else (ids[0], ids[1], rating)


def _parse_rating(file: RatingsFormat, field: bytes) -> float | str:
    if file.decimal_comma:
        field = field.replace(b",", b".", 1)
    if not _RATING.match(field):
        return f"{RATING} is not a number"
    rating = float(field)
    low, high = file.scale
    if not low <= rating <= high and rating not in file.unrated:
        return file.describe_outside()
    return rating


def split_line(file: RatingsFormat, line: bytes) -> list[bytes]:
    """Split a line into the fields of its file, and remove their quotes.

    Blank fields at the end of a line, or of the columns, don't count: spreadsheets leave them.
    """
    fields = split_fields(line, file.delimiter)
    n_columns = len(file.columns)
    while len(fields) > n_columns and not fields[-1].strip():
        fields.pop()
    while len(fields) < n_columns and not file.columns[len(fields)]:
        if any(file.columns[len(fields) :]):
            break
        fields.append(b"")
    return fields


def is_blank(file: RatingsFormat, line: bytes) -> bool:
    """Return whether a line holds nothing but separators, blanks and quotes."""
    return not line.strip(b' \t\r"' + file.delimiter)


def _count_lines(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n") and bool(data))


def _parse_timestamp(file: RatingsFormat, line: bytes) -> int:
    """Return the timestamp of a valid line; :data:`NO_TIMESTAMP` if it has none."""
    if TIMESTAMP not in file.columns:
        return NO_TIMESTAMP
    field = split_line(file, line)[file.columns.index(TIMESTAMP)]
    return parse_timestamp(field, is_datetime=file.has_datetime_timestamps)


def parse_timestamp(field: bytes, *, is_datetime: bool) -> int:
    """Return a whole number, or a point in time in microseconds; else :data:`NO_TIMESTAMP`.

    Examples
    --------
    >>> parse_timestamp(b"1100010060", is_datetime=False)
    1100010060
    >>> parse_timestamp(b"1970-01-02 00:00:01", is_datetime=True)
    86401000000
    """
    if is_datetime:
        try:
            point = datetime.datetime.fromisoformat(field.strip().decode())
        except ValueError:
            return NO_TIMESTAMP
        if point.tzinfo is None:
            point = point.replace(tzinfo=datetime.UTC)
        return (point - _EPOCH) // datetime.timedelta(microseconds=1)
    match = _TIMESTAMP.match(field)
    value = int(match[1]) if match else NO_TIMESTAMP
    return value if -(2**63) < value < 2**63 else NO_TIMESTAMP


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def _parse_strictly(
    file: RatingsFormat, data: bytes, first_line: int, *, detailed: bool
) -> Columns | None:
    """Parse lines with pyarrow; return None if it can't, or if a line is not a rating."""
    has_timestamps = detailed and TIMESTAMP in file.columns
    names = [*file.required, *([TIMESTAMP] if has_timestamps else [])]
    table = _read_table(file, data, names)
    if table is None:
        return None
    columns = tuple(_to_column(file, name, table[name]) for name in names)
    if any(column is None for column in columns):
        return None
    if not file.has_ratings:
        columns = (*columns[:2], np.ones(table.num_rows), *columns[2:])
    ratings = columns[2]
    low, high = file.scale
    is_outside = ~((ratings >= low) & (ratings <= high))
    if is_outside.any() and not np.isin(ratings[is_outside], file.unrated).all():
        return None
    n_lines = _count_lines(data)
    if len(ratings) != n_lines and (
        # pyarrow skips blank lines and does not report where they were, and it reads a quoted
        # field that spans lines.
        detailed or (b'"' in data and len(ratings) != n_lines - len(_BLANK_LINE.findall(data)))
    ):
        return None
    if not detailed:
        return columns
    if not has_timestamps:
        columns = (*columns, np.full(len(ratings), NO_TIMESTAMP))
    return (*columns, np.arange(first_line, first_line + len(ratings)))


def _read_table(file: RatingsFormat, data: bytes, names: list[str]) -> pa.Table | None:
    """Read the named columns with strict types, ids and timestamps as strings where they are odd.

    Return None if pyarrow can't.
    """
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    # pyarrow ends a line at a lone CR.
    if data.count(b"\r") != data.count(b"\r\n"):
        return None
    # String ids may contain an x or begin with a zero, so the others are checked one by one.
    are_strings = bool(file.string_columns) or bool(_OTHER_INTEGERS.search(data))
    delimiter = file.delimiter
    if len(delimiter) > 1:
        if _UNIT_SEPARATOR in data or b'"' in data:
            return None
        data, delimiter = data.replace(delimiter, _UNIT_SEPARATOR), _UNIT_SEPARATOR
    for are_integers in (False,) if are_strings else (True, False):
        types = {name: pa.int64() if are_integers else pa.string() for name in names}
        with contextlib.suppress(pa.ArrowInvalid):
            return pa_csv.read_csv(
                pa.py_buffer(data),
                pa_csv.ReadOptions(
                    use_threads=False,
                    block_size=max(8 << 20, len(data) + 1),
                    column_names=_unique_names(file.columns),
                ),
                pa_csv.ParseOptions(
                    delimiter=delimiter.decode(), quote_char='"' if b'"' in data else False
                ),
                pa_csv.ConvertOptions(
                    include_columns=names,
                    column_types={**types, RATING: pa.float64()},
                    null_values=[],
                    check_utf8=not are_integers,
                    decimal_point="," if file.decimal_comma else ".",
                ),
            )
    return None


def _unique_names(columns: tuple[str, ...]) -> list[str]:
    """Return the columns with a name for each that is not read."""
    names = (*RATING_DTYPES, TIMESTAMP)
    return [name if name in names else f"#{i}" for i, name in enumerate(columns)]


def _to_column(file: RatingsFormat, name: str, column: pa.ChunkedArray) -> Any:
    """Convert a column from :func:`_read_table`; return None if a value needs the slow path."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if name in file.string_columns:
        stripped, is_id = identifiers.strip_strings(column)
        # Ids with surrounding blanks are rare; the slow path strips them.
        is_clean = is_id.all() and pc.all(pc.equal(stripped, column), min_count=0).as_py()
        return column if is_clean else None
    if name == TIMESTAMP and (file.has_datetime_timestamps or pa.types.is_string(column.type)):
        return _parse_timestamps(file, column)
    if pa.types.is_string(column.type):
        integers = identifiers.cast_integers(column, allow_padding=file.allow_padding)
        return None if integers is None else integers.to_numpy()
    return column.to_numpy()


def _parse_timestamps(file: RatingsFormat, column: pa.ChunkedArray) -> NDArray[np.int64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not file.has_datetime_timestamps:
        integers = identifiers.cast_integers(column, allow_padding=True)
        if integers is not None:
            return np.asarray(integers.to_numpy())
    encoded = pc.cast(column, pa.string()).combine_chunks().dictionary_encode()
    values = [
        parse_timestamp(text.encode(), is_datetime=file.has_datetime_timestamps)
        for text in encoded.dictionary.to_pylist()
    ]
    timestamps: NDArray[np.int64] = np.array(values, np.int64)[encoded.indices.to_numpy()]
    return timestamps


def _parse_each_line(
    file: RatingsFormat, data: bytes, first_line: int, *, detailed: bool
) -> tuple[Columns, list[LineReject]]:
    rows: list[tuple[int | bytes, int | bytes, float]] = []
    details: list[tuple[int, int]] = []
    rejected = []
    for number, raw in enumerate(data.split(b"\n"), start=first_line):
        line = raw.removesuffix(b"\r")
        if is_blank(file, line):
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
