"""Schedulers and workers that the job starts on this machine: in its process, or beside it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import Worker, WorkerPlugin

from segmentation.deploy.config import parse_memory
from segmentation.deploy.memory_budget import Budget, plan_budget
from segmentation.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


_LOOPBACK = "127.0.0.1:0"
#: A worker that hasn't been heard of for so long is given up, and its tasks go to others.
_SILENCE = "60 s"


@contextmanager
def start_embedded(
    config: Mapping[str, Any], name: str, *, memory_limit: int | None, debug: bool
) -> Iterator[tuple[Any, Budget, str | None]]:
    """Start a cluster of kind ``threads`` or ``local``; yield a client, the budget, the dashboard.

    Raises
    ------
    UsageError
        If the run can't keep to its memory.
    ClusterError
        If it can't be started.
    """
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster
    from distributed.system import MEMORY_LIMIT

    inside = config["kind"] == "threads"
    limit = config.get("memory_limit")
    budget = plan_budget(
        embedded=inside,
        workers=_count(config.get("workers")),
        threads=_count(config.get("threads" if inside else "threads_per_worker")),
        cpus=CPU_COUNT,
        machine=int(MEMORY_LIMIT),
        limit=memory_limit,
        worker_limit=None if limit in (None, "auto") else parse_memory(limit),
    )
    dashboard = config.get("dashboard") or None
    if dashboard and not has_bokeh():
        dashboard = None
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            dask.config.set({**budget.dask_config(), "distributed.scheduler.worker-ttl": _SILENCE})
        )
        try:
            with _interrupts_held(), warnings.catch_warnings():
                # That its port was taken: the address that it got instead is shown anyway.
                warnings.simplefilter("ignore", UserWarning)
                cluster = LocalCluster(
                    n_workers=budget.workers,
                    threads_per_worker=budget.threads,
                    processes=not inside,
                    host=None if inside else "127.0.0.1",
                    # The scheduler's and workers' pages are served in any case: keep them here.
                    dashboard_address=dashboard or _LOOPBACK,
                    worker_dashboard_address=_LOOPBACK,
                    memory_limit=budget.worker,
                    local_directory=str(spill_dir()),
                    scheduler_kwargs={"dashboard": dashboard is not None},
                    worker_class=PlainWorker if inside and not dashboard else None,
                    silence_logs=False if debug else logging.CRITICAL,
                )
            stack.enter_context(cluster)
            client = stack.enter_context(Client(cluster))
            if not inside:
                client.register_plugin(IgnoreInterrupts())
        except (OSError, RuntimeError, TimeoutError) as error:
            raise ClusterError(
                f"cluster {name!r} can't be started: {' '.join(str(error).split())}: "
                "check its file, free ports and memory"
            ) from error
        yield client, budget, _dashboard_link(cluster, dashboard)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Note Ctrl-C while the cluster starts, and raise it once there is something to close."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if caught:
            raise KeyboardInterrupt


def _count(value: Any) -> int | None:
    return None if value in (None, "auto") else int(value)


def has_bokeh() -> bool:
    """Tell whether Dask's pages can be drawn."""
    from importlib.util import find_spec

    return find_spec("bokeh") is not None


def _dashboard_link(cluster: Any, wanted: str | None) -> str | None:
    if wanted is None:
        return None
    server = cluster.scheduler.services.get("dashboard")
    if server is None:
        return None
    host = wanted.rpartition(":")[0] or "127.0.0.1"
    return f"http://{host}:{server.port}/status"


def cache_dir(name: str = "") -> Path:
    """Return the folder for what can be made again: on a disk, where ``/tmp`` may be memory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "segmentation" / name


def spill_dir() -> Path:
    """Return a folder for what waits on disk: the cache, or /tmp if it is read-only."""
    wanted = cache_dir("spill")
    try:
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir())
    return wanted if os.access(wanted, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


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
