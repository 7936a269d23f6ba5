"""What is looked at before the first task: all of it, and told in one list with its remedies."""

from __future__ import annotations

import os
import platform
import shutil
import time
from typing import TYPE_CHECKING, Any

from segmentation.run.budget import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from segmentation.run.budget import Budget

#: The libraries that results or messages hang on, beside what Dask compares by itself.
LIBRARIES = ("numba", "pyarrow", "scipy", "fsspec")
#: Those whose releases differ in what goes over the wire.
_EXACT = ("dask", "distributed", "cloudpickle")
_SAME_MINOR = ("python", "numpy", "pandas", "numba", "pyarrow", "msgpack")
#: Beside less free room a worker's first spilling may fail, bytes.
LEAST_SPACE = 512 * MIB
_MOST_CLOCK_SECONDS = 30.0


def versions(client: Any) -> list[str]:
    """Compare client, scheduler and workers; say whatever keeps them from working together."""
    told = client.get_versions(packages=list(LIBRARIES))
    own = told["client"]
    found = []
    others = {"the scheduler": told["scheduler"], **_named(told["workers"])}
    for where, other in others.items():
        if not other:
            found.append(f"{where} doesn't tell its versions: start it anew")
            continue
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


def notes(client: Any) -> list[str]:
    """Say what differs and does no harm but to the last digits."""
    machines = {
        found["host"]["machine"] for found in client.get_versions()["workers"].values() if found
    }
    own = platform.machine()
    if machines <= {own}:
        return []
    others = ", ".join(sorted(machines - {own}))
    return [f"workers are {others}, and the job {own}: last digits may differ"]


def memory(client: Any, budget: Budget, partition_bytes: int | None) -> list[str]:
    """Say which workers can't hold what a task of theirs needs."""
    wanted = partition_bytes or budget.partition_bytes
    found = []
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        limit = int(worker["memory_limit"] or 0)
        least = budget.least_for(wanted, worker["nthreads"])
        if limit and limit < least:
            found.append(
                f"worker {address} has {limit // MIB:,} MiB for {worker['nthreads']} threads, and "
                f"partitions of {wanted / MIB:,.3g} MiB need {-(-least // MIB):,} MiB: start it "
                f"with --memory-limit {-(-least // MIB)}MiB or fewer threads"
                + (
                    ", or lower --partition-size"
                    if budget.least_for(1, worker["nthreads"]) <= limit
                    else ""
                )
            )
    return found


def machines(client: Any, files: Sequence[str], digest: str) -> list[str]:
    """Ask each machine for its clock, room on its disk, and what it sees of the input."""
    hosts: dict[str, str] = {}
    for address in client.scheduler_info(n_workers=-1)["workers"]:
        hosts.setdefault(address.rpartition(":")[0], address)
    before = time.time()
    answers = client.run(look, list(files), workers=list(hosts.values()), on_error="return")
    middle = (before + time.time()) / 2
    found = []
    for address, answer in answers.items():
        where = f"worker {address}"
        if isinstance(answer, BaseException):
            found.append(f"{where} fails ({' '.join(str(answer).split())[:200]}): see its log")
            continue
        if abs(answer["clock"] - middle) > _MOST_CLOCK_SECONDS + (time.time() - before):
            found.append(
                f"{where}: its clock is {answer['clock'] - middle:+,.0f} s off: set it by NTP"
            )
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
            found.append(
                f"{where} sees another input under the same path ({files[0]}): copy it anew"
            )
    return found


def look(files: Sequence[str], dask_worker: Any = None) -> dict[str, Any]:
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


def see(path: str) -> bool:
    """Tell whether there is such a file; run on a worker."""
    return os.path.exists(path)


def folder(client: Any, token: str) -> list[str]:
    """Say which workers don't see a file that the job has just made in its folder."""
    answers = client.run(see, token, on_error="return")
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
