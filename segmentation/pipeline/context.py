"""The resources of a run: its data, cluster, folder, progress and memory."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmentation.datasets import layouts
from segmentation.datasets.filesystem import check_version, is_local, url_to_fs
from segmentation.deploy import diagnostics, preflight
from segmentation.deploy.core import open_cluster
from segmentation.deploy.memory import PeakMemory
from segmentation.errors import DataError, UsageError
from segmentation.pipeline import copies, ground_truth, sources
from segmentation.pipeline.error_messages import translate_errors
from segmentation.pipeline.settings import Execution
from segmentation.progress import Progress
from segmentation.redaction import redact
from segmentation.storage.run_folder import (
    DamagedStageError,
    RunFolder,
    check_available,
    check_is_local,
    finish_publishing,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from segmentation.datasets.layouts import Layout
    from segmentation.deploy.core import Cluster
    from segmentation.pipeline.manifest import RunManifest
    from segmentation.pipeline.settings import Settings
    from segmentation.storage.run_folder import RunOutputs

#: The statistics of all users, from which a run is resumed.
USER_STATISTICS = "model/user_statistics.parquet"
#: The items with a used rating, from which a refreshed run counts them.
RATED_ITEMS = "model/items.parquet"
#: Every file that the jobs which end in results may leave. One of these jobs may overwrite the run
#: of another, and then removes all of them.
RESULT_FILES = (
    "assignments.parquet",
    "segments.json",
    "segments.csv",
    "report.html",
    "report.md",
    "figures/pca.png",
    "figures/genres.png",
    "figures/sizes.png",
    "figures/choose_k.png",
    "choose_k.json",
    "choose_k.csv",
    "model/model.json",
    USER_STATISTICS,
    RATED_ITEMS,
    "rejected/ratings.csv",
)
#: Those of them that the ratings stage leaves, and a resumed run reads again.
RESUMABLE_FILES = (USER_STATISTICS, RATED_ITEMS, "rejected/ratings.csv")


@dataclass
class RunContext:
    """A job under way: its settings, and the resources that its stages share."""

    outputs: RunOutputs
    settings: Settings
    execution: Execution
    out: Path
    layout: Layout
    fingerprint: str
    versions: dict[str, str]
    cluster: Cluster
    progress: Progress
    memory: PeakMemory
    started: float = field(default_factory=time.monotonic)
    _folder: RunFolder | None = None

    @property
    def folder(self) -> RunFolder:
        """The run's folder, within :meth:`open_folder`."""
        assert self._folder is not None
        return self._folder

    @contextmanager
    def open_folder(self) -> Iterator[RunFolder]:
        """Open the run's folder; if the run fails, leave it so that it can be resumed."""
        self._folder = RunFolder(
            self.out,
            self.outputs,
            self.fingerprint,
            versions=self.shown_versions,
            resume=self.execution.resume,
            overwrite=self.execution.overwrite,
        )
        try:
            if self._folder.is_state_damaged:
                self.progress.warn(
                    f"  warning: {self.out}: the record of its finished stages is damaged, so none "
                    "of them is used"
                )
            with translate_errors(self.out):
                self._folder.discard_unfinished()
                yield self._folder
        except BaseException:
            self._folder.abandon()
            raise

    def stage_result(self, stage: str) -> dict[str, Any] | None:
        """Return what a finished stage of this run left; None if it isn't finished, or damaged."""
        try:
            return self.folder.stage_result(stage, self.settings.stage_key(stage))
        except DamagedStageError as error:
            self.progress.warn(
                f"  warning: {error.path}: is missing or differs from what was written, so the "
                f"{stage} stage is computed again"
            )
            return None

    def finish_stage(self, stage: str, result: dict[str, Any], files: Iterable[str] = ()) -> None:
        """Save the result of a stage, and what its files are, so that a resumed run takes it up."""
        self.folder.finish_stage(stage, self.settings.stage_key(stage), result, files)

    @property
    def shown_versions(self) -> dict[str, str]:
        """The versions of files, as records keep them: without secrets of URLs."""
        return {redact(path): version for path, version in self.versions.items()}

    @property
    def task_versions(self) -> dict[str, str]:
        """The versions of files that tasks must read; none if workers may have their own copies."""
        if self.cluster.is_remote:
            return {}
        # A request per task would be too many.
        return {path: v for path, v in self.versions.items() if is_local(url_to_fs(path)[0])}

    def check_input(self) -> None:
        """Check that no file changed since the run began, as this process and the workers see it.

        Raises
        ------
        DataError
            If one did.
        """
        for path, version in self.versions.items():
            check_version(path, version)
        findings = self.cluster.check_input(self.layout.files, self.fingerprint)
        if findings:
            raise DataError(findings[0])

    def has_spare_memory(self, n_bytes: int) -> bool:
        """Whether this machine may use so many bytes more without breaking the memory limit."""
        return (
            self.cluster.is_remote or self.memory.now + n_bytes <= self.cluster.budget.allowed_mem
        )

    def describe_data(self) -> dict[str, Any]:
        """Return what the manifest records of the data."""
        return {
            "source": self.settings.effective_source,
            "layout": self.layout.name,
            "ratings": self.layout.ratings,
            "synthetic": ground_truth.synthetic_folder(self.layout) is not None,
            "fingerprint": self.fingerprint,
            "versions": self.shown_versions,
            "places": self._describe_places(),
        }

    def _describe_places(self) -> dict[str, str]:
        """Return where local files of the settings lie, whatever the working directory is later."""
        settings = self.settings
        named = {"data": self.layout.folder, "catalogue": settings.catalogue}
        named["playbook"] = settings.playbook
        return {
            field: os.path.abspath(path)
            for field, path in named.items()
            if path is not None and os.path.exists(path)
        }

    def record_costs(self, manifest: RunManifest) -> None:
        """Add the stages, seconds and peak memory so far to a manifest."""
        manifest.stages = [
            {"name": stage.name, "seconds": round(stage.seconds, 3), **stage.counts}
            for stage in self.progress.stages
        ]
        manifest.seconds = round(time.monotonic() - self.started, 3)
        manifest.peak_memory_bytes = self.memory.bytes


