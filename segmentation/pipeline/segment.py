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
    from collections.abc import Sequence
    from pathlib import Path

    import dask.array as da

    from segmentation.features.user_blocks import UserBlocks
    from segmentation.pipeline.context import RunContext
    from segmentation.pipeline.manifest import RunManifest
    from segmentation.pipeline.settings import Execution, Settings
    from segmentation.pipeline.stages import AggregatedUsers, Clustering, Segments
    from segmentation.progress import Progress
    from segmentation.reporting.personas import Playbook
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
            return read_run(run, finished)
        with run.open_folder(), FigureRenderer() as renderer:
            catalogue = stages.load_catalogue(run)
            users = stages.aggregate_ratings(run, catalogue)
            if run.has_spare_memory(REQUIRED_MEMORY):
                renderer.start()
            words = playbook.choose_words(run.layout.words)
            warnings = stages.collect_warnings(run, catalogue, users, words)
            X = stages.feature_matrix(run, users.blocks, len(catalogue.categories))
            active, X_active = select_active(run, users, X)
            search = stages.choose_k(run, X_active) if settings.k == "auto" else None
            k = search.recommended if search is not None else int(settings.k)
            clusters = stages.fit_k_means(run, X_active, X, users, k)
            axes, pca_record = stages.fit_pca(run, X_active)
            fit = Fit(catalogue, users, X, active.users, X_active, clusters, axes, pca_record)
            segments, quality, segment_warnings = describe(run, renderer, fit, playbook, k)
            manifest = collect_manifest(run, fit, quality, [*warnings, *segment_warnings], search)
            manifest.settings["playbook_sha256"] = digest_playbook(settings)
            manifest.data["merged"] = [describe_ratings(run, users)]
            return publish(run, renderer, fit, segments, manifest, search)


@dataclass(frozen=True)
class Fit:
    """Users and the segments that were fitted to them.

    Parameters
    ----------
    X
        The features of all users.
    n_active, X_active
        The number of users that shape the segments, and their features.
    """

    catalogue: Catalogue
    users: AggregatedUsers
    X: da.Array
    n_active: int
    X_active: da.Array
    clusters: Clustering
    axes: Axes
    pca_record: dict[str, Any]


def select_active(
    run: RunContext, users: AggregatedUsers, X: da.Array
) -> tuple[UserBlocks, da.Array]:
    """Return the users that shape the segments, and their features."""
    active = stages.select_active(run, users)
    if active.users == users.blocks.users:
        return active, X
    return active, stages.feature_matrix(run, active, X.shape[1])


def describe(
    run: RunContext,
    renderer: FigureRenderer,
    fit: Fit,
    playbook: Playbook,
    k: int,
    names: Sequence[str | None] | None = None,
    retired: Sequence[str] = (),
) -> tuple[Segments, dict[str, Any], list[str]]:
    """Describe the segments, assign all users, and measure the clustering.

    Parameters
    ----------
    k
        The number of segments that was asked for.
    names, retired
        The names of segments that have one already, and names that no new segment may get.

    Returns
    -------
    segments : Segments
    quality : dict
        The figures for the manifest.
    warnings : list of str
    """
    users, categories = fit.users, fit.catalogue.categories
    segments = stages.describe_segments(
        run, fit.X, users, fit.clusters, fit.axes, categories, playbook, names, retired
    )
    warnings = stages.check_segments(run, segments, k)
    stages.write_assignments(
        run, fit.X, users, fit.clusters.centers, fit.axes, segments.names, categories
    )
    renderer.submit(_figure_data(run, users.blocks.users, segments, fit.axes, fit.catalogue))
    # Last of what is computed: the assignments do not wait for it.
    quality = stages.evaluate_clustering(run, fit.X_active, fit.clusters)
    return stages.add_stability(segments, quality), quality, warnings


def collect_manifest(
    run: RunContext,
    fit: Fit,
    quality: dict[str, Any],
    warnings: list[str],
    search: KSearch | None = None,
) -> RunManifest:
    """Return the manifest of a run that has segments."""
    users = fit.users
    manifest = build_manifest(
        run,
        users.rows,
        users=users.blocks.users,
        items=users.n_items,
        warnings=warnings,
        kmeans={
            **fit.clusters.record,
            "users": fit.n_active,
            **quality,
            **_compare_with_ground_truth(run),
        },
        pca=fit.pca_record,
        choose_k=None if search is None else stages.search_record(search),
    )
    manifest.data["catalogue"] = fit.catalogue.notes
    return manifest


def describe_ratings(run: RunContext, users: AggregatedUsers) -> dict[str, Any]:
    """Return what the manifest keeps to recognize ratings that are merged once more."""
    return {
        "source": run.layout.ratings,
        "fingerprint": run.fingerprint,
        "digest": users.digest,
    }


def publish(
    run: RunContext,
    renderer: FigureRenderer,
    fit: Fit,
    segments: Segments,
    manifest: RunManifest,
    search: KSearch | None = None,
) -> SegmentRun:
    """Write the model, the figures and the report, and publish all results."""
    categories = fit.catalogue.categories
    _save_model(run, fit, segments, manifest.data["synthetic"])
    _write_results(run, manifest, segments, fit.catalogue, renderer, search)
    return SegmentRun(run.out, categories, segments.profiles, segments.personas, manifest)


def _run_key(settings: Settings) -> dict[str, Any]:
    """Return the settings that the results depend on, with the playbook's content for its path."""
    key = settings.stage_key("run")
    del key["playbook"]
    return {**key, "playbook_sha256": digest_playbook(settings)}


def digest_playbook(settings: Settings) -> str:
    """Return the digest of the playbook that the settings name."""
    return personas.playbook_digest(settings.playbook, films=settings.catalogue is None)


def read_run(run: RunContext, manifest: RunManifest) -> SegmentRun:
    """Read the segments of a finished run."""
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


def _save_model(run: RunContext, fit: Fit, segments: Segments, is_synthetic: bool) -> None:
    SavedModel(
        preset=run.settings.preset,
        join=run.settings.effective_join,
        layout=run.layout.name,
        categories=fit.catalogue.categories,
        scale=run.layout.effective_scale,
        ratings=run.layout.reading.kind,
        min_ratings=run.settings.min_ratings,
        words=segments.profiles[0].words,
        personas=segments.names,
        centers=fit.clusters.centers,
        distance_p99=segments.distance_p99,
        axes=fit.axes,
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
