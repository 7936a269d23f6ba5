"""The convert job: copy ratings into Parquet, one partition at a time, and verify every file."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.datasets import filesystem, format
from segmentation.datasets.partitions import plan_partitions, probe_files
from segmentation.datasets.synthetic import MARKER, PLANTED
from segmentation.errors import DataError, UsageError
from segmentation.features.aggregate import report_form
from segmentation.features.partition_reader import FragmentReport, PartitionSummary, read_rows
from segmentation.features.row_counts import RowCounts, collect_summaries, sum_counts
from segmentation.pipeline import copies, ground_truth
from segmentation.pipeline.context import open_run
from segmentation.pipeline.copies import PARTS
from segmentation.pipeline.manifest import build_manifest, load_finished
from segmentation.pipeline.stages import write_rejected_rows
from segmentation.schema import RATING_DTYPES, TIMESTAMP, USER
from segmentation.storage import atomic, integrity
from segmentation.storage.integrity import FileDigest
from segmentation.storage.parquet import part_path
from segmentation.storage.run_folder import RunOutputs
from segmentation.tasks import map_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from segmentation.datasets.format import RatingsFormat
    from segmentation.datasets.partitions import Fragment
    from segmentation.pipeline.context import RunContext
    from segmentation.pipeline.manifest import RunManifest
    from segmentation.pipeline.settings import Execution, Settings
    from segmentation.progress import Progress

#: The files of the copy, rejected rows, the catalogue under its own file names, and the marker and
#: ground truth of synthetic ratings.
OUTPUTS = RunOutputs(
    copies.JOB,
    (
        PARTS,
        "rejected/ratings.csv",
        "movies_metadata.csv",
        "links.csv",
        "links_small.csv",
        "movies.csv",
        "movies.dat",
        MARKER,
        PLANTED,
    ),
    required=(PARTS,),
    resumable=(PARTS, "rejected/ratings.csv"),
)
#: Rows in a row group: about 8 MB in memory, so that a reader can choose how many to combine.
ROW_GROUP = 1 << 18
#: A file is closed once it has this many rows, twice as many as a typical partition.
FILE_ROWS = 1 << 21


@dataclass(frozen=True)
class ConvertRun:
    """A finished copy: its folder and its manifest."""

    folder: Path
    manifest: RunManifest


class PartFile(NamedTuple):
    """One Parquet file of a copy.

    Attributes
    ----------
    name, digest, rows
        The file's name, digest and number of rows.
    sorted
        Whether its rows are sorted by user.
    first_user, last_user
        The smallest and the largest user id; None without rows.
    """

    name: str
    digest: FileDigest
    rows: int
    sorted: bool
    first_user: int | str | None
    last_user: int | str | None


class PartRecord(NamedTuple):
    """The record of one copied partition, saved as JSON next to its Parquet files.

    A resumed run reads it in place of the partition; publishing the copy removes it.

    Attributes
    ----------
    files
        The partition's files, in order.
    without_timestamp
        Number of timestamps that are missing or can't be parsed.
    reports
        The partition's fragment reports, rejected lines as strings.
    """

    files: list[PartFile]
    without_timestamp: int
    reports: list[list[Any]]

    @classmethod
    def read(cls, path: Path) -> PartRecord:
        """Read a record that :func:`write_part` wrote; raise ValueError if it is damaged."""
        record = integrity.read_json(path)
        if not integrity.verify_checksum(record):
            raise ValueError("it differs from what was written")
        files, without_timestamp, reports = (record[name] for name in cls._fields)
        return cls(
            [PartFile(name, FileDigest(*digest), *rest) for name, digest, *rest in files],
            without_timestamp,
            reports,
        )

    def summary(self) -> PartitionSummary:
        """Return the counts and rejected lines of the partition as a summary."""
        reports = tuple(
            FragmentReport(
                path,
                header_lines,
                lines,
                tuple(
                    format.LineReject(line, reason, text.encode())
                    for line, reason, text in rejected
                ),
                unlisted,
                unrated,
            )
            for path, header_lines, lines, rejected, unlisted, unrated in self.reports
        )
        n_rows = sum(file.rows for file in self.files)
        return PartitionSummary(reports, n_rows, 0, np.zeros(0, np.uint8))


def run_convert(
    settings: Settings,
    out: str | Path,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> ConvertRun:
    """Copy ratings into Parquet, with their catalogue, so that any job can read ``out``.

    Raises
    ------
    SegmentationError
        If the settings, the data or the cluster can't be used.
    """
    if settings.implicit:
        raise UsageError("{implicit}: a copy holds ratings: leave it out", "implicit")
    with open_run(OUTPUTS, settings, out, execution, progress) as run:
        finished = load_finished(run, settings.stage_key("convert"))
        if finished is not None:
            return ConvertRun(run.out, finished)
        with run.open_folder():
            return _convert(run)


def _convert(run: RunContext) -> ConvertRun:
    settings, folder = run.settings, run.folder
    files = probe_files(run.layout, versions=run.task_versions)
    report_form(run.layout, files, run.progress)
    partition_bytes = settings.partition_bytes or run.cluster.budget.partition_bytes
    partitions = plan_partitions(files, partition_bytes)
    key = {
        **settings.stage_key("convert"),
        "partition_bytes": partition_bytes,
        "parts": len(partitions),
        # A change of the record's fields invalidates parts of an earlier version.
        "record": [*PartRecord._fields, *PartFile._fields],
    }
    if folder.stage_result("plan", key) is None:
        folder.discard(PARTS)
        folder.finish_stage("plan", key, {})
    parts = folder.result_path(PARTS)
    parts.mkdir(parents=True, exist_ok=True)
    run.cluster.require_shared_folder(parts, run.progress.warn)
    counts, records = _write_parts(run, files, partitions, parts)
    write_rejected_rows(run, counts)
    _copy_catalogue(run)
    run.check_input()
    files_written = [file for record in records for file in record.files]
    manifest = build_manifest(run, counts.record(), parquet=_describe_files(files_written))
    names = {"data", "ratings", "seed", *settings.stage_key("convert")}
    manifest.settings = {name: value for name, value in manifest.settings.items() if name in names}
    run.record_costs(manifest)
    digests = {f"{PARTS}/{file.name}": file.digest for file in files_written}
    folder.publish(manifest.to_json(), digests)
    return ConvertRun(folder.path, manifest)


def _write_parts(
    run: RunContext,
    files: Sequence[RatingsFormat],
    partitions: list[list[Fragment]],
    folder: Path,
) -> tuple[RowCounts, list[PartRecord]]:
    """Write all partitions on the workers; return the counts of rows and one record each."""
    max_rejected = run.settings.max_rejected
    # A row takes at least one byte.
    max_rows = sum(file.size for file in files)
    parts = [_get_part_path(folder.resolve(), number) for number in range(len(partitions))]
    with run.progress.stage("convert", "Parquet") as stage:
        tasks = map_tasks(run.cluster.client, "convert", write_part, partitions, parts)
        summaries = collect_summaries(
            tasks,
            stage,
            run.layout.ratings,
            max_rejected=max_rejected,
            max_rows=max_rows,
            files=files,
        )
        counts = sum_counts(summaries)
        if run.layout.reading.ids == "auto":
            counts.check_ids(files)
        counts.check_rejected(run.layout.ratings, max_rejected, files)
        records = [PartRecord.read(_get_record_path(part)) for part in parts]
        if without_timestamp := sum(record.without_timestamp for record in records):
            run.progress.warn(
                f"  warning: {without_timestamp:,} timestamps are missing or can't be parsed; they "
                "are null in the copy"
            )
        plural = "" if len(parts) == 1 else "s"
        stage.note = f"{counts.used:,} ratings in {len(parts):,} part{plural}"
    return counts, records


def write_part(fragments: Sequence[Fragment], part: Path) -> PartitionSummary:
    """Copy one partition to Parquet, unless an intact copy already exists.

    A compressed file is one partition, however long, and becomes several Parquet files, so that no
    more than about :data:`FILE_ROWS` rows are in memory. Before a file gets its final name, it is
    read back and compared.

    Parameters
    ----------
    fragments
        The fragments of the partition.
    part
        Path of its files and of its record, without their suffixes.

    Raises
    ------
    DataError
        If the source is damaged, or a file that is read back differs from what was written.
    """
    record_path = _get_record_path(part)
    with contextlib.suppress(FileNotFoundError, ValueError):
        record = PartRecord.read(record_path)
        digests = {file.name: file.digest for file in record.files}
        if integrity.find_damage(part.parent, digests) is None:
            return record.summary()
    has_timestamps = [TIMESTAMP in fragment.file.columns for fragment in fragments]
    string_columns = fragments[0].file.string_columns
    files: list[PartFile] = []
    frames: list[pd.DataFrame] = []
    without_timestamp = 0

    def write_rows() -> None:
        table = _to_arrow(frames, string_columns, with_timestamps=any(has_timestamps))
        # The underscore sorts after the dot of the first file.
        suffix = f"_{len(files):04d}.parquet" if files else ".parquet"
        files.append(_write_file(table, part.with_name(part.name + suffix)))
        frames.clear()

    reader = read_rows(fragments, detailed=True)
    for index, _, chunk in reader:
        frames.append(chunk.ratings)
        if has_timestamps[index]:
            without_timestamp += int((chunk.ratings[TIMESTAMP] == format.NO_TIMESTAMP).sum())
        if sum(map(len, frames)) >= FILE_ROWS:
            write_rows()
    if frames or not files:
        write_rows()
    reports = [
        [
            [_to_strings(line) for line in value] if isinstance(value, tuple) else value
            for value in report
        ]
        for report in reader.reports
    ]
    record = PartRecord(files, without_timestamp, reports)
    atomic.write_json(record_path, integrity.add_checksum(record._asdict()))
    return record.summary()


def _get_part_path(folder: Path, number: int) -> Path:
    """Return the path of a partition's files and record, without their suffixes."""
    return part_path(folder, number).with_suffix("")


