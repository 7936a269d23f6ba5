"""Collect the summaries of partitions and add up their rows: used, unmapped and rejected."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from segmentation.datasets.format import MAX_LISTED_REJECTS
from segmentation.errors import DataError
from segmentation.features.reject_causes import find_cause, find_odd_id, id_in_row, label_column
from segmentation.schema import TIMESTAMP, RejectedRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distributed import Future
    from numpy.typing import NDArray

    from segmentation.datasets.format import RatingsFormat
    from segmentation.features.partition_reader import PartitionSummary
    from segmentation.progress import Stage

#: Maximum number of characters of a rejected line that an error quotes.
_MAX_QUOTED = 60


@dataclass
class RowCounts:
    """Rows of all partitions.

    Attributes
    ----------
    used, unmapped
        Number of ratings whose item is in the catalogue, and of those whose item is not.
    rejected
        The rows that are not ratings, or the first of them.
    unlisted
        Number of further such rows.
    unrated
        Number of rows left out because their rating stands for "not rated".
    items
        Number of the catalogue's items with a used rating.
    seen
        Which these are: a bitmap, eight items to a byte.
    without_timestamp
        Number of used ratings without a usable timestamp; counted only with deduplication.
    superseded
        The ratings that deduplication left out.
    """

    used: int = 0
    unmapped: int = 0
    rejected: list[RejectedRow] = field(default_factory=list)
    unlisted: int = 0
    unrated: int = 0
    items: int = 0
    seen: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    without_timestamp: int = 0
    superseded: list[RejectedRow] = field(default_factory=list)

    @property
    def listed(self) -> list[RejectedRow]:
        """The rejected and the superseded rows, in the order of the files."""
        return sorted([*self.rejected, *self.superseded], key=lambda row: (row.file, row.line))

    @property
    def n_rejected(self) -> int:
        """Total number of rows that are not ratings."""
        return len(self.rejected) + self.unlisted

    @property
    def read(self) -> int:
        """Total number of rows, without blank lines and those left out on purpose."""
        return self.used + self.unmapped + self.n_rejected

    def record(self) -> dict[str, int]:
        """Return the counts for the manifest."""
        return {
            "read": self.read,
            "used": self.used,
            "unmapped": self.unmapped,
            "rejected": self.n_rejected,
            **({"unrated": self.unrated} if self.unrated else {}),
            **({"superseded": len(self.superseded)} if self.superseded else {}),
        }

    def supersede(self, rows: Sequence[RejectedRow]) -> None:
        """Leave out used ratings that a later rating supersedes."""
        self.used -= len(rows)
        self.superseded += rows

    def check_ids(self, files: Sequence[RatingsFormat]) -> None:
        """Check that no row of an integer column was rejected whose id may be a text.

        Otherwise its user would be missing without a word.

        Raises
        ------
        DataError
            If one was.
        """
        row = find_odd_id(self.rejected)
        if row is not None and row.line == 1 and not files[0].reading.text.has_header:
            raise DataError(
                "{place}, line 1: looks like a header (it reads {text!r}): leave out {no_header}",
                "no_header",
                place=row.file,
                text=_shorten(row.text),
            )
        if row is not None:
            raise DataError(
                "{place}: {reason}, and the ids before are numbers: pass {ids} text to keep all "
                "ids as they are written, or {ids} integer to read numbers and reject the rest",
                "ids",
                place=f"{row.file}, line {row.line:,}",
                reason=label_column(
                    row.reason.replace(" ", f" {_shorten(id_in_row(row, files))!r} ", 1),
                    files[0].reading,
                ),
            )

    def check_rejected(
        self,
        path: str,
        max_rejected: float,
        files: Sequence[RatingsFormat] = (),
        *,
        complete: bool = True,
    ) -> None:
        """Check that not too many rows are rejected.

        Parameters
        ----------
        path
            The ratings, to name in the error.
        max_rejected
            Largest share of the rows that may be rejected.
        files
            The formats of the files, to find what the rejected rows have in common.
        complete
            Whether all rows have been counted. If not, this always fails.

        Raises
        ------
        DataError
            If too many rows are rejected.
        """
        if complete and self.n_rejected <= max_rejected * self.read:
            return
        first = self.rejected[0]
        cause = find_cause(self.rejected, files)
        remedy = "fix the file or raise {max_rejected}" if cause is None else cause.text
        raise DataError(
            "{path}: {rejected:,} of {read:,} {rows} ({share:.1%}) are not ratings, more than "
            "{max_rejected} {limit:g}; the first is {place}: {reason}: {text!r}: " + remedy,
            "max_rejected",
            *(cause.fields if cause else ()),
            path=path,
            rejected=self.n_rejected,
            read=self.read,
            rows="rows" if complete else "rows read so far",
            share=self.n_rejected / self.read,
            limit=max_rejected,
            place=f"line {first.line}" + ("" if first.file == path else f" of {first.file}"),
            reason=label_column(first.reason, files[0].reading) if files else first.reason,
            text=_shorten(first.text),
        )

    def check_used(self, path: str, catalogue_path: str) -> None:
        """Check that at least one rating is of an item in the catalogue.

        Raises
        ------
        DataError
            If no rating is.
        """
        if self.used == 0:
            raise DataError(
                f"{path}: none of its {self.read:,} ratings is of an item in {catalogue_path}: "
                "use the catalogue that belongs to the ratings; if ids differ in zeros before them "
                "alone, set {ids} to integer",
                "ids",
            )

    def check_timestamps(self, path: str, max_missing: float) -> str | None:
        """Check that not too many used ratings lack a timestamp; return a warning if any do.

        Raises
        ------
        DataError
            If a larger share than ``max_missing`` of the used ratings lacks a timestamp.
        """
        if not self.without_timestamp:
            return None
        problem = (
            f"{self.without_timestamp:,} of {self.used:,} ratings have no {TIMESTAMP} that is a "
            "whole number or a point in time"
        )
        if self.without_timestamp > max_missing * self.used:
            raise DataError(
                "{path}: {problem}, which {deduplicate} needs to find the latest: write seconds "
                "since 1970 there, or leave {deduplicate} out",
                "deduplicate",
                path=path,
                problem=problem,
            )
        return f"{path}: {problem}; deduplication treats them as the oldest"


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 3] + "..."


def sum_counts(summaries: Sequence[PartitionSummary]) -> RowCounts:
    """Add up summaries, at least one, which are in the order of the files."""
    counts = RowCounts()
    seen = np.zeros_like(summaries[0].seen)
    for summary in summaries:
        counts.used += summary.used
        counts.unmapped += summary.unmapped
        counts.unrated += summary.unrated
        counts.without_timestamp += summary.without_timestamp
        seen |= summary.seen
    counts.seen = seen
    counts.items = int(np.unpackbits(seen).sum())
    reports = [report for summary in summaries for report in summary.fragments]
    for report, first_line in zip(reports, first_line_numbers(summaries), strict=True):
        n_free = max(0, MAX_LISTED_REJECTS - len(counts.rejected))
        counts.rejected += [
            RejectedRow(
                report.path,
                first_line + line.line,
                line.reason,
                line.text.decode("utf-8", "backslashreplace"),
            )
            for line in report.rejected[:n_free]
        ]
        counts.unlisted += report.unlisted + max(0, len(report.rejected) - n_free)
    return counts


def first_line_numbers(summaries: Sequence[PartitionSummary]) -> list[int]:
    """Return the number of each fragment's first line within its file, counted from 1."""
    numbers = []
    path, line = None, 0
    for summary in summaries:
        for report in summary.fragments:
            if report.path != path:
                path, line = report.path, report.header_lines + 1
            numbers.append(line)
            line += report.lines
    return numbers


