"""Divide ratings files into partitions, one per task, and read them.

A :class:`Fragment` is a part of one file; a partition is a list of fragments.
:func:`probe_files` detects the format of each file, :func:`plan_partitions` divides the files into
partitions, and :func:`read_chunks` reads a fragment in chunks.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import math
import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from segmentation.datasets import identifiers, parquet_reader
from segmentation.datasets.content import check_content
from segmentation.datasets.csv_reader import parse_line, parse_timestamp
from segmentation.datasets.filesystem import check_version, open_file
from segmentation.datasets.format import CODECS, NO_TIMESTAMP, ParsedChunk, RatingsFormat
from segmentation.datasets.layouts import require_file
from segmentation.datasets.reading import ROLES, looks_like_header, name_columns
from segmentation.datasets.retry import describe_error
from segmentation.datasets.text_form import (
    HEAD_BYTES,
    decode_text,
    has_decimal_commas,
    has_thousands,
    keeps_ascii,
    recognize_form,
    split_fields,
)
from segmentation.errors import DataError
from segmentation.schema import ITEM, RATING, TIMESTAMP, USER, ByteRange

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator, Mapping, Sequence

    from segmentation.datasets.layouts import Layout
    from segmentation.datasets.text_form import TextForm, TextOptions

#: Default size of a partition in bytes of text: about 1.2 million rows, tens of MB in memory.
PARTITION_BYTES = 32 << 20
#: Ratings per byte of Parquet, relative to text.
_PARQUET_DENSITY = 4
#: Bytes of text per chunk of a compressed or streamed file.
_CHUNK_BYTES = 8 << 20
#: A longer line is no rating: the file is damaged, or something else.
_MAX_LINE_BYTES = 1 << 20
#: Bytes read after the end of a range, to complete its last line.
_OVERREAD_BYTES = 4096
#: Buffers for reuse: allocating new memory takes several times as long as reading into it.
_buffers: list[bytearray] = []
_PARQUET_MAGIC = b"PAR1"


class Fragment(NamedTuple):
    """A part of one file that a task reads: a byte range of lines, or a range of row groups."""

    file: RatingsFormat
    part: ByteRange


def probe_files(
    layout: Layout,
    *,
    string_item_ids: bool | None = None,
    versions: Mapping[str, str] | None = None,
) -> list[RatingsFormat]:
    """Detect the format of each ratings file of a layout from its first bytes or its schema.

    Parameters
    ----------
    layout
        The files of the data set.
    string_item_ids
        Whether the catalogue's ids are strings; None to decide by the ratings.
    versions
        The versions of files that tasks must read; files without one may have any.

    Raises
    ------
    DataError
        If a file is missing, empty, a folder, in an unsupported format, or lacks a column; if no
        file holds a row; if Parquet files disagree on the type of an id column.
    """
    files: list[RatingsFormat] = []
    for path in layout.ratings_files:
        files.append(_probe_file(path, layout, files[0] if files else None))
    parquet_reader.check_id_types([file for file in files if file.codec == "parquet"])
    # A column that is a string in one file is a string in all files.
    string_columns = {name for file in files for name in file.string_columns}
    id_kind = layout.reading.ids
    if id_kind != "auto":
        string_columns = {USER, ITEM} if id_kind == "text" else set()
    if string_item_ids is not None:
        string_columns = string_columns - {ITEM} | ({ITEM} if string_item_ids else set())
    versions = versions or {}
    files = [
        replace(
            file,
            string_columns=tuple(sorted(string_columns)),
            allow_padding=id_kind == "integer",
            version=versions.get(file.path, ""),
        )
        for file in files
    ]
    if all(file.data_start == file.size for file in files):
        raise DataError(
            f"{layout.ratings}: holds a header and no ratings; replace it with a complete file"
        )
    return files


def _probe_file(path: str, layout: Layout, first: RatingsFormat | None) -> RatingsFormat:
    """Return the format of a file; ``first`` is that of the first part, if there are several."""
    size = require_file(path)
    with open_file(path) as file:
        is_streamed = not file.seekable()
        head = _read_head(file)
    check_content(path, head)
    if head.startswith(_PARQUET_MAGIC):
        return parquet_reader.probe_parquet(path, size, layout.recorded_scale, layout.reading)
    codec = next((codec for magic, codec in CODECS.items() if head.startswith(magic)), None)
    if codec is not None:
        with open_file(path) as file:
            head = next(_decompress(file, codec, path, HEAD_BYTES), b"")
    is_whole = len(head) < HEAD_BYTES if codec else size <= len(head)
    is_cut = codec is None and not is_streamed and not _ends_a_line(path, size, head)
    file_format = _parse_head(path, size, head, codec, layout, first, is_whole=is_whole)
    return replace(file_format, is_streamed=is_streamed or file_format.is_streamed, is_cut=is_cut)


def _ends_a_line(path: str, size: int, head: bytes) -> bool:
    """Return whether the last line of a file has a line end."""
    if size <= len(head):
        end = head[-2:]
    else:
        with open_file(path, size) as file:
            file.seek(size - 2)
            end = file.read(2)
    # The last character of UTF-16 has two bytes.
    return b"\n" in end


def _read_head(file: io.BufferedIOBase) -> bytes:
    """Return the first bytes of a file."""
    head = b""
    while len(head) < HEAD_BYTES and (data := file.read(HEAD_BYTES - len(head))):
        head += data
    return head


def _parse_head(
    path: str,
    size: int,
    head: bytes,
    codec: str | None,
    layout: Layout,
    first: RatingsFormat | None,
    *,
    is_whole: bool,
) -> RatingsFormat:
    """Return the format of a text file from its first bytes, decompressed."""
    reading = layout.reading
    options, roles = reading.text, reading.roles
    is_dat = re.search(r"\.dat(\.gz|\.zst)?\Z", path) and b"::" in head.split(b"\n", 1)[0]
    separator = b"::" if is_dat else layout.separator
    if separator and not reading.columns:
        # Files of GroupLens without a header: user, item, rating and time.
        options = replace(options, has_header=False)
        roles = dict(zip(ROLES, "1234", strict=True))
        if reading.implicit:
            del roles["rating"]
    form = recognize_form(
        path,
        head,
        options,
        tuple(roles.values()),
        separator=separator,
        is_whole=is_whole,
    )
    _check_line_ends(path, head, form, is_whole=is_whole)
    columns: tuple[str, ...] = ()
    if first is not None and form.header and _repeats_columns(form, first):
        # The header is in the first part alone.
        form = recognize_form(
            path,
            head,
            replace(options, has_header=False),
            separator=first.delimiter,
            is_whole=is_whole,
        )
        columns = first.columns
    rows = [split_fields(row, form.separator) for row in form.rows]
    if not columns:
        header = form.header or [""] * _count_fields(rows)
        columns = name_columns(f"{path}, line {max(form.header_lines, 1)}", header, roles)
    if form.header:
        columns = _fit_columns(columns, rows)
    elif roles and not options.has_header:
        _check_no_header(path, columns, rows)
    rows = [fields for fields in rows if len(fields) == len(columns)]
    start = form.start
    is_streamed = not keeps_ascii(form.encoding)
    if is_whole and not form.rows and (codec is not None or is_streamed):
        # Nothing follows the header.
        start = size
    elif codec is None and not is_streamed:
        start = min(start, size)
    file = RatingsFormat(
        path,
        size,
        form.separator,
        columns,
        start,
        form.header_lines,
        layout.recorded_scale,
        codec,
        is_streamed,
        encoding=form.encoding,
        unrated=reading.unrated,
        reading=reading,
    )
    return replace(
        file,
        string_columns=_find_string_columns(columns, rows),
        decimal_comma=_has_decimal_commas(options, file, rows),
        has_datetime_timestamps=_has_datetimes(columns, rows),
    )


def _count_fields(rows: Sequence[Sequence[bytes]]) -> int:
    """Return the number of fields that most of the first rows have."""
    counts = Counter(map(len, rows))
    return counts.most_common(1)[0][0] if counts else 0


def _check_line_ends(path: str, head: bytes, form: TextForm, *, is_whole: bool) -> None:
    line = head.split(b"\n", 1)[0]
    if not is_whole and len(line) == len(head):
        raise DataError(
            f"{path}, line 1: no line end within {HEAD_BYTES >> 10} KiB; name a file of ratings"
        )
    if keeps_ascii(form.encoding) and b"\r" in line.rstrip(b"\r"):
        raise DataError(f"{path}: its lines end in CR alone; convert it with mac2unix")


def _check_no_header(path: str, columns: tuple[str, ...], rows: Sequence[Sequence[bytes]]) -> None:
    """Check that the first line of a file without a header is none."""
    if len(rows) < 2 or not len(rows[0]) == len(rows[1]) == len(columns):
        return
    first = [field.decode("utf-8", "replace") for field in rows[0]]
    has_name = False
    if RATING in columns:
        place = columns.index(RATING)
        is_name = first[place].strip().isalpha() and not identifiers.is_missing(rows[0][place])
        has_name = is_name and rows[1][place].strip()[:1].isdigit()
    if has_name or looks_like_header(first, columns):
        raise DataError(
            "{path}, line 1: looks like a header (it reads {line!r}): leave out {no_header}",
            "no_header",
            path=path,
            line=", ".join(first)[:80],
        )


def _repeats_columns(form: TextForm, first: RatingsFormat) -> bool:
    """Return whether a file's first line is a row, with as many fields as the first part has."""
    if len(form.header) != len(first.columns) or {*form.header} & {*first.columns} - {""}:
        return False
    row = first.delimiter.join(name.encode() for name in form.header)
    return not isinstance(parse_line(replace(first, allow_padding=True), row), str)


