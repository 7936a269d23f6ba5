"""A cluster by its name, its file's path or its address → a checked ``distributed`` client."""

from __future__ import annotations

import contextlib
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segmentation.deploy import admission, connect, kinds, package_upload, preflight
from segmentation.deploy.config import is_address, load_config
from segmentation.deploy.diagnostics import counter_name
from segmentation.deploy.local import start_embedded
from segmentation.deploy.memory import peak_rss, trim_memory, trim_memory_later
from segmentation.deploy.memory_budget import Budget, budget_of_workers
from segmentation.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Cluster", "load_config", "open_cluster"]

#: What starts on this machine, sees its files, and ends with the job.
_EMBEDDED = ("threads", "local")
#: Those whose levels Dask's configuration sets one by one.
_LOGGERS = (
    "distributed",
    "distributed.client",
    "tornado",
    "tornado.application",
    "bokeh",
    "asyncio",
)
#: Until workers are there, seconds, unless the file says otherwise.
_WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class Cluster:
    """A connected cluster and its share of memory; ``dashboard`` is None where it has none."""

    client: Any
    kind: str
    budget: Budget
    dashboard: str | None = None
    address: str | None = None
    _versions: list[str] = field(default_factory=list)

    @property
    def is_elsewhere(self) -> bool:
        """Whether its workers may run on other machines."""
        return self.kind not in _EMBEDDED

    @property
    def workers(self) -> int:
        """Worker processes, or one that is part of the job's own."""
        return self.budget.workers

    @property
    def threads(self) -> int:
        """Threads of all workers together."""
        return self.budget.workers * self.budget.threads

    def check(self, files: Sequence[str], digest: str, partition_bytes: int | None) -> list[str]:
        """Return what keeps these workers from reading these files, with remedies; all at once.

        Workers of this machine, which the job has started itself, need no looking at.
        """
        if not self.is_elsewhere:
            return []
        found = [
            *self._versions,
            *preflight.check_memory(self.client, self.budget, partition_bytes),
        ]
        # Where versions differ, what is asked might not even be understood.
        return found or preflight.check_workers(self.client, files, digest)

    def watch(
        self,
        files: Sequence[str],
        digest: str,
        partition_bytes: int | None,
        warn: Callable[[str], None],
    ) -> None:
        """Look at workers that join later as well, and turn away those that don't pass."""
        if not self.is_elsewhere:
            return
        from distributed.versions import get_versions

        there = self.client.scheduler_info(n_workers=-1)["workers"]
        expected = {
            "files": tuple(files),
            "digest": digest,
            "versions": get_versions(packages=list(preflight.LIBRARIES)),
            "wanted": partition_bytes or self.budget.partition_bytes,
            "known": {*there, *(worker["name"] for worker in there.values())},
        }
        admission.watch_new_workers(self.client, expected, warn)

    def let_go(self) -> None:
        """Give free memory back to the system, here and on the workers."""
        if self.is_elsewhere:
            # They answer before they are at it; one that hangs is waited for until it is given up.
            with contextlib.suppress(OSError, TimeoutError):
                self.client.run(trim_memory_later, wait=False)
        else:
            self.everywhere(trim_memory)
        if self.kind != "threads":
            trim_memory()

    def everywhere(self, function: Callable[..., Any]) -> list[Any]:
        """Run a function on each worker that stands; what dies meanwhile is left out."""
        try:
            answers = self.client.run(function, on_error="return")
        except (OSError, TimeoutError):
            return []
        return [answer for answer in answers.values() if not isinstance(answer, BaseException)]

    def record(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        from segmentation.deploy.diagnostics import read_lost_workers

        record: dict[str, Any] = {
            "kind": self.kind,
            "workers": self.workers,
            "threads": self.threads,
            "memory": {**self.budget.record(), "spilled_bytes": sum(self.everywhere(_written))},
            "workers_lost": int(
                self.client.run_on_scheduler(read_lost_workers, counter_name(self.client))
            ),
            "dashboard": self.dashboard,
        }
        if self.is_elsewhere:
            # Some may have joined, or gone, meanwhile.
            there = self.client.scheduler_info(n_workers=-1)["workers"].values()
            record["workers"] = len(there)
            record["threads"] = sum(worker["nthreads"] for worker in there)
            record["address"] = self.address
            record["memory"]["workers_peak_bytes"] = self.everywhere(peak_rss)
        return record


@contextmanager
def open_cluster(
    name: str,
    *,
    address: str | None = None,
    memory_limit: int | None = None,
    debug: bool = False,
    warn: Callable[[str], None] = lambda line: None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Cluster]:
    """Start the named cluster or find the one that stands, connect, and close both at the end.

    Parameters
    ----------
    name
        A file of ``cluster_config/``, or the path of one.
    address
        Of a scheduler that stands; comes before what the file says.
    memory_limit
        For the whole run, bytes; None leaves it to the cluster's file.
    warn
        Is told what a person should know and can't be refused for.
    say
        Is told what is waited for.

    Raises
    ------
    UsageError
        If its file is not as it should be, or the run can't keep to the limit.
    ClusterError
        If it can't be started or reached, or its workers don't come.
    """
    config = _config(name, address)
    if not debug:
        import distributed  # noqa: F401 - which sets its loggers' levels itself, once

        # What distributed has to say of lost connections and busy loops is not for users.
        for logger in _LOGGERS:
            logging.getLogger(logger).setLevel(logging.CRITICAL)
    if config["kind"] in _EMBEDDED:
        with start_embedded(config, name, memory_limit=memory_limit, debug=debug) as found:
            client, budget, dashboard = found
            yield Cluster(client, config["kind"], budget, dashboard)
        return
    from distributed.client import ClosedClientError

    if memory_limit is not None:
        raise UsageError(
            f"--memory-limit is for clusters that share this machine: the workers of {name!r} have "
            "their own (memory_per_worker in its file, or dask worker --memory-limit)"
        )
    with contextlib.ExitStack() as stack:
        standing = stack.enter_context(kinds.deploy(config, name))
        target = standing.target
        where = target if isinstance(target, str) else getattr(target, "scheduler_address", "")
        # Before a word is said.
        if (warning := standing.warning or kinds.unencrypted_warning(where)) is not None:
            warn(warning)
        client = stack.enter_context(connect.connect(standing, name))
        try:
            joined = _joined(client, standing, config, warn, say)
        except (OSError, RuntimeError, ImportError, ClosedClientError) as error:
            told = " ".join(str(error).split()) or type(error).__name__
            raise ClusterError(
                f"{where or name}: was lost, or does not take the job in ({told}): see the "
                "scheduler's log, and start it anew"
            ) from error
        yield joined


def _joined(
    client: Any,
    standing: kinds.Deployment,
    config: Mapping[str, Any],
    warn: Callable[[str], None],
    say: Callable[[str], None],
) -> Cluster:
    """Wait for the workers, compare versions, and send them the package."""
    told = client.scheduler.address
    _wait(client, standing.expected, config, told, say)
    preflight.check_responsive(client)
    versions = preflight.check_versions(client)
    if not versions:
        package_upload.upload_package(client)
        for note in preflight.machine_notes(client):
            warn(note)
    info = client.scheduler_info(n_workers=-1)["workers"].values()
    budget = budget_of_workers([(int(w["memory_limit"] or 0), int(w["nthreads"])) for w in info])
    # Its address is told by Dask even where it was asked for none.
    dashboard = None if config.get("dashboard") is False else standing.dashboard or _link(client)
    return Cluster(client, config["kind"], budget, dashboard, told, versions)


def _config(name: str, address: str | None) -> dict[str, Any]:
    if address is None:
        return load_config(name)
    if not is_address(address):
        raise UsageError(f"--address {address}: give tcp:// or tls://, a host and a port")
    # The default of --cluster, which nobody asked for.
    config = load_config("remote" if name == "threads" else name)
    if config["kind"] not in ("remote", "tls"):
        raise UsageError(
            f"--address is for a cluster that stands, and --cluster {name} would start one: leave "
            "one of them out"
        )
    return {**config, "address": address}


def _wait(
    client: Any, expected: int, config: Mapping[str, Any], address: str, say: Callable[[str], None]
) -> None:
    seconds = float(config.get("wait_seconds") or _WAIT_SECONDS)
    there = len(client.scheduler_info(n_workers=-1)["workers"])
    if there < expected:
        say(f"  cluster: {there} of {expected} workers at {address}; waiting up to {seconds:g} s")
    try:
        client.wait_for_workers(expected, timeout=seconds)
    except TimeoutError:
        there = len(client.scheduler_info(n_workers=-1)["workers"])
        plural = "" if expected == 1 else "s"
        raise ClusterError(
            f"{address}: {there} of {expected} worker{plural} came within {seconds:g} s: start "
            "more (dask worker ADDRESS), lower what the cluster's file asks for, or raise "
            "wait_seconds"
        ) from None


def _link(client: Any) -> str | None:
    try:
        return str(client.dashboard_link) or None
    except Exception:
        return None


def _written(dask_worker: Any) -> int:
    metrics = getattr(dask_worker.data, "cumulative_metrics", {})
    return int(metrics.get(("disk-write", "bytes"), 0))
