"""Ratings files → pieces of partitions: each file is looked at, cut, and read chunk by chunk."""

from __future__ import annotations

import contextlib
import csv
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from segmentation.datasets import identifiers, parquet_reader
from segmentation.datasets.csv_reader import split
from segmentation.datasets.discovery import CODECS, PARQUET_MAGIC
from segmentation.datasets.filesystem import open_file
from segmentation.datasets.format import Partition, RatingsFormat
from segmentation.datasets.layouts import require_file
from segmentation.datasets.retry import one_line
from segmentation.errors import DataError
from segmentation.schema import MOVIE, RATING, TIMESTAMP, USER, ByteRange

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from segmentation.datasets.layouts import Layout

#: Bytes of a partition unless asked otherwise: some 1.2 million rows, tens of MB once typed.
PARTITION_BYTES = 32 << 20
#: Parquet holds about so many times as many ratings a byte as text does.
_PARQUET_DENSITY = 4
#: Bytes of a packed file that are unpacked at a time.
_CHUNK_BYTES = 8 << 20
_HEAD_BYTES = 1 << 16
_LONGEST_LINE = 64 << 20
#: What is read beyond a range, for the end of its last line.
_SPARE_BYTES = 4096
#: Memory that is new each time costs several times as much as what is read into it.
_buffers: list[bytearray] = []
_BOM = b"\xef\xbb\xbf"
_REFUSED = {
    b"PK\x03\x04": ("a zip archive", "unpack it (unzip)"),
    b"BZh": ("bzip2", "unpack it (bunzip2)"),
    b"\xfd7zXZ": ("xz", "unpack it (unxz)"),
}


class Fragment(NamedTuple):
    """A part of one file that a task reads: lines by their bytes, or row groups by their number."""

    file: RatingsFormat
    part: ByteRange


def probe_files(layout: Layout, *, text_movies: bool | None = None) -> list[RatingsFormat]:
    """Look at the head of each file of a layout's ratings and say how to read it.

    ``text_movies`` tells whether the catalogue's ids are texts; None where it is not at hand.

    Raises
    ------
    DataError
        If one is missing, empty, a directory, packed in a way that isn't read, or lacks a needed
        column; if all hold a header and no more; if ids are numbers in one Parquet file and texts
        in another.
    """
    files = [_probe(path, layout) for path in layout.ratings_files]
    parquet_reader.check_alike([file for file in files if file.codec == "parquet"])
    # A column is the same in all of them: of what some hold texts, others hold numbers as texts.
    texts = {name for file in files for name in file.texts}
    if text_movies is not None:
        texts = texts - {MOVIE} | ({MOVIE} if text_movies else set())
    files = [replace(file, texts=tuple(sorted(texts))) for file in files]
    if all(file.data_start == file.size for file in files):
        raise DataError(
            f"{layout.ratings}: holds a header and no ratings: is it the right file, and whole?"
        )
    return files


def _probe(path: str, layout: Layout) -> RatingsFormat:
    size = require_file(path)
    with open_file(path) as file:
        streamed = not file.seekable()
        head = _head(file)
        for magic, (kind, remedy) in _REFUSED.items():
            if head.startswith(magic):
                raise DataError(f"{path}: holds {kind}, not text: {remedy} and name the result")
        if head.startswith(PARQUET_MAGIC):
            return parquet_reader.probe(path, size, layout.scale)
        codec = next((codec for magic, codec in CODECS.items() if head.startswith(magic)), None)
    if codec is not None:
        with open_file(path) as file:
            head = next(_unpacked(file, codec, path, _HEAD_BYTES), b"")
    found = _text(path, size, head, codec, layout)
    return replace(found, streamed=streamed, texts=_texts(found, head))


