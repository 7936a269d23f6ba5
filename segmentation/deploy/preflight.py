"""What is looked at before the first task: all of it, and told in one list with its remedies."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import time
from typing import TYPE_CHECKING, Any

from segmentation.deploy.memory_budget import MIB, budget_of_workers
from segmentation.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from segmentation.deploy.memory_budget import Budget

#: The libraries that results or messages hang on, beside what Dask compares by itself.
LIBRARIES = ("numba", "pyarrow", "scipy", "fsspec")
#: Those whose releases differ in what goes over the wire.
_EXACT = ("dask", "distributed", "cloudpickle")
_SAME_MINOR = ("python", "numpy", "pandas", "numba", "pyarrow", "msgpack")
#: Beside less free room a worker's first spilling may fail, bytes.
LEAST_SPACE = 512 * MIB
_MOST_CLOCK_SECONDS = 30.0
#: As long as a worker may take to answer before there is any work.
_ANSWER_SECONDS = 15.0


def check_versions(client: Any) -> list[str]:
    """Compare client, scheduler and workers; say whatever keeps them from working together."""
    told = client.get_versions(packages=list(LIBRARIES))
    own = told["client"]
    found = []
    others = {"the scheduler": told["scheduler"], **_named(told["workers"])}
    for where, other in others.items():
        found += _of_versions(where, own, other)
    return found


def _of_versions(where: str, own: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    if not other:
        return [f"{where} doesn't tell its versions: start it anew"]
    found = []
    for name in (*_EXACT, *_SAME_MINOR):
        mine, theirs = own["packages"].get(name), other["packages"].get(name)
        if theirs is None:
            found.append(f"{where} has no {name}: install {name} {mine} there")
        elif _differ(name, mine, theirs):
            found.append(
                f"{where} has {name} {_short(theirs)}, and the job {_short(mine)}: install the "
                "same (requirements.lock names them)"
            )
    if other["host"]["byteorder"] != own["host"]["byteorder"]:
        found.append(f"{where} has another byte order: use machines of one kind")
    return found


def check_responsive(client: Any) -> None:
    """See that all workers answer: one that is stopped would be waited for until it is given up.

    Raises
    ------
    ClusterError
        With those that don't within :data:`_ANSWER_SECONDS`.
    """
    from distributed.core import Status

    known = client.scheduler_info(n_workers=-1)["workers"]

    async def ask() -> set[str]:
        asked = {
            address: asyncio.ensure_future(client.run(_present, workers=[address]))
            for address, worker in known.items()
            if worker["status"] == Status.running.name
        }
        if not asked:
            return set()
        await asyncio.wait(asked.values(), timeout=_ANSWER_SECONDS)
        mute = {address for address, answer in asked.items() if not answer.done()}
        for answer in asked.values():
            answer.cancel()
        await asyncio.gather(*asked.values(), return_exceptions=True)
        return mute

    mute = client.sync(ask)
    if mute:
        n = len(mute)
        raise ClusterError(
            f"worker {min(mute)}{f' and {n - 1} more' if n > 1 else ''} did not answer within "
            f"{_ANSWER_SECONDS:g} s: it hangs or is cut off: end it and start it anew"
        )


def _present() -> None:
    """Run on a worker that answers."""


def machine_notes(client: Any) -> list[str]:
    """Say what differs and does no harm but to the last digits."""
    machines = {
        found["host"]["machine"] for found in client.get_versions()["workers"].values() if found
    }
    own = platform.machine()
    if machines <= {own}:
        return []
    others = ", ".join(sorted(machines - {own}))
    return [f"workers are {others}, and the job {own}: last digits may differ"]


def check_memory(client: Any, budget: Budget, partition_bytes: int | None) -> list[str]:
    """Say which workers can't hold what a task of theirs needs."""
    wanted = partition_bytes or budget.partition_bytes
    found = []
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        limit = int(worker["memory_limit"] or 0)
        found += _of_memory(f"worker {address}", limit, worker["nthreads"], budget, wanted)
    return found


def _of_memory(where: str, limit: int, threads: int, budget: Budget, wanted: int) -> list[str]:
    least = budget.least_for(wanted, threads)
    if not limit or limit >= least:
        return []
    smaller = ", or lower --partition-size" if budget.least_for(1, threads) <= limit else ""
    return [
        f"{where} has {limit // MIB:,} MiB for {threads} threads, and partitions of "
        f"{wanted / MIB:,.3g} MiB need {-(-least // MIB):,} MiB: start it with --memory-limit "
        f"{-(-least // MIB)}MiB or fewer threads{smaller}"
    ]