def _fit_columns(columns: tuple[str, ...], rows: Sequence[Sequence[bytes]]) -> tuple[str, ...]:
    """Return the columns with one for each field of the rows, if all have more than the header."""
    counts = {len(fields) for fields in rows}
    if len(counts) != 1 or (n_more := counts.pop() - len(columns)) <= 0:
        return columns
    if not any(field.strip() for fields in rows for field in fields[len(columns) :]):
        return (*columns, *[""] * n_more)
    # R writes the names of rows in a column without a name.
    return ("", *columns) if n_more == 1 else columns


def _find_string_columns(
    columns: tuple[str, ...], rows: Sequence[Sequence[bytes]]
) -> tuple[str, ...]:
    """Return the columns whose ids are strings, based on the first lines of a file."""
    return tuple(
        name
        for name in (USER, ITEM)
        if identifiers.is_string_column([row[columns.index(name)] for row in rows])
    )


def _has_decimal_commas(
    options: TextOptions, file: RatingsFormat, rows: Sequence[Sequence[bytes]]
) -> bool:
    if options.decimal is not None:
        return options.decimal == ","
    if not file.has_ratings:
        return False
    fields = [row[file.positions[2]].strip() for row in rows]
    marked = [field for field in fields if b"," in field]
    if file.has_counts and marked and all(map(has_thousands, marked)):
        raise DataError(
            "{path}: counts such as {count!r} may have commas between thousands: write them "
            "without, or set {decimal} to , if it is a decimal mark",
            "decimal",
            path=file.path,
            count=marked[0].decode("utf-8", "replace"),
        )
    return has_decimal_commas(fields)


