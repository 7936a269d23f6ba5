"""Ratings files → blocks of user statistics, on any ``distributed`` client.

:func:`aggregate_ratings` reads partitions as tasks and merges their statistics by user. While
partitions are read, :func:`choose_method` decides from their summaries whether partial sums can be
merged as they are, or the ratings have to be shuffled by user first.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from segmentation.datasets.partitions import plan_partitions, probe_files
from segmentation.datasets.text_form import keeps_ascii
from segmentation.errors import ClusterError, DataError
from segmentation.features import shuffle
from segmentation.features.deduplicate import (
    aggregate_latest,
    is_sorted_by_user,
    read_latest,
    superseded_rows,
)
from segmentation.features.partition_reader import (
    aggregate_partition,
    describe_partition,
    empty_rows,
    first_fragment_numbers,
)
from segmentation.features.row_counts import (
    RowCounts,
    collect_summaries,
    first_line_numbers,
    sum_counts,
)
from segmentation.features.sketches import estimate_n_users, quantile_sketch
from segmentation.features.user_blocks import UserBlocks, merge_by_user_range
from segmentation.features.user_statistics import relative_width
from segmentation.features.worker_memory import MemoryBudget, WorkerMemory
from segmentation.progress import Progress
from segmentation.redaction import redact
from segmentation.schema import COUNTS_NOTE, TIMESTAMP
from segmentation.tasks import copy_item, map_tasks, submit_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd
    from distributed import Client, Future
    from numpy.typing import NDArray

    from segmentation.datasets.format import RatingsFormat
    from segmentation.datasets.layouts import Layout
    from segmentation.datasets.partitions import Fragment
    from segmentation.features.partition_reader import PartitionSummary
    from segmentation.progress import Stage
    from segmentation.schema import Catalogue, ItemTable

#: Overlapping partial sums may take the workers' memory divided by this.
_SUMS_DIVISOR = 8
#: With many categories, partitions and blocks don't get smaller than this.
_MIN_PARTITION_BYTES, _MIN_BLOCK_USERS = 1 << 20, 1_024


class AggregatedRatings(NamedTuple):
    """User statistics on the workers, and the counts of the rows that they come from."""

    blocks: UserBlocks
    counts: RowCounts


def aggregate_ratings(
    client: Client,
    layout: Layout,
    catalogue: Catalogue,
    *,
    deduplicate: bool = False,
    max_rejected: float = 0.01,
    keep_all_users: bool = False,
    partition_bytes: int | None = None,
    memory: MemoryBudget | None = None,
    n_threads: int | None = None,
    check_shuffle: Callable[[int], None] | None = None,
    trim_memory: Callable[[], None] | None = None,
    versions: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> AggregatedRatings:
    """Stream ratings files into blocks of user statistics.

    Parameters
    ----------
    client
        The client to compute on.
    layout
        The ratings files.
    catalogue
        Items and their categories.
    deduplicate
        Whether only a user's latest rating of an item counts.
    max_rejected
        Largest share of the rows that may be rejected.
    keep_all_users
        Whether users who only rated other items are among the users, with no rating.
    partition_bytes
        Bytes of text that one task reads; None for what ``memory`` allows.
    memory
        Memory of the workers; None for :class:`WorkerMemory` of the client's workers.
    n_threads
        Threads of all workers together; None to ask the client.
    check_shuffle
        Called with the bytes of rows before they are shuffled; it raises if the workers have too
        little memory for that.
    trim_memory
        Called before a shuffle, to return free memory to the operating system.
    versions
        The version that each file must have when a task has read it; None for any.
    progress
        Where to report progress; None reports nothing.

    Returns
    -------
    AggregatedRatings
        ``blocks``, one future of statistics per range of users, and ``counts`` of the rows.

    Raises
    ------
    DataError
        If a file can't be read, too many rows are rejected, or no rating is of an item in the
        catalogue; with ``deduplicate``, if timestamps are missing.
    ClusterError
        If workers die repeatedly on one partition.

    Examples
    --------
    >>> from distributed import Client
    >>> from segmentation.datasets.catalogue import load_catalogue
    >>> from segmentation.datasets.layouts import detect_layout
    >>> with Client() as client:  # doctest: +SKIP
    ...     layout = detect_layout("ml-latest-small")
    ...     catalogue = load_catalogue(layout, "links")
    ...     blocks, counts = aggregate_ratings(client, layout, catalogue)
    ...     print(blocks.users, counts.used)
    610 100836
    """
    memory = memory or WorkerMemory.of_client(client)
    n_threads = n_threads or sum(client.nthreads().values())
    progress = progress or Progress()
    files = probe_files(layout, string_item_ids=catalogue.has_text_ids, versions=versions)
    if deduplicate:
        _require_timestamps(files)
    # The budget is for as many categories as films have; with more, a user takes more memory.
    width = relative_width(len(catalogue.categories))
    if partition_bytes is None:
        partition_bytes = memory.detailed_partition_bytes if deduplicate else memory.partition_bytes
        partition_bytes = _narrow(partition_bytes, width, _MIN_PARTITION_BYTES)
    with progress.stage("ratings", "ratings") as stage:
        report_form(layout, files, progress)
        _note_unsplittable(files, n_threads, progress)
        aggregation = _Aggregation(
            client,
            layout.ratings,
            files,
            catalogue.table(keep_all_users=keep_all_users),
            stage,
            deduplicate=deduplicate,
            max_rejected=max_rejected,
            memory=memory.total_available_mem,
            partitions=plan_partitions(files, partition_bytes),
        )
        with _name_failed_partition(aggregation):
            partial = aggregation.map_partitions()
            if partial is None:
                progress.say("  ratings: not sorted by user, so they are shuffled first")
                if check_shuffle is not None:
                    check_shuffle(aggregation.shuffled_bytes)
                if trim_memory is not None:
                    trim_memory()
                partial = aggregation.shuffle_partitions(
                    min(partition_bytes, memory.shuffle_partition_bytes)
                )
            counts = aggregation.count_rows(partial, progress)
            if layout.reading.ids == "auto":
                counts.check_ids(files)
            counts.check_rejected(layout.ratings, max_rejected, files)
            counts.check_used(layout.ratings, layout.items)
            blocks = merge_by_user_range(
                client,
                partial.parts,
                partial.sketches,
                partial.sizes,
                partial.n_users,
                n_threads,
                limit_block_users(memory, len(catalogue.categories)),
            )
        stage.note = (
            f"{counts.read:,} rows in {_plural(len(partial.summaries), 'partition')}"
            + (f" of {len(files):,} files" if len(files) > 1 else "")
            + f" → {blocks.users:,} users"
        )
    return AggregatedRatings(blocks, counts)


def limit_block_users(memory: MemoryBudget, n_categories: int) -> int:
    """Return the largest number of users of a block: fewer with many categories."""
    return _narrow(memory.block_users, relative_width(n_categories), _MIN_BLOCK_USERS)


def _narrow(size: int, width: float, least: int) -> int:
    """Divide a size by the relative width of a user, down to ``least``."""
    return max(int(size / width), min(size, least))


def choose_method(
    summaries: Sequence[PartitionSummary],
    n_partitions: int,
    n_categories: int,
    memory: int,
    *,
    deduplicate: bool = False,
) -> Literal["map-reduce", "shuffle"]:
    """Choose how to bring the ratings of each user together.

    ``"map-reduce"`` aggregates each partition and merges the partial sums. ``"shuffle"`` moves the
    ratings of a user to one partition first: with ``deduplicate``, if partitions share users other
    than those at their edges; otherwise if partial sums overlap and would take too much memory.

    Parameters
    ----------
    summaries
        The summaries of the partitions read so far.
    n_partitions
        Total number of partitions.
    n_categories
        Number of categories.
    memory
        Bytes that all workers together have for data.
    deduplicate
        Whether only a user's latest rating of an item counts.
    """
    if deduplicate:
        return "map-reduce" if is_sorted_by_user(summaries) else "shuffle"
    limit = memory // _SUMS_DIVISOR
    too_large = shuffle.exceeds_memory(summaries, n_partitions, n_categories, limit)
    return "shuffle" if too_large else "map-reduce"


class _PartialStatistics(NamedTuple):
    """Statistics that are not merged by user yet.

    Attributes
    ----------
    parts
        Futures of tuples, the statistics first.
    sketches
        A quantile sketch of the users of each part.
    sizes
        Number of users in each part.
    summaries
        The summaries of the partitions that were read, in the order of the files.
    n_users
        Estimated number of users.
    superseded
        The rows that deduplication left out.
    """

    parts: list[Future]
    sketches: list[NDArray[Any]]
    sizes: list[int]
    summaries: Sequence[PartitionSummary]
    n_users: int
    superseded: pd.DataFrame | None = None


@dataclass
class _Aggregation:
    """Reads and aggregates the partitions, by either method."""

    client: Client
    path: str
    files: Sequence[RatingsFormat]
    table: ItemTable
    stage: Stage
    deduplicate: bool
    max_rejected: float
    memory: int
    partitions: list[list[Fragment]]

    @property
    def max_rows(self) -> int:
        """Generous estimate of the number of rows: 8 bytes of text each, or 1 if compressed."""
        return sum(file.size // (1 if file.codec else 8) for file in self.files)

    @property
    def n_rows(self) -> int:
        """Estimated number of rows."""
        is_compressed = any(file.codec for file in self.files)
        return self.max_rows if is_compressed else self.max_rows // 3

    @property
    def shuffled_bytes(self) -> int:
        """Estimated bytes of all rows in a shuffle."""
        return self.n_rows * shuffle.row_bytes(detailed=self.deduplicate)

    def map_partitions(self) -> _PartialStatistics | None:
        """Aggregate each partition; None as soon as the ratings turn out to need a shuffle."""
        table = submit_value(self.client, "catalogue", self.table)
        if self.deduplicate:
            parts = map_tasks(
                self.client,
                "read-latest",
                read_latest,
                self.partitions,
                first_fragment_numbers(self.partitions),
                table,
            )
        else:
            parts = map_tasks(
                self.client, "read-ratings", aggregate_partition, self.partitions, table
            )
        summaries = self._collect(
            map_tasks(self.client, "summary", copy_item, parts, 1), must_stop=self._must_shuffle
        )
        if not summaries:
            self.client.cancel(parts)
            return None
        sketches = [summary.sketch for summary in summaries]
        sizes = [summary.n_users for summary in summaries]
        partial = _PartialStatistics(parts, sketches, sizes, summaries, _estimate_users(summaries))
        return self._add_edges(partial) if self.deduplicate else partial

    def _must_shuffle(self, summaries: Sequence[PartitionSummary]) -> bool:
        n = len(summaries)
        # Compare sums after 1, 2, 4, 8 … partitions: the cost is quadratic in their number.
        if not self.deduplicate and n & (n - 1):
            return False
        method = choose_method(
            summaries,
            len(self.partitions),
            self.table.n_categories,
            self.memory,
            deduplicate=self.deduplicate,
        )
        return method == "shuffle"

    def _add_edges(self, partial: _PartialStatistics) -> _PartialStatistics:
        """Add a part with the users at the edges of the partitions, deduplicated together."""
        leftovers = self.client.gather(
            map_tasks(self.client, "leftovers", copy_item, partial.parts, 2)
        )
        statistics, superseded = aggregate_latest(
            self._concat([rows.edges for rows in leftovers]), self.table
        )
        if len(statistics.users):
            partial.parts.append(submit_value(self.client, "edges", (statistics, None)))
            partial.sketches.append(quantile_sketch(statistics.users))
            partial.sizes.append(len(statistics.users))
        superseded = self._concat([*(rows.superseded for rows in leftovers), superseded])
        return partial._replace(superseded=superseded)

    def shuffle_partitions(self, partition_bytes: int) -> _PartialStatistics:
        """Read the ratings again, in partitions of another size, and shuffle them by user."""
        self.partitions = plan_partitions(self.files, partition_bytes)
        parts, tasks = shuffle.shuffle_by_user(
            self.client,
            self.partitions,
            self.table,
            n_rows=self.n_rows,
            partition_bytes=partition_bytes,
            deduplicate=self.deduplicate,
        )
        summaries = self._collect(tasks)
        sketches = self.client.gather(map_tasks(self.client, "sketch", copy_item, parts, 1))
        sizes = self.client.gather(map_tasks(self.client, "count", _count_part_users, parts))
        partial = _PartialStatistics(parts, sketches, sizes, summaries, sum(sizes))
        if not self.deduplicate:
            return partial
        superseded = self.client.gather(map_tasks(self.client, "superseded", copy_item, parts, 2))
        return partial._replace(superseded=self._concat(superseded))

    def count_rows(self, partial: _PartialStatistics, progress: Progress) -> RowCounts:
        """Add up the rows of all partitions, superseded ones as rejected.

        Raises
        ------
        DataError
            If too many ratings lack a timestamp, where timestamps matter.
        """
        counts = sum_counts(partial.summaries)
        warning = counts.check_timestamps(self.path, self.max_rejected)
        if warning is not None:
            progress.warn(f"  warning: {warning}")
        if partial.superseded is not None:
            paths = [report.path for part in partial.summaries for report in part.fragments]
            fragments = list(zip(paths, first_line_numbers(partial.summaries), strict=True))
            counts.supersede(superseded_rows(partial.superseded, fragments, self.table))
        return counts

    def _collect(self, tasks: Sequence[Future], **options: Any) -> list[PartitionSummary]:
        return collect_summaries(
            tasks,
            self.stage,
            self.path,
            max_rejected=self.max_rejected,
            max_rows=self.max_rows,
            files=self.files,
            **options,
        )

    def _concat(self, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
        import pandas as pd

        # The empty frame gives the dtypes if it is the only one.
        empty = empty_rows(self.files[0].string_columns, detailed=True)
        return pd.concat([empty, *frames], ignore_index=True)


def _count_part_users(part: tuple[Any, ...]) -> int:
    return len(part[0].users)


def _estimate_users(summaries: Sequence[PartitionSummary]) -> int:
    """Estimate the number of distinct users of all partitions."""
    # The sum is exact if partitions share no users; the estimate from samples may exceed it.
    upper_bound = sum(summary.n_users for summary in summaries)
    estimate = estimate_n_users([summary.sample for summary in summaries])
    return min(upper_bound, estimate)


@contextmanager
def _name_failed_partition(aggregation: _Aggregation) -> Iterator[None]:
    """Turn ``KilledWorker`` into an error that names the partition that was being read."""
    from distributed import KilledWorker

    try:
        yield
    except KilledWorker as error:
        # Keys of reading tasks start with read- and end with the partition's number.
        name, _, number = str(error.task).rpartition("-")
        if not (name.startswith("read-") and number.isdigit()):
            raise
        raise ClusterError(
            "workers died {times} times while they read {partition}: see a worker's log; if memory "
            "ran out, lower {partition_bytes} or start workers with more memory; then run again "
            "with {resume}",
            "partition_bytes",
            "resume",
            times=error.allowed_failures + 1,
            partition=describe_partition(aggregation.partitions[int(number)]),
        ) from error


def _require_timestamps(files: Sequence[RatingsFormat]) -> None:
    kinds = {True: "datetimes", False: "numbers"}
    for file in files:
        if TIMESTAMP not in file.columns:
            raise DataError(
                "{path}: has no column {column}, which {deduplicate} needs to find the latest "
                "rating: add it, name it with {columns} time=NAME, or leave {deduplicate} out",
                *("deduplicate", "columns"),
                path=file.path,
                column=TIMESTAMP,
            )
        if file.has_datetime_timestamps != files[0].has_datetime_timestamps:
            raise DataError(
                "{path}: column {column} holds {kind}, but {first_kind} in {first_path}, which "
                "{deduplicate} can't compare: write all files with one type",
                "deduplicate",
                path=file.path,
                column=TIMESTAMP,
                kind=kinds[file.has_datetime_timestamps],
                first_kind=kinds[files[0].has_datetime_timestamps],
                first_path=files[0].path,
            )


def report_form(layout: Layout, files: Sequence[RatingsFormat], progress: Progress) -> None:
    """Report how files are read where that is not obvious, and files that may be incomplete."""
    forms: dict[str, list[str]] = {}
    for file in files:
        if notes := ", ".join(file.notes):
            forms.setdefault(notes, []).append(redact(file.path))
    for notes, paths in forms.items():
        more = f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""
        progress.say(f"  note: {paths[0]}{more}: recognized {notes}")
    if layout.reading.implicit:
        values = COUNTS_NOTE if layout.reading.has_counts else "each row counts 1"
        progress.say(f"  note: the rows are no ratings: {values}")
    if layout.empty_files:
        progress.say(
            f"  note: {_plural(len(layout.empty_files), 'empty part')} left out, the first is "
            f"{redact(layout.empty_files[0])}"
        )
    for file in files:
        if file.is_cut:
            progress.warn(
                f"  warning: {redact(file.path)}: its last line has no end, as after a download "
                "that broke off; compare its size with the original's"
            )


def _note_unsplittable(files: Sequence[RatingsFormat], n_threads: int, progress: Progress) -> None:
    """Report files that only one task can read if they leave threads idle."""
    unsplittable = [file for file in files if file.codec in ("gzip", "zstd") or file.is_streamed]
    if not len(unsplittable) == len(files) < n_threads:
        return
    first = files[0]
    if first.codec is None and not keeps_ascii(first.encoding):
        progress.say(
            f"  note: {first.path} is {first.encoding.upper()}, which only one task can read; to "
            "use all threads, write it as UTF-8, or convert it to Parquet"
        )
    elif first.codec is None and "::" in first.path:
        progress.say(
            f"  note: {first.path} lies in an archive, which only one task can read; to use all "
            "threads, unpack it"
        )
    elif first.codec is None:
        progress.say(
            f"  note: the server of {first.path} does not support range requests, so one task "
            "reads the whole file, and twice; to use all threads, download it"
        )
    else:
        progress.say(
            f"  note: {first.path} is {first.codec}, which only one task can decompress; to use "
            "all threads, decompress it, or convert it to Parquet"
        )


def _plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