def check_workers(client: Any, files: Sequence[str], digest: str) -> list[str]:
    """Ask each worker for its clock, room on its disk, and what it sees of the input.

    Workers behind one address may be in containers of their own.
    """
    before = time.time()
    answers = client.run(probe_worker, list(files), on_error="return")
    after = time.time()
    found = []
    for address, answer in answers.items():
        where = f"worker {address}"
        if isinstance(answer, BaseException):
            found.append(f"{where} fails ({' '.join(str(answer).split())[:200]}): see its log")
            continue
        off = answer["clock"] - (before + after) / 2
        if abs(off) > _MOST_CLOCK_SECONDS + after - before:
            found.append(f"{where}: its clock is {off:+,.0f} s off: set it by NTP")
        found += _of_look(where, answer, files, digest)
    return found


def _of_look(where: str, answer: Any, files: Sequence[str], digest: str) -> list[str]:
    found = []
    if answer["free"] < LEAST_SPACE:
        found.append(
            f"{where} has {answer['free'] / MIB:,.0f} MiB free in {answer['folder']}, where it "
            f"puts what memory doesn't hold ({LEAST_SPACE // MIB} MiB are asked for): start it "
            "with --local-directory on a larger disk"
        )
    if answer["failure"]:
        found.append(
            f"{where} can't read the input ({answer['failure']}): put it where all workers see "
            "it under the same path, or give a URL"
        )
    elif answer["digest"] != digest:
        found.append(f"{where} sees another input under the same path ({files[0]}): copy it anew")
    return found


def check_new_worker(worker: Any, expected: Mapping[str, Any]) -> list[str]:
    """Say what keeps a worker that joins from taking part; run on it, before it gets a task.

    ``expected`` holds ``files``, their ``digest``, the job's ``versions``, and ``wanted`` bytes of
    a partition.
    """
    from distributed.versions import get_versions

    where = f"worker {worker.address}"
    found = _of_versions(where, expected["versions"], get_versions(packages=list(LIBRARIES)))
    if found:
        return found
    limit = int(worker.memory_manager.memory_limit or 0)
    threads = worker.state.nthreads
    found = _of_memory(
        where, limit, threads, budget_of_workers([(limit, threads)]), expected["wanted"]
    )
    files = expected["files"]
    return found + _of_look(where, probe_worker(files, worker), files, expected["digest"])


def probe_worker(files: Sequence[str], dask_worker: Any = None) -> dict[str, Any]:
    """Tell a worker's clock, free room, and the fingerprint of some files; run there."""
    from segmentation.datasets.layouts import fingerprint
    from segmentation.errors import SegmentationError

    digest, failure = "", ""
    try:
        digest = fingerprint(tuple(files)) if files else ""
    except (SegmentationError, OSError) as error:
        failure = " ".join(str(error).split())[:200]
    folder = dask_worker.local_directory
    return {
        "clock": time.time(),
        "folder": folder,
        "free": shutil.disk_usage(folder).free,
        "digest": digest,
        "failure": failure,
    }


def path_exists(path: str) -> bool:
    """Tell whether there is such a file; run on a worker."""
    return os.path.exists(path)


def check_shared_path(client: Any, token: str) -> list[str]:
    """Say which workers don't see a file that the job has just made in its folder."""
    answers = client.run(path_exists, token, on_error="return")
    return [
        f"worker {address} doesn't see {os.path.dirname(token)}, where it has to write: choose an "
        "--out that all share"
        for address, answer in answers.items()
        if answer is not True
    ]


def _named(workers: Mapping[str, Any]) -> dict[str, Any]:
    return {f"worker {address}": found for address, found in workers.items()}


def _short(version: str) -> str:
    # Python's own comes as 3.11.7.final.0.
    return ".".join(version.split(".")[:3])


def _differ(name: str, mine: str | None, theirs: str | None) -> bool:
    if mine is None or theirs is None or mine == theirs:
        return False
    parts = None if name in _EXACT else 2
    return mine.split(".")[:parts] != theirs.split(".")[:parts]
