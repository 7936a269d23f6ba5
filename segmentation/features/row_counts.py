"""What partitions report, collected and added up: rows used, unmapped, rejected; movies rated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from segmentation.errors import DataError
from segmentation.schema import TIMESTAMP, RejectedRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from segmentation.features.partition_reader import PartitionSummary

StopReason = Literal["whole", "rejected", "disordered"]


@dataclass
class RowCounts:
    """Rows of all partitions, and the movies that got a used rating."""

    used: int = 0
    unmapped: int = 0
    rejected: list[RejectedRow] = field(default_factory=list)
    movies: int = 0
    unstamped: int = 0

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

    def check(self, place: str, max_rejected: float, movies: str, *, whole: bool) -> None:
        """Refuse data of which too much is no ratings, or nothing belongs to the catalogue.

        Raises
        ------
        DataError
        """
        self.check_rejected(place, max_rejected, whole=whole)
        if self.used == 0:
            raise DataError(
                f"{place}: none of its {self.read:,} ratings is of a movie in {movies}: the files "
                "belong to different data sets"
            )

    def check_timestamps(self, place: str, most: float) -> str | None:
        """Return a warning where ratings lack a timestamp that they are to be told apart by.

        Raises
        ------
        DataError
            If more than this share of them do.
        """
        if not self.unstamped:
            return None
        told = (
            f"{place}: {self.unstamped:,} of {self.used:,} ratings have no {TIMESTAMP} that is a "
            "whole number or a point in time"
        )
        if self.unstamped > most * self.used:
            raise DataError(
                f"{told}, by which --deduplicate tells the latest: write seconds since 1970 "
                "there, or leave the option out"
            )
        return f"{told}: --deduplicate takes them for the oldest"

    def check_rejected(self, place: str, max_rejected: float, *, whole: bool) -> None:
        """Refuse data of which too much is no ratings.

        Raises
        ------
        DataError
        """
        if not whole or len(self.rejected) > max_rejected * self.read:
            raise DataError(self._too_many_rejected(place, max_rejected, whole=whole))

    def _too_many_rejected(self, place: str, max_rejected: float, *, whole: bool) -> str:
        first = self.rejected[0]
        text = first.text if len(first.text) <= 60 else first.text[:57] + "..."
        share = len(self.rejected) / self.read
        read = "rows" if whole else "rows read so far"
        where = f"line {first.line}" + ("" if first.file == place else f" of {first.file}")
        return (
            f"{place}: {len(self.rejected):,} of {self.read:,} {read} ({share:.1%}) are not "
            f"ratings, more than --max-rejected {max_rejected:g}; the first is {where}: "
            f"{first.reason}: {text!r}: mend the file or raise --max-rejected"
        )


def sum_counts(summaries: Sequence[PartitionSummary], movies: int) -> RowCounts:
    """Add up what partitions report, in the files' order; ``movies`` is the catalogue's number."""
    tally = RowCounts()
    seen = np.zeros(-(-movies // 8), np.uint8)
    for part in summaries:
        tally.used += part.used
        tally.unmapped += part.unmapped
        tally.unstamped += part.unstamped
        seen |= part.seen
    reports = [piece for part in summaries for piece in part.pieces]
    for piece, line in zip(reports, first_line_numbers(summaries), strict=True):
        tally.rejected += [
            RejectedRow(
                piece.path,
                line + reject.line,
                reject.reason,
                reject.text.decode("utf-8", "backslashreplace"),
            )
            for reject in piece.rejected
        ]
    tally.movies = int(np.unpackbits(seen)[:movies].sum())
    return tally


def first_line_numbers(summaries: Sequence[PartitionSummary]) -> list[int]:
    """Return the number of the first line of every piece within its file, counted from 1."""
    found = []
    path, line = None, 0
    for part in summaries:
        for piece in part.pieces:
            if piece.path != path:
                path, line = piece.path, piece.header_lines + 1
            found.append(line)
            line += piece.lines
    return found


@dataclass
class SummaryCollector:
    """Collects what partitions report; ``most_rows`` is more than the files can hold."""

    max_rejected: float
    most_rows: int
    stage: Any

    def gather(
        self,
        tasks: Sequence[Any],
        disordered: Callable[[list[PartitionSummary]], bool] = lambda summaries: False,
    ) -> tuple[list[PartitionSummary], StopReason]:
        """Return the summaries in the files' order, and why it ended.

        That is before all are in hand where too many rows were rejected, or ``disordered`` tells
        of those that are that another way has to be taken.
        """
        from distributed import as_completed

        place = {task.key: i for i, task in enumerate(tasks)}
        found: dict[int, PartitionSummary] = {}
        rows = rejected = 0
        # Asked for one by one: what was lost on its way is computed and fetched again.
        for task in as_completed(tasks):
            summary = task.result()
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
            if disordered(list(found.values())):
                return [], "disordered"
        return [found[i] for i in range(len(tasks))], "whole"
