"""The main job: ratings → user genre means → K-Means → incremental PCA → segments and report."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.datasets import catalogue as catalogues
from segmentation.datasets import layouts
from segmentation.errors import UsageError
from segmentation.insight import personas as people
from segmentation.insight import profiles as profiling
from segmentation.run import files, pipeline, reading, reporting, store
from segmentation.run.cluster import open_cluster
from segmentation.run.failures import explained
from segmentation.run.memory import PeakMemory
from segmentation.run.model import SavedModel
from segmentation.run.progress import Progress
from segmentation.run.settings import Settings, synthetic_rows
from segmentation.schema import Axes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from segmentation.datasets.layouts import Layout
    from segmentation.run.cluster import Cluster
    from segmentation.schema import Catalogue, Persona, SegmentProfile

#: From this share of unmapped ratings on a run warns of its catalogue.
_MOST_UNMAPPED = 0.05
_LIBRARIES = (
    "dask", "dask-ml", "distributed", "kagglehub", "matplotlib", "numba", "numpy", "pandas",
    "pyarrow", "scikit-learn", "scipy",
)  # fmt: skip


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
    *,
    cluster: str = "threads",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    debug: bool = False,
) -> SegmentRun:
    """Run the job and leave everything that the contract lists in ``out``.

    Raises
    ------
    SegmentationError
        One of its children, with a message for the person at the terminal.
    """
    progress = progress or Progress(quiet=True)
    if not (resume or overwrite) and (found := store.existing_run(out)):
        # Said again by the folder itself; here it saves a download or a cluster's start.
        store.refuse_existing(Path(out), found)
    playbook = people.load_playbook(settings.playbook)
    began = time.monotonic()
    with PeakMemory() as memory, open_cluster(cluster, debug=debug) as running:
        if running.dashboard:
            progress.say(f"  dashboard: {running.dashboard}")
        with explained(Path(out)):
            layout = locate(settings, running, progress)
            digest = layouts.fingerprint(layout.files)
        if resume and (done := _finished(Path(out), settings, digest)):
            progress.say("  every stage was finished before: nothing is left to do")
            return done
        folder = store.RunFolder(out, {"fingerprint": digest}, resume=resume, overwrite=overwrite)
        try:
            with explained(Path(out)):
                work = _Work(settings, playbook, layout, digest, folder, running, progress)
                run = work.run(memory, began)
        except BaseException:
            folder.abandon()
            raise
    return run


def _finished(out: Path, settings: Settings, digest: str) -> SegmentRun | None:
    """Return what a finished run in ``out`` found; None where it isn't finished."""
    manifest = store.read_manifest(out)
    if manifest is None:
        return None
    before = {**manifest["settings"], "fingerprint": manifest["data"]["fingerprint"]}
    now = {**settings.key("run"), "playbook": people.digest(settings.playbook)}
    now["fingerprint"] = digest
    before["playbook"] = manifest["settings"].get("playbook_sha256")
    store.refuse_other(out, {name: before.get(name) for name in now}, now)
    missing = [name for name in store.EXPECTED if not (out / name).exists()]
    if missing:
        raise UsageError(f"{out}: lacks {missing[0]}: add --overwrite in place of --resume")
    genres, profiles, personas = reporting.read_segments(out / "segments.json")
    return SegmentRun(out, genres, profiles, personas, manifest)


