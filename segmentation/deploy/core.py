"""Open a cluster by its name, file or address, and check its workers."""

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
from segmentation.errors import ClusterError, UsageError, format_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from distributed import Client, Worker

__all__ = ["Cluster", "load_config", "open_cluster"]

#: Kinds whose workers run on this machine, see its files, and end with the job.
LOCAL_KINDS = ("threads", "local")
#: The loggers that have a level of their own in Dask's configuration.
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
        The URL of Dask's dashboard; None if there is no dashboard.
    address
        The scheduler's address; None for the kinds ``threads`` and ``local``.
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
        return self.kind not in LOCAL_KINDS

    @property
    def workers(self) -> int:
        """The number of workers; 1 under ``threads``, where the job's process is the worker."""
        return self.budget.workers

    @property
    def threads(self) -> int:
        """The number of workers times the largest number of threads of a worker."""
        return self.budget.workers * self.budget.threads

    def check(self, files: Sequence[str], digest: str, partition_bytes: int | None) -> list[str]:
        """Return the problems that keep workers from reading the input, each with a remedy.

        Workers of the kinds ``threads`` and ``local`` need no check. The input is checked only if
        the versions match and the memory is large enough.

        Parameters
        ----------
        files
            Paths or URLs of the input.
        digest
            Their fingerprint, as the job sees them.
        partition_bytes
            The size of a partition; None for :attr:`Budget.partition_bytes`.
        """
        if not self.is_remote:
            return []
        findings = [
            *self._version_findings,
            *preflight.check_memory(self.client, self.budget, partition_bytes),
        ]
        # Workers with other versions may fail to run the probe.
        return findings or preflight.check_workers(self.client, files, digest)

    def check_input(self, files: Sequence[str], digest: str) -> list[str]:
        """Return the workers for which the input changed since the run began."""
        return preflight.check_input(self.client, files, digest) if self.is_remote else []

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
        """Check that the workers have the memory to shuffle ``n_bytes`` of rows.

        Raises
        ------
        UsageError, ClusterError
            As :meth:`Budget.check_shuffle` does.
        """
        self.budget.check_shuffle(n_bytes, is_remote=self.is_remote)

    def trim_memory(self) -> None:
        """Return free memory to the system, here and on the workers."""
        if self.is_remote:
            # Workers answer before they trim. A hung one would block the call until it is removed.
            with contextlib.suppress(OSError, TimeoutError):
                self.client.run(memory.trim_memory_async, wait=False)
        else:
            self.run_on_workers(memory.trim_memory)
        if self.kind != "threads":
            memory.trim_memory()

    def run_on_workers(self, function: Callable[..., Any]) -> list[Any]:
        """Call a function on each worker; return the results of the calls that succeed.

        As in :meth:`distributed.Client.run`, an argument ``dask_worker`` receives the worker.
        """
        try:
            results = self.client.run(function, on_error="return")
        except (OSError, TimeoutError):
            return []
        return [result for result in results.values() if not isinstance(result, BaseException)]

    def record(self) -> dict[str, Any]:
        """Return the manifest's record of the cluster."""
        counter = diagnostics.format_counter_name(self.client)
        record: dict[str, Any] = {
            "kind": self.kind,
            "workers": self.workers,
            "threads": self.threads,
            "memory": {
                **self.budget.record(),
                "spilled_bytes": sum(self.run_on_workers(_read_spilled_bytes)),
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
        The limit for the whole run, bytes; None for that of the cluster's file.
    debug
        Whether Dask's log lines are shown.
    warn
        Called with one line for each warning.
    say
        Called with one line if the job waits for workers.

    Raises
    ------
    UsageError
        If the cluster's file or the address is not valid, they contradict each other, or the memory
        limit is too small or not applicable.
    ClusterError
        If the cluster can't be started or reached, or too few workers join.

    Examples
    --------
    >>> with open_cluster("threads") as cluster:
    ...     cluster.client.submit(sum, [1, 2]).result()
    3
    """
    config = _load(name, address)
    if not debug:
        # Users can't act on Dask's messages about lost connections and busy event loops.
        for logger in _DASK_LOGGERS:
            logging.getLogger(logger).setLevel(logging.CRITICAL)
    configure_logging()
    if config["kind"] in LOCAL_KINDS:
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
        if (warning := deployment.warning or kinds.format_unencrypted_warning(where)) is not None:
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
    """Wait for the workers, compare versions, and send the package if the versions match."""
    from distributed.client import ClosedClientError

    address = client.scheduler.address
    try:
        _wait_for_workers(client, deployment.expected, config, address, say)
        preflight.check_responsive(client)
        version_findings = preflight.check_versions(client)
        if not version_findings:
            upload_package(client)
            for note in preflight.compare_machines(client):
                warn(note)
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
    except (OSError, RuntimeError, ImportError, ClosedClientError) as error:
        raise ClusterError(
            f"{where}: could not prepare the workers ({format_error(error)}); see the scheduler's "
            "log, and restart it"
        ) from error
    budget = budget_of_workers([(int(w["memory_limit"] or 0), int(w["nthreads"])) for w in workers])
    dashboard = deployment.dashboard or kinds.find_dashboard_link(client)
    if config.get("dashboard") is False:
        # Dask reports an address all the same.
        dashboard = None
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
    # ``threads`` is the default, so it is not a conflicting choice.
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


def _read_spilled_bytes(dask_worker: Worker) -> int:
    metrics = getattr(dask_worker.data, "cumulative_metrics", {})
    return int(metrics.get(("disk-write", "bytes"), 0))