def _texts(file: RatingsFormat, head: bytes) -> tuple[str, ...]:
    """Return the columns whose ids are texts, as far as a file's beginning tells."""
    lines = [line.rstrip(b"\r") for line in head[file.data_start :].split(b"\n")]
    if len(head) >= _HEAD_BYTES:
        # The last is cut off.
        del lines[-1]
    rows = [fields for line in lines if len(fields := split(file, line)) == len(file.columns)]
    places = zip((USER, MOVIE), file.positions, strict=False)
    return tuple(name for name, at in places if identifiers.are_texts([row[at] for row in rows]))


def _head(file: Any) -> bytes:
    head = b""
    while len(head) < _HEAD_BYTES and (more := file.read(_HEAD_BYTES - len(head))):
        head += more
    return head


def _text(path: str, size: int, head: bytes, codec: str | None, layout: Layout) -> RatingsFormat:
    bom = len(_BOM) if head.startswith(_BOM) else 0
    plain = path.removesuffix(".gz").removesuffix(".zst")
    if plain.endswith(".dat"):
        columns: tuple[str, ...] = (USER, MOVIE, RATING, TIMESTAMP)
        return RatingsFormat(path, size, b"::", columns, bom, 0, layout.scale, codec)
    line = head[bom:].split(b"\n", 1)[0]
    if b"\r" in line.rstrip(b"\r"):
        raise DataError(f"{path}: ends its lines with CR alone: convert them (mac2unix)")
    names = next(csv.reader([line.rstrip(b"\r").decode("utf-8", "replace")]), [])
    columns = tuple(name.strip() for name in names)
    missing = [name for name in (USER, MOVIE, RATING) if name not in columns]
    if missing:
        shown = ", ".join(columns)[:80]
        raise DataError(
            f"{path}: line 1 names no column {' and no '.join(missing)} (it reads: {shown}): "
            f"give it the header {USER},{MOVIE},{RATING},{TIMESTAMP}"
        )
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: line 1 names column {twice} twice: keep one of them")
    start = bom + len(line) + 1
    if codec is None:
        start = min(start, size)
    elif len(head) < _HEAD_BYTES and start >= len(head):
        # All of it is in hand, and there is nothing after the header.
        start = size
    return RatingsFormat(path, size, b",", columns, start, 1, layout.scale, codec)


def plan_partitions(
    files: Sequence[RatingsFormat], partition_bytes: int = PARTITION_BYTES
) -> list[list[Fragment]]:
    """Cut files into partitions of about ``partition_bytes`` of text, one task's work each.

    A piece of text owns the lines that begin in its bytes. A packed file can't be entered in its
    middle, nor one whose server gives no ranges: it is one piece. Small files share a partition.
    """
    found: list[list[Fragment]] = []
    room = 0
    for file in files:
        for piece, cost in _pieces(file, max(1, partition_bytes)):
            if cost > room:
                found.append([])
                room = partition_bytes
            found[-1].append(piece)
            room -= cost
    return found


