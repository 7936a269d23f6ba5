"""A cluster by its name, its file's path or its address → a checked ``distributed`` client."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from segmentation.errors import ClusterError, UsageError
from segmentation.run.budget import Budget, of_workers
from segmentation.run.deployment import checks, kinds, shipping
from segmentation.run.deployment.config import load_config
from segmentation.run.deployment.embedded import embedded
from segmentation.run.memory import high_water, let_go, let_go_later
from segmentation.run.seen import counter_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Cluster", "load_config", "open_cluster"]

#: What starts on this machine, sees its files, and ends with the job.
_EMBEDDED = ("threads", "local")
#: Those whose levels Dask's configuration sets one by one.
_LOGGERS = (
    "distributed", "distributed.client", "tornado", "tornado.application", "bokeh", "asyncio",
)  # fmt: skip
#: Until a scheduler answers, and until workers are there, seconds; the second by the file.
_CONNECT_SECONDS, _WAIT_SECONDS = 10.0, 20.0


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
        found = [*self._versions, *checks.memory(self.client, self.budget, partition_bytes)]
        # Where versions differ, what is asked might not even be understood.
        return found or checks.machines(self.client, files, digest)

    def let_go(self) -> None:
        """Give free memory back to the system, here and on the workers."""
        if self.is_elsewhere:
            # They answer before they are at it; one that hangs is waited for until it is given up.
            with contextlib.suppress(OSError, TimeoutError):
                self.client.run(let_go_later, wait=False)
        else:
            self.everywhere(let_go)
        if self.kind != "threads":
            let_go()

    def everywhere(self, function: Callable[..., Any]) -> list[Any]:
        """Run a function on each worker that stands; what dies meanwhile is left out."""
        try:
            answers = self.client.run(function, on_error="return")
        except (OSError, TimeoutError):
            return []
        return [answer for answer in answers.values() if not isinstance(answer, BaseException)]

    def record(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        from segmentation.run.plugins import lost

        record: dict[str, Any] = {
            "kind": self.kind,
            "workers": self.workers,
            "threads": self.threads,
            "memory": {**self.budget.record(), "spilled_bytes": sum(self.everywhere(_written))},
            "workers_lost": int(self.client.run_on_scheduler(lost, counter_of(self.client))),
            "dashboard": self.dashboard,
        }
        if self.is_elsewhere:
            # Some may have joined, or gone, meanwhile.
            there = self.client.scheduler_info(n_workers=-1)["workers"].values()
            record["workers"] = len(there)
            record["threads"] = sum(worker["nthreads"] for worker in there)
            record["address"] = self.address
            record["memory"]["workers_peak_bytes"] = self.everywhere(high_water)
        return record


@contextmanager
def open_cluster(
    name: str,
    *,
    address: str | None = None,
    memory_limit: int | None = None,
    debug: bool = False,
    warn: Callable[[str], None] = lambda line: None,
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
        with embedded(config, name, memory_limit=memory_limit, debug=debug) as found:
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
        standing = stack.enter_context(kinds.standing(config, name))
        target = standing.target
        where = target if isinstance(target, str) else getattr(target, "scheduler_address", "")
        # Before a word is said.
        if (warning := standing.warning or kinds.plain_warning(where)) is not None:
            warn(warning)
        client = stack.enter_context(_connected(standing, name))
        try:
            joined = _joined(client, standing, config, warn)
        except (OSError, RuntimeError, ImportError, ClosedClientError) as error:
            told = " ".join(str(error).split()) or type(error).__name__
            raise ClusterError(
                f"{where or name}: was lost, or does not take the job in ({told}): see the "
                "scheduler's log, and start it anew"
            ) from error
        yield joined


def _joined(
    client: Any,
    standing: kinds.Standing,
    config: Mapping[str, Any],
    warn: Callable[[str], None],
) -> Cluster:
    """Wait for the workers, compare versions, and send them the package."""
    told = client.scheduler.address
    _wait(client, standing.expected, config, told)
    versions = checks.versions(client)
    if not versions:
        shipping.ship(client)
        for note in checks.notes(client):
            warn(note)
    info = client.scheduler_info(n_workers=-1)["workers"].values()
    budget = of_workers([(int(w["memory_limit"] or 0), int(w["nthreads"])) for w in info])
    # Its address is told by Dask even where it was asked for none.
    dashboard = None if config.get("dashboard") is False else standing.dashboard or _link(client)
    return Cluster(client, config["kind"], budget, dashboard, told, versions)


def _config(name: str, address: str | None) -> dict[str, Any]:
    if address is None:
        return load_config(name)
    if not address.strip() or address.partition("://")[0] not in ("tcp", "tls"):
        raise UsageError(f"--address {address}: give tcp:// or tls://, a host and a port")
    # The default of --cluster, which nobody asked for.
    config = load_config("remote" if name == "threads" else name)
    if config["kind"] not in ("remote", "tls"):
        raise UsageError(
            f"--address is for a cluster that stands, and --cluster {name} would start one: leave "
            "one of them out"
        )
    return {**config, "address": address}


@contextmanager
def _connected(standing: kinds.Standing, name: str) -> Iterator[Any]:
    from distributed import Client
    from distributed.versions import VersionMismatchWarning

    with contextlib.ExitStack() as stack:
        try:
            options = {"security": standing.security} if standing.security else {}
            with warnings.catch_warnings():
                # Of versions that differ the checks tell, with a remedy.
                warnings.simplefilter("ignore", VersionMismatchWarning)
                made = _in_time(
                    lambda: Client(
                        standing.target, timeout=_CONNECT_SECONDS, name="segmentation", **options
                    )
                )
            client = stack.enter_context(_quiet(made))
        except Exception as error:
            raise ClusterError(_unreachable(standing.target, name, error)) from error
        stack.callback(_withdraw, client)
        yield client


def _in_time(connect: Callable[[], Any]) -> Any:
    """Connect, or give up: who listens and says nothing would be waited for without an end."""
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(connect())
        except BaseException as error:
            answers.append(error)

    thread = threading.Thread(target=run, name="connect", daemon=True)
    thread.start()
    thread.join(2 * _CONNECT_SECONDS)
    if not answers:
        raise TimeoutError("no answer")
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]


@contextmanager
def _quiet(client: Any) -> Iterator[Any]:
    """Close a client whose scheduler may be gone."""
    try:
        # Whatever another client in this process may be the default of.
        with client.as_current():
            yield client
    finally:
        with contextlib.suppress(Exception):
            client.close(timeout=_CONNECT_SECONDS)


def _withdraw(client: Any) -> None:
    # A scheduler that is gone holds nothing of ours.
    with contextlib.suppress(Exception):
        if client.status == "running":
            shipping.withdraw(client)


def _unreachable(target: Any, name: str, error: BaseException) -> str:
    where = target if isinstance(target, str) else f"cluster {name!r}"
    words = " ".join(str(found) for found in _chain(error))
    if "expired" in words:
        return f"{where}: its certificate has expired: make new ones (segmentation certificates)"
    if "CERTIFICATE_VERIFY_FAILED" in words or "certificate" in words.lower():
        return (
            f"{where}: the certificates don't fit one another (is ca_file the one that signed the "
            "scheduler's?): name the right ones, or make new ones"
        )
    if isinstance(error, (OSError, TimeoutError)):
        told = (
            "" if not where.startswith("tls://") else ", or does it not speak TLS or refuse yours"
        )
        return (
            f"{where}: nobody answers there: is the scheduler up, and the address right{told}? "
            "Start it with: dask scheduler"
        )
    return (
        f"{where}: speaks otherwise than this job ({type(error).__name__}: "
        f"{' '.join(str(error).split())[:200]}): run the same versions of dask and distributed"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _wait(client: Any, expected: int, config: Mapping[str, Any], address: str) -> None:
    seconds = float(config.get("wait_seconds") or _WAIT_SECONDS)
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