def _has_datetimes(columns: tuple[str, ...], rows: Sequence[Sequence[bytes]]) -> bool:
    """Return whether most timestamps are points in time, such as 2005-04-02 23:53:47."""
    if TIMESTAMP not in columns:
        return False
    fields = [row[columns.index(TIMESTAMP)] for row in rows]
    n_integers = sum(parse_timestamp(f, is_datetime=False) != NO_TIMESTAMP for f in fields)
    n_points = sum(parse_timestamp(f, is_datetime=True) != NO_TIMESTAMP for f in fields)
    return n_points > n_integers


def plan_partitions(
    files: Sequence[RatingsFormat], partition_bytes: int = PARTITION_BYTES
) -> list[list[Fragment]]:
    """Divide files into partitions of about ``partition_bytes`` bytes of text, one per task.

    A fragment of text consists of the lines that begin in its byte range. A compressed file, or one
    whose server does not support range requests, is one fragment, since it can only be read from
    its beginning. Small uncompressed files share a partition.

    Examples
    --------
    >>> columns = ("userId", "movieId", "rating")
    >>> file = RatingsFormat("a.csv", 1_000, b",", columns, 22, 1, (0.5, 5.0))
    >>> [fragment.part[1:] for (fragment,) in plan_partitions([file], 500)]
    [(22, 511), (511, 1000)]
    """
    partitions: list[list[Fragment]] = []
    n_free = 0
    for file in files:
        for fragment, cost in _split_file(file, max(1, partition_bytes)):
            if not partitions or cost > n_free:
                partitions.append([])
                n_free = partition_bytes
            partitions[-1].append(fragment)
            n_free -= cost
    return partitions