def collect_summaries(
    tasks: Sequence[Future],
    stage: Stage,
    path: str,
    *,
    max_rejected: float,
    max_rows: int,
    files: Sequence[RatingsFormat] = (),
    must_stop: Callable[[Sequence[PartitionSummary]], bool] = lambda summaries: False,
) -> list[PartitionSummary]:
    """Gather the summaries of partitions as they finish.

    Parameters
    ----------
    tasks
        One future of a summary per partition, in the order of the files.
    stage
        Where to report progress.
    path
        The ratings, to name in an error.
    max_rejected
        Largest share of the rows that may be rejected.
    max_rows
        Generous estimate of the rows of all partitions.
    files
        The formats of the files, to name in an error what rejected rows have in common.
    must_stop
        Called with the summaries gathered so far; returns whether to stop.

    Returns
    -------
    list of PartitionSummary
        In the order of the files; empty if ``must_stop`` returned True.

    Raises
    ------
    DataError
        If more rows are rejected than all files together may have.
    """
    from distributed import as_completed

    positions = {task.key: i for i, task in enumerate(tasks)}
    summaries: dict[int, PartitionSummary] = {}
    n_rows = n_rejected = n_listed = 0
    # One result at a time: a result that is lost is computed and fetched again.
    for task in as_completed(tasks):
        summary = task.result()
        summaries[positions[task.key]] = summary
        n_listed += summary.n_listed
        if n_listed > 2 * MAX_LISTED_REJECTS:
            _limit_listed(summaries)
            n_listed = sum(summary.n_listed for summary in summaries.values())
        n_rejected += summary.rejected
        n_rows += summary.used + summary.unmapped + summary.rejected
        stage.update(len(summaries), len(tasks), "partitions", n_rows)
        if n_rejected > max_rejected * max(n_rows, max_rows):
            _check_rejected_so_far(tasks, summaries, path, max_rejected, files)
        if must_stop(list(summaries.values())):
            return []
    return [summaries[i] for i in range(len(tasks))]


def _limit_listed(summaries: dict[int, PartitionSummary]) -> None:
    """Drop rejected rows that can't be among the first ones, from the last partition on."""
    n_listed = sum(summary.n_listed for summary in summaries.values())
    for i in sorted(summaries, reverse=True):
        n_before = n_listed - summaries[i].n_listed
        if n_before < MAX_LISTED_REJECTS:
            return
        if n_before < n_listed:
            summaries[i] = summaries[i].without_listed()
        n_listed = n_before


def _check_rejected_so_far(
    tasks: Sequence[Future],
    summaries: dict[int, PartitionSummary],
    path: str,
    max_rejected: float,
    files: Sequence[RatingsFormat],
) -> None:
    """Raise unless all partitions have been read and the share of rejected rows is allowed."""
    # The number of the first rejected line is known once everything before it has been read.
    first = min(i for i, summary in summaries.items() if summary.rejected)
    for i in range(first):
        summaries[i] = summaries.get(i) or tasks[i].result()
    counts = sum_counts([summaries[i] for i in sorted(summaries)])
    counts.check_rejected(path, max_rejected, files, complete=len(summaries) == len(tasks))
