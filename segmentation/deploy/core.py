"""Turn a cluster's name, file or address into a checked :class:`distributed.Client`."""

from __future__ import annotations

import contextlib
import logging
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segmentation.deploy import admission, connect, diagnostics, kinds, memory, preflight
from segmentation.deploy.config import is_address, load_config
from segmentation.deploy.local import start_local_cluster
from segmentation.deploy.memory_budget import Budget, budget_of_workers
from segmentation.deploy.package_upload import upload_package
from segmentation.deploy.worker_setup import configure_logging
from segmentation.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from distributed import Client, Worker

__all__ = ["Cluster", "load_config", "open_cluster"]

#: These start on this machine, see its files, and end with the job.
_LOCAL_KINDS = ("threads", "local")
#: The loggers whose levels Dask's configuration sets one by one.
_DASK_LOGGERS = (
    "distributed",
    "distributed.client",
    "tornado",
    "tornado.application",
    "bokeh",
    "asyncio",
)
#: How long to wait for workers, unless the cluster's file says otherwise.
_WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class Cluster:
    """A connected cluster.

    Parameters
    ----------
    client
        Connected to the scheduler.
    kind
        The ``kind`` of the cluster's file.
    budget
        The memory of its workers.
    dashboard
        The URL of Dask's dashboard; None without one.
    address
        The scheduler's address; None for clusters on this machine.
    """

    client: Client
    kind: str
    budget: Budget
    dashboard: str | None = None
    address: str | None = None
    _version_findings: list[str] = field(default_factory=list)

    @property
    def is_remote(self) -> bool:
        """Whether workers may run on other machines."""
        return self.kind not in _LOCAL_KINDS

    @property
    def workers(self) -> int:
        """The number of workers; under ``threads`` one, in the job's own process."""
        return self.budget.workers

    @property
    def threads(self) -> int:
        """The number of threads of all workers together."""
        return self.budget.workers * self.budget.threads

    def check(self, files: Sequence[str], digest: str, partition_bytes: int | None) -> list[str]:
        """Return everything that keeps the workers from reading the input, each with a remedy.

        Workers that the job has started on this machine need no check.

        Parameters
        ----------
        files
            Paths or URLs of the input.
        digest
            Their fingerprint, as the job sees them.
        partition_bytes
            The size of a partition; None for what the workers' memory suggests.
        """
        if not self.is_remote:
            return []
        findings = [
            *self._version_findings,
            *preflight.check_memory(self.client, self.budget, partition_bytes),
        ]
        # Workers of other versions may not understand the probe.
        return findings or preflight.check_workers(self.client, files, digest)

    def watch(
        self,
        files: Sequence[str],
        digest: str,
        partition_bytes: int | None,
        warn: Callable[[str], None],
    ) -> None:
        """Check workers that join later, and turn away those that don't pass.

        Parameters
        ----------
        files, digest, partition_bytes
            As for :meth:`check`.
        warn
            Called with one line for each worker that is turned away.
        """
        if not self.is_remote:
            return
        from distributed.versions import get_versions

        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        requirements = admission.Requirements(
            files=tuple(files),
            digest=digest,
            versions=get_versions(packages=list(preflight.LIBRARIES)),
            partition_bytes=partition_bytes or self.budget.partition_bytes,
            known_workers=frozenset({*workers, *(info["name"] for info in workers.values())}),
        )
        admission.watch_new_workers(self.client, requirements, warn)

    def sees_folder(self, folder: Path) -> bool:
        """Tell whether all workers see a folder of this machine."""
        return not self._folder_findings(folder)

    def require_shared_folder(self, folder: Path, warn: Callable[[str], None]) -> None:
        """Check that all workers see a folder that they have to write to.

        Parameters
        ----------
        folder
            A folder of this machine.
        warn
            Called with one line for each worker that doesn't see it.

        Raises
        ------
        ClusterError
            If a worker doesn't see it.
        """
        preflight.raise_findings(self._folder_findings(folder), warn)

    def _folder_findings(self, folder: Path) -> list[str]:
        if not self.is_remote:
            return []
        # A new file, because another machine may have a folder of the same name.
        token = folder.resolve() / f".seen-by-all-{uuid.uuid4().hex[:8]}"
        token.touch()
        try:
            return preflight.check_shared_path(self.client, str(token))
        finally:
            token.unlink(missing_ok=True)

    def check_shuffle(self, n_bytes: int) -> None:
        """Check that the workers have the memory to shuffle so many bytes of rows.

        Raises
        ------
        UsageError, ClusterError
            As :meth:`Budget.check_shuffle` does.
        """
        self.budget.check_shuffle(n_bytes, is_remote=self.is_remote)

    def trim_memory(self) -> None:
        """Return free memory to the system, here and on the workers."""
        if self.is_remote:
            # They answer first and trim then; a worker that hangs would block until it is given up.
            with contextlib.suppress(OSError, TimeoutError):
                self.client.run(memory.trim_memory_later, wait=False)
        else:
            self.run_on_workers(memory.trim_memory)
        if self.kind != "threads":
            memory.trim_memory()

    def run_on_workers(self, function: Callable[..., Any]) -> list[Any]:
        """Call a function on each worker; return the results, without those of workers that died.

        As in :meth:`distributed.Client.run`, an argument ``dask_worker`` receives the worker.
        """
        try:
            results = self.client.run(function, on_error="return")
        except (OSError, TimeoutError):
            return []
        return [result for result in results.values() if not isinstance(result, BaseException)]

    def record(self) -> dict[str, Any]:
        """Return what the manifest holds about the cluster."""
        counter = diagnostics.counter_name(self.client)
        record: dict[str, Any] = {
            "kind": self.kind,
            "workers": self.workers,
            "threads": self.threads,
            "memory": {
                **self.budget.record(),
                "spilled_bytes": sum(self.run_on_workers(_spilled_bytes)),
            },
            "workers_lost": int(
                self.client.run_on_scheduler(diagnostics.read_lost_workers, counter)
            ),
            "dashboard": self.dashboard,
        }
        if self.is_remote:
            # Workers may have joined or left since the start.
            workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
            record["workers"] = len(workers)
            record["threads"] = sum(worker["nthreads"] for worker in workers)
            record["address"] = self.address
            record["memory"]["workers_peak_bytes"] = self.run_on_workers(memory.peak_rss)
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
    """Start the named cluster, or connect to a running one; close everything at the end.

    Parameters
    ----------
    name
        A file of ``cluster_config/``, or the path of one.
    address
        The address of a running scheduler; overrides the one in the file.
    memory_limit
        For the whole run, bytes; None uses what the cluster's file says.
    debug
        Whether Dask's log lines are shown.
    warn
        Called with one line for each thing that the user should know.
    say
        Called with one line while the job waits.

    Raises
    ------
    UsageError
        If the cluster's file is not valid, or the run can't keep to the limit.
    ClusterError
        If the cluster can't be started or reached, or its workers don't come.

    Examples
    --------
    >>> with open_cluster("threads") as cluster:
    ...     cluster.client.submit(sum, [1, 2]).result()
    3
    """
    config = _load(name, address)
    if not debug:
        # Dask's lines about lost connections and busy event loops mean nothing to users.
        for logger in _DASK_LOGGERS:
            logging.getLogger(logger).setLevel(logging.CRITICAL)
    configure_logging()
    if config["kind"] in _LOCAL_KINDS:
        with start_local_cluster(config, name, memory_limit=memory_limit, debug=debug) as started:
            client, budget, dashboard = started
            yield Cluster(client, config["kind"], budget, dashboard)
        return
    if memory_limit is not None:
        raise UsageError(
            "{memory_limit} is for clusters on this machine; the workers of {name!r} have their "
            "own limits (memory_per_worker in its file, or dask worker --memory-limit)",
            "memory_limit",
            name=name,
        )
    with contextlib.ExitStack() as stack:
        deployment = stack.enter_context(kinds.deploy(config, name))
        target = deployment.target
        where = target if isinstance(target, str) else getattr(target, "scheduler_address", "")
        # Warn before anything is sent.
        if (warning := deployment.warning or kinds.unencrypted_warning(where)) is not None:
            warn(warning)
        client = stack.enter_context(connect.connect(deployment, name))
        yield _prepare(client, deployment, config, where or name, warn, say)