def _get_record_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _to_strings(line: format.LineReject) -> list[Any]:
    return [line.line, line.reason, line.text.decode("utf-8", "backslashreplace")]


def _to_arrow(
    frames: Sequence[pd.DataFrame], string_columns: Sequence[str], *, with_timestamps: bool
) -> pa.Table:
    import pyarrow as pa

    def concatenate(name: str) -> NDArray[Any]:
        empty = np.empty(0, RATING_DTYPES.get(name, np.int64))
        return np.concatenate([empty, *(frame[name].to_numpy() for frame in frames)])

    columns = {}
    for name in RATING_DTYPES:
        if name in string_columns:
            columns[name] = pa.array(concatenate(name).astype(object), pa.string())
        else:
            columns[name] = pa.array(concatenate(name))
    if with_timestamps:
        timestamps = concatenate(TIMESTAMP)
        columns[TIMESTAMP] = pa.array(timestamps, mask=timestamps == format.NO_TIMESTAMP)
    return pa.table(columns)


def _write_file(rows: pa.Table, path: Path) -> PartFile:
    """Write one Parquet file under a temporary name, read it back, and rename it."""
    import pyarrow.parquet as pq

    partial = path.with_name(path.name + ".partial")
    users = rows[USER].to_numpy()
    is_sorted = bool((users[1:] >= users[:-1]).all())
    pq.write_table(
        rows,
        partial,
        row_group_size=ROW_GROUP,
        compression="zstd",
        write_statistics=True,
        write_page_checksum=True,
        sorting_columns=[pq.SortingColumn(0)] if is_sorted and len(users) else None,
    )
    if not pq.read_table(partial, use_threads=False).equals(rows):
        partial.unlink()
        raise DataError(
            "{path}: reads back differently from what was written: check the disk, then run again "
            "with {resume}",
            "resume",
            path=path,
        )
    atomic.sync_file(partial)
    digest = FileDigest.of(partial)
    os.replace(partial, path)
    return PartFile(path.name, digest, len(users), is_sorted, *_compute_user_range(users))


