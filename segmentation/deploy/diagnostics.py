"""What is seen of a run from outside: tasks and bytes a stage, and Dask's own report."""

from __future__ import annotations

import contextlib
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import SchedulerPlugin

from segmentation.deploy.local import has_bokeh
from segmentation.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from segmentation.progress import Progress


def counter_name(client: Any) -> str:
    """Return the name under which the scheduler counts for a job's client."""
    return f"segmentation-counts-{client.id}"


@contextmanager
def count_tasks(client: Any, progress: Progress) -> Iterator[None]:
    """Let each stage's record tell the tasks that were run in it, and the bytes of their results.

    Tasks that had to be run again, since a worker died, count again.
    """
    name = counter_name(client)
    try:
        client.run_on_scheduler(start_counting, name, client.id)
    except Exception:
        # A scheduler that is of no use for this says so better when it is asked for work.
        yield
        return

    def now() -> dict[str, int]:
        try:
            return dict(client.run_on_scheduler(read_counts, name))
        except (OSError, TimeoutError, KeyError):
            return {}

    progress.counter = now
    try:
        yield
    finally:
        progress.counter = None
        with contextlib.suppress(Exception):
            if client.status == "running":
                client.run_on_scheduler(stop_counting, name)


@contextmanager
def performance_report(path: str | None) -> Iterator[None]:
    """Write Dask's performance report of all that happens within, beside its place and renamed.

    Raises
    ------
    UsageError
        If it can't be made or written.
    """
    place = resolve_report_path(path)
    if place is None:
        yield
        return
    from distributed import performance_report

    partial = place.with_name(place.name + ".partial")
    report = performance_report(filename=str(partial))
    try:
        report.__enter__()
        try:
            yield
        except BaseException:
            # A cluster that is gone has no report, and that it is gone matters more.
            with contextlib.suppress(Exception):
                report.__exit__(None, None, None)
            raise
        report.__exit__(None, None, None)
        os.replace(partial, place)
    finally:
        partial.unlink(missing_ok=True)


def resolve_report_path(path: str | None, own: Container[Path] = ()) -> Path | None:
    """Return where the report goes, before anything is started for it.

    ``own`` are places that the run itself writes to.

    Raises
    ------
    UsageError
        If it can't be made or written.
    """
    if path is None:
        return None
    place = Path(path)
    if not has_bokeh():
        raise UsageError("--performance-report is drawn by bokeh: install segmentation[dashboard]")
    partial = place.with_name(place.name + ".partial")
    try:
        if place.is_dir() or not place.parent.is_dir():
            raise UsageError(f"--performance-report {path}: name a file in a folder that is there")
        # A device or a link would be replaced by the report, not written to.
        if place.is_symlink() or (place.exists() and not place.is_file()):
            raise UsageError(f"--performance-report {path}: is no plain file: choose another")
        resolved = place.resolve()
        if any(above in own for above in (resolved, *resolved.parents)):
            raise UsageError(
                f"--performance-report {path}: is a file of the run's own: choose another name"
            )
        partial.touch()
    except OSError as error:
        raise UsageError(
            f"--performance-report {path}: can't be written ({error.strerror}): choose another"
        ) from error
    partial.unlink()
    return place


class TaskCounter(SchedulerPlugin):  # type: ignore[misc]
    """Counts the tasks that came to a result, the bytes of these, and the workers that went.

    It goes with the job's client, however that ends.
    """

    def __init__(self, name: str, client: str) -> None:
        self.name = name
        self.client = client
        self.tasks = 0
        self.bytes = 0
        self.lost = 0

    def transition(
        self, key: Any, start: str, finish: str, *arguments: Any, nbytes: int = 0, **more: Any
    ) -> None:
        """Take note of what becomes of a task."""
        if start == "processing" and finish == "memory":
            self.tasks += 1
            self.bytes += nbytes or 0

    def remove_worker(self, scheduler: Any, worker: str, **more: Any) -> None:
        """Take note of a worker that is gone, for whatever reason."""
        self.lost += 1

    def remove_client(self, scheduler: Any, client: str) -> None:
        """Count no more for a job that was ended before it could say so."""
        if client == self.client:
            scheduler.remove_plugin(self.name)


def start_counting(name: str, client: str, dask_scheduler: Any = None) -> None:
    """Begin to count; run on the scheduler."""
    dask_scheduler.add_plugin(TaskCounter(name, client), name=name)


def read_counts(name: str, dask_scheduler: Any = None) -> dict[str, int]:
    """Return what was counted so far; run on the scheduler."""
    found = dask_scheduler.plugins[name]
    return {"tasks": found.tasks, "bytes": found.bytes}


def read_lost_workers(name: str, dask_scheduler: Any = None) -> int:
    """Return how many workers went since counting began; run on the scheduler."""
    found = dask_scheduler.plugins.get(name)
    return found.lost if found is not None else 0


def stop_counting(name: str, dask_scheduler: Any = None) -> None:
    """Count no more; run on the scheduler."""
    dask_scheduler.remove_plugin(name)
