"""Ratings → blocks of user statistics: partitions are read, summed up, and merged by user."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np

from segmentation.datasets import catalogue as catalogues
from segmentation.datasets import pieces as reader
from segmentation.errors import DataError
from segmentation.features import statistics
from segmentation.run import files, shuffling
from segmentation.run.partitions import read_partition
from segmentation.run.tasks import submit
from segmentation.schema import RejectedRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from segmentation.datasets.layouts import Layout
    from segmentation.datasets.ratings import RatingsFormat
    from segmentation.run.cluster import Cluster
    from segmentation.run.partitions import ReadSummary
    from segmentation.run.progress import Progress
    from segmentation.run.settings import Settings
    from segmentation.schema import Catalogue, UserStatistics

#: Users of one feature block at most; fewer where that gives every thread one.
BLOCK_USERS = 131_072
#: Partial sums that overlap may take one part in so many of the workers' memory.
_SUMS_SHARE = 8


@dataclass
class Tally:
    """Rows of all partitions, and the movies that got a used rating."""

    used: int = 0
    unmapped: int = 0
    rejected: list[RejectedRow] = field(default_factory=list)
    movies: int = 0

    @property
    def read(self) -> int:
        """Every row, blank lines apart."""
        return self.used + self.unmapped + len(self.rejected)

    def record(self) -> dict[str, int]:
        """Return the counts as they stand in the manifest."""
        return {
            "read": self.read,
            "used": self.used,
            "unmapped": self.unmapped,
            "rejected": len(self.rejected),
        }


@dataclass
class Blocks:
    """User statistics as futures, a block a range of users, with the users in each."""

    statistics: list[Any]
    sizes: list[int]

    @property
    def users(self) -> int:
        """Users in all."""
        return sum(self.sizes)


def read_ratings(
    layout: Layout,
    catalogue: Catalogue,
    settings: Settings,
    cluster: Cluster,
    progress: Progress,
) -> tuple[Blocks, Tally]:
    """Stream the ratings into blocks of user statistics.

    Raises
    ------
    DataError
        If too many rows are rejected, or none matches the catalogue.
    """
    found = reader.probe(layout)
    partitions = reader.partitions(found, settings.partition_bytes or reader.PARTITION_BYTES)
    client = cluster.client
    with progress.stage("ratings", "ratings") as stage:
        _warn_of_packed(found, cluster.threads, progress)
        table = client.scatter(catalogue.table(), broadcast=True, hash=False)
        # A row takes 8 bytes of text at least; packed, hardly less than one.
        most = sum(file.size // (1 if file.codec else 8) for file in found)
        gathering = _Gathering(settings.max_rejected, most, len(partitions), stage)

        def crowded(summaries: Sequence[ReadSummary]) -> bool:
            return shuffling.is_crowded(
                summaries, len(partitions), len(catalogue.genres), cluster.memory // _SUMS_SHARE
            )

        parts = submit(client, "read-ratings", read_partition, partitions, table)
        summaries, ended = gathering.gather(submit(client, "summary", _second, parts), crowded)
        shuffled = ended == "crowded"
        if shuffled:
            client.cancel(parts)
            progress.say("  ratings: in no order of users: they are shuffled first")
            rows = most if any(file.codec for file in found) else most // 3
            parts, tasks = shuffling.shuffle(
                client, partitions, catalogue.table(), rows * shuffling.ROW_BYTES,
                settings.partition_bytes or reader.PARTITION_BYTES,
            )  # fmt: skip
            summaries, ended = gathering.gather(tasks)
        tally = _tally(summaries, len(catalogue.movie_ids))
        whole = ended == "whole"
        if not whole or len(tally.rejected) > settings.max_rejected * tally.read:
            _refuse_rejected(tally, settings, layout.ratings, whole=whole)
        if tally.used == 0:
            raise DataError(
                f"{layout.ratings}: none of its {tally.read:,} ratings is of a movie in "
                f"{layout.movies}: the files belong to different data sets"
            )
        if shuffled:
            sketches = client.gather(submit(client, "sketch", _second, parts))
        else:
            sketches = [summary.sketch for summary in summaries]
        blocks = _merge(client, parts, sketches, cluster.threads)
        plural = "s" if len(partitions) > 1 else ""
        files_told = f" of {len(found):,} files" if len(found) > 1 else ""
        stage.note = (
            f"{tally.read:,} rows in {len(partitions):,} partition{plural}{files_told} → "
            f"{blocks.users:,} users"
        )
    return blocks, tally


def _warn_of_packed(files: Sequence[RatingsFormat], threads: int, progress: Progress) -> None:
    """Say what a packed file costs, where there are too few of them for all threads."""
    packed = [file for file in files if file.codec in ("gzip", "zstd")]
    if len(packed) == len(files) < threads:
        progress.say(
            f"  note: {packed[0].path} is {packed[0].codec}, which one task alone can unpack: "
            "unpacked, or as Parquet, it is read on all threads"
        )


@dataclass
class _Gathering:
    """Collects what partitions report; ``most_rows`` is more than the files can hold."""

    max_rejected: float
    most_rows: int
    partitions: int
    stage: Any

    def gather(
        self,
        tasks: Sequence[Any],
        crowded: Callable[[list[ReadSummary]], bool] = lambda summaries: False,
    ) -> tuple[list[ReadSummary], Literal["whole", "rejected", "crowded"]]:
        """Return the summaries in the files' order, and why it ended.

        That is before all are in hand where too many rows were rejected, or ``crowded`` tells so.
        """
        from distributed import as_completed

        place = {task.key: i for i, task in enumerate(tasks)}
        found: dict[int, ReadSummary] = {}
        rows = rejected = 0
        for task, summary in as_completed(tasks, with_results=True):
            found[place[task.key]] = summary
            rejected += summary.rejected
            rows += summary.used + summary.unmapped + summary.rejected
            self.stage.update(len(found), len(tasks), "partitions", rows)
            # Past this even a flawless rest can't save the run.
            if rejected > self.max_rejected * max(rows, self.most_rows):
                # The first bad line has a number only if everything before it has been read.
                first = min(i for i, part in found.items() if part.rejected)
                for i in range(first):
                    found[i] = found.get(i) or tasks[i].result()
                whole = len(found) == len(tasks)
                return [found[i] for i in sorted(found)], "whole" if whole else "rejected"
            if crowded(list(found.values())):
                return [], "crowded"
        return [found[i] for i in range(len(tasks))], "whole"


def _tally(summaries: Sequence[ReadSummary], movies: int) -> Tally:
    tally = Tally()
    seen = np.zeros(-(-movies // 8), np.uint8)
    path, line = None, 0
    for part in summaries:
        tally.used += part.used
        tally.unmapped += part.unmapped
        seen |= part.seen
        for piece in part.pieces:
            if piece.path != path:
                path, line = piece.path, piece.header_lines + 1
            tally.rejected += [
                RejectedRow(
                    piece.path, line + reject.line, reject.reason,
                    reject.text.decode("utf-8", "backslashreplace"),
                )
                for reject in piece.rejected
            ]  # fmt: skip
            line += piece.lines
    tally.movies = int(np.unpackbits(seen)[:movies].sum())
    return tally


def _refuse_rejected(tally: Tally, settings: Settings, place: str, *, whole: bool) -> NoReturn:
    first = tally.rejected[0]
    text = first.text if len(first.text) <= 60 else first.text[:57] + "..."
    share = len(tally.rejected) / tally.read
    read = "rows" if whole else "rows read so far"
    where = f"line {first.line}" if first.file == place else f"line {first.line} of {first.file}"
    raise DataError(
        f"{place}: {len(tally.rejected):,} of {tally.read:,} {read} ({share:.1%}) are not ratings, "
        f"more than --max-rejected {settings.max_rejected:g}; the first is {where}: "
        f"{first.reason}: {text!r}: mend the file or raise --max-rejected"
    )


def _merge(
    client: Any, parts: Sequence[Any], sketches: Sequence[NDArray[np.int64]], threads: int
) -> Blocks:
    """Merge partitions into blocks of disjoint ranges of users, whatever order they are in."""
    partials = submit(client, "partial", _first, parts)
    sizes = client.gather(submit(client, "count", _users, partials))
    n_blocks = max(threads, -(-sum(sizes) // BLOCK_USERS))
    cuts: list[int | None] = [None, *statistics.block_boundaries(sketches, n_blocks), None]
    merged = []
    for low, high in itertools.pairwise(cuts):
        overlapping = [
            partial
            for partial, sketch in zip(partials, sketches, strict=True)
            if len(sketch)
            and (high is None or sketch[0] < high)
            and (low is None or sketch[-1] >= low)
        ]
        n = len(overlapping)
        slices = submit(client, "slice", statistics.take_range, overlapping, [low] * n, [high] * n)
        merged.append(client.submit(statistics.merge, slices, pure=False))
    lengths = client.gather(submit(client, "count", _users, merged))
    kept = [(block, n) for block, n in zip(merged, lengths, strict=True) if n]
    return Blocks([block for block, _ in kept], [n for _, n in kept])


def save_blocks(path: Path, blocks: Blocks, genres: tuple[str, ...]) -> None:
    """Keep the merged statistics, a row group a block, for resuming and refreshing."""
    files.write_statistics(path, (block.result() for block in blocks.statistics), genres)


def load_blocks(client: Any, path: Path, sizes: Sequence[int]) -> Blocks:
    """Take up again what :func:`save_blocks` kept."""
    # Through the client, which alone is sure to see the run's folder.
    kept = [
        client.scatter(files.read_statistics(path, group), hash=False)
        for group in range(len(sizes))
    ]
    return Blocks(kept, list(sizes))


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _second(pair: tuple[Any, Any]) -> Any:
    return pair[1]


def _users(block: UserStatistics) -> int:
    return len(block.users)


def catalogue_for(layout: Layout, settings: Settings, progress: Progress) -> Catalogue:
    """Read the catalogue and warn of a direct join."""
    with progress.stage("catalogue", "catalogue") as stage:
        found = catalogues.load(layout, settings.effective_join)
        stage.note = f"{len(found.movie_ids):,} movies, {len(found.genres)} genres"
    return found