def _compute_user_range(users: NDArray[Any]) -> tuple[Any, Any]:
    """Return the smallest and the largest id, as JSON types."""
    if not len(users):
        return None, None
    first, last = users.min(), users.max()
    return (first, last) if isinstance(first, str) else (int(first), int(last))


def _copy_catalogue(run: RunContext) -> None:
    """Copy the catalogue, and the marker and ground truth of synthetic ratings."""
    layout = run.layout
    paths = [layout.items, *([layout.links] if layout.links else [])]
    folder = ground_truth.synthetic_folder(layout)
    if folder is not None:
        paths += [f"{folder}/{name}" for name in (MARKER, PLANTED)]
    for path in paths:
        target = run.folder.result_path(path.rpartition("/")[2])
        if not filesystem.exists(path):
            continue
        with filesystem.open_file(path) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)


def _describe_files(files: Sequence[PartFile]) -> dict[str, Any]:
    """Return the manifest's section about the copy."""
    return {
        "folder": PARTS,
        "parts": len(files),
        "bytes": sum(file.digest.bytes for file in files),
        "row_group_rows": ROW_GROUP,
        "sorted_by_user": _is_sorted_by_user(files),
        "checked": "every part was read back and compared with what was read from the source",
    }


def _is_sorted_by_user(files: Sequence[PartFile]) -> bool:
    ranges: list[Any] = [(file.first_user, file.last_user) for file in files if file.rows]
    is_ascending = all(left[1] <= right[0] for left, right in itertools.pairwise(ranges))
    return is_ascending and all(file.sorted for file in files)