@contextmanager
def open_run(
    outputs: RunOutputs,
    settings: Settings,
    out: str | Path,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> Iterator[RunContext]:
    """Start the cluster, find the data, and check that the one can read the other.

    The run's folder is not touched yet.

    Parameters
    ----------
    outputs
        What the job may leave in ``out``, the run's folder.
    progress
        Receives the stages; None reports nothing.

    Raises
    ------
    SegmentationError
        One of its subclasses, with a message for the user.
    """
    execution = execution or Execution()
    progress = progress or Progress()
    check_is_local(out)
    out = Path(out)
    # The folder checks again when it is opened; here it saves a download or a cluster's start.
    check_available(out, outputs, resume=execution.resume, overwrite=execution.overwrite)
    if execution.resume:
        finish_publishing(out, outputs)
    results = {out.resolve() / Path(name).parts[0] for name in outputs.names}
    diagnostics.resolve_report_path(execution.performance_report, results)
    started = time.monotonic()
    with (
        PeakMemory() as memory,
        open_cluster(
            execution.cluster,
            address=execution.address,
            memory_limit=settings.memory_limit,
            debug=execution.debug,
            warn=lambda line: progress.warn(f"  warning: {line}"),
            say=progress.say,
        ) as cluster,
        diagnostics.performance_report(execution.performance_report),
        diagnostics.count_tasks(cluster.client, progress),
    ):
        _report_cluster(cluster, progress)
        with translate_errors(out):
            layout = sources.resolve_data(settings, cluster, progress)
            copies.check_copy(layout)
            _check_apart(out, layout)
            # Taken first, so that the fingerprint is of these versions.
            versions = layouts.read_versions(layout.files)
            fingerprint = layouts.fingerprint(layout.files)
            _check_workers(cluster, layout, fingerprint, settings.partition_bytes, progress)
        yield RunContext(
            outputs,
            settings,
            execution,
            out,
            layout,
            fingerprint,
            versions,
            cluster,
            progress,
            memory,
            started,
        )


def _check_apart(out: Path, layout: Layout) -> None:
    """Check that the run's folder holds none of its input, which it might replace."""
    folder = os.path.realpath(out)
    for path in layout.files:
        fs, inner = url_to_fs(path)
        if is_local(fs) and os.path.commonpath([folder, os.path.realpath(inner)]) == folder:
            raise UsageError(
                "{path}: lies in the run's folder, whose files a run replaces: choose another "
                "{out}",
                "out",
                path=path,
            )


def _report_cluster(cluster: Cluster, progress: Progress) -> None:
    if cluster.is_remote:
        plural = "s" if cluster.workers > 1 else ""
        progress.say(
            f"  cluster: {cluster.workers} worker{plural}, {cluster.threads} threads in all, "
            f"at {cluster.address}"
        )
    if cluster.dashboard:
        progress.say(f"  dashboard: {cluster.dashboard}")


def _check_workers(
    cluster: Cluster,
    layout: Layout,
    fingerprint: str,
    partition_bytes: int | None,
    progress: Progress,
) -> None:
    """Check the workers, and from now on those that join, against what the run needs."""
    findings = cluster.check(layout.files, fingerprint, partition_bytes)
    preflight.raise_findings(findings, progress.warn)
    cluster.watch(
        layout.files, fingerprint, partition_bytes, lambda line: progress.warn(f"  {line}")
    )
