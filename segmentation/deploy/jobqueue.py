"""Clusters whose workers are jobs of a batch system, by dask-jobqueue."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from segmentation.deploy import config as parts
from segmentation.deploy.config import parse_memory

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Mapping

#: Batch system → the class that hands in its jobs.
CLASSES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
#: What a batch system calls who pays.
_ACCOUNT = {"slurm": "account", "pbs": "account", "lsf": "project", "sge": "project"}


def start_cluster(
    config: Mapping[str, Any], name: str, stack: contextlib.ExitStack
) -> tuple[Any, int]:
    """Start a scheduler in this process, and workers in jobs of a batch system; all speak TLS."""
    from distributed import Security

    kind = config["kind"]
    package = parts.import_extra("dask_jobqueue", "segmentation[batch]")
    parts.import_extra("cryptography", "segmentation[tls]")
    each = int(config.get("workers_per_job") or 1)
    per_worker = config.get("memory_per_worker") or "2 GiB"
    memory = (parse_memory(per_worker) or 2 << 30) * each
    options = {
        "queue": config.get("queue"),
        _ACCOUNT[kind]: config.get("account"),
        "walltime": _walltime(config),
        "interface": config["interface"],
        "local_directory": config.get("local_directory"),
        "log_directory": config.get("log_directory"),
        "shared_temp_directory": config.get("shared_directory"),
        "python": config.get("python"),
        "job_script_prologue": config.get("prologue"),
        "job_extra_directives": config.get("directives"),
    }
    cluster = getattr(package, CLASSES[kind])(
        cores=each * parts.threads_per_worker(config),
        processes=each,
        memory=f"{memory} B",
        protocol="tls://",
        security=Security.temporary(),
        scheduler_options=parts.dashboard_options(config),
        worker_extra_args=["--dashboard-address", parts.LOOPBACK],
        **{key: value for key, value in options.items() if value is not None},
    )
    stack.callback(_drop_keys, cluster)
    return cluster, _jobs(config) * each


def _jobs(config: Mapping[str, Any]) -> int:
    """Return how many jobs are handed in; of an adaptive cluster's the fewest."""
    adaptive = config.get("adaptive")
    return int(adaptive["minimum"] if adaptive else config.get("jobs") or 1)


def submit_jobs(cluster: Any, config: Mapping[str, Any]) -> None:
    """Hand in the jobs, and raise what the batch system says to them."""
    from distributed import Status

    async def hand_in() -> None:
        # It happens behind the scenes. Asked for in the same turn of the loop, it is this call that
        # hears of it.
        cluster.scale(jobs=_jobs(config))
        await cluster._correct_state()

    try:
        cluster.sync(hand_in)
    except Exception:
        # What was never started can't be closed, and Dask would leave the rest open for it.
        for worker in list(cluster._created):
            if worker.status == Status.created:
                worker.status = Status.failed
        raise
    if adaptive := config.get("adaptive"):
        cluster.adapt(minimum_jobs=adaptive["minimum"], maximum_jobs=adaptive["maximum"])


def _drop_keys(cluster: Any) -> None:
    """Remove the certificates that were written for the jobs now, not once they are collected."""
    for name, held in vars(cluster).items():
        if name.startswith("_job_") and hasattr(held, "close"):
            held.close()


def _walltime(config: Mapping[str, Any]) -> str | None:
    """Return the time of a job as its batch system takes it: LSF without seconds."""
    found = config.get("walltime")
    if config["kind"] == "lsf" and found and re.fullmatch(r"\d+:\d+:\d+", str(found)):
        return str(found).rpartition(":")[0]
    return found