def _prepare(
    client: Client,
    deployment: kinds.Deployment,
    config: Mapping[str, Any],
    where: str,
    warn: Callable[[str], None],
    say: Callable[[str], None],
) -> Cluster:
    """Wait for the workers, compare versions, and send the workers the package."""
    from distributed.client import ClosedClientError

    address = client.scheduler.address
    try:
        _wait_for_workers(client, deployment.expected, config, address, say)
        preflight.check_responsive(client)
        version_findings = preflight.check_versions(client)
        if not version_findings:
            upload_package(client)
            for note in preflight.machine_notes(client):
                warn(note)
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
    except (OSError, RuntimeError, ImportError, ClosedClientError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise ClusterError(
            f"{where}: could not prepare the workers ({message}); see the scheduler's log, and "
            "restart it"
        ) from error
    budget = budget_of_workers([(int(w["memory_limit"] or 0), int(w["nthreads"])) for w in workers])
    # Dask reports an address even if the file switches the dashboard off.
    dashboard = None if config.get("dashboard") is False else deployment.dashboard or _link(client)
    return Cluster(client, config["kind"], budget, dashboard, address, version_findings)


def _load(name: str, address: str | None) -> dict[str, Any]:
    if address is None:
        return load_config(name)
    if not is_address(address):
        raise UsageError(
            "{address} {value}: expected tcp:// or tls://, a host and a port",
            "address",
            value=address,
        )
    # The default name stands for no choice.
    config = load_config("remote" if name == "threads" else name)
    if config["kind"] not in ("remote", "tls"):
        raise UsageError(
            "{address} connects to a running cluster, and {cluster} {name} starts one; pass only "
            "one of them",
            "address",
            "cluster",
            name=name,
        )
    return {**config, "address": address}


def _wait_for_workers(
    client: Client,
    expected: int,
    config: Mapping[str, Any],
    address: str,
    say: Callable[[str], None],
) -> None:
    seconds = float(config.get("wait_seconds") or _WAIT_SECONDS)
    n_workers = len(client.scheduler_info(n_workers=-1)["workers"])
    if n_workers < expected:
        say(
            f"  cluster: {n_workers} of {expected} workers at {address}; waiting up to "
            f"{seconds:g} s"
        )
    try:
        client.wait_for_workers(expected, timeout=seconds)
    except TimeoutError:
        n_workers = len(client.scheduler_info(n_workers=-1)["workers"])
        plural = "" if expected == 1 else "s"
        raise ClusterError(
            f"{address}: {n_workers} of {expected} worker{plural} joined within {seconds:g} s; "
            "start more (dask worker ADDRESS), ask for fewer in the cluster's file, or raise "
            "wait_seconds"
        ) from None


def _link(client: Client) -> str | None:
    try:
        return str(client.dashboard_link) or None
    except Exception:
        return None


def _spilled_bytes(dask_worker: Worker) -> int:
    metrics = getattr(dask_worker.data, "cumulative_metrics", {})
    return int(metrics.get(("disk-write", "bytes"), 0))
