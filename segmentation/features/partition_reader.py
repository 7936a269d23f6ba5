"""Read partitions: iterate over their chunks, and aggregate or collect the rows.

Aggregation, shuffle, deduplication and ``convert`` read partitions through
:class:`PartitionReader`. Aggregation parses a chunk straight into statistics, the others into typed
rows.
"""

from __future__ import annotations

import functools
import itertools
import logging
import re
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from segmentation.datasets import csv_reader, format, partitions
from segmentation.datasets.identifiers import STRING_DTYPE
from segmentation.features import compiled_reader, sketches, user_statistics
from segmentation.redaction import redact
from segmentation.schema import ITEM, LINE, RATING, TIMESTAMP, USER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from segmentation.datasets.format import LineReject, RatingsFormat
    from segmentation.datasets.partitions import Fragment
    from segmentation.features.user_statistics import ChunkStatistics
    from segmentation.schema import ItemTable, UserStatistics

logger = logging.getLogger("segmentation")
#: Column of detailed rows: the index of the fragment that a row was read from.
FRAGMENT = "fragment"
#: Number of chunk statistics that are merged at a time.
_MERGE_SIZE = 8
#: Bytes of text to parse at once if rows are kept; parsing takes several times as much memory.
_PARSE_BYTES = 2 << 20
_LINE_END = re.compile(rb"\n")


class _Chunk(Protocol):
    """The attributes of a parsed chunk that the reader uses."""

    @property
    def lines(self) -> int: ...

    @property
    def rejected(self) -> Sequence[LineReject]: ...

    @property
    def unlisted(self) -> int: ...

    @property
    def unrated(self) -> int: ...


ChunkT = TypeVar("ChunkT", bound=_Chunk)


class FragmentReport(NamedTuple):
    """The lines of one fragment; rejected lines are numbered from 0 within it."""

    path: str
    header_lines: int
    lines: int
    rejected: tuple[LineReject, ...]
    unlisted: int = 0
    unrated: int = 0


class PartitionSummary(NamedTuple):
    """Summary of one partition, which its task sends to the driver.

    Attributes
    ----------
    fragments
        One report per fragment.
    used, unmapped
        Number of ratings whose item is in the catalogue, and of those whose item is not.
    seen
        Bitmap of the catalogue's items with a used rating, eight to a byte.
    sketch
        Evenly spaced user ids. Empty if the rows will be shuffled.
    n_users
        Number of distinct users. 0 if the rows will be shuffled.
    sample
        Hashes of a sample of the user ids, to estimate the number of users of all partitions.
    without_timestamp
        Used ratings without a usable timestamp; counted only in detailed rows.
    """

    fragments: tuple[FragmentReport, ...]
    used: int
    unmapped: int
    seen: NDArray[np.uint8]
    sketch: NDArray[Any] = np.empty(0, np.int64)
    n_users: int = 0
    sample: NDArray[np.uint64] = np.empty(0, np.uint64)
    without_timestamp: int = 0

    @property
    def n_listed(self) -> int:
        """Number of rejected rows that are listed."""
        return sum(len(fragment.rejected) for fragment in self.fragments)

    def without_listed(self) -> PartitionSummary:
        """Return the summary with its rejected rows counted and none of them listed."""
        fragments = tuple(
            fragment._replace(rejected=(), unlisted=fragment.unlisted + len(fragment.rejected))
            for fragment in self.fragments
        )
        return self._replace(fragments=fragments)

    @property
    def unrated(self) -> int:
        """Number of rows left out because their rating stands for "not rated"."""
        return sum(fragment.unrated for fragment in self.fragments)

    @property
    def rejected(self) -> int:
        """Number of rows that are not ratings."""
        return sum(len(fragment.rejected) + fragment.unlisted for fragment in self.fragments)


