"""Start a scheduler and workers on this machine, in the job's process or in separate ones."""

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

from segmentation.deploy.config import LOOPBACK, parse_memory
from segmentation.deploy.memory_budget import Budget, plan_budget
from segmentation.deploy.worker_setup import configure_logging
from segmentation.errors import ClusterError, format_error
from segmentation.tasks import set_dask_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from distributed import Client, LocalCluster

#: The scheduler restarts a worker process without a heartbeat for this long, and reschedules its
#: tasks. A worker in the job's own process can't be restarted; it sends none while the job is
#: stopped (Ctrl-Z, a suspended machine) and goes on afterwards.
_WORKER_TTL = "60 s"


@contextmanager
def start_local_cluster(
    config: Mapping[str, Any], name: str, *, memory_limit: int | None, debug: bool
) -> Iterator[tuple[Client, Budget, str | None]]:
    """Start a cluster of kind ``threads`` or ``local``; yield client, budget and dashboard's URL.

    Parameters
    ----------
    config
        The cluster's file.
    name
        Its name, for messages.
    memory_limit
        The limit for the whole run, bytes; None for that of the file.
    debug
        Whether Dask's log lines are shown.

    Raises
    ------
    UsageError
        If the memory limit is too small for the workers.
    ClusterError
        If the cluster can't be started.
    """
    from distributed import Client

    in_process = config["kind"] == "threads"
    budget = _plan(config, memory_limit, in_process=in_process)
    dashboard = (config.get("dashboard") or None) if has_bokeh() else None
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            set_dask_config(
                {
                    **budget.dask_config(),
                    "distributed.scheduler.worker-ttl": None if in_process else _WORKER_TTL,
                }
            )
        )
        try:
            with _defer_interrupts(), warnings.catch_warnings():
                # Dask warns if the port is taken; the address that it uses instead is shown anyway.
                warnings.simplefilter("ignore", UserWarning)
                cluster = _new_cluster(budget, dashboard, in_process=in_process, debug=debug)
            stack.enter_context(cluster)
            client = stack.enter_context(Client(cluster))
            if not in_process:
                client.register_plugin(LocalWorkerSetup())
        except (OSError, RuntimeError, TimeoutError) as error:
            raise ClusterError(
                f"cluster {name!r} can't be started: {format_error(error)}; check its file, free "
                "ports and memory"
            ) from error
        yield client, budget, _dashboard_link(cluster, dashboard)


def _plan(config: Mapping[str, Any], memory_limit: int | None, *, in_process: bool) -> Budget:
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    worker_limit = config.get("memory_limit")
    return plan_budget(
        in_process=in_process,
        workers=_parse_count(config.get("workers")),
        threads=_parse_count(config.get("threads" if in_process else "threads_per_worker")),
        cpus=CPU_COUNT,
        machine_mem=int(MEMORY_LIMIT),
        memory_limit=memory_limit,
        worker_limit=None if worker_limit in (None, "auto") else parse_memory(worker_limit),
    )


def _parse_count(value: int | str | None) -> int | None:
    return None if value in (None, "auto") else int(value)


def _new_cluster(
    budget: Budget, dashboard: str | None, *, in_process: bool, debug: bool
) -> LocalCluster:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=budget.workers,
        threads_per_worker=budget.threads,
        processes=not in_process,
        host=None if in_process else "127.0.0.1",
        # Scheduler and workers always serve HTTP; this keeps them on loopback.
        dashboard_address=dashboard or LOOPBACK,
        worker_dashboard_address=LOOPBACK,
        memory_limit=budget.worker_mem,
        local_directory=str(spill_dir()),
        scheduler_kwargs={"dashboard": dashboard is not None},
        worker_class=PlainWorker if in_process and not dashboard else None,
        silence_logs=False if debug else logging.CRITICAL,
    )


@contextmanager
def _defer_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back while the cluster starts, and SIGTERM if the caller handles it.

    A cluster that is interrupted half-way can't be closed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if callable(signal.getsignal(number))
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        # Whatever handles SIGINT: importing dask_jobqueue sets a handler that ends the process.
        if signal.SIGINT in received:
            raise KeyboardInterrupt
        if received:
            signal.raise_signal(received[0])


def has_bokeh() -> bool:
    """Tell whether bokeh is installed, which Dask's dashboard requires."""
    from importlib.util import find_spec

    return find_spec("bokeh") is not None


def _dashboard_link(cluster: LocalCluster, address: str | None) -> str | None:
    if address is None:
        return None
    server = cluster.scheduler.services.get("dashboard")
    if server is None:
        return None
    host = address.rpartition(":")[0] or "127.0.0.1"
    return f"http://{host}:{server.port}/status"


def cache_dir(name: str = "") -> Path:
    """Return the user's cache folder for this package, or the folder ``name`` in it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "segmentation" / name


def spill_dir() -> Path:
    """Return the folder to spill to, in the cache folder.

    The system's temporary folder may be in memory, so it is used only if the cache folder can't be
    written.
    """
    folder = cache_dir("spill")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir())
    return folder if os.access(folder, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


class PlainWorker(Worker):  # type: ignore[misc]
    """A worker that serves metrics but no dashboard.

    ``LocalCluster`` has one option for both, and importing bokeh takes a third of a second.
    """

    def __init__(self, *arguments: Any, dashboard: bool = False, **options: Any) -> None:
        super().__init__(*arguments, dashboard=False, **options)


class LocalWorkerSetup(WorkerPlugin):  # type: ignore[misc]
    """Let worker processes log like Dask, and leave Ctrl-C to the job, which ends them.

    Ctrl-C reaches the whole process group. The workers can't inherit a blocked or ignored signal:
    the standard library's resource tracker clears the signal mask, and a job that ignored the
    signal while workers start would miss a Ctrl-C.
    """

    name = "segmentation-local-worker-setup"
    idempotent = True

    def setup(self, worker: Worker) -> None:
        """Set the worker up; Dask calls this before the worker gets a task."""
        configure_logging()
        # Only the main thread may set handlers; a worker process runs its worker there.
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
