"""Read the records of a catalogue: a CSV file with line breaks in quoted fields, or Parquet.

The csv module defines what a record is. pyarrow takes half the time (74 ms instead of 151 ms for
the 45,466 records of ``movies_metadata.csv``); it is used unless it might read a file differently.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from typing import TYPE_CHECKING, Any

from segmentation.datasets.content import check_content
from segmentation.datasets.filesystem import read_bytes
from segmentation.datasets.format import CODECS
from segmentation.datasets.layouts import require_file
from segmentation.datasets.retry import describe_error
from segmentation.datasets.text_form import (
    HEAD_BYTES,
    TextOptions,
    keeps_ascii,
    recognize_encoding,
    recognize_form,
)
from segmentation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyarrow.csv import InvalidRow

#: Longest field, in characters; the default of the csv module is 128 KiB.
_FIELD_LIMIT = 1 << 24
#: Largest catalogue.
_MAX_BYTES = 256 << 20
#: Every field of a record that is appended to the file, to check that pyarrow reads to the end.
_SENTINEL = "the last record"
#: What a Parquet file begins with.
_PARQUET = b"PAR1"


def read_records(
    path: str,
    required: Sequence[str] = (),
    *,
    separator: str | None = None,
    has_header: bool = True,
) -> Iterator[list[str]]:
    """Yield the records of a CSV or Parquet file, the header first.

    Parameters
    ----------
    path
        A local path or a URL.
    required
        Columns that the header has to name; they tell the separator.
    separator
        The separator of a file without quotes; None to recognize it.
    has_header
        Whether the first record names the columns.

    Raises
    ------
    DataError
        If the file is missing or is neither.
    """
    has_header = has_header and separator is None
    data = _read_content(path)
    if data.startswith(_PARQUET):
        yield from _read_parquet(path, data, has_header=has_header)
    else:
        _check_text(path, data)
        yield from _parse_records(path, data, required, separator, has_header=has_header)


def read_columns(path: str, names: Sequence[str]) -> Iterator[list[str]]:
    """Yield records like :func:`read_records`, but faster and only with the named columns.

    Parameters
    ----------
    path
        A local path or a URL.
    names
        The columns to read. The fields of other columns may be empty strings, except in the header
        and in records of another length.

    Raises
    ------
    DataError
        If the file is missing or is not CSV.
    """
    data = _read_content(path)
    if data.startswith(_PARQUET):
        yield from _read_parquet(path, data)
        return
    _check_text(path, data)
    records = _parse_with_arrow(data, names)
    yield from _parse_records(path, data, names) if records is None else records


def _read_content(path: str) -> bytes:
    """Return the content of a file, which is held in memory."""
    size = require_file(path)
    if size > _MAX_BYTES:
        raise DataError(
            f"{path}: has {size / 1e6:,.0f} MB, and a catalogue is read as a whole, up to "
            f"{_MAX_BYTES / 1e6:,.0f} MB; leave out the columns that are not needed"
        )
    return _decompress(path, read_bytes(path))


def _read_parquet(path: str, data: bytes, *, has_header: bool = True) -> Iterator[list[str]]:
    """Yield the columns and rows of a Parquet file as the text that a CSV file would have.

    Lists and structs become JSON, and null an empty field.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read()
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: can't be read as Parquet ({describe_error(error)}): write it again"
        ) from error
    if has_header:
        yield list(table.column_names)
    for batch in table.to_batches():
        columns = [column.to_pylist() for column in batch.columns]
        for row in zip(*columns, strict=True):
            yield [_format_value(value) for value in row]


def _format_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _check_text(path: str, data: bytes) -> None:
    nul = data.find(b"\0")
    if nul >= 0 and keeps_ascii(recognize_encoding(data[:HEAD_BYTES])):
        raise DataError(
            f"{path}: holds a NUL byte (byte {nul:,}), which no text does; it is damaged: download "
            "or write it again"
        )


