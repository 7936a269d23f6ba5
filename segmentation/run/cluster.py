"""A file of ``cluster_config/`` → a running cluster and a ``distributed`` client of it."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import signal
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmentation.errors import ClusterError, UsageError
from segmentation.run import places
from segmentation.run.budget import Budget, plan
from segmentation.run.memory import let_go

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEYS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "threads": {
        "kind": str,
        "threads": (int, str),
        "memory_limit": (int, str),
        "dashboard": (str, bool),
    },
    "local": {
        "kind": str,
        "workers": (int, str),
        "threads_per_worker": (int, str),
        "memory_limit": (int, str),
        "dashboard": (str, bool),
    },
}


_LOOPBACK = "127.0.0.1:0"


@dataclass(frozen=True)
class Cluster:
    """A connected cluster and its share of memory; ``dashboard`` is None where it has none."""

    client: Any
    kind: str
    budget: Budget
    dashboard: str | None

    @property
    def workers(self) -> int:
        """Worker processes, or one that is part of the job's own."""
        return self.budget.workers

    @property
    def threads(self) -> int:
        """Threads of all workers together."""
        return self.budget.workers * self.budget.threads

    def let_go(self) -> None:
        """Give free memory back to the system, here and on the workers."""
        self.client.run(let_go)
        if self.kind != "threads":
            let_go()

    def record(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        return {
            "kind": self.kind,
            "workers": self.workers,
            "threads": self.threads,
            "memory": {**self.budget.record(), "spilled_bytes": self._spilled()},
            "workers_lost": self._lost(),
        }

    def _spilled(self) -> int:
        """Return what the workers that stand have put on disk for want of memory, bytes."""
        return sum(self.client.run(_written).values())

    def _lost(self) -> int:
        """Return how many workers went away, killed or restarted, while the run went on."""
        return int(self.client.run_on_scheduler(_removed))


def load_config(name: str) -> dict[str, Any]:
    """Read a cluster's file by its name in ``cluster_config/``, or by its path.

    Raises
    ------
    UsageError
        If there is no such file, or a key or value in it is not known.
    """
    import yaml

    path = Path(name)
    if path.suffix in (".yaml", ".yml") or os.sep in name:
        if not path.is_file():
            raise UsageError(
                f"--cluster {name}: no such file: copy one of cluster_config/ and edit it"
            )
        try:
            text, where = path.read_text("utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{name}: can't be read as UTF-8 text: {error}") from error
    else:
        folder = resources.files("cluster_config")
        names = [file.name for file in folder.iterdir()]
        known = sorted(n.removesuffix(".yaml") for n in names if n.endswith(".yaml"))
        if name not in known:
            raise UsageError(
                f"--cluster {name}: choose from {', '.join(known)}, or give a .yaml file's path"
            )
        text, where = (folder / f"{name}.yaml").read_text("utf-8"), f"cluster_config/{name}.yaml"
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: is not YAML: {' '.join(str(error).split())}") from error
    _check(config, where)
    return dict(config)


def _check(config: Any, where: str) -> None:
    kind = config.get("kind") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in _KEYS:
        raise UsageError(f"{where}: needs a line 'kind: ' with one of {', '.join(_KEYS)}")
    keys = _KEYS[kind]
    for key, value in config.items():
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(keys)}"
            raise UsageError(f"{where}: unknown key {key!r}: {hint}")
        wanted = keys[key]
        is_flag = isinstance(value, bool)
        if not isinstance(value, wanted) or (is_flag and wanted is not bool and key != "dashboard"):
            raise UsageError(f"{where}: {key}: {value!r} is of the wrong kind")
    for key in ("threads", "workers", "threads_per_worker"):
        value = config.get(key, "auto")
        if not (value == "auto" or (isinstance(value, int) and 1 <= value <= 4096)):
            raise UsageError(f"{where}: {key}: {value!r}: give a number from 1 on, or auto")
    dashboard = config.get("dashboard")
    port = dashboard.rpartition(":")[2] if isinstance(dashboard, str) else "0"
    if dashboard is True or not (port.isascii() and port.isdigit() and int(port) < 65_536):
        raise UsageError(f"{where}: dashboard: give an address such as 127.0.0.1:0, or false")
    _memory(config, where)


