"""Check workers before the first task, and list every problem with its remedy."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from segmentation.deploy.memory_budget import MIB, budget_of_workers
from segmentation.errors import ClusterError, format_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from distributed import Client, Worker

    from segmentation.deploy.admission import Requirements
    from segmentation.deploy.memory_budget import Budget

#: The libraries that results or messages depend on, in addition to those that Dask compares.
LIBRARIES = ("numba", "pyarrow", "scipy", "fsspec")
#: Packages whose versions must be equal: each release may change the messages between processes.
_SAME_RELEASE = ("dask", "distributed", "cloudpickle")
#: Packages whose major and minor versions must be equal.
_SAME_MINOR = ("python", "numpy", "pandas", "numba", "pyarrow", "msgpack")
#: With less free disk space than this, bytes, a worker may fail when it spills.
MIN_DISK_SPACE = 512 * MIB
_MAX_CLOCK_SECONDS = 30.0
#: How long an idle worker may take to answer.
_ANSWER_SECONDS = 15.0


class WorkerProbe(NamedTuple):
    """What a worker reports about itself and the input.

    Parameters
    ----------
    clock
        Its time, seconds since the epoch.
    folder
        Where it spills.
    free_bytes
        The free disk space there.
    digest
        The fingerprint of the input as the worker sees it; empty without files or on failure.
    failure
        Why the worker can't read the input; empty if it can.
    """

    clock: float
    folder: str
    free_bytes: int
    digest: str
    failure: str


def raise_findings(findings: Sequence[str], warn: Callable[[str], None]) -> None:
    """Show each finding in one line, and raise an error that counts them.

    Raises
    ------
    ClusterError
        If there are any findings.
    """
    if not findings:
        return
    for finding in findings:
        warn(f"  ✗ {finding}")
    plural = "s" if len(findings) > 1 else ""
    first = findings[0] if len(findings) == 1 else f"the first: {findings[0]}"
    raise ClusterError(f"the cluster fails {len(findings)} check{plural}; {first}")


def check_versions(client: Client) -> list[str]:
    """Compare the versions of client, scheduler and workers."""
    versions = client.get_versions(packages=list(LIBRARIES))
    others = {"the scheduler": versions["scheduler"]}
    others |= {f"worker {address}": other for address, other in versions["workers"].items()}
    return [
        finding
        for where, other in others.items()
        for finding in _compare_versions(where, versions["client"], other)
    ]


def _compare_versions(where: str, job: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    if not other:
        return [f"{where} doesn't report its versions: restart it"]
    findings = []
    for name in (*_SAME_RELEASE, *_SAME_MINOR):
        mine, theirs = job["packages"].get(name), other["packages"].get(name)
        if theirs is None:
            findings.append(f"{where} has no {name}: install {name} {mine} there")
        elif _versions_differ(name, mine, theirs):
            findings.append(
                f"{where} has {name} {_shorten_version(theirs)}, and the job has "
                f"{_shorten_version(mine)}: install the same version (see requirements.lock)"
            )
    if other["host"]["byteorder"] != job["host"]["byteorder"]:
        findings.append(f"{where} has another byte order: use machines of one kind")
    return findings


def check_responsive(client: Client) -> None:
    """Check that all running workers answer; a suspended one would block until it is removed.

    Raises
    ------
    ClusterError
        If one doesn't answer within :data:`_ANSWER_SECONDS`.
    """
    from distributed.core import Status

    workers = client.scheduler_info(n_workers=-1)["workers"]

    async def find_silent_workers() -> set[str]:
        answers = {
            address: asyncio.ensure_future(client.run(_answer, workers=[address]))
            for address, worker in workers.items()
            if worker["status"] == Status.running.name
        }
        if not answers:
            return set()
        await asyncio.wait(answers.values(), timeout=_ANSWER_SECONDS)
        silent = {address for address, answer in answers.items() if not answer.done()}
        for answer in answers.values():
            answer.cancel()
        await asyncio.gather(*answers.values(), return_exceptions=True)
        return silent

    silent = client.sync(find_silent_workers)
    if silent:
        more = f" and {len(silent) - 1} more" if len(silent) > 1 else ""
        raise ClusterError(
            f"worker {min(silent)}{more} did not answer within {_ANSWER_SECONDS:g} s: end it and "
            "start another"
        )


def _answer() -> None:
    """Do nothing; runs on a worker, to show that it answers."""


def compare_machines(client: Client) -> list[str]:
    """Return notes on differences that change at most the last digits of results."""
    workers = client.get_versions()["workers"].values()
    machines = {versions["host"]["machine"] for versions in workers if versions}
    job = platform.machine()
    if machines <= {job}:
        return []
    others = ", ".join(sorted(machines - {job}))
    return [f"workers run on {others}, and the job on {job}; last digits may differ"]


def check_memory(client: Client, budget: Budget, partition_bytes: int | None) -> list[str]:
    """Find workers that have too little memory for a task."""
    partition_bytes = partition_bytes or budget.partition_bytes
    return [
        finding
        for address, worker in client.scheduler_info(n_workers=-1)["workers"].items()
        for finding in _check_worker_memory(
            f"worker {address}",
            int(worker["memory_limit"] or 0),
            worker["nthreads"],
            budget,
            partition_bytes,
        )
    ]


def _check_worker_memory(
    where: str, limit: int, threads: int, budget: Budget, partition_bytes: int
) -> list[str]:
    needed = budget.required_mem(partition_bytes, threads)
    if not limit or limit >= needed:
        return []
    needed_mib = -(-needed // MIB)
    smaller = ", or use smaller partitions" if budget.required_mem(1, threads) <= limit else ""
    plural = "" if threads == 1 else "s"
    return [
        f"{where} has {limit // MIB:,} MiB for {threads} thread{plural}, and partitions of "
        f"{partition_bytes / MIB:,.3g} MiB need {needed_mib:,} MiB: start it with --memory-limit "
        f"{needed_mib}MiB or fewer threads{smaller}"
    ]


def check_workers(client: Client, files: Sequence[str], digest: str) -> list[str]:
    """Compare each worker's clock, disk space and view of the input with the job's.

    Every worker is probed, because workers on one host may be in separate containers.
    """
    before = time.time()
    probes = client.run(probe_worker, list(files), on_error="return")
    after = time.time()
    findings = []
    for address, probe in probes.items():
        where = f"worker {address}"
        if isinstance(probe, BaseException):
            findings.append(f"{where} fails ({format_error(probe)[:200]}): see its log")
            continue
        offset = probe.clock - (before + after) / 2
        if abs(offset) > _MAX_CLOCK_SECONDS + after - before:
            findings.append(f"{where}: its clock is off by {offset:+,.0f} s: set it by NTP")
        findings += _check_probe(where, probe, files, digest)
    return findings


def check_input(client: Client, files: Sequence[str], digest: str) -> list[str]:
    """Find workers for which the input is no longer what it was when the run began."""
    probes = client.run(probe_worker, list(files), on_error="return")
    return [
        f"worker {address} sees other data than when the run began ({files[0]}): make sure that "
        "nothing writes to it, and run again"
        for address, probe in probes.items()
        # A worker that died meanwhile has read what the others read.
        if isinstance(probe, WorkerProbe) and probe.digest not in ("", digest)
    ]


def _check_probe(where: str, probe: WorkerProbe, files: Sequence[str], digest: str) -> list[str]:
    findings = []
    if probe.free_bytes < MIN_DISK_SPACE:
        findings.append(
            f"{where} has {probe.free_bytes / MIB:,.0f} MiB free in {probe.folder}, where it "
            f"spills, and needs {MIN_DISK_SPACE // MIB} MiB: start it with --local-directory on a "
            "larger disk"
        )
    if probe.failure:
        findings.append(
            f"{where} can't read the input ({probe.failure}): put it where all workers see it "
            "under the same path, or pass a URL"
        )
    elif probe.digest != digest:
        findings.append(
            f"{where} sees other data under the same path ({files[0]}): copy the input there again"
        )
    return findings


def check_new_worker(worker: Worker, requirements: Requirements) -> list[str]:
    """Return the problems of a worker that joins; runs on the worker."""
    from distributed.versions import get_versions

    where = f"worker {worker.address}"
    versions = get_versions(packages=list(LIBRARIES))
    if findings := _compare_versions(where, requirements.versions, versions):
        return findings
    limit = int(worker.memory_manager.memory_limit or 0)
    threads = worker.state.nthreads
    budget = budget_of_workers([(limit, threads)])
    return [
        *_check_worker_memory(where, limit, threads, budget, requirements.partition_bytes),
        *_check_probe(
            where,
            probe_worker(requirements.files, worker),
            requirements.files,
            requirements.digest,
        ),
    ]


def probe_worker(files: Sequence[str], dask_worker: Worker) -> WorkerProbe:
    """Report a worker's clock and disk space, and the fingerprint of files; runs on the worker."""
    from segmentation.datasets.layouts import fingerprint
    from segmentation.errors import SegmentationError

    digest, failure = "", ""
    try:
        digest = fingerprint(tuple(files)) if files else ""
    except (SegmentationError, OSError) as error:
        failure = format_error(error)[:200]
    folder = dask_worker.local_directory
    return WorkerProbe(time.time(), folder, shutil.disk_usage(folder).free, digest, failure)


def path_exists(path: str) -> bool:
    """Tell whether a path exists; runs on a worker."""
    return os.path.exists(path)


def check_shared_path(client: Client, path: str) -> list[str]:
    """Find workers that don't see a file that the job has just created."""
    results = client.run(path_exists, path, on_error="return")
    folder = os.path.dirname(path)
    return [
        f"worker {address} doesn't see {folder}, where it has to write: choose a folder that all "
        "workers share"
        for address, result in results.items()
        if result is not True
    ]


def _shorten_version(version: str) -> str:
    # Dask reports Python's version as 3.11.7.final.0.
    return ".".join(version.split(".")[:3])


def _versions_differ(name: str, mine: str | None, theirs: str | None) -> bool:
    if mine is None or theirs is None or mine == theirs:
        return False
    parts = None if name in _SAME_RELEASE else 2
    return mine.split(".")[:parts] != theirs.split(".")[:parts]
