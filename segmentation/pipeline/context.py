"""What every job on ratings shares: the data, the cluster, the folder, and the first stages."""

from __future__ import annotations

import functools
import importlib
import platform
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmentation.datasets import catalogue as catalogues
from segmentation.datasets import layouts
from segmentation.deploy import diagnostics, preflight
from segmentation.deploy.core import open_cluster
from segmentation.deploy.memory import PeakMemory
from segmentation.errors import ClusterError, UsageError
from segmentation.features import aggregate
from segmentation.features.user_blocks import UserBlocks, load_blocks, save_blocks
from segmentation.pipeline import checksums, ground_truth, sources
from segmentation.pipeline.error_messages import translate_errors
from segmentation.progress import Progress
from segmentation.storage import atomic, run_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from segmentation.datasets.layouts import Layout
    from segmentation.deploy.core import Cluster
    from segmentation.pipeline.settings import Execution, Settings
    from segmentation.schema import Catalogue

#: From this share of unmapped ratings on a run warns of its catalogue.
_MOST_UNMAPPED = 0.05
_LIBRARIES = (
    "dask",
    "dask-ml",
    "distributed",
    "kagglehub",
    "matplotlib",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "scipy",
)


@dataclass
class RunContext:
    """A job under way: what it was asked for, its data and cluster, and how it gets on."""

    settings: Settings
    out: Path
    resume: bool
    overwrite: bool
    layout: Layout
    digest: str
    cluster: Cluster
    progress: Progress
    memory: PeakMemory
    began: float = field(default_factory=time.monotonic)
    _folder: run_folder.RunFolder | None = None

    @property
    def folder(self) -> run_folder.RunFolder:
        """The run's folder, within :meth:`in_folder`."""
        assert self._folder is not None
        return self._folder

    @contextmanager
    def in_folder(self, job: str) -> Iterator[run_folder.RunFolder]:
        """Open the run's folder, and leave it such that a failed run can be resumed."""
        identity = {"fingerprint": self.digest, "job": job}
        self._folder = run_folder.RunFolder(
            self.out, identity, resume=self.resume, overwrite=self.overwrite
        )
        try:
            with translate_errors(self.out):
                # What a broken attempt drew or wrote is made anew; what stages keep stays.
                for name in run_folder.products_of(job):
                    if name not in run_folder.KEPT:
                        self._folder.discard(name)
                yield self._folder
        except BaseException:
            self._folder.abandon()
            raise

    def earlier(self, job: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the manifest of the same finished run in the folder; None where there is none.

        Raises
        ------
        UsageError
            If the run there is another one, or isn't whole any more.
        """
        manifest = run_folder.read_manifest(self.out)
        if manifest is None:
            return None
        before = {
            "job": "segment",
            **manifest,
            **manifest["settings"],
            "fingerprint": manifest["data"]["fingerprint"],
        }
        if before["job"] != job:
            raise UsageError(
                f"{self.out}: holds a run of {before['job']}: choose another --out, or add "
                "--overwrite in place of --resume"
            )
        now = atomic.jsonable({**key, "fingerprint": self.digest})
        run_folder.refuse_other(self.out, {name: before.get(name) for name in now}, now)
        expected = list(run_folder.EXPECTED[job])
        if "choose_k" in manifest:
            expected.append("figures/choose_k.png")
        missing = [name for name in expected if not (self.out / name).exists()]
        if missing:
            raise UsageError(
                f"{self.out}: lacks {missing[0]}: add --overwrite in place of --resume"
            )
        return manifest

    def share_folder(self, folder: Path) -> None:
        """See that all workers see a folder that they have to write to.

        Raises
        ------
        ClusterError
            If one doesn't.
        """
        if not self.cluster.is_elsewhere:
            return
        _refuse(self._not_seeing(folder), self.progress)

    def _is_shared(self, folder: Path) -> bool:
        return not self.cluster.is_elsewhere or not self._not_seeing(folder)

    def _not_seeing(self, folder: Path) -> list[str]:
        # Made anew: another machine may have a folder of the same name.
        token = folder.resolve() / f".seen-by-all-{uuid.uuid4().hex[:8]}"
        token.touch()
        try:
            return preflight.check_shared_path(self.cluster.client, str(token))
        finally:
            token.unlink(missing_ok=True)

    def is_short_of(self, room: int) -> bool:
        """Whether so many bytes more would break the limit on this machine's memory."""
        budget = self.cluster.budget
        return not self.cluster.is_elsewhere and self.memory.now + room > budget.total

    def finish(self, manifest: dict[str, Any]) -> None:
        """Add to a manifest what is known at the end: stages, seconds, peak memory."""
        manifest["stages"] = [
            {"name": stage.name, "seconds": round(stage.seconds, 3), **stage.counts}
            for stage in self.progress.stages
        ]
        manifest["seconds"] = round(time.monotonic() - self.began, 3)
        manifest["peak_memory_bytes"] = self.memory.bytes

    def warnings(self, catalogue: Catalogue, rows: Mapping[str, int]) -> list[str]:
        """Say what is odd about the data, on the terminal and for the manifest."""
        warnings = []
        if self.layout.name == "kaggle" and self.settings.effective_join == "direct":
            warnings.append(catalogues.direct_join_warning(catalogue))
        else:
            share = rows["unmapped"] / max(rows["used"] + rows["unmapped"], 1)
            if share > _MOST_UNMAPPED:
                warnings.append(
                    f"{share:.1%} of the ratings are of films that the catalogue lacks: is it "
                    "whole, and the one that belongs to them?"
                )
        warnings += catalogues.catalogue_warnings(catalogue)
        if others := self.layout.left_out:
            n = len(others)
            several = f"and {n - 1:,} more lie there and are" if n > 1 else "lies there and is"
            warnings.append(
                f"{others[0]} {several} not read: {self.layout.ratings} is; name all that belong "
                "together with --ratings, as in 'ratings*'"
            )
        for warning in warnings:
            self.progress.warn(f"  warning: {warning}")
        return warnings

    def source(self) -> dict[str, Any]:
        """Return what the manifest says of the data."""
        return {
            "source": self.settings.data,
            "layout": self.layout.name,
            "ratings": self.layout.ratings,
            "synthetic": ground_truth.synthetic_folder(self.layout) is not None,
            "fingerprint": self.digest,
        }

    def statistics(self, catalogue: Catalogue) -> tuple[UserBlocks, dict[str, int], int]:
        """Return the user statistics, the counts of rows, and the movies that were rated."""
        folder = self.folder
        kept = folder.product("model/user_statistics.parquet")
        key = self.settings.key("ratings")
        done = folder.stage("ratings", key)
        if done is not None and kept.exists():
            self.progress.say("  ratings: taken from the finished stage")
            shared = self._is_shared(kept.parent)
            blocks = load_blocks(self.cluster.client, kept, done["blocks"], shared=shared)
            return blocks, done["rows"], done["movies"]
        folder.discard("rejected")
        cluster = self.cluster
        blocks, tally = aggregate.aggregate_ratings(
            cluster.client,
            self.layout,
            catalogue,
            deduplicate=self.settings.deduplicate,
            max_rejected=self.settings.max_rejected,
            partition_bytes=self.settings.partition_bytes,
            memory=cluster.budget,
            n_threads=cluster.threads,
            check_shuffle=functools.partial(
                cluster.budget.refuse_shuffle, elsewhere=cluster.is_elsewhere
            ),
            trim_memory=cluster.let_go,
            progress=self.progress,
        )
        if tally.rejected:
            atomic.write_rejected(folder.product("rejected/ratings.csv"), tally.rejected)
        with ThreadPoolExecutor(1, "imports") as thread:
            # What comes next needs it, and the packing lets go of the interpreter.
            thread.submit(importlib.import_module, "dask.array")
            save_blocks(cluster.client, kept, blocks, catalogue.genres, 2 * cluster.threads)
        self.cluster.let_go()
        rows = tally.record()
        folder.finish_stage(
            "ratings", key, {"rows": rows, "movies": tally.movies, "blocks": blocks.sizes}
        )
        return blocks, rows, tally.movies

    def manifest(
        self, job: str, rows: Mapping[str, int], users: int, movies: int, warnings: list[str]
    ) -> dict[str, Any]:
        """Begin a manifest with what every job's holds."""
        return {
            "status": "complete",
            "job": job,
            "settings": self.settings.record(),
            "data": self.source(),
            "rows": rows,
            "users": users,
            "movies": movies,
            "cluster": self.cluster.record(),
            "warnings": warnings,
            "versions": versions(),
        }


@contextmanager
def open_run(
    settings: Settings,
    out: str | Path,
    job: str,
    how: Execution,
    progress: Progress | None = None,
) -> Iterator[RunContext]:
    """Start the cluster, find the data, and see that the one can read the other.

    The folder is not touched yet.

    Raises
    ------
    SegmentationError
        One of its children, with a message for the person at the terminal.
    """
    progress = progress or Progress(quiet=True)
    # Said again by the folder itself; here it saves a download or a cluster's start.
    found = run_folder.find_run(out, job)
    run_folder.refuse_other_kind(Path(out), job)
    if found and not (how.resume or how.overwrite):
        run_folder.refuse_existing(Path(out), found)
    whole = Path(out).resolve()
    own = {
        whole / Path(name).parts[0] for name in (*run_folder.products_of(job), run_folder.MANIFEST)
    }
    diagnostics.resolve_report_path(how.performance_report, own)
    began = time.monotonic()
    with (
        PeakMemory() as memory,
        open_cluster(
            how.cluster,
            address=how.address,
            memory_limit=settings.memory_limit,
            debug=how.debug,
            warn=lambda line: progress.warn(f"  warning: {line}"),
            say=progress.say,
        ) as running,
        diagnostics.performance_report(how.performance_report),
        diagnostics.count_tasks(running.client, progress),
    ):
        if running.is_elsewhere:
            plural = "s" if running.workers > 1 else ""
            progress.say(
                f"  cluster: {running.workers} worker{plural}, {running.threads} threads in all, "
                f"at {running.address}"
            )
        if running.dashboard:
            progress.say(f"  dashboard: {running.dashboard}")
        with translate_errors(Path(out)):
            layout = sources.resolve_data(settings, running, progress)
            checksums.check_copy(layout)
            digest = layouts.fingerprint(layout.files)
            _refuse(running.check(layout.files, digest, settings.partition_bytes), progress)
            running.watch(
                layout.files,
                digest,
                settings.partition_bytes,
                lambda line: progress.warn(f"  {line}"),
            )
        yield RunContext(
            settings,
            Path(out),
            how.resume,
            how.overwrite,
            layout,
            digest,
            running,
            progress,
            memory,
            began,
        )


def _refuse(findings: list[str], progress: Progress) -> None:
    """Show all that is wrong with a cluster, a line each, and end with one that counts them."""
    if not findings:
        return
    for finding in findings:
        progress.warn(f"  ✗ {finding}")
    plural = "s" if len(findings) > 1 else ""
    first = findings[0] if len(findings) == 1 else f"the first: {findings[0]}"
    raise ClusterError(f"the cluster fails {len(findings)} check{plural}; {first}")


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
