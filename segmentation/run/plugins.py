"""What the job installs on its workers, or starts as one; they import this module to load it."""

from __future__ import annotations

import contextlib
import signal
from typing import Any

from distributed import SchedulerPlugin, Worker, WorkerPlugin


class PlainWorker(Worker):  # type: ignore[misc]
    """A worker without pages of its own; its server for metrics stays where it is told to listen.

    `LocalCluster` ties the two together, and the pages' library takes a third of a second to load.
    """

    def __init__(self, *arguments: Any, dashboard: bool = False, **options: Any) -> None:
        super().__init__(*arguments, dashboard=False, **options)


class IgnoreInterrupts(WorkerPlugin):  # type: ignore[misc]
    """Let worker processes leave Ctrl-C to the job, which ends them.

    It reaches the whole process group. What they inherit at their start can't be used for this:
    the standard library's resource tracker clears the signal mask, and a signal that is ignored
    while they start would be lost to the job as well.
    """

    name = "ignore-interrupts"
    idempotent = True

    def setup(self, worker: Any) -> None:
        """Ignore the signal where the worker owns its process' main thread."""
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class Counts(SchedulerPlugin):  # type: ignore[misc]
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
    dask_scheduler.add_plugin(Counts(name, client), name=name)


def counts(name: str, dask_scheduler: Any = None) -> dict[str, int]:
    """Return what was counted so far; run on the scheduler."""
    found = dask_scheduler.plugins[name]
    return {"tasks": found.tasks, "bytes": found.bytes}


def lost(name: str, dask_scheduler: Any = None) -> int:
    """Return how many workers went since counting began; run on the scheduler."""
    found = dask_scheduler.plugins.get(name)
    return found.lost if found is not None else 0


def stop_counting(name: str, dask_scheduler: Any = None) -> None:
    """Count no more; run on the scheduler."""
    dask_scheduler.remove_plugin(name)
