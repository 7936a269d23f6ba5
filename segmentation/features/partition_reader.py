"""The tasks that see rows: a partition is read, chunk by chunk, and summed up by user."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.datasets import csv_reader, format, partitions
from segmentation.features import compiled_reader, sketches, user_statistics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from segmentation.datasets.format import LineReject, RatingsFormat
    from segmentation.datasets.partitions import Fragment
    from segmentation.schema import MovieTable, UserStatistics

#: Beneath Dask's own, so that lines go where a worker's do.
logger = logging.getLogger("distributed.segmentation")
#: Chunks of a packed file whose statistics wait to be merged.
_WAITING = 8
#: Text that is typed at once where rows are kept: that takes several times as much for a while.
_TYPED_BYTES = 2 << 20
_LINE_END = re.compile(rb"\n")


class FragmentReport(NamedTuple):
    """What became of one piece's lines; rejected ones are numbered from 0 within it."""

    path: str
    header_lines: int
    lines: int
    rejected: tuple[LineReject, ...]


class PartitionSummary(NamedTuple):
    """What the driver learns of one partition.

    ``seen`` marks the catalogue's movies that got a used rating, packed eight to a byte;
    ``sketch`` holds some evenly spaced user ids, of ``users`` in all, and ``sample`` the hashes of
    some, chosen by them. Where rows are shuffled later, users are not told of. ``unstamped`` are
    used ratings whose timestamp is none, where timestamps matter.
    """

    pieces: tuple[FragmentReport, ...]
    used: int
    unmapped: int
    seen: NDArray[np.uint8]
    sketch: NDArray[Any] = np.empty(0, np.int64)
    users: int = 0
    sample: NDArray[np.uint64] = np.empty(0, np.uint64)
    unstamped: int = 0

    @property
    def rejected(self) -> int:
        """Rows that are no ratings."""
        return sum(len(piece.rejected) for piece in self.pieces)


def describe_partition(pieces: Sequence[Fragment]) -> str:
    """Say which part of which file a partition is."""
    first, last = pieces[0].part, pieces[-1].part
    what = "row groups" if pieces[0].file.codec == "parquet" else "bytes"
    told = f"{first.path}, {what} {first.start:,} to {first.stop:,}"
    return told if len(pieces) == 1 else f"{told} and {len(pieces) - 1} more up to {last.path}"


def log_partition(stage: str, pieces: Sequence[Fragment], rows: int, users: int | None) -> None:
    """Put a line into the worker's log."""
    by = "" if users is None else f" by {users:,} users"
    logger.info("%s: %s: %s rows%s", stage, describe_partition(pieces), f"{rows:,}", by)


def aggregate_partition(
    pieces: Sequence[Fragment], table: MovieTable
) -> tuple[UserStatistics, PartitionSummary]:
    """Read one partition and sum it up by user.

    Raises
    ------
    DataError
        If a packed or Parquet file is damaged.
    """
    waiting: list[UserStatistics] = []
    reports = []
    used = unmapped = 0
    seen = np.zeros(-(-len(table.movie_ids) // 8), np.uint8)
    for piece in pieces:
        lines = 0
        rejected: list[LineReject] = []
        for chunk in partitions.read_chunks(piece):
            found, more, bad = _summed(piece.file, chunk, table)
            rejected += [reject._replace(line=lines + reject.line) for reject in bad]
            lines += more
            used += found.used
            unmapped += found.unmapped
            seen |= found.seen
            if len(waiting) == _WAITING:
                waiting = [user_statistics.merge(waiting)]
            waiting.append(found.statistics)
        file = piece.file
        reports.append(FragmentReport(file.path, file.header_lines, lines, tuple(rejected)))
    merged = user_statistics.merge(waiting) if waiting else user_statistics.empty(table.n_genres)
    merged = user_statistics.downcast(merged)
    sketch = sketches.quantile_sketch(merged.users)
    log_partition("ratings", pieces, used + unmapped, len(merged.users))
    return merged, PartitionSummary(
        tuple(reports),
        used,
        unmapped,
        seen,
        sketch,
        len(merged.users),
        sketches.hash_sample(merged.users),
    )


def _summed(
    file: RatingsFormat, chunk: bytes | memoryview | format.ParsedChunk, table: MovieTable
) -> tuple[user_statistics.PartitionStatistics, int, Sequence[LineReject]]:
    if not isinstance(chunk, format.ParsedChunk):
        known = strict_grammar(file)
        quick = known and compiled_reader.read_statistics(chunk, known, table)
        if quick is not None:
            return *quick, ()
        chunk = csv_reader.parse_lines(file, bytes(chunk))
    return user_statistics.partition_statistics(chunk.ratings, table), chunk.lines, chunk.rejected


def parse_chunks(piece: Fragment, *, detailed: bool = False) -> Iterator[format.ParsedChunk]:
    """Read the rows of a piece, a few MiB of text at a time.

    Raises
    ------
    DataError
        If a packed or Parquet file is damaged.
    """
    for chunk in partitions.read_chunks(piece, detailed=detailed):
        if isinstance(chunk, format.ParsedChunk):
            yield chunk
            continue
        start = 0
        while start < len(chunk):
            end = _LINE_END.search(chunk, start + _TYPED_BYTES - 1)
            stop = end.end() if end else len(chunk)
            yield csv_reader.parse_lines(piece.file, bytes(chunk[start:stop]), detailed=detailed)
            start = stop


def strict_grammar(file: RatingsFormat) -> compiled_reader.Grammar | None:
    """Return how the compiled reader cuts a file's lines; None where it doesn't."""
    if file.positions != (0, 1, 2) or file.string_columns:
        return None
    return compiled_reader.Grammar(
        len(file.columns), file.delimiter[0], len(file.delimiter), *file.scale
    )
