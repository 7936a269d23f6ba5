"""Count the tasks and bytes of each stage, and write Dask's performance report."""

from __future__ import annotations

import contextlib
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import SchedulerPlugin

from segmentation.deploy.local import has_bokeh
from segmentation.errors import UsageError
from segmentation.redaction import redact_html

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from distributed import Client, Scheduler

    from segmentation.progress import Progress


def format_counter_name(client: Client) -> str:
    """Return the name of the client's task counter on the scheduler."""
    return f"segmentation-counts-{client.id}"


@contextmanager
def count_tasks(client: Client, progress: Progress) -> Iterator[None]:
    """Add to each stage's record the number of its tasks, and the bytes of their results.

    Tasks that run again, because a worker died, count again. Counting is best-effort: a broken
    scheduler fails at the first task.
    """
    name = format_counter_name(client)
    try:
        client.run_on_scheduler(start_counting, name, client.id)
    except Exception:
        yield
        return

    def read() -> dict[str, int]:
        try:
            return dict(client.run_on_scheduler(read_counts, name))
        except (OSError, TimeoutError, KeyError):
            return {}

    progress.counter = read
    try:
        yield
    finally:
        progress.counter = None
        with contextlib.suppress(Exception):
            if client.status == "running":
                client.run_on_scheduler(stop_counting, name)


@contextmanager
def performance_report(path: str | None) -> Iterator[None]:
    """Write Dask's performance report of the code in the context; do nothing if ``path`` is None.

    An existing report is replaced only when the new one is complete.

    Raises
    ------
    UsageError
        If the report can't be drawn or written.
    """
    target = resolve_report_path(path)
    if target is None:
        yield
        return
    from distributed import performance_report

    partial = target.with_name(target.name + ".partial")
    report = performance_report(filename=str(partial))
    try:
        report.__enter__()
        try:
            yield
        except BaseException:
            # The error of the body matters more than one of the report.
            with contextlib.suppress(Exception):
                report.__exit__(None, None, None)
            raise
        report.__exit__(None, None, None)
        # It shows the code of tasks and the logs of workers.
        partial.write_text(redact_html(partial.read_text("utf-8")), "utf-8")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _is_report(path: Path) -> bool:
    """Return whether a file is empty or begins as a page of HTML, as reports do."""
    with path.open("rb") as file:
        head = file.read(200).strip().lower()
    return not head or head.startswith(b"<!doctype html")


def resolve_report_path(path: str | None, run_files: Container[Path] = ()) -> Path | None:
    """Check the path of the performance report before the run starts, and return it.

    Parameters
    ----------
    path
        The file to write; None for no report.
    run_files
        Files and folders that the run itself writes.

    Raises
    ------
    UsageError
        If the report can't be drawn or written there.
    """
    if path is None:
        return None
    field = "performance_report"
    if not has_bokeh():
        raise UsageError("{performance_report} needs bokeh; install segmentation[dashboard]", field)
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    try:
        if target.is_dir() or not target.parent.is_dir():
            raise UsageError(
                "{performance_report} {path}: name a file in an existing folder", field, path=path
            )
        # Writing the report would replace a device or a link instead of writing through it.
        if target.is_symlink() or (target.exists() and not target.is_file()):
            raise UsageError(
                "{performance_report} {path}: is not a regular file; choose another",
                field,
                path=path,
            )
        if target.exists() and not _is_report(target):
            raise UsageError(
                "{performance_report} {path}: exists and is no report; choose another name",
                field,
                path=path,
            )
        resolved = target.resolve()
        if any(ancestor in run_files for ancestor in (resolved, *resolved.parents)):
            raise UsageError(
                "{performance_report} {path}: is one of the run's own files; choose another name",
                field,
                path=path,
            )
        partial.touch()
    except OSError as error:
        raise UsageError(
            "{performance_report} {path}: can't be written ({reason}); choose another",
            field,
            path=path,
            reason=error.strerror,
        ) from error
    partial.unlink()
    return target


class TaskCounter(SchedulerPlugin):  # type: ignore[misc]
    """Count finished tasks, the bytes of their results, and workers that left.

    It is removed with the job's client, however the job ends.

    Parameters
    ----------
    name
        The name that the plugin is registered under.
    client
        The id of the job's client.
    """

    def __init__(self, name: str, client: str) -> None:
        self.name = name
        self.client = client
        self.n_tasks = 0
        self.n_bytes = 0
        self.n_lost_workers = 0

    def transition(
        self, key: Any, start: str, finish: str, *arguments: Any, nbytes: int = 0, **more: Any
    ) -> None:
        """Count a task that is finished."""
        if start == "processing" and finish == "memory":
            self.n_tasks += 1
            self.n_bytes += nbytes or 0

    def remove_worker(self, scheduler: Scheduler, worker: str, **more: Any) -> None:
        """Count a worker that left for any reason."""
        self.n_lost_workers += 1

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Stop counting for a job that was killed."""
        if client == self.client:
            scheduler.remove_plugin(self.name)


def start_counting(name: str, client: str, dask_scheduler: Scheduler = None) -> None:
    """Start counting; runs on the scheduler."""
    dask_scheduler.add_plugin(TaskCounter(name, client), name=name)


def read_counts(name: str, dask_scheduler: Scheduler = None) -> dict[str, int]:
    """Return the counts so far; runs on the scheduler."""
    counter = dask_scheduler.plugins[name]
    return {"tasks": counter.n_tasks, "bytes": counter.n_bytes}


def read_lost_workers(name: str, dask_scheduler: Scheduler = None) -> int:
    """Return how many workers left since counting started; runs on the scheduler."""
    counter = dask_scheduler.plugins.get(name)
    return counter.n_lost_workers if counter is not None else 0


def stop_counting(name: str, dask_scheduler: Scheduler = None) -> None:
    """Stop counting; runs on the scheduler."""
    dask_scheduler.remove_plugin(name)