def _split_file(file: RatingsFormat, size: int) -> Iterator[tuple[Fragment, int]]:
    """Yield the fragments of a file, each with its cost in bytes of text."""
    if file.codec == "parquet":
        for part, cost in parquet_reader.plan_row_groups(file, max(1, size // _PARQUET_DENSITY)):
            yield Fragment(file, part), cost * _PARQUET_DENSITY
        return
    if file.codec is not None or file.is_streamed:
        yield Fragment(file, ByteRange(file.path, 0, file.size)), size
        return
    span = file.size - file.data_start
    n_ranges = max(1, math.ceil(span / size))
    bounds = [file.data_start + span * i // n_ranges for i in range(n_ranges + 1)]
    for start, stop in itertools.pairwise(bounds):
        yield Fragment(file, ByteRange(file.path, start, stop)), stop - start


def read_chunks(
    fragment: Fragment, size: int = _CHUNK_BYTES, *, detailed: bool = False
) -> Iterator[bytes | memoryview | ParsedChunk]:
    """Yield the content of a fragment: whole lines of text, or the typed rows of Parquet.

    A fragment of plain text is one chunk. A compressed or streamed file is read in several chunks,
    to limit memory. A chunk is valid only until the next one is requested: its buffer is reused.

    Parameters
    ----------
    fragment
        The fragment to read.
    size
        Approximate bytes of text per chunk of a compressed or streamed file.
    detailed
        Add the columns ``timestamp`` and ``line`` to the typed rows of Parquet, as
        :func:`segmentation.datasets.csv_reader.parse_lines` does.

    Raises
    ------
    DataError
        If a file can't be read, is damaged, or changed after the run began.
    """
    file, part = fragment
    try:
        if file.codec == "parquet":
            yield from parquet_reader.read_row_groups(file, part, detailed=detailed)
        elif file.codec is None and not file.is_streamed:
            yield from _transcode(file, _read_byte_range(file, part))
        else:
            yield from _transcode(file, _read_stream(file, size))
    finally:
        # Checked after the read, to cover all that was read; a change also explains a failed read.
        if file.version:
            check_version(file.path, file.version)


def _transcode(
    file: RatingsFormat, chunks: Iterator[bytes | memoryview]
) -> Iterator[bytes | memoryview]:
    """Yield chunks in UTF-8. Only string ids can differ from it, where ASCII is kept."""
    is_utf8 = file.encoding in ("utf-8", "ascii") or not keeps_ascii(file.encoding)
    if is_utf8 or not file.string_columns:
        yield from chunks
        return
    for chunk in chunks:
        yield decode_text(file.path, bytes(chunk), file.encoding)


def release_buffers() -> None:
    """Free the buffers that are kept for reuse."""
    _buffers.clear()


def _read_byte_range(file: RatingsFormat, part: ByteRange) -> Iterator[memoryview]:
    """Yield the lines that begin in a byte range, as one chunk."""
    # A line begins after a line end, so the search for the first line starts one byte early.
    is_first = part.start == file.data_start
    offset = part.start - (not is_first)
    last = part.stop - 1 - offset
    buffer = _take_buffer(last + _OVERREAD_BYTES)
    try:
        with open_file(file.path, file.size) as handle:
            handle.seek(offset)
            size = _fill_buffer(handle, buffer, 0)
            _check_length(file, offset, size, buffer)
            start = 0 if is_first else buffer.find(b"\n", 0, min(last, size)) + 1
            if not (is_first or start):
                # No line begins here, so none needs to be completed.
                return
            # The last line ends at or after the last byte of the range.
            while (stop := buffer.find(b"\n", max(last, 0), size) + 1) == 0:
                if size < len(buffer):
                    stop = size
                    break
                if size - last > _MAX_LINE_BYTES:
                    raise _make_line_error(file.path, offset + last)
                # A new buffer: a reader of the previous chunk may still hold a view of this one.
                buffer = buffer + bytes(_MAX_LINE_BYTES)
                size = _fill_buffer(handle, buffer, size)
            _check_length(file, offset, size, buffer)
        yield memoryview(buffer)[start:stop]
    finally:
        _buffers.append(buffer)


def _check_length(file: RatingsFormat, offset: int, size: int, buffer: bytearray) -> None:
    """Check that a file did not end before the end that it had when it was probed."""
    if offset + size < min(offset + len(buffer), file.size):
        raise DataError(
            f"{file.path}: is shorter than the {file.size:,} bytes it had when the run began; "
            "make sure that nothing writes to it, and run again"
        )


def _make_line_error(path: str, offset: int | None = None) -> DataError:
    place = "" if offset is None else f" after byte {offset:,}"
    return DataError(
        f"{path}: no line end within {_MAX_LINE_BYTES >> 20} MiB{place}; name a file of ratings, "
        "or replace this one if it is damaged"
    )


def _take_buffer(size: int) -> bytearray:
    """Return a buffer of at least ``size`` bytes: a used one that is large enough, or a new one."""
    while _buffers:
        # Another thread may take the last buffer first.
        with contextlib.suppress(IndexError):
            buffer = _buffers.pop()
            if len(buffer) >= size:
                return buffer
    return bytearray(size)


def _fill_buffer(handle: io.BufferedIOBase, buffer: bytearray, start: int) -> int:
    """Read until the buffer is full or the file ends; return where the content ends."""
    view = memoryview(buffer)
    while start < len(buffer):
        n_read = handle.readinto(view[start:])
        if not n_read:
            break
        start += n_read
    return start


def _read_stream(file: RatingsFormat, size: int) -> Iterator[bytes]:
    """Yield the lines of a file that can only be read from its beginning, in chunks."""
    with open_file(file.path, None if file.is_streamed else file.size) as handle:
        rest, n_skip = b"", file.data_start
        for data in _decode(file, _decompress(handle, file.codec, file.path, size)):
            text = rest + data[n_skip:]
            n_skip = max(0, n_skip - len(data))
            end = text.rfind(b"\n") + 1
            rest = text[end:]
            if len(rest) > _MAX_LINE_BYTES:
                raise _make_line_error(file.path)
            if end:
                yield text[:end]
        if rest:
            yield rest


def _decode(file: RatingsFormat, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the text of chunks in UTF-8, if lines can't be found without decoding it."""
    if keeps_ascii(file.encoding):
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(file.encoding)("replace")
    is_first = True
    for chunk in chunks:
        text = decoder.decode(chunk)
        if is_first:
            text, is_first = text.removeprefix("\N{BYTE ORDER MARK}"), False
        yield text.encode()
    yield decoder.decode(b"", final=True).encode()


def _decompress(
    handle: io.BufferedIOBase, codec: str | None, path: str, size: int
) -> Iterator[bytes]:
    """Yield the content of a file in chunks of up to ``size`` bytes."""
    if codec is None:
        while data := handle.read(size):
            yield data
        return
    import pyarrow as pa

    with pa.CompressedInputStream(pa.PythonFile(handle, mode="r"), codec) as stream:
        while True:
            try:
                data = stream.read(size)
            except OSError as error:
                raise DataError(
                    f"{path}: can't be decompressed ({describe_error(error)}); download or "
                    "compress it again"
                ) from error
            if not data:
                return
            yield data
