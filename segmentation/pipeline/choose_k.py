"""The job that chooses k: quality and stability for a range, one figure, one recommendation."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segmentation.errors import DataError
from segmentation.features import aggregate
from segmentation.pipeline import stages
from segmentation.pipeline.context import RunContext, open_run
from segmentation.pipeline.settings import COMPARED_K, Execution
from segmentation.reporting import k_selection
from segmentation.schema import KFigures, KSearch
from segmentation.storage import atomic

if TYPE_CHECKING:
    from pathlib import Path

    from segmentation.pipeline.settings import Settings
    from segmentation.progress import Progress


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
    with open_run(settings, out, JOB, how, progress) as work:
        if how.resume and (manifest := work.earlier(JOB, settings.key("choose_k"))):
            work.progress.say("  every stage was finished before: nothing is left to do")
            return ChooseKRun(work.out, _restored(manifest["choose_k"]), manifest)
        with work.in_folder(JOB):
            return _run(work)


def _run(work: RunContext) -> ChooseKRun:
    catalogue = aggregate.catalogue_for(work.layout, work.settings, work.progress)
    blocks, rows, movies = work.statistics(catalogue)
    warnings = work.warnings(catalogue, rows)
    X = stages.feature_matrix(
        work.cluster.client, blocks, work.settings.preset, len(catalogue.genres)
    )
    found = search_k(work, X)
    figures = search_record(found)
    manifest = work.manifest(JOB, rows, blocks.users, movies, warnings)
    manifest["choose_k"] = figures
    for name in ("k", "playbook"):
        del manifest["settings"][name]
    with work.progress.stage("report", "figure and tables"):
        folder = work.folder
        atomic.write_bytes(folder.product("figures/choose_k.png"), k_selection.draw_k_figure(found))
        atomic.write_json(folder.product("choose_k.json"), figures)
        atomic.write_bytes(folder.product("choose_k.csv"), _csv(figures).encode("utf-8"))
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
    return search_from_json(
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


def search_k(work: RunContext, X: Any) -> KSearch:
    """Try the range that the settings name, or take up what a finished stage found.

    Raises
    ------
    DataError
        If the audience has fewer distinct users than the range asks for.
    """
    key = work.settings.key("choose_k")
    done = work.folder.stage("choose_k", key)
    if done is not None:
        work.progress.say("  k: taken from the finished stage")
        return search_from_json(done)
    from segmentation.estimators.exceptions import TooFewDistinctRowsError
    from segmentation.estimators.model_selection import choose_k

    low, high = work.settings.k_range
    with work.progress.stage("choose_k", "choosing k") as stage:
        if X.shape[0] < high:
            raise _too_few(X.shape[0], low, high)
        try:
            found = choose_k(
                X,
                low,
                high,
                work.settings.seed,
                COMPARED_K,
                lambda done, total: stage.update(done, total, "steps"),
            )
        except TooFewDistinctRowsError as error:
            raise _too_few(error.n_distinct, low, high, "distinct ") from error
        stage.note = f"{found.recommended} of {low} to {high}"
    work.folder.finish_stage("choose_k", key, found._asdict())
    return found


def _too_few(users: int, low: int, high: int, kind: str = "") -> DataError:
    told = f"{users} {kind}user" + ("s" if users > 1 else "") + f" for --k-range {low}-{high}"
    if users <= 2:
        return DataError(f"{told}: there is nothing to choose from: use segment with --k {users}")
    return DataError(f"{told}: use --k-range {min(low, users - 1)}-{users}")


def search_from_json(found: dict[str, Any]) -> KSearch:
    """Return a search from what JSON kept of it."""
    figures = tuple(
        KFigures(*values)._replace(jaccard=tuple(values[-1])) for values in found["figures"]
    )
    return KSearch(**{**found, "figures": figures})


def search_record(found: KSearch) -> dict[str, Any]:
    """Return a search as it stands in the manifest and in ``choose_k.json``."""
    return {
        "recommended": found.recommended,
        "reason": k_selection.explain_choice(found),
        "sound": found.sound,
        "range": [found.low, found.high],
        "elbow": k_selection.find_elbow(found),
        "silhouette_rows": found.silhouette_rows,
        "stability_rows": found.stability_rows,
        "candidates": [
            {**figures._asdict(), "jaccard": list(figures.jaccard)} for figures in found.figures
        ],
    }