def locate(settings: Settings, cluster: Cluster, progress: Progress) -> Layout:
    """Find, download or make the data that the settings name."""
    rows = synthetic_rows(settings.data)
    if rows is not None:
        from segmentation.datasets.synthetic import writer

        place = _cache() / f"synthetic-v{writer.VERSION}-{rows}-seed{settings.seed}"
        if not writer.is_written(rows, settings.seed, place):
            with progress.stage("synthesize", "synthetic data") as stage:
                writer.write(
                    rows, settings.seed, place, cluster.client,
                    lambda done, total: stage.update(done, total, "rows"),
                )  # fmt: skip
                stage.note = f"{rows:,} ratings kept in {place}"
        return layouts.detect(str(place), settings.ratings)
    if settings.data == "kaggle":
        from segmentation.datasets import kaggle

        with progress.stage("download", "Kaggle") as stage:
            # Another ratings file for the same catalogue need not be one of Kaggle's.
            own = settings.ratings is not None and layouts.exists(settings.ratings)
            name = None if own else settings.ratings or kaggle.DEFAULT_RATINGS
            folder = kaggle.download(name, quiet=not progress.live)
            stage.note = folder
        return layouts.detect(folder, settings.ratings)
    return layouts.detect(settings.data, settings.ratings)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "segmentation"


