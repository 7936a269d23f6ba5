"""Records of a catalogue's CSV: by pyarrow where it can, else by the standard library's reader.

The two read the same; the second defines what that is, and takes what the first refuses.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from segmentation.datasets.filesystem import read_bytes
from segmentation.datasets.layouts import require_file
from segmentation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Long enough for any overview; the csv module's own limit is 128 KiB.
_FIELD_LIMIT = 1 << 24
_LAST = b"the last record"


def rows(path: str, encoding: str = "utf-8-sig") -> Iterator[list[str]]:
    """Read a quoted CSV file record by record, whatever lines it is spread over.

    Raises
    ------
    DataError
        If it is missing, or a record is no CSV.
    """
    require_file(path)
    yield from _parsed(path, read_bytes(path), encoding)


def read(path: str, names: Sequence[str]) -> Iterator[list[str]]:
    """Do the same sooner, but of a record that is as long as the header only fill some columns.

    Parameters
    ----------
    names
        The columns that are wanted; the others are empty texts.
    """
    require_file(path)
    data = read_bytes(path)
    quick = _by_arrow(data, names)
    yield from _parsed(path, data, "utf-8-sig") if quick is None else quick


def _parsed(path: str, data: bytes, encoding: str) -> Iterator[list[str]]:
    csv.field_size_limit(_FIELD_LIMIT)
    # Old csv modules choke on NUL, and it means nothing in any of these files.
    text = data.decode(encoding, "replace").replace("\0", "")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num}: {error} (a quote never closed?): mend the file"
        ) from error


def _by_arrow(data: bytes, names: Sequence[str]) -> Iterator[list[str]] | None:
    """Return the records, None where pyarrow can't read them or might read them otherwise."""
    import pyarrow as pa
    from pyarrow import csv as pa_csv

    try:
        first = data[: data.index(b"\n")].decode("utf-8-sig")
        header = next(csv.reader([first]))
    except (ValueError, StopIteration, csv.Error):
        return None
    if len({*header}) < max(len(header), 2) or not {*names} <= {*header}:
        return None
    if b"\0" in data:
        return None
    csv.field_size_limit(_FIELD_LIMIT)
    odd: dict[int, list[str]] = {}
    # A quote that is never closed would swallow this, and the two differ in how they end then.
    data += b"\n" + b",".join([_LAST] * len(header)) + b"\n"

    def set_aside(row: Any) -> str:
        # Counted from 1, the header among them.
        (odd[row.number - 2],) = csv.reader(io.StringIO(row.text, newline=""))
        return "skip"

    try:
        table = pa_csv.read_csv(
            pa.py_buffer(data),
            # One block, so that records have numbers, and none is too long.
            pa_csv.ReadOptions(use_threads=False, block_size=len(data) + 1),
            pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=set_aside),
            pa_csv.ConvertOptions(
                include_columns=list(names), column_types=dict.fromkeys(names, pa.string())
            ),
        )
    except (pa.ArrowInvalid, ValueError, csv.Error):
        return None
    columns = [table[name].to_pylist() for name in names]
    if any(not column or column.pop() != _LAST.decode() for column in columns):
        return None
    return _told(header, names, columns, odd)


def _told(
    header: list[str], names: Sequence[str], columns: list[list[str]], odd: dict[int, list[str]]
) -> Iterator[list[str]]:
    yield header
    places = [header.index(name) for name in names]
    values = zip(*columns, strict=True)
    for number in range(len(columns[0]) + len(odd)):
        if number in odd:
            yield odd[number]
            continue
        record = [""] * len(header)
        for at, value in zip(places, next(values), strict=True):
            record[at] = value
        yield record
