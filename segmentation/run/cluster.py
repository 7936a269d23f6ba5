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
        "threads_per_worker": int,
        "memory_limit": (int, str),
        "dashboard": (str, bool),
    },
}


_LOOPBACK = "127.0.0.1:0"
#: Python and the libraries alone take most of this.
_LEAST_MEMORY = 256 << 20


@dataclass(frozen=True)
class Cluster:
    """A connected cluster; ``dashboard`` is None where it has none.

    ``memory`` is what its workers may take together, bytes.
    """

    client: Any
    kind: str
    workers: int
    threads: int
    memory: int
    dashboard: str | None

    def record(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        return {"kind": self.kind, "workers": self.workers, "threads": self.threads}


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
    _memory(config, 1, where)


def _memory(config: dict[str, Any], workers: int, where: str) -> int:
    from dask.utils import parse_bytes
    from distributed.system import MEMORY_LIMIT

    value = config.get("memory_limit", "auto")
    if value == "auto":
        return int(MEMORY_LIMIT) // workers
    try:
        limit = int(parse_bytes(value))
    except (ValueError, OverflowError):
        raise UsageError(
            f"{where}: memory_limit: {value!r}: give bytes with a unit, as in 2 GiB, or auto"
        ) from None
    if limit < _LEAST_MEMORY:
        raise UsageError(f"{where}: memory_limit: {value!r}: a worker needs 256 MiB at least")
    return limit


@contextmanager
def open_cluster(name: str, *, debug: bool = False) -> Iterator[Cluster]:
    """Start the named cluster, connect, and close both at the end.

    Raises
    ------
    UsageError
        If its file is not as it should be.
    ClusterError
        If it can't be started.
    """
    config = load_config(name)
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster

    from segmentation.run.plugins import IgnoreInterrupts, PlainWorker

    if not debug:
        # What distributed has to say of lost connections and busy loops is not for users.
        for logger in ("distributed", "tornado", "bokeh", "asyncio"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
    embedded = config["kind"] == "threads"
    dashboard = config.get("dashboard") or None
    if dashboard and not _has_bokeh():
        dashboard = None
    workers = 1 if embedded else _count(config.get("workers", "auto"), CPU_COUNT)
    threads = _count(
        config.get("threads", "auto") if embedded else config.get("threads_per_worker", 1),
        CPU_COUNT,
    )
    limit = _memory(config, workers, name)
    with contextlib.ExitStack() as stack:
        try:
            with _interrupts_held(), warnings.catch_warnings():
                # That its port was taken: the address that it got instead is shown anyway.
                warnings.simplefilter("ignore", UserWarning)
                cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=threads,
                    processes=not embedded,
                    host=None if embedded else "127.0.0.1",
                    # The scheduler's and workers' pages are served in any case: keep them here.
                    dashboard_address=dashboard or _LOOPBACK,
                    worker_dashboard_address=_LOOPBACK,
                    memory_limit=limit,
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
        yield Cluster(client, config["kind"], workers, workers * threads, workers * limit, link)


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


def _count(value: Any, cpus: int) -> int:
    return cpus if value == "auto" else int(value)


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
