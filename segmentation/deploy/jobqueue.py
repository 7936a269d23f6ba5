"""Start clusters whose workers run as jobs of a batch system, with dask-jobqueue."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from segmentation.deploy.config import (
    LOOPBACK,
    build_dashboard_options,
    import_extra,
    parse_memory,
    threads_per_worker,
)

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Mapping

    from dask_jobqueue import JobQueueCluster

#: Batch system → the class that submits its jobs.
CLASSES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
#: Batch system → the class's option for the account to charge.
_ACCOUNT_OPTIONS = {"slurm": "account", "pbs": "account", "lsf": "project", "sge": "project"}


def start_cluster(
    config: Mapping[str, Any], stack: contextlib.ExitStack
) -> tuple[JobQueueCluster, int]:
    """Start a TLS scheduler in this process, for workers that run as batch jobs.

    Returns
    -------
    cluster
        It has no jobs until :func:`submit_jobs` is called.
    int
        The number of workers to wait for.
    """
    from distributed import Security

    kind = config["kind"]
    package = import_extra("dask_jobqueue", "segmentation[batch]")
    import_extra("cryptography", "segmentation[tls]")
    per_job = int(config.get("workers_per_job") or 1)
    memory = (parse_memory(config.get("memory_per_worker")) or 2 << 30) * per_job
    options = {
        "queue": config.get("queue"),
        _ACCOUNT_OPTIONS[kind]: config.get("account"),
        "walltime": format_walltime(kind, config.get("walltime")),
        "interface": config["interface"],
        "local_directory": config.get("local_directory"),
        "log_directory": config.get("log_directory"),
        "shared_temp_directory": config.get("shared_directory"),
        "python": config.get("python"),
        "job_script_prologue": config.get("prologue"),
        "job_extra_directives": config.get("directives"),
    }
    cluster = getattr(package, CLASSES[kind])(
        cores=per_job * threads_per_worker(config),
        processes=per_job,
        memory=f"{memory} B",
        protocol="tls://",
        security=Security.temporary(),
        scheduler_options=build_dashboard_options(config),
        worker_extra_args=["--dashboard-address", LOOPBACK],
        **{key: value for key, value in options.items() if value is not None},
    )
    stack.callback(_remove_keys, cluster)
    return cluster, _count_jobs(config) * per_job


def _count_jobs(config: Mapping[str, Any]) -> int:
    """Return the initial number of jobs; for an adaptive cluster, its minimum."""
    adaptive = config.get("adaptive")
    return int(adaptive["minimum"] if adaptive else config.get("jobs") or 1)


def submit_jobs(cluster: JobQueueCluster, config: Mapping[str, Any]) -> None:
    """Submit the jobs, and raise the error of the batch system if it rejects them."""
    from distributed import Status

    async def scale_and_wait() -> None:
        # Dask submits in the background and drops errors. Awaiting the submission in the same turn
        # of the event loop raises them here.
        cluster.scale(jobs=_count_jobs(config))
        await cluster._correct_state()

    try:
        cluster.sync(scale_and_wait)
    except Exception:
        # Dask can't close workers that never started, and would leave the others open.
        for worker in list(cluster._created):
            if worker.status == Status.created:
                worker.status = Status.failed
        raise
    if adaptive := config.get("adaptive"):
        cluster.adapt(minimum_jobs=adaptive["minimum"], maximum_jobs=adaptive["maximum"])


def _remove_keys(cluster: JobQueueCluster) -> None:
    """Delete the jobs' certificate files now, rather than at garbage collection."""
    for name, file in vars(cluster).items():
        if name.startswith("_job_") and hasattr(file, "close"):
            file.close()


def format_walltime(kind: str, walltime: str | None) -> str | None:
    """Return a job's time limit in the form of its batch system; LSF takes no seconds.

    Examples
    --------
    >>> format_walltime("slurm", "01:30:00"), format_walltime("lsf", "01:30:00")
    ('01:30:00', '01:30')
    """
    if kind == "lsf" and walltime and re.fullmatch(r"\d+:\d+:\d+", walltime):
        return walltime.rpartition(":")[0]
    return walltime