def _memory(config: dict[str, Any], where: str) -> int | None:
    """Return a file's limit for each worker, bytes; None for one that follows from the whole."""
    value = config.get("memory_limit", "auto")
    if value == "auto":
        return None
    from dask.utils import parse_bytes

    try:
        limit = int(parse_bytes(value))
    except (ValueError, OverflowError):
        limit = 0
    if limit < 1:
        raise UsageError(
            f"{where}: memory_limit: {value!r}: give bytes with a unit, as in 2 GiB, or auto"
        )
    return limit


@contextmanager
def open_cluster(
    name: str, *, memory_limit: int | None = None, debug: bool = False
) -> Iterator[Cluster]:
    """Start the named cluster, connect, and close both at the end.

    ``memory_limit`` is for the whole run, bytes; None leaves it to the cluster's file.

    Raises
    ------
    UsageError
        If its file is not as it should be, or the run can't keep to the limit.
    ClusterError
        If it can't be started.
    """
    config = load_config(name)
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster
    from distributed.system import MEMORY_LIMIT

    from segmentation.run.plugins import IgnoreInterrupts, PlainWorker

    embedded = config["kind"] == "threads"
    budget = plan(
        embedded=embedded,
        workers=_count(config.get("workers", "auto")),
        threads=_count(config.get("threads" if embedded else "threads_per_worker", "auto")),
        cpus=CPU_COUNT,
        machine=int(MEMORY_LIMIT),
        limit=memory_limit,
        worker_limit=_memory(config, name),
    )
    if not debug:
        # What distributed has to say of lost connections and busy loops is not for users.
        for logger in ("distributed", "tornado", "bokeh", "asyncio"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
    dashboard = config.get("dashboard") or None
    if dashboard and not _has_bokeh():
        dashboard = None
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(budget.dask_config()))
        try:
            with _interrupts_held(), warnings.catch_warnings():
                # That its port was taken: the address that it got instead is shown anyway.
                warnings.simplefilter("ignore", UserWarning)
                cluster = LocalCluster(
                    n_workers=budget.workers,
                    threads_per_worker=budget.threads,
                    processes=not embedded,
                    host=None if embedded else "127.0.0.1",
                    # The scheduler's and workers' pages are served in any case: keep them here.
                    dashboard_address=dashboard or _LOOPBACK,
                    worker_dashboard_address=_LOOPBACK,
                    memory_limit=budget.worker,
                    local_directory=str(places.scratch()),
                    scheduler_kwargs={"dashboard": dashboard is not None},
                    worker_class=PlainWorker if embedded and not dashboard else None,
                    silence_logs=False if debug else logging.CRITICAL,
                )
            stack.enter_context(cluster)
            client = stack.enter_context(Client(cluster))
            if not embedded:
                client.register_plugin(IgnoreInterrupts())
        except (OSError, RuntimeError, TimeoutError) as error:
            raise ClusterError(
                f"cluster {name!r} can't be started: {' '.join(str(error).split())}: "
                "check its file, free ports and memory"
            ) from error
        link = _dashboard_link(cluster, dashboard)
        yield Cluster(client, config["kind"], budget, link)


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


def _written(dask_worker: Any) -> int:
    metrics = getattr(dask_worker.data, "cumulative_metrics", {})
    return int(metrics.get(("disk-write", "bytes"), 0))


def _removed(dask_scheduler: Any) -> int:
    told = dask_scheduler.get_events("all")
    return sum(isinstance(one, dict) and one.get("action") == "remove-worker" for _, one in told)


def _count(value: Any) -> int | None:
    return None if value == "auto" else int(value)


def _has_bokeh() -> bool:
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
