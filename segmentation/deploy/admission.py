"""Check workers that join during a run, before they get a task, and turn away unsuitable ones.

The plugin is pickled by value, because a worker that joins may lack the package. So this module has
no module-level imports from the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from distributed import WorkerPlugin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from distributed import Client, Worker


class Requirements(NamedTuple):
    """The requirements on a worker that joins.

    Parameters
    ----------
    files
        Paths or URLs of the input.
    digest
        The fingerprint of those files as the job sees them.
    versions
        The job's versions, as :func:`distributed.versions.get_versions` returns them.
    partition_bytes
        Size of the largest partition that a worker has to read, bytes.
    known_workers
        Names and addresses of the workers that were checked before the run.
    """

    files: tuple[str, ...]
    digest: str
    versions: Mapping[str, Any]
    partition_bytes: int
    known_workers: frozenset[str]


def watch_new_workers(
    client: Client, requirements: Requirements, warn: Callable[[str], None]
) -> None:
    """Turn away workers that join and don't meet the requirements.

    Parameters
    ----------
    client
        The job's client.
    requirements
        The requirements on each of them.
    warn
        Called with one line for each worker that is turned away.
    """
    from segmentation.deploy.package_upload import register_by_value

    topic = _plugin_name(client)
    client.subscribe_topic(topic, lambda event: warn(f"turned away: {event[1]}"))
    register_by_value(client, WorkerAdmission(topic, requirements), topic)


def stop_watching(client: Client) -> None:
    """Admit every worker that joins from now on."""
    client.unregister_worker_plugin(_plugin_name(client))


def _plugin_name(client: Client) -> str:
    return f"segmentation-admission-{client.id}"


class WorkerAdmission(WorkerPlugin):  # type: ignore[misc]
    """Close a worker that joins and doesn't meet the job's requirements.

    Parameters
    ----------
    topic
        The event topic for reports of workers that were turned away.
    requirements
        The requirements on the worker.
    """

    idempotent = False

    def __init__(self, topic: str, requirements: Requirements) -> None:
        self.topic = topic
        self.requirements = requirements

    def setup(self, worker: Worker) -> None:
        """Check the worker; Dask calls this before it gets a task."""
        # A nanny restarts a dead worker under its old name, at a new address.
        if self.requirements.known_workers & {worker.address, worker.name}:
            return
        try:
            from segmentation.deploy import preflight

            findings = preflight.check_new_worker(worker, self.requirements)
        except Exception as error:
            findings = [f"worker {worker.address} could not be checked ({error!r}); see its log"]
        if findings:
            self._turn_away(worker, findings)

    def _turn_away(self, worker: Worker, findings: list[str]) -> None:
        from distributed.core import Status

        # A paused worker starts no task, even while it closes.
        worker.status = Status.paused
        worker.log_event(self.topic, "; ".join(findings))
        worker.loop.add_callback(worker.close, nanny=True, reason="segmentation-admission")
