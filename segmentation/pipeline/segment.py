"""The main job: ratings → user category means → K-Means → incremental PCA → segments and report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segmentation.pipeline import ground_truth, stages
from segmentation.pipeline.context import (
    RESULT_FILES,
    RESUMABLE_FILES,
    open_run,
)
from segmentation.pipeline.figure_process import REQUIRED_MEMORY, FigureRenderer
from segmentation.pipeline.manifest import build_manifest, load_finished
from segmentation.pipeline.model import SavedModel
from segmentation.reporting import outputs, personas
from segmentation.reporting.figures import FigureData
from segmentation.storage.run_folder import RunOutputs

if TYPE_CHECKING:
    from pathlib import Path

    from segmentation.pipeline.context import RunContext
    from segmentation.pipeline.manifest import RunManifest
    from segmentation.pipeline.settings import Execution, Settings
    from segmentation.pipeline.stages import Clustering, Segments
    from segmentation.progress import Progress
    from segmentation.schema import Axes, Catalogue, KSearch, Persona, SegmentProfile

OUTPUTS = RunOutputs(
    "segment",
    RESULT_FILES,
    required=tuple(
        name for name in RESULT_FILES if "choose_k" not in name and not name.startswith("rejected/")
    ),
    resumable=RESUMABLE_FILES,
    replaces=("choose-k",),
)


@dataclass(frozen=True)
class SegmentRun:
    """A finished run: its folder, its segments, and the manifest."""

    folder: Path
    categories: tuple[str, ...]
    profiles: list[SegmentProfile]
    personas: list[Persona]
    manifest: RunManifest


def run_segment(
    settings: Settings,
    out: str | Path,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> SegmentRun:
    """Run the job and leave every result that the contract lists in ``out``.

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
    playbook = personas.load_playbook(settings.playbook, films=settings.catalogue is None)
    with open_run(OUTPUTS, settings, out, execution, progress) as run:
        finished = load_finished(run, _run_key(settings))
        if finished is not None:
            return _read_run(run, finished)
        with run.open_folder(), FigureRenderer() as renderer:
            catalogue = stages.load_catalogue(run)
            users = stages.aggregate_ratings(run, catalogue)
            if run.has_spare_memory(REQUIRED_MEMORY):
                renderer.start()
            words = playbook.choose_words(run.layout.words)
            warnings = stages.collect_warnings(run, catalogue, users, words)
            X = stages.feature_matrix(run, users.blocks, len(catalogue.categories))
            active = stages.select_active(run, users)
            X_active = X
            if active.users < users.blocks.users:
                X_active = stages.feature_matrix(run, active, len(catalogue.categories))
            search = stages.choose_k(run, X_active) if settings.k == "auto" else None
            k = search.recommended if search is not None else int(settings.k)
            clusters = stages.fit_k_means(run, X_active, X, users, k)
            axes, pca_record = stages.fit_pca(run, X_active)
            segments = stages.describe_segments(
                run, X, users, clusters, axes, catalogue.categories, playbook
            )
            warnings += stages.check_segments(run, segments, k)
            stages.write_assignments(
                run, X, users, clusters.centers, axes, segments.names, catalogue.categories
            )
            renderer.submit(_figure_data(run, users.blocks.users, segments, axes, catalogue))
            # Last of what is computed: the assignments do not wait for it.
            quality = stages.evaluate_clustering(run, X_active, clusters)
            segments = stages.add_stability(segments, quality)
            manifest = build_manifest(
                run,
                users.rows,
                users=users.blocks.users,
                items=users.n_items,
                warnings=warnings,
                kmeans={
                    **clusters.record,
                    "users": active.users,
                    **quality,
                    **_compare_with_ground_truth(run),
                },
                pca=pca_record,
                choose_k=None if search is None else stages.search_record(search),
            )
            manifest.settings["playbook_sha256"] = _digest_playbook(settings)
            manifest.data["catalogue"] = catalogue.notes
            _save_model(run, catalogue, clusters, axes, segments, manifest.data["synthetic"])
            _write_results(run, manifest, segments, catalogue, renderer, search)
            return SegmentRun(
                run.out, catalogue.categories, segments.profiles, segments.personas, manifest
            )


def _run_key(settings: Settings) -> dict[str, Any]:
    """Return the settings that the results depend on, with the playbook's content for its path."""
    key = settings.stage_key("run")
    del key["playbook"]
    return {**key, "playbook_sha256": _digest_playbook(settings)}


def _digest_playbook(settings: Settings) -> str:
    return personas.playbook_digest(settings.playbook, films=settings.catalogue is None)


def _read_run(run: RunContext, manifest: RunManifest) -> SegmentRun:
    categories, profiles, segment_personas = outputs.read_segments(run.out / "segments.json")
    return SegmentRun(run.out, categories, profiles, segment_personas, manifest)


def _figure_data(
    run: RunContext, n_users: int, segments: Segments, axes: Axes, catalogue: Catalogue
) -> FigureData:
    return FigureData(
        segments.points,
        segments.labels,
        n_users,
        segments.names,
        catalogue.categories,
        tuple(float(ratio) for ratio in axes.explained_variance_ratio),
        tuple(segments.profiles),
        run.settings.seed,
    )


def _compare_with_ground_truth(run: RunContext) -> dict[str, Any]:
    """Return the agreement with the planted segments; nothing where the data is not synthetic."""
    folder = ground_truth.synthetic_folder(run.layout)
    if folder is None:
        return {}
    assignments = run.folder.result_path("assignments.parquet")
    return {"planted_ari": ground_truth.planted_agreement(folder, assignments)}


def _save_model(
    run: RunContext,
    catalogue: Catalogue,
    clusters: Clustering,
    axes: Axes,
    segments: Segments,
    is_synthetic: bool,
) -> None:
    SavedModel(
        preset=run.settings.preset,
        join=run.settings.effective_join,
        layout=run.layout.name,
        categories=catalogue.categories,
        scale=run.layout.effective_scale,
        ratings=run.layout.reading.kind,
        words=segments.profiles[0].words,
        personas=segments.names,
        centers=clusters.centers,
        distance_p99=segments.distance_p99,
        axes=axes,
        population=segments.population,
        synthetic=is_synthetic,
    ).save(run.folder.result_path("model"))


def _write_results(
    run: RunContext,
    manifest: RunManifest,
    segments: Segments,
    catalogue: Catalogue,
    renderer: FigureRenderer,
    search: KSearch | None,
) -> None:
    folder, categories = run.folder, catalogue.categories
    with run.progress.stage("report", "figures and report"):
        figures = outputs.write_figures(folder, renderer.result(), search)
        outputs.write_segments(folder, segments.profiles, segments.personas, categories)
        # The report shows the time and memory up to here.
        run.record_costs(manifest)
        outputs.write_reports(
            folder,
            manifest.to_json(),
            segments.profiles,
            segments.personas,
            categories,
            figures,
            search,
        )
    run.record_costs(manifest)
    folder.publish(manifest.to_json())
