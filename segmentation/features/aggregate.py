"""Ratings → blocks of user statistics, by the way that their order and the settings call for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segmentation.datasets import catalogue as catalogues
from segmentation.datasets import partitions as reader
from segmentation.errors import DataError
from segmentation.features import deduplicate, shuffle
from segmentation.features.partition_reader import aggregate_partition, describe_partition
from segmentation.features.row_counts import (
    RowCounts,
    SummaryCollector,
    first_line_numbers,
    sum_counts,
)
from segmentation.features.sketches import estimate_n_users
from segmentation.features.user_blocks import UserBlocks, merge_by_user_range
from segmentation.pipeline.error_messages import name_failed_partition
from segmentation.schema import TIMESTAMP
from segmentation.tasks import copy_first, copy_second, map_tasks, submit_value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from segmentation.datasets.format import RatingsFormat
    from segmentation.datasets.layouts import Layout
    from segmentation.datasets.partitions import Fragment
    from segmentation.deploy.core import Cluster
    from segmentation.features.partition_reader import PartitionSummary
    from segmentation.features.row_counts import StopReason
    from segmentation.pipeline.settings import Settings
    from segmentation.progress import Progress
    from segmentation.schema import Catalogue, MovieTable, RejectedRow

_KINDS = {True: "points in time", False: "numbers"}
#: Partial sums that overlap may take one part in so many of the workers' memory.
_SUMS_SHARE = 8


def aggregate_ratings(
    layout: Layout,
    catalogue: Catalogue,
    settings: Settings,
    cluster: Cluster,
    progress: Progress,
) -> tuple[UserBlocks, RowCounts]:
    """Stream the ratings into blocks of user statistics.

    Raises
    ------
    DataError
        If too many rows are rejected, or none matches the catalogue; if the latest rating of
        each movie is wanted and a file has no timestamps.
    """
    found = reader.probe_files(layout, string_movie_ids=catalogue.has_text_ids)
    budget = cluster.budget
    size = settings.partition_bytes or (
        budget.detailed_bytes if settings.deduplicate else budget.partition_bytes
    )
    partitions = reader.plan_partitions(found, size)
    with (
        progress.stage("ratings", "ratings") as stage,
        name_failed_partition(lambda number: describe_partition(partitions[number])),
    ):
        _warn_of_packed(found, cluster.threads, progress)
        # A row takes 8 bytes of text at least; packed, hardly less than one.
        most = sum(file.size // (1 if file.codec else 8) for file in found)
        rows = most if any(file.codec for file in found) else most // 3
        gathering = SummaryCollector(settings.max_rejected, most, stage)
        reading = _Reading(
            cluster, progress, found, partitions, catalogue.table(), gathering, size, rows
        )
        if settings.deduplicate:
            _need_timestamps(found)
            way = reading.latest()
        else:
            way = reading.all()
        tally = sum_counts(way.summaries, len(catalogue.movie_ids))
        if way.ended == "whole":
            told = tally.check_timestamps(layout.ratings, settings.max_rejected)
            if told is not None:
                progress.warn(f"  warning: {told}")
        tally.used -= len(way.dropped)
        tally.rejected = (
            sorted([*tally.rejected, *way.dropped], key=lambda row: (row.file, row.line))
            if way.dropped
            else tally.rejected
        )
        tally.check(
            layout.ratings, settings.max_rejected, layout.movies, whole=way.ended == "whole"
        )
        blocks = merge_by_user_range(
            cluster.client,
            way.parts,
            way.sketches,
            way.users,
            cluster.threads,
            cluster.budget.block_users,
        )
        plural = "s" if len(partitions) > 1 else ""
        files_told = f" of {len(found):,} files" if len(found) > 1 else ""
        stage.note = (
            f"{tally.read:,} rows in {len(partitions):,} partition{plural}{files_told} → "
            f"{blocks.users:,} users"
        )
    return blocks, tally


@dataclass
class _Read:
    """What a way of reading leaves: statistics to be merged, with their sketches, and reports.

    ``parts`` are futures of pairs, the statistics first; ``dropped`` are rows that were read as
    ratings and are none that count; ``shuffled`` tells that summaries are of other partitions than
    parts.
    """

    parts: list[Any]
    sketches: Sequence[NDArray[Any]]
    summaries: Sequence[PartitionSummary]
    ended: StopReason
    dropped: Sequence[RejectedRow] = ()
    shuffled: bool = False

    @property
    def users(self) -> int | None:
        """About how many there are; None where it takes a look at the parts."""
        if self.shuffled:
            return None
        # In parts that share no users it is their sum, which the samples may overshoot.
        most = sum(summary.users for summary in self.summaries)
        return min(most, estimate_n_users([summary.sample for summary in self.summaries])) or None


@dataclass
class _Reading:
    """The ways of reading; ``size`` is bytes of a partition, ``rows`` about how many there are.

    ``partitions`` is changed in place where others are read.
    """

    cluster: Cluster
    progress: Progress
    files: Sequence[RatingsFormat]
    partitions: list[list[Fragment]]
    table: MovieTable
    gathering: SummaryCollector
    size: int
    rows: int

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns whose ids are texts, the same in all files."""
        return self.partitions[0][0].file.string_columns

    def all(self) -> _Read:
        """Sum partitions up as they are; shuffle first where their sums would be too large."""
        client = self.cluster.client
        budget = self.cluster.budget.memory // _SUMS_SHARE

        def crowded(found: Sequence[PartitionSummary]) -> bool:
            # At 2, 4, 8 …: each look takes the square of their number.
            if len(found) & (len(found) - 1):
                return False
            return shuffle.exceeds_memory(found, len(self.partitions), self.table.n_genres, budget)

        table = submit_value(client, "catalogue", self.table)
        parts = map_tasks(client, "read-ratings", aggregate_partition, self.partitions, table)
        summaries, ended = self.gathering.gather(
            map_tasks(client, "summary", copy_second, parts), crowded
        )
        if ended != "disordered":
            return _Read(parts, [summary.sketch for summary in summaries], summaries, ended)
        client.cancel(parts)
        way = shuffle.ShuffleSpec(
            shuffle.read_rows,
            shuffle.summed,
            shuffle.no_rows(self.texts),
            shuffle.ROW_BYTES,
        )
        parts, summaries, ended = self._shuffle(way, lambda: [() for _ in self.partitions])
        if ended != "whole":
            return _Read([], (), summaries, ended)
        sketches = client.gather(map_tasks(client, "sketch", copy_second, parts))
        return _Read(parts, sketches, summaries, ended, shuffled=True)

    def latest(self) -> _Read:
        """Sum up each user's latest rating of each movie."""
        client = self.cluster.client
        table = submit_value(client, "catalogue", self.table)
        parts = map_tasks(
            client,
            "read-distinct",
            deduplicate.read_partition,
            self.partitions,
            self._first_pieces(),
            table,
        )
        reports = map_tasks(client, "report", copy_second, parts)
        summaries, ended = self.gathering.gather(
            map_tasks(client, "summary", copy_first, reports),
            lambda found: not deduplicate.is_sorted_by_user(found),
        )
        if ended == "rejected":
            return _Read([], (), summaries, ended)
        shuffled = ended != "whole"
        if not shuffled:
            sketches = [summary.sketch for summary in summaries]
            asides = client.gather(map_tasks(client, "aside", copy_second, reports))
            edges = self._concatenated([aside.edges for aside in asides])
            found, old = deduplicate.sum_up(edges, self.table)
            dropped = self._concatenated([*(aside.dropped for aside in asides), old])
            if len(found.users):
                parts = [*parts, submit_value(client, "edges", (found, None))]
                sketches = [*sketches, found.users[[0, -1]]]
        else:
            client.cancel(parts)
            way = shuffle.ShuffleSpec(
                deduplicate.read_rows,
                deduplicate.summed,
                deduplicate.no_rows(self.texts),
                deduplicate.ROW_BYTES,
            )
            parts, summaries, ended = self._shuffle(
                way, lambda: [(number,) for number in self._first_pieces()]
            )
            if ended != "whole":
                return _Read([], (), summaries, ended)
            told = client.gather(map_tasks(client, "aside", copy_second, parts))
            sketches = [sketch for sketch, _ in told]
            dropped = self._concatenated([old for _, old in told])
        paths = [piece.path for part in summaries for piece in part.pieces]
        places = list(zip(paths, first_line_numbers(summaries), strict=True))
        rejected = deduplicate.rejected_rows(dropped, places, self.table)
        return _Read(parts, sketches, summaries, ended, rejected, shuffled=shuffled)

    def _concatenated(self, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
        import pandas as pd

        return pd.concat([deduplicate.no_rows(self.texts), *frames], ignore_index=True)

    def _first_pieces(self) -> list[int]:
        """Return the number of each partition's first piece among all pieces."""
        return [0, *itertools.accumulate(len(pieces) for pieces in self.partitions[:-1])]

    def _shuffle(
        self, way: shuffle.ShuffleSpec, more: Callable[[], Sequence[tuple[Any, ...]]]
    ) -> tuple[list[Any], list[PartitionSummary], StopReason]:
        self.progress.say("  ratings: in no order of users: they are shuffled first")
        self.cluster.budget.refuse_shuffle(
            self.rows * way.row_bytes, elsewhere=self.cluster.is_elsewhere
        )
        # What was read until now was read in larger partitions, and by other code.
        self.cluster.let_go()
        size = min(self.size, self.cluster.budget.shuffle_bytes)
        self.partitions[:] = reader.plan_partitions(self.files, size)
        parts, tasks = shuffle.shuffle_by_user(
            self.cluster.client, way, self.partitions, more(), self.table, self.rows, size
        )
        return parts, *self.gathering.gather(tasks)


def _need_timestamps(files: Sequence[RatingsFormat]) -> None:
    for file in files:
        if TIMESTAMP not in file.columns:
            raise DataError(
                f"{file.path}: has no column {TIMESTAMP}, by which --deduplicate tells the latest: "
                "add it, or leave the option out"
            )
        if file.has_datetime_timestamps != files[0].has_datetime_timestamps:
            raise DataError(
                f"{file.path}: column {TIMESTAMP} holds "
                f"{_KINDS[file.has_datetime_timestamps]}, and "
                f"{_KINDS[files[0].has_datetime_timestamps]} in {files[0].path}: --deduplicate "
                "can't compare them: write all parts with one type"
            )


def _warn_of_packed(files: Sequence[RatingsFormat], threads: int, progress: Progress) -> None:
    """Say what a packed file costs, where there are too few of them for all threads."""
    packed = [file for file in files if file.codec in ("gzip", "zstd") or file.is_streamed]
    if not len(packed) == len(files) < threads:
        return
    if packed[0].codec is None:
        progress.say(
            f"  note: the server of {packed[0].path} gives no ranges: one task alone can read it, "
            "and twice: downloaded, it is read on all threads"
        )
    else:
        progress.say(
            f"  note: {packed[0].path} is {packed[0].codec}, which one task alone can unpack: "
            "unpacked, or as Parquet, it is read on all threads"
        )


def catalogue_for(layout: Layout, settings: Settings, progress: Progress) -> Catalogue:
    """Read the catalogue and warn of a direct join."""
    with progress.stage("catalogue", "catalogue") as stage:
        found = catalogues.load_catalogue(layout, settings.effective_join)
        stage.note = f"{len(found.movie_ids):,} movies, {len(found.genres)} genres"
    return found