@dataclass
class _Work:
    """One run in progress; each method is a stage or what a finished stage left."""

    settings: Settings
    playbook: people.Playbook
    layout: Layout
    digest: str
    folder: store.RunFolder
    cluster: Cluster
    progress: Progress

    def run(self, memory: PeakMemory, began: float) -> SegmentRun:
        catalogue = reading.catalogue_for(self.layout, self.settings, self.progress)
        blocks, rows, movies = self._statistics(catalogue)
        warnings = self._warnings(catalogue, rows)
        client = self.cluster.client
        X = pipeline.feature_array(client, blocks, self.settings.preset, len(catalogue.genres))
        clustering = self._clustering(X, blocks)
        axes, pca = self._axes(X)
        with self.progress.stage("profiles", "profiles"):
            assigned = pipeline.assign_users(client, X, blocks, clustering, axes)
            jaccard = files.jsonable(clustering.record["stability"]["jaccard"])
            profiles = [
                replace(profile, stability=float("nan") if value is None else value)
                for profile, value in zip(
                    profiling.profiles(assigned.sums, assigned.distance_p99), jaccard, strict=True
                )
            ]
            personas = people.assign_personas(profiles, catalogue.genres, self.playbook)
        names = [persona.name for persona in personas]
        with self.progress.stage("assignments", "assignments") as stage:
            pipeline.write_assignments(
                client, self.folder, blocks, assigned, names, catalogue.genres
            )
            stage.note = f"{blocks.users:,} users"
        synthetic = bool(self._source()["synthetic"])
        SavedModel(
            self.settings.preset, self.settings.effective_join, self.layout.name,
            catalogue.genres, tuple(names), clustering.centers, assigned.distance_p99, axes,
            synthetic,
        ).save(self.folder.product("model"))  # fmt: skip
        manifest = {
            "status": "complete",
            "settings": {
                **self.settings.record(),
                "playbook_sha256": people.digest(self.settings.playbook),
            },
            "data": {**self._source(), "catalogue": catalogue.notes},
            "rows": rows,
            "users": blocks.users,
            "movies": movies,
            "kmeans": clustering.record,
            "pca": pca,
            "cluster": self.cluster.record(),
            "warnings": warnings,
            "versions": versions(),
        }
        with self.progress.stage("report", "figures and report"):
            figures = reporting.draw(self.folder, assigned, profiles, names, catalogue.genres,
                                     axes, self.settings.seed)  # fmt: skip
            reporting.write_segments(self.folder, profiles, personas, catalogue.genres)
            self._finish(manifest, memory, began)
            reporting.write_reports(
                self.folder, manifest, profiles, personas, catalogue.genres, figures
            )
        self._finish(manifest, memory, began)
        self.folder.publish(manifest)
        return SegmentRun(self.folder.path, catalogue.genres, profiles, personas, manifest)

    def _finish(self, manifest: dict[str, Any], memory: PeakMemory, began: float) -> None:
        manifest["stages"] = [
            {"name": stage.name, "seconds": round(stage.seconds, 3)}
            for stage in self.progress.stages
        ]
        manifest["seconds"] = round(time.monotonic() - began, 3)
        manifest["peak_memory_bytes"] = memory.bytes

    def _warnings(self, catalogue: Catalogue, rows: Mapping[str, int]) -> list[str]:
        warnings = []
        if self.layout.name == "kaggle" and self.settings.effective_join == "direct":
            warnings.append(catalogues.direct_warning(catalogue))
        else:
            share = rows["unmapped"] / max(rows["used"] + rows["unmapped"], 1)
            if share > _MOST_UNMAPPED:
                warnings.append(
                    f"{share:.1%} of the ratings are of films that the catalogue lacks: is it "
                    "whole, and the one that belongs to them?"
                )
        warnings += catalogues.warnings(catalogue)
        for warning in warnings:
            self.progress.warn(f"  warning: {warning}")
        return warnings

    def _source(self) -> dict[str, Any]:
        rows = synthetic_rows(self.settings.data)
        # A folder that `synthesize` wrote says so by its marker, wherever it was moved to.
        made = rows is not None or layouts.exists(f"{self.layout.folder}/synthetic.json")
        return {
            "source": self.settings.data,
            "layout": self.layout.name,
            "ratings": self.layout.ratings,
            "synthetic": made,
            "fingerprint": self.digest,
        }

    def _statistics(self, catalogue: Catalogue) -> tuple[reading.Blocks, dict[str, int], int]:
        kept = self.folder.product("model/user_statistics.parquet")
        key = self.settings.key("ratings")
        done = self.folder.stage("ratings", key)
        if done is not None and kept.exists():
            self.progress.say("  ratings: taken from the finished stage")
            blocks = reading.load_blocks(self.cluster.client, kept, done["blocks"])
            return blocks, done["rows"], done["movies"]
        self.folder.discard("rejected")
        blocks, tally = reading.read_ratings(
            self.layout, catalogue, self.settings, self.cluster, self.progress
        )
        if tally.rejected:
            files.write_rejected(self.folder.product("rejected/ratings.csv"), tally.rejected)
        reading.save_blocks(kept, blocks, catalogue.genres)
        rows = tally.record()
        self.folder.finish_stage(
            "ratings", key, {"rows": rows, "movies": tally.movies, "blocks": blocks.sizes}
        )
        return blocks, rows, tally.movies

    def _clustering(self, X: Any, blocks: reading.Blocks) -> pipeline.Clustering:
        key = self.settings.key("kmeans")
        done = self.folder.stage("kmeans", key)
        if done is not None:
            self.progress.say("  K-Means: taken from the finished stage")
            return pipeline.Clustering(np.array(done["centers"]), done["record"])
        with self.progress.stage("kmeans", "K-Means") as stage:
            found = pipeline.cluster_users(self.cluster.client, X, blocks, self.settings)
            n_iter = found.record["n_iter"]
            stage.note = f"k = {self.settings.k}, {n_iter} pass{'es' if n_iter > 1 else ''}"
        self.folder.finish_stage("kmeans", key, found._asdict())
        return found

    def _axes(self, X: Any) -> tuple[Axes, dict[str, Any]]:
        key = self.settings.key("pca")
        done = self.folder.stage("pca", key)
        if done is not None:
            return Axes(*(np.array(values) for values in done["axes"])), done["record"]
        with self.progress.stage("pca", "PCA") as stage:
            axes, record = pipeline.find_axes(X)
            stage.note = f"{axes.explained_variance_ratio.sum():.0%} of the variance on two axes"
        self.folder.finish_stage("pca", key, {"axes": list(axes), "record": record})
        return axes, record


def default_out() -> Path:
    """Return ``runs/<date-time>``, one that is not there yet."""
    base = Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    out, n = base, 2
    while out.exists():
        out, n = base.with_name(f"{base.name}-{n}"), n + 1
    return out


def versions() -> dict[str, str]:
    """Return the versions of this package, Python and the libraries that results hang on."""
    found = {"python": platform.python_version(), "platform": sys.platform}
    for name in ("segmentation", *_LIBRARIES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


__all__ = ["SegmentRun", "default_out", "locate", "run_segment", "versions"]
