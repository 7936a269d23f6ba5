"""The job that copies ratings into Parquet: a part a partition, checked against what was read."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.datasets import csv_reader, filesystem, format
from segmentation.datasets import partitions as reader
from segmentation.errors import DataError
from segmentation.features.partition_reader import FragmentReport, PartitionSummary
from segmentation.features.row_counts import RowCounts, SummaryCollector, sum_counts
from segmentation.pipeline import checksums, ground_truth
from segmentation.pipeline.context import RunContext, open_run, versions
from segmentation.pipeline.settings import Execution
from segmentation.schema import RATING_DTYPES, TIMESTAMP, USER
from segmentation.storage import atomic
from segmentation.storage.run_folder import CONVERT, PARTS
from segmentation.tasks import map_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from segmentation.datasets.partitions import Fragment
    from segmentation.pipeline.settings import Settings
    from segmentation.progress import Progress

JOB = CONVERT
#: Rows of a row group: some 8 MB once typed, so that a reader can take as many as it likes.
ROW_GROUP = 1 << 18
#: Rows from which on a partition's next rows go to a file of their own; twice a usual partition's.
FILE_ROWS = 1 << 21
#: What `synthesize` leaves beside its ratings.
_SYNTHETIC = ("synthetic.json", "planted.parquet")


@dataclass(frozen=True)
class ConvertRun:
    """A finished copy: its folder and the manifest."""

    folder: Path
    manifest: dict[str, Any]


class PartRecord(NamedTuple):
    """What is known of one partition's copy; it lies beside its files until the copy is whole.

    ``digests`` are the SHA-256 of its files by their names; ``unstamped`` counts timestamps that
    Parquet can't be given as numbers.
    """

    digests: dict[str, str]
    unstamped: int
    rows: int
    bytes: int
    sorted: bool
    first_user: int | str | None
    last_user: int | str | None
    reports: list[list[Any]]


def run_convert(
    settings: Settings,
    out: str | Path,
    how: Execution | None = None,
    progress: Progress | None = None,
) -> ConvertRun:
    """Copy ratings into Parquet, and their catalogue beside them, so that every job reads ``out``.

    Raises
    ------
    SegmentationError
        One of its children, with a message for the person at the terminal.
    """
    how = how or Execution()
    with open_run(settings, out, JOB, how, progress) as work:
        if how.resume and (manifest := work.earlier(JOB, settings.key(JOB))):
            checksums.check_finished(work.out, manifest)
            work.progress.say("  every part was finished before: nothing is left to do")
            return ConvertRun(work.out, manifest)
        with work.in_folder(JOB):
            return _run(work)


def _run(work: RunContext) -> ConvertRun:
    settings, folder = work.settings, work.folder
    found = reader.probe_files(work.layout)
    size = settings.partition_bytes or work.cluster.budget.partition_bytes
    partitions = reader.plan_partitions(found, size)
    key = {
        **settings.key(JOB),
        "partition_bytes": size,
        "parts": len(partitions),
        # Parts whose records have another form are written again.
        "record": list(PartRecord._fields),
    }
    if folder.stage("plan", key) is None:
        folder.discard(PARTS)
        folder.finish_stage("plan", key, {})
    parts = folder.product(f"{PARTS}/part").parent
    parts.mkdir(parents=True, exist_ok=True)
    work.share_folder(parts)
    with work.progress.stage("convert", "Parquet") as stage:
        names = [f"part-{i:05d}" for i in range(len(partitions))]
        tasks = map_tasks(
            work.cluster.client,
            "convert",
            write_part,
            partitions,
            [str(parts.resolve() / name) for name in names],
        )
        gathering = SummaryCollector(settings.max_rejected, sum(f.size for f in found), stage)
        summaries, ended = gathering.gather(tasks)
        tally = sum_counts(summaries, 0)
        tally.check_rejected(work.layout.ratings, settings.max_rejected, whole=ended == "whole")
        records = [_record(parts / f"{name}.json") for name in names]
        if unstamped := sum(record.unstamped for record in records):
            work.progress.warn(
                f"  warning: {unstamped:,} timestamps are neither whole numbers nor points in "
                "time: the copy has none in their place"
            )
        stage.note = f"{tally.used:,} ratings in {len(names):,} part" + "s" * (len(names) > 1)
    if tally.rejected:
        atomic.write_rejected(folder.product("rejected/ratings.csv"), tally.rejected)
    _copy_others(work)
    for name in names:
        (parts / f"{name}.json").unlink()
    manifest = _manifest(work, tally, records)
    work.finish(manifest)
    folder.publish(manifest)
    return ConvertRun(folder.path, manifest)


def write_part(pieces: Sequence[Fragment], place: str) -> PartitionSummary:
    """Copy one partition; ``place`` is where its files and record go, without their endings.

    A packed file, which is one partition however long, becomes several files: no more than
    :data:`FILE_ROWS` rows and a chunk are in memory. What was written is read again and compared,
    value by value, before it gets its name. A partition whose record is there, and fits its files,
    is whole and left as it is.

    Raises
    ------
    DataError
        If the source is damaged, or the copy isn't what was written.
    """
    note = Path(f"{place}.json")
    if note.exists():
        record = _record(note)
        if checksums.first_corrupt_file(note.parent, record.digests) is None:
            return _summary(record)
    stamped = any(TIMESTAMP in piece.file.columns for piece in pieces)
    written: list[_Written] = []
    frames: list[pd.DataFrame] = []
    reports = []
    unstamped = 0

    def flush() -> None:
        written.append(
            _write(
                _arrow(frames, pieces[0].file.string_columns, stamped=stamped),
                _file(place, len(written)),
            )
        )
        frames.clear()

    for piece in pieces:
        lines = 0
        rejected: list[format.LineReject] = []
        for chunk in reader.read_chunks(piece, detailed=True):
            part = (
                chunk
                if isinstance(chunk, format.ParsedChunk)
                else csv_reader.parse_lines(piece.file, bytes(chunk), detailed=True)
            )
            frames.append(part.ratings)
            if TIMESTAMP in piece.file.columns:
                unstamped += int((part.ratings[TIMESTAMP] == format.NO_TIMESTAMP).sum())
            rejected += [reject._replace(line=lines + reject.line) for reject in part.rejected]
            lines += part.lines
            if sum(map(len, frames)) >= FILE_ROWS:
                flush()
        file = piece.file
        told = [[r.line, r.reason, r.text.decode("utf-8", "backslashreplace")] for r in rejected]
        reports.append([file.path, file.header_lines, lines, told])
    if frames or not written:
        flush()
    known = [one for one in written if one.rows]
    record = PartRecord(
        {one.name: one.digest for one in written},
        unstamped,
        sum(one.rows for one in written),
        sum(one.bytes for one in written),
        all(one.sorted for one in known)
        and all(one.last_user <= other.first_user for one, other in itertools.pairwise(known)),
        min((one.first_user for one in known), default=None),
        max((one.last_user for one in known), default=None),
        reports,
    )
    atomic.write_json(note, record._asdict())
    return _summary(record)


def _file(place: str, number: int) -> Path:
    # The underscore sorts after the dot of the first.
    return Path(f"{place}_{number:04d}.parquet" if number else f"{place}.parquet")


def _arrow(frames: Sequence[pd.DataFrame], texts: Sequence[str], *, stamped: bool) -> Any:
    import pyarrow as pa

    def joined(name: str) -> Any:
        none = np.empty(0, RATING_DTYPES.get(name, np.int64))
        return np.concatenate([none, *(frame[name].to_numpy() for frame in frames)])

    columns: dict[str, Any] = {}
    for name in RATING_DTYPES:
        if name in texts:
            columns[name] = pa.array(joined(name).astype(object), pa.string())
        else:
            columns[name] = pa.array(joined(name))
    if stamped:
        times = joined(TIMESTAMP)
        columns[TIMESTAMP] = pa.array(times, mask=times == format.NO_TIMESTAMP)
    return pa.table(columns)


def _ends(users: NDArray[Any]) -> tuple[Any, Any]:
    """Return the least and the greatest id, in types that JSON knows."""
    if not len(users):
        return None, None
    ends = users.min(), users.max()
    return ends if isinstance(ends[0], str) else (int(ends[0]), int(ends[1]))


class _Written(NamedTuple):
    """One file: its name, digest, rows and bytes, whether users rise in it, its first and last."""

    name: str
    digest: str
    rows: int
    bytes: int
    sorted: bool
    first_user: Any
    last_user: Any


def _write(rows: Any, target: Path) -> _Written:
    """Write one file beside its place, compare it, rename it."""
    import pyarrow.parquet as pq

    partial = target.with_name(target.name + ".partial")
    users = rows[USER].to_numpy()
    ordered = bool((users[1:] >= users[:-1]).all())
    pq.write_table(
        rows,
        partial,
        row_group_size=ROW_GROUP,
        compression="zstd",
        write_statistics=True,
        write_page_checksum=True,
        sorting_columns=[pq.SortingColumn(0)] if ordered and len(users) else None,
    )
    if not pq.read_table(partial, use_threads=False).equals(rows):
        partial.unlink()
        raise DataError(
            f"{target}: what was written doesn't read as what was meant: check the disk, then run "
            "again with --resume"
        )
    size, told = partial.stat().st_size, checksums.file_sha256(partial)
    os.replace(partial, target)
    return _Written(target.name, told, len(users), size, ordered, *_ends(users))


def _record(path: Path) -> PartRecord:
    return PartRecord(**json.loads(path.read_text("utf-8")))


def _summary(record: PartRecord) -> PartitionSummary:
    reports = tuple(
        FragmentReport(
            path,
            header,
            lines,
            tuple(format.LineReject(line, reason, text.encode()) for line, reason, text in told),
        )
        for path, header, lines, told in record.reports
    )
    return PartitionSummary(reports, record.rows, 0, np.zeros(0, np.uint8))


def _copy_others(work: RunContext) -> None:
    """Copy the catalogue, and what tells that the ratings are synthetic, beside the ratings."""
    layout = work.layout
    others = [layout.movies, *([layout.links] if layout.links else [])]
    made = ground_truth.synthetic_folder(layout)
    if made is not None:
        others += [f"{made}/{name}" for name in _SYNTHETIC]
    for path in others:
        target = work.folder.product(path.rpartition("/")[2])
        if not filesystem.exists(path):
            continue
        with filesystem.open_file(path) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)


def _manifest(work: RunContext, tally: RowCounts, records: Sequence[PartRecord]) -> dict[str, Any]:
    known = [record for record in records if record.first_user is not None]
    ends = [(record.first_user, record.last_user) for record in known]
    in_order = all(one[1] <= other[0] for one, other in itertools.pairwise(ends))  # type: ignore[operator]
    return {
        "status": "complete",
        "job": JOB,
        "settings": {
            name: work.settings.record()[name]
            for name in ("data", "ratings", "seed", "max_rejected")
        },
        "data": work.source(),
        "rows": tally.record(),
        "parquet": {
            "folder": PARTS,
            "parts": sum(len(record.digests) for record in records),
            "bytes": sum(record.bytes for record in records),
            "row_group_rows": ROW_GROUP,
            "sorted_by_user": in_order and all(record.sorted for record in records),
            "sha256": {n: told for record in records for n, told in record.digests.items()},
            "checked": "every part was read again and compared with what was read of the source",
        },
        "cluster": work.cluster.record(),
        "versions": versions(),
    }
