"""The job that chooses k: quality and stability for a range, one figure, one recommendation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segmentation.pipeline import stages
from segmentation.pipeline.context import (
    RESULT_FILES,
    RESUMABLE_FILES,
    open_run,
)
from segmentation.pipeline.manifest import build_manifest, load_finished
from segmentation.reporting import k_selection
from segmentation.storage import atomic
from segmentation.storage.run_folder import RunOutputs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from segmentation.pipeline.context import RunContext
    from segmentation.pipeline.manifest import RunManifest
    from segmentation.pipeline.settings import Execution, Settings
    from segmentation.progress import Progress
    from segmentation.schema import KSearch

OUTPUTS = RunOutputs(
    "choose-k",
    RESULT_FILES,
    required=("figures/choose_k.png", "choose_k.json", "choose_k.csv"),
    resumable=RESUMABLE_FILES,
    replaces=("segment",),
)


@dataclass(frozen=True)
class ChooseKRun:
    """A finished run: its folder, the search, and the manifest."""

    folder: Path
    search: KSearch
    manifest: RunManifest


def run_choose_k(
    settings: Settings,
    out: str | Path,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> ChooseKRun:
    """Search the range of k; leave the manifest, the figure, and its numbers as JSON and CSV.

    Parameters
    ----------
    out
        The run's folder.
    execution
        Where and how to run; None for this process.
    progress
        Receives the stages; None reports nothing.

    Raises
    ------
    SegmentationError
        One of its subclasses, with a message for the user.
    """
    with open_run(OUTPUTS, settings, out, execution, progress) as run:
        finished = load_finished(run, settings.stage_key("choose_k"))
        if finished is not None:
            search = stages.search_from_record(finished.choose_k or {})
            return ChooseKRun(run.out, search, finished)
        with run.open_folder():
            catalogue = stages.load_catalogue(run)
            users = stages.aggregate_ratings(run, catalogue)
            warnings = stages.collect_warnings(run, catalogue, users, run.layout.words)
            active = stages.select_active(run, users)
            X = stages.feature_matrix(run, active, len(catalogue.categories))
            search = stages.choose_k(run, X)
            manifest = build_manifest(
                run,
                users.rows,
                users=users.blocks.users,
                items=users.n_items,
                warnings=warnings,
                choose_k=stages.search_record(search),
            )
            for field in ("k", "playbook"):
                del manifest.settings[field]
            _write_results(run, search, manifest)
            return ChooseKRun(run.out, search, manifest)


def _write_results(run: RunContext, search: KSearch, manifest: RunManifest) -> None:
    folder, record = run.folder, manifest.choose_k or {}
    with run.progress.stage("report", "figure and tables"):
        figure = k_selection.draw_k_figure(search)
        atomic.write_bytes(folder.result_path("figures/choose_k.png"), figure)
        atomic.write_json(folder.result_path("choose_k.json"), record)
        _write_csv(folder.result_path("choose_k.csv"), record)
        # The statistics were saved for a resumed run; without a model they are no result.
        folder.discard("model")
    run.record_costs(manifest)
    folder.publish(manifest.to_json())


def _write_csv(path: Path, record: Mapping[str, Any]) -> None:
    rows = []
    for candidate in record["candidates"]:
        jaccard = "; ".join(map(str, candidate["jaccard"]))
        is_recommended = candidate["k"] == record["recommended"]
        rows.append([*{**candidate, "jaccard": jaccard}.values(), is_recommended])
    atomic.write_csv(path, [*record["candidates"][0], "recommended"], rows)