class PartitionReader(Generic[ChunkT]):
    """Iterate over the parsed chunks of a partition and report the lines of its fragments.

    Parameters
    ----------
    fragments
        The fragments of the partition, in order.
    parse
        Turns whole lines of a file, or the typed rows of a Parquet file, into chunks.
    detailed
        Whether typed rows have the columns ``timestamp`` and ``line`` as well.

    Attributes
    ----------
    reports
        One :class:`FragmentReport` per fragment that has been read to its end.
    """

    def __init__(
        self,
        fragments: Sequence[Fragment],
        parse: Callable[[RatingsFormat, bytes | memoryview | format.ParsedChunk], Iterator[ChunkT]],
        *,
        detailed: bool = False,
    ) -> None:
        self._fragments = fragments
        self._parse = parse
        self._detailed = detailed
        self.reports: list[FragmentReport] = []

    def __iter__(self) -> Iterator[tuple[int, int, ChunkT]]:
        """Yield the index of the fragment, the number of the chunk's first line, and the chunk.

        Lines are numbered from 0 within the fragment. A chunk may be a view of a buffer that is
        reused: use it before asking for the next one.

        Raises
        ------
        DataError
            If a compressed or Parquet file is damaged.
        """
        for index, fragment in enumerate(self._fragments):
            file = fragment.file
            line = unlisted = unrated = 0
            rejected: list[LineReject] = []
            for data in partitions.read_chunks(fragment, detailed=self._detailed):
                for chunk in self._parse(file, data):
                    yield index, line, chunk
                    unlisted += chunk.unlisted
                    unrated += chunk.unrated
                    unlisted += format.append_rejects(rejected, chunk.rejected, line)
                    line += chunk.lines
            self.reports.append(
                FragmentReport(
                    redact(file.path), file.header_lines, line, tuple(rejected), unlisted, unrated
                )
            )


def read_rows(
    fragments: Sequence[Fragment], *, detailed: bool = False
) -> PartitionReader[format.ParsedChunk]:
    """Return a reader of a partition's typed rows, a few MiB of text at a time.

    With ``detailed``, rows have the columns ``timestamp`` and ``line`` as well.
    """
    parse = functools.partial(_parse_rows, detailed=detailed)
    return PartitionReader(fragments, parse, detailed=detailed)


def _parse_rows(
    file: RatingsFormat, data: bytes | memoryview | format.ParsedChunk, *, detailed: bool
) -> Iterator[format.ParsedChunk]:
    if isinstance(data, format.ParsedChunk):
        yield data
        return
    start = 0
    while start < len(data):
        end = _LINE_END.search(data, start + _PARSE_BYTES - 1)
        stop = end.end() if end else len(data)
        yield csv_reader.parse_lines(file, bytes(data[start:stop]), detailed=detailed)
        start = stop