def _decompress(path: str, data: bytes) -> bytes:
    """Return the content of a file that may be compressed with gzip or zstd."""
    codec = next((codec for magic, codec in CODECS.items() if data.startswith(magic)), None)
    if codec is None:
        return data
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
            content = bytes(stream.read(_MAX_BYTES + 1))
    except OSError as error:
        raise DataError(
            f"{path}: can't be decompressed ({describe_error(error)}); download or compress it "
            "again"
        ) from error
    if len(content) > _MAX_BYTES:
        raise DataError(
            f"{path}: has more than {_MAX_BYTES / 1e6:,.0f} MB when decompressed, and a catalogue "
            "is read as a whole; leave out the columns that are not needed"
        )
    return content


def _parse_records(
    path: str,
    data: bytes,
    required: Sequence[str] = (),
    separator: str | None = None,
    *,
    has_header: bool = True,
) -> Iterator[list[str]]:
    head = data[:HEAD_BYTES]
    check_content(path, head)
    form = recognize_form(
        path,
        head,
        TextOptions(has_header=has_header),
        required,
        separator=separator.encode() if separator else None,
        is_whole=len(data) == len(head),
    )
    text = data.decode(form.encoding, "replace").removeprefix("\ufeff")
    if form.header and form.header_lines > 1:
        # The first line names the separator.
        text = text.partition("\n")[2]
    mark = form.separator.decode()
    if len(mark) > 1 or separator:
        # These files have no quotes; `str.splitlines` would split at other characters, too.
        lines = (line.rstrip("\r") for line in text.split("\n"))
        yield from (line.split(mark) for line in lines if line)
        return
    csv.field_size_limit(_FIELD_LIMIT)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: not valid CSV ({error}); fix the file, or download "
            "it again"
        ) from error


def _parse_with_arrow(data: bytes, names: Sequence[str]) -> Iterator[list[str]] | None:
    """Return the records; None if pyarrow can't read them, or might read them differently."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    header = _read_header(data)
    has_duplicates = len({*header}) < len(header)
    if len(header) < 2 or has_duplicates or not {*names} <= {*header} or b"\0" in data:
        return None
    try:
        # pyarrow prints a traceback if an odd record is not UTF-8, and loses it.
        data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    csv.field_size_limit(_FIELD_LIMIT)
    odd_records: dict[int, list[str]] = {}
    # If a quote is never closed, this record becomes part of the quoted field, and the check fails.
    data += f"\n{','.join([_SENTINEL] * len(header))}\n".encode()

    def keep_odd_record(row: InvalidRow) -> str:
        # pyarrow numbers records from 1, the header included.
        (odd_records[row.number - 2],) = csv.reader(io.StringIO(row.text, newline=""))
        return "skip"

    try:
        table = pa_csv.read_csv(
            pa.py_buffer(data),
            # One block: pyarrow numbers records per block, and refuses a record that exceeds it.
            pa_csv.ReadOptions(use_threads=False, block_size=len(data) + 1),
            pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=keep_odd_record),
            pa_csv.ConvertOptions(
                include_columns=list(names), column_types=dict.fromkeys(names, pa.string())
            ),
        )
    except (pa.ArrowInvalid, ValueError, csv.Error):
        return None
    columns = [table[name].to_pylist() for name in names]
    if any(not column or column.pop() != _SENTINEL for column in columns):
        return None
    return _merge_records(header, names, columns, odd_records)


def _read_header(data: bytes) -> list[str]:
    """Return the fields of the first line; an empty list if it is not valid CSV."""
    try:
        line = data[: data.index(b"\n")].decode("utf-8-sig")
        return next(csv.reader([line]), [])
    except (ValueError, csv.Error):
        return []


def _merge_records(
    header: list[str],
    names: Sequence[str],
    columns: list[list[str]],
    odd_records: dict[int, list[str]],
) -> Iterator[list[str]]:
    """Yield the header, then the records of pyarrow and those of another length, in order."""
    yield header
    by_name = dict(zip(names, columns, strict=True))
    # One zip over all columns, those that were not read being empty, takes half the time of a loop.
    fields = [by_name.get(name, itertools.repeat("", len(columns[0]))) for name in header]
    rows = map(list, zip(*fields, strict=True))
    n_yielded = 0
    for number in sorted(odd_records):
        yield from itertools.islice(rows, number - n_yielded)
        yield odd_records[number]
        n_yielded = number + 1
    yield from rows
