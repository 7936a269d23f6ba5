"""The main job: ratings → user genre means → K-Means → incremental PCA → segments and report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.features import aggregate
from segmentation.pipeline import choose_k, figure_process, ground_truth, stages
from segmentation.pipeline.context import RunContext, open_run
from segmentation.pipeline.model import SavedModel
from segmentation.pipeline.settings import Execution
from segmentation.reporting import figures, outputs
from segmentation.reporting import personas as people
from segmentation.reporting import profiles as profiling
from segmentation.schema import Axes
from segmentation.storage import atomic

if TYPE_CHECKING:
    from pathlib import Path

    from segmentation.features.user_blocks import UserBlocks
    from segmentation.pipeline.settings import Settings
    from segmentation.progress import Progress
    from segmentation.schema import KSearch, Persona, SegmentProfile

JOB = "segment"


@dataclass(frozen=True)
class SegmentRun:
    """A finished run: its folder, its segments, and the manifest."""

    folder: Path
    genres: tuple[str, ...]
    profiles: list[SegmentProfile]
    personas: list[Persona]
    manifest: dict[str, Any]


def run_segment(
    settings: Settings,
    out: str | Path,
    how: Execution | None = None,
    progress: Progress | None = None,
) -> SegmentRun:
    """Run the job and leave everything that the contract lists in ``out``.

    Raises
    ------
    SegmentationError
        One of its children, with a message for the person at the terminal.
    """
    playbook = people.load_playbook(settings.playbook)
    how = how or Execution()
    with open_run(settings, out, JOB, how, progress) as work:
        if how.resume and (done := _finished(work)):
            work.progress.say("  every stage was finished before: nothing is left to do")
            return done
        with work.in_folder(JOB), figure_process.FigureRenderer() as artist:
            return _Segmenting(work, playbook).run(artist)


def _finished(work: RunContext) -> SegmentRun | None:
    """Return what a finished run in the folder found; None where it isn't finished."""
    key = {
        **work.settings.key("run"),
        "playbook_sha256": people.playbook_digest(work.settings.playbook),
    }
    key.pop("playbook")
    manifest = work.earlier(JOB, key)
    if manifest is None:
        return None
    genres, profiles, personas = outputs.read_segments(work.out / "segments.json")
    return SegmentRun(work.out, genres, profiles, personas, manifest)


@dataclass
class _Segmenting:
    """One run in progress; each method is a stage or what a finished stage left."""

    work: RunContext
    playbook: people.Playbook

    def run(self, artist: figure_process.FigureRenderer) -> SegmentRun:
        work, settings = self.work, self.work.settings
        folder, progress, client = work.folder, work.progress, work.cluster.client
        catalogue = aggregate.catalogue_for(work.layout, settings, progress)
        blocks, rows, movies = work.statistics(catalogue)
        if not work.is_short_of(figure_process.REQUIRED_MEMORY):
            artist.start()
        warnings = work.warnings(catalogue, rows)
        X = stages.feature_matrix(client, blocks, settings.preset, len(catalogue.genres))
        search = choose_k.search_k(work, X) if settings.k == "auto" else None
        clustering = self._clustering(X, blocks, search)
        axes, pca = self._axes(X)
        with progress.stage("profiles", "profiles"):
            found = stages.summarize_segments(client, X, blocks, clustering, axes, settings.seed)
            profiles = profiling.build_profiles(found.sums, found.distance_p99)
            personas = people.assign_personas(profiles, catalogue.genres, self.playbook)
        work.cluster.let_go()
        names = [persona.name for persona in personas]
        with progress.stage("assignments", "assignments") as stage:
            stages.write_assignments(
                work.cluster, folder, X, blocks, clustering, axes, names, catalogue.genres
            )
            stage.note = f"{blocks.users:,} users"
        wanted = figures.FigureData(
            found.points,
            found.labels,
            blocks.users,
            tuple(names),
            catalogue.genres,
            tuple(float(ratio) for ratio in axes.explained_variance_ratio),
            tuple(profiles),
            settings.seed,
        )
        artist.submit(wanted)
        # Last of what is computed, since assignments don't wait for it.
        judged = self._judged(X, clustering)
        profiles = [
            replace(profile, stability=float("nan") if value is None else value)
            for profile, value in zip(profiles, judged["stability"]["jaccard"], strict=True)
        ]
        work.cluster.let_go()
        manifest = work.manifest(JOB, rows, blocks.users, movies, warnings)
        manifest["settings"]["playbook_sha256"] = people.playbook_digest(settings.playbook)
        manifest["data"]["catalogue"] = catalogue.notes
        synthetic = bool(manifest["data"]["synthetic"])
        SavedModel(
            settings.preset,
            settings.effective_join,
            work.layout.name,
            catalogue.genres,
            tuple(names),
            clustering.centers,
            found.distance_p99,
            axes,
            synthetic,
        ).save(folder.product("model"))
        manifest["kmeans"], manifest["pca"] = {**clustering.record, **judged}, pca
        planted = ground_truth.synthetic_folder(work.layout)
        if planted is not None:
            manifest["kmeans"]["planted_ari"] = ground_truth.planted_agreement(
                planted, folder.product("assignments.parquet")
            )
        if search is not None:
            manifest["choose_k"] = choose_k.search_record(search)
        with progress.stage("report", "figures and report"):
            drawn = outputs.write_figures(folder, artist.result(), search)
            outputs.write_segments(folder, profiles, personas, catalogue.genres)
            work.finish(manifest)
            outputs.write_reports(
                folder, manifest, profiles, personas, catalogue.genres, drawn, search
            )
        work.finish(manifest)
        folder.publish(manifest)
        return SegmentRun(folder.path, catalogue.genres, profiles, personas, manifest)

    def _clustering(self, X: Any, blocks: UserBlocks, search: KSearch | None) -> stages.Clustering:
        work = self.work
        key = work.settings.key("kmeans")
        done = work.folder.stage("kmeans", key)
        if done is not None:
            work.progress.say("  K-Means: taken from the finished stage")
            return stages.Clustering(np.array(done["centers"]), done["record"])
        k = int(work.settings.k) if search is None else search.recommended
        with work.progress.stage("kmeans", "K-Means") as stage:
            found = stages.fit_k_means(work.cluster.client, X, blocks, k, work.settings.seed)
            n_iter = found.record["n_iter"]
            stage.note = f"k = {k}, {n_iter} pass{'es' if n_iter > 1 else ''}"
        work.folder.finish_stage("kmeans", key, found._asdict())
        work.cluster.let_go()
        return found

    def _judged(self, X: Any, clustering: stages.Clustering) -> dict[str, Any]:
        work = self.work
        key = work.settings.key("kmeans")
        done = work.folder.stage("quality", key)
        if done is None:
            with work.progress.stage("quality", "quality and stability"):
                done = stages.evaluate_clustering(X, clustering.centers, work.settings.seed)
            work.folder.finish_stage("quality", key, done)
        return dict(atomic.jsonable(done))

    def _axes(self, X: Any) -> tuple[Axes, dict[str, Any]]:
        work = self.work
        key = work.settings.key("pca")
        done = work.folder.stage("pca", key)
        if done is not None:
            return Axes(*(np.array(values) for values in done["axes"])), done["record"]
        with work.progress.stage("pca", "PCA") as stage:
            axes, record = stages.fit_pca(X)
            stage.note = f"{axes.explained_variance_ratio.sum():.0%} of the variance on two axes"
        work.folder.finish_stage("pca", key, {"axes": list(axes), "record": record})
        return axes, record
