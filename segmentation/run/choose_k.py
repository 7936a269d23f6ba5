"""The job that chooses k: quality and stability for a range, one figure, one recommendation."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segmentation.features import aggregate
from segmentation.reporting import k_selection
from segmentation.run import pipeline, searching
from segmentation.run.settings import Execution
from segmentation.run.work import Work, open_work
from segmentation.storage import atomic

if TYPE_CHECKING:
    from pathlib import Path

    from segmentation.progress import Progress
    from segmentation.run.settings import Settings
    from segmentation.schema import KSearch

JOB = "choose-k"


@dataclass(frozen=True)
class ChooseKRun:
    """A finished run: its folder, what was found, and the manifest."""

    folder: Path
    search: KSearch
    manifest: dict[str, Any]


def run_choose_k(
    settings: Settings,
    out: str | Path,
    how: Execution | None = None,
    progress: Progress | None = None,
) -> ChooseKRun:
    """Run the job; leave manifest, figure, and the figures as JSON and CSV in ``out``.

    Raises
    ------
    SegmentationError
        One of its children, with a message for the person at the terminal.
    """
    how = how or Execution()
    with open_work(settings, out, JOB, how, progress) as work:
        if how.resume and (manifest := work.earlier(JOB, settings.key("choose_k"))):
            work.progress.say("  every stage was finished before: nothing is left to do")
            return ChooseKRun(work.out, _restored(manifest["choose_k"]), manifest)
        with work.in_folder(JOB):
            return _run(work)


def _run(work: Work) -> ChooseKRun:
    catalogue = aggregate.catalogue_for(work.layout, work.settings, work.progress)
    blocks, rows, movies = work.statistics(catalogue)
    warnings = work.warnings(catalogue, rows)
    X = pipeline.feature_array(
        work.cluster.client, blocks, work.settings.preset, len(catalogue.genres)
    )
    found = searching.search(work, X)
    record = searching.record(found)
    manifest = work.manifest(JOB, rows, blocks.users, movies, warnings)
    manifest["choose_k"] = record
    for name in ("k", "playbook"):
        del manifest["settings"][name]
    with work.progress.stage("report", "figure and tables"):
        folder = work.folder
        atomic.write_bytes(folder.product("figures/choose_k.png"), k_selection.figure(found))
        atomic.write_json(folder.product("choose_k.json"), record)
        atomic.write_bytes(folder.product("choose_k.csv"), _csv(record).encode("utf-8"))
        # Kept until here to resume from; without a model it is nobody's result.
        folder.discard("model")
    work.finish(manifest)
    work.folder.publish(manifest)
    return ChooseKRun(work.folder.path, found, manifest)


def _csv(record: dict[str, Any]) -> str:
    out = io.StringIO(newline="")
    columns = list(record["candidates"][0])
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*columns, "recommended"])
    for row in record["candidates"]:
        cells = ["; ".join(map(str, row[c])) if c == "jaccard" else row[c] for c in columns]
        writer.writerow([*cells, row["k"] == record["recommended"]])
    return out.getvalue()


def _restored(record: dict[str, Any]) -> KSearch:
    low, high = record["range"]
    return searching.restored(
        {
            "figures": [list(candidate.values()) for candidate in record["candidates"]],
            "low": low,
            "high": high,
            **{
                name: record[name]
                for name in ("recommended", "sound", "silhouette_rows", "stability_rows")
            },
        }
    )
