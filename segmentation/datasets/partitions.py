"""Divide ratings files into partitions, one per task, and read them.

A :class:`Fragment` is a part of one file; a partition is a list of fragments.
:func:`probe_files` detects the format of each file, :func:`plan_partitions` divides the files into
partitions, and :func:`read_chunks` reads a fragment in chunks.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from segmentation.datasets import identifiers, parquet_reader
from segmentation.datasets.csv_reader import split_line
from segmentation.datasets.filesystem import check_version, open_file
from segmentation.datasets.format import ParsedChunk, RatingsFormat
from segmentation.datasets.layouts import require_file
from segmentation.datasets.retry import describe_error
from segmentation.errors import DataError
from segmentation.schema import MOVIE, RATING, TIMESTAMP, USER, ByteRange

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator, Mapping, Sequence

    from segmentation.datasets.layouts import Layout

#: Default size of a partition in bytes of text: about 1.2 million rows, tens of MB in memory.
PARTITION_BYTES = 32 << 20
#: Ratings per byte of Parquet, relative to text.
_PARQUET_DENSITY = 4
#: Bytes of text per chunk of a compressed or streamed file.
_CHUNK_BYTES = 8 << 20
_HEAD_BYTES = 1 << 16
#: A longer line is no rating: the file is damaged, or something else.
_MAX_LINE_BYTES = 1 << 20
#: Bytes read after the end of a range, to complete its last line.
_OVERREAD_BYTES = 4096
#: Buffers for reuse: allocating new memory takes several times as long as reading into it.
_buffers: list[bytearray] = []
_BOM = b"\xef\xbb\xbf"
_PARQUET_MAGIC = b"PAR1"
#: First bytes of a compressed file → pyarrow's name of the codec.
_CODECS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_UNSUPPORTED = {
    b"PK\x03\x04": ("a zip archive", "unzip"),
    b"BZh": ("bzip2 data", "bunzip2"),
    b"\xfd7zXZ": ("xz data", "unxz"),
}


class Fragment(NamedTuple):
    """A part of one file that a task reads: a byte range of lines, or a range of row groups."""

    file: RatingsFormat
    part: ByteRange


def probe_files(
    layout: Layout,
    *,
    string_movie_ids: bool | None = None,
    versions: Mapping[str, str] | None = None,
) -> list[RatingsFormat]:
    """Detect the format of each ratings file of a layout from its first bytes or its schema.

    Parameters
    ----------
    layout
        The files of the data set.
    string_movie_ids
        Whether the catalogue's ids are strings; None to decide by the ratings.
    versions
        The versions of files that tasks must read; files without one may have any.

    Raises
    ------
    DataError
        If a file is missing, empty, a folder, in an unsupported format, or lacks a column; if no
        file holds a row; if Parquet files disagree on the type of an id column.
    """
    files = [_probe_file(path, layout) for path in layout.ratings_files]
    parquet_reader.check_id_types([file for file in files if file.codec == "parquet"])
    # A column that is a string in one file is a string in all files.
    string_columns = {name for file in files for name in file.string_columns}
    if string_movie_ids is not None:
        string_columns = string_columns - {MOVIE} | ({MOVIE} if string_movie_ids else set())
    versions = versions or {}
    files = [
        replace(
            file,
            string_columns=tuple(sorted(string_columns)),
            version=versions.get(file.path, ""),
        )
        for file in files
    ]
    if all(file.data_start == file.size for file in files):
        raise DataError(
            f"{layout.ratings}: holds a header and no ratings; replace it with a complete file"
        )
    return files


def _probe_file(path: str, layout: Layout) -> RatingsFormat:
    size = require_file(path)
    with open_file(path) as file:
        is_streamed = not file.seekable()
        head = _read_head(file)
    for magic, (content, command) in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise DataError(
                f"{path}: holds {content}, which is not supported; unpack it with {command} and "
                "name the result"
            )
    if head.startswith(_PARQUET_MAGIC):
        return parquet_reader.probe_parquet(path, size, layout.scale)
    codec = next((codec for magic, codec in _CODECS.items() if head.startswith(magic)), None)
    if codec is not None:
        with open_file(path) as file:
            head = next(_decompress(file, codec, path, _HEAD_BYTES), b"")
    file_format = replace(_parse_head(path, size, head, codec, layout), is_streamed=is_streamed)
    return replace(file_format, string_columns=_find_string_columns(file_format, head))


def _read_head(file: io.BufferedIOBase) -> bytes:
    head = b""
    while len(head) < _HEAD_BYTES and (data := file.read(_HEAD_BYTES - len(head))):
        head += data
    return head


def _parse_head(
    path: str, size: int, head: bytes, codec: str | None, layout: Layout
) -> RatingsFormat:
    """Return the format of a text file from its first bytes, decompressed."""
    bom_length = len(_BOM) if head.startswith(_BOM) else 0
    if path.removesuffix(".gz").removesuffix(".zst").endswith(".dat"):
        columns: tuple[str, ...] = (USER, MOVIE, RATING, TIMESTAMP)
        return RatingsFormat(path, size, b"::", columns, bom_length, 0, layout.scale, codec)
    header = head[bom_length:].split(b"\n", 1)[0]
    if len(head) >= _HEAD_BYTES and bom_length + len(header) == len(head):
        raise DataError(
            f"{path}, line 1: no line end within {_HEAD_BYTES >> 10} KiB; name a file of ratings"
        )
    columns = _parse_header(path, header)
    start = bom_length + len(header) + 1
    if codec is None:
        start = min(start, size)
    elif len(head) < _HEAD_BYTES and start >= len(head):
        # The head is the whole file, and nothing follows the header.
        start = size
    return RatingsFormat(path, size, b",", columns, start, 1, layout.scale, codec)


def _parse_header(path: str, header: bytes) -> tuple[str, ...]:
    line = header.rstrip(b"\r")
    if b"\r" in line:
        raise DataError(f"{path}: its lines end in CR alone; convert it with mac2unix")
    fields = next(csv.reader([line.decode("utf-8", "replace")]), [])
    columns = tuple(field.strip() for field in fields)
    missing = [name for name in (USER, MOVIE, RATING) if name not in columns]
    if missing:
        raise DataError(
            f"{path}, line 1: no column {' and no '.join(missing)} (it reads "
            f"{', '.join(columns)[:80]!r}); add the header {USER},{MOVIE},{RATING},{TIMESTAMP}"
        )
    duplicate = next((name for name in columns if columns.count(name) > 1), None)
    if duplicate is not None:
        raise DataError(f"{path}, line 1: names column {duplicate} twice; keep one of them")
    return columns


def _find_string_columns(file: RatingsFormat, head: bytes) -> tuple[str, ...]:
    """Return the columns whose ids are strings, based on the first lines of a file."""
    lines = [line.rstrip(b"\r") for line in head[file.data_start :].split(b"\n")]
    if len(head) >= _HEAD_BYTES:
        # The last line is cut off.
        del lines[-1]
    rows = [fields for line in lines if len(fields := split_line(file, line)) == len(file.columns)]
    user_index, movie_index, _ = file.positions
    return tuple(
        name
        for name, index in ((USER, user_index), (MOVIE, movie_index))
        if identifiers.is_string_column([row[index] for row in rows])
    )


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
            yield from _read_byte_range(file, part)
        else:
            yield from _read_stream(file, size)
    finally:
        # Checked after the read, to cover all that was read; a change also explains a failed read.
        if file.version:
            check_version(file.path, file.version)


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
        for data in _decompress(handle, file.codec, file.path, size):
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