def _pieces(file: RatingsFormat, size: int) -> Iterator[tuple[Fragment, int]]:
    """Cut one file; with each piece goes what it costs to read, in bytes of text."""
    if file.codec == "parquet":
        for part, cost in parquet_reader.ranges(file, max(1, size // _PARQUET_DENSITY)):
            yield Fragment(file, part), cost * _PARQUET_DENSITY
        return
    if file.codec is not None or file.streamed:
        yield Fragment(file, ByteRange(file.path, 0, file.size)), size
        return
    for part in byte_ranges(file, size):
        yield Fragment(file, part), part.stop - part.start


def byte_ranges(file: RatingsFormat, size: int = PARTITION_BYTES) -> list[ByteRange]:
    """Cut plain text into ranges of about ``size`` bytes; a range owns the lines it begins."""
    span = file.size - file.data_start
    n = max(1, math.ceil(span / max(1, size)))
    cuts = [file.data_start + span * i // n for i in range(n + 1)]
    return [ByteRange(file.path, cuts[i], cuts[i + 1]) for i in range(n)]


def read_chunks(
    piece: Fragment, size: int = _CHUNK_BYTES, *, detailed: bool = False
) -> Iterator[bytes | memoryview | Partition]:
    """Read a piece: whole lines of text, or rows that are typed already.

    Plain text comes at once, a packed file in chunks of about ``size`` bytes, so that it needs no
    more memory than the others. A chunk is good until the next one is asked for.
    ``detailed`` adds columns to typed rows, as in
    :func:`segmentation.datasets.csv_reader.parse_lines`.

    Raises
    ------
    DataError
        If a packed file is damaged.
    """
    file, part = piece
    if file.codec == "parquet":
        yield from parquet_reader.read(file, part, detailed=detailed)
    elif file.codec is None and not file.streamed:
        yield from _lines(file, part)
    else:
        yield from _streamed_lines(file, size)


def _lines(file: RatingsFormat, part: ByteRange) -> Iterator[memoryview]:
    """Yield the lines that begin in a byte range.

    Raises
    ------
    DataError
        If the file ends before its end.
    """
    # A line begins where one ended: the search for it begins a byte before the range.
    first = part.start == file.data_start
    offset = part.start - (not first)
    last = part.stop - 1 - offset
    buffer = _buffer(last + _SPARE_BYTES)
    try:
        with open_file(file.path, file.size) as handle:
            handle.seek(offset)
            size = _fill(handle, buffer, 0)
            # The last line ends at the range's last byte or behind it.
            while (stop := buffer.find(b"\n", max(last, 0), size) + 1) == 0:
                if size < len(buffer):
                    stop = size
                    break
                # Another one, since whoever had this one before may still hold a view of it.
                buffer = buffer + bytes(len(buffer))
                size = _fill(handle, buffer, size)
        if offset + size < min(offset + len(buffer), file.size):
            raise DataError(
                f"{file.path}: is shorter than the {file.size:,} bytes that it had when the run "
                "began: let nobody write to it, and run again"
            )
        start = 0 if first else (buffer.find(b"\n", 0, stop) + 1 or stop)
        yield memoryview(buffer)[start:stop]
    finally:
        _buffers.append(buffer)


def _buffer(size: int) -> bytearray:
    """Return a buffer of a size or more; one that was used before, if there is any."""
    while _buffers:
        # Another thread may be quicker.
        with contextlib.suppress(IndexError):
            found = _buffers.pop()
            if len(found) >= size:
                return found
    return bytearray(size)


def release_buffers() -> None:
    """Let go of the memory that reading keeps for more reading."""
    _buffers.clear()


def _fill(handle: Any, buffer: bytearray, at: int) -> int:
    """Read until the buffer is full or the file ends; return where its content ends."""
    view = memoryview(buffer)
    while at < len(buffer):
        count = handle.readinto(view[at:])
        if not count:
            break
        at += count
    return at


def _streamed_lines(file: RatingsFormat, size: int) -> Iterator[bytes]:
    with open_file(file.path, None if file.streamed else file.size) as handle:
        rest, skip = b"", file.data_start
        for unpacked in _unpacked(handle, file.codec, file.path, size):
            skipped = min(skip, len(unpacked))
            skip -= skipped
            data = rest + unpacked[skipped:]
            end = data.rfind(b"\n") + 1
            rest = data[end:]
            if len(rest) > _LONGEST_LINE:
                raise DataError(
                    f"{file.path}: has no end of a line within {_LONGEST_LINE >> 20} MiB: "
                    "it holds no ratings"
                )
            if end:
                yield data[:end]
        if rest:
            yield rest


def _unpacked(handle: Any, codec: str | None, path: str, size: int) -> Iterator[bytes]:
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
                    f"{path}: can't be unpacked ({one_line(error)}): it is damaged or cut off: "
                    "fetch it or pack it again"
                ) from error
            if not data:
                return
            yield data