def aggregate_partition(
    fragments: Sequence[Fragment], table: ItemTable
) -> tuple[UserStatistics, PartitionSummary]:
    """Read one partition and aggregate it by user.

    Raises
    ------
    DataError
        If a compressed or Parquet file is damaged.
    """
    pending: list[UserStatistics] = []
    used = unmapped = 0
    seen = np.zeros(-(-len(table.item_ids) // 8), np.uint8)
    reader = PartitionReader(fragments, functools.partial(_aggregate_chunk, table=table))
    for _, _, chunk in reader:
        used += chunk.used
        unmapped += chunk.unmapped
        seen |= chunk.seen
        if len(pending) == _MERGE_SIZE:
            pending = [user_statistics.merge(pending)]
        pending.append(chunk.statistics)
    merged = (
        user_statistics.merge(pending)
        if pending
        else user_statistics.empty_statistics(table.n_categories)
    )
    merged = user_statistics.downcast(merged)
    log_partition(fragments, used + unmapped, len(merged.users))
    summary = PartitionSummary(tuple(reader.reports), used, unmapped, seen)
    return merged, add_users(summary, merged.users)


def _aggregate_chunk(
    file: RatingsFormat, data: bytes | memoryview | format.ParsedChunk, *, table: ItemTable
) -> Iterator[ChunkStatistics]:
    if not isinstance(data, format.ParsedChunk):
        grammar = strict_grammar(file)
        if grammar is not None:
            statistics = compiled_reader.aggregate_lines(data, grammar, table)
            if statistics is not None:
                yield statistics
                return
        data = csv_reader.parse_lines(file, bytes(data))
    yield user_statistics.aggregate_chunk(data, table)


def strict_grammar(file: RatingsFormat) -> compiled_reader.Grammar | None:
    """Return a file's grammar for the compiled reader; None if that can't read the file."""
    is_plain = file.positions == (0, 1, 2) and not file.string_columns
    if not is_plain or file.has_counts or len(file.unrated) > 1:
        return None
    return compiled_reader.Grammar(
        len(file.columns),
        file.delimiter[0],
        len(file.delimiter),
        *file.scale,
        ord("," if file.decimal_comma else "."),
        *file.unrated,
    )


def read_used_rows(
    fragments: Sequence[Fragment],
    table: ItemTable,
    *,
    detailed: bool = False,
    first_fragment: int = 0,
) -> tuple[pd.DataFrame, PartitionSummary]:
    """Read the rows of one partition that :func:`map_items` goes on with.

    Parameters
    ----------
    fragments
        The fragments of the partition, in order.
    table
        The catalogue's items.
    detailed
        Whether to add the columns ``timestamp``, ``line`` (from 0 within the fragment) and
        ``fragment``.
    first_fragment
        Index of the first fragment among those of all partitions.

    Returns
    -------
    rows : pandas.DataFrame
        ``userId``, ``movieId`` (the item's row in the catalogue), ``rating``, and the details.
    summary : PartitionSummary
        Without users; :func:`add_users` adds them.

    Raises
    ------
    DataError
        If a compressed or Parquet file is damaged.
    """
    import pandas as pd

    frames = [empty_rows(fragments[0].file.string_columns, detailed=detailed)]
    n_used = unmapped = 0
    reader = read_rows(fragments, detailed=detailed)
    for index, first_line, chunk in reader:
        chunk_rows, n_chunk = user_statistics.map_items(chunk.ratings, table)
        n_used += n_chunk
        unmapped += len(chunk.ratings) - n_chunk
        if detailed:
            details: dict[str, Any] = {
                LINE: chunk_rows[LINE] + first_line,
                FRAGMENT: np.int32(first_fragment + index),
            }
            chunk_rows = chunk_rows.assign(**details)
        frames.append(chunk_rows)
    rows = pd.concat(frames, ignore_index=True)
    seen = np.zeros(len(table.item_ids), np.bool_)
    items = rows[ITEM].to_numpy()
    seen[items[items >= 0]] = True
    summary = PartitionSummary(tuple(reader.reports), n_used, unmapped, np.packbits(seen))
    if detailed:
        missing = (rows[TIMESTAMP].to_numpy() == format.NO_TIMESTAMP) & (items >= 0)
        summary = summary._replace(without_timestamp=int(missing.sum()))
    return rows, summary


def empty_rows(string_columns: Sequence[str] = (), *, detailed: bool = False) -> pd.DataFrame:
    """Return a data frame like those of :func:`read_used_rows`, without rows.

    ``string_columns`` names the columns whose ids are strings.
    """
    import pandas as pd

    users = pd.Series([], dtype=STRING_DTYPE if USER in string_columns else np.int64)
    columns = {USER: users, ITEM: np.empty(0, np.int32), RATING: np.empty(0)}
    if detailed:
        columns |= {name: np.empty(0, np.int64) for name in (TIMESTAMP, LINE)}
        columns[FRAGMENT] = np.empty(0, np.int32)
    return pd.DataFrame(columns)


def add_users(summary: PartitionSummary, users: NDArray[Any]) -> PartitionSummary:
    """Return a summary that counts and samples the sorted distinct users of its partition."""
    return summary._replace(
        sketch=sketches.quantile_sketch(users),
        n_users=len(users),
        sample=sketches.hash_sample(users),
    )


def first_fragment_numbers(partitions: Sequence[Sequence[Fragment]]) -> list[int]:
    """Return the number of each partition's first fragment among those of all partitions."""
    return [0, *itertools.accumulate(map(len, partitions[:-1]))]


def describe_partition(fragments: Sequence[Fragment]) -> str:
    """Return the file and the range of bytes, or row groups, of a partition."""
    first, last = fragments[0].part, fragments[-1].part
    unit = "row groups" if fragments[0].file.codec == "parquet" else "bytes"
    description = f"{redact(first.path)}, {unit} {first.start:,} to {first.stop:,}"
    if len(fragments) == 1:
        return description
    return f"{description} and {len(fragments) - 1} more up to {redact(last.path)}"


def log_partition(fragments: Sequence[Fragment], n_rows: int, n_users: int | None = None) -> None:
    """Log to the worker's log that a partition has been read."""
    users = "" if n_users is None else f" by {n_users:,} users"
    logger.info("ratings: %s: %s rows%s", describe_partition(fragments), f"{n_rows:,}", users)
