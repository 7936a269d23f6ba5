"""Checks before the first task: versions, memory, disk, clocks, the input, and silent workers."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from distributed.versions import get_versions

from segmentation.datasets.layouts import fingerprint
from segmentation.deploy import preflight
from segmentation.deploy.memory_budget import MIB, budget_of_workers
from segmentation.errors import ClusterError

VERSIONS = get_versions(packages=list(preflight.LIBRARIES))


def test_a_cluster_of_this_process_passes(client: Client, tiny: Path) -> None:
    files = [str(tiny / "ratings.csv")]
    digest = fingerprint(tuple(files))
    assert preflight.check_versions(client) == []
    assert preflight.compare_machines(client) == []
    preflight.check_responsive(client)
    assert preflight.check_workers(client, files, digest) == []
    assert preflight.check_shared_path(client, files[0]) == []
    budget = budget_of_workers([(1 << 30, 2)])
    assert preflight.check_memory(client, budget, MIB) == []


def test_a_worker_that_sees_other_data(client: Client, tiny: Path, tmp_path: Path) -> None:
    files = [str(tiny / "ratings.csv")]
    (finding,) = preflight.check_workers(client, files, "0" * 64)
    assert f"sees other data under the same path ({files[0]}): copy the input there" in finding
    (finding,) = preflight.check_workers(client, [str(tmp_path / "none.csv")], "0" * 64)
    assert "can't read the input (" in finding
    assert "none.csv" in finding
    (finding,) = preflight.check_shared_path(client, str(tmp_path / "none"))
    assert f"doesn't see {tmp_path}, where it has to write" in finding


def other_versions(**packages: str | None) -> dict[str, Any]:
    versions = copy.deepcopy(VERSIONS)
    versions["packages"].update(packages)
    return versions


@pytest.mark.parametrize(
    ("packages", "findings"),
    [
        ({}, []),
        ({"distributed": "2025.1.0"}, ["has distributed 2025.1.0, and the job has "]),
        ({"numba": None}, ["has no numba: install numba "]),
        ({"scipy": "0.1"}, []),
        ({"numpy": "1.2.3", "pandas": "1.2.3"}, ["has numpy 1.2.3", "has pandas 1.2.3"]),
    ],
)
def test_versions_that_differ(packages: dict[str, str | None], findings: list[str]) -> None:
    result = preflight._compare_versions("worker w", VERSIONS, other_versions(**packages))
    assert len(result) == len(findings)
    for line, start in zip(result, findings, strict=True):
        assert line.startswith(f"worker w {start}")


def test_patch_releases_of_most_libraries_may_differ() -> None:
    major, minor, *_ = VERSIONS["packages"]["numpy"].split(".")
    other = other_versions(numpy=f"{major}.{minor}.99")
    assert preflight._compare_versions("worker w", VERSIONS, other) == []
    year, month, *_ = VERSIONS["packages"]["dask"].split(".")
    other = other_versions(dask=f"{year}.{month}.99")
    assert len(preflight._compare_versions("worker w", VERSIONS, other)) == 1


def test_hosts_that_differ() -> None:
    other = copy.deepcopy(VERSIONS)
    other["host"]["byteorder"] = "middle"
    (finding,) = preflight._compare_versions("worker w", VERSIONS, other)
    assert finding == "worker w has another byte order: use machines of one kind"
    (finding,) = preflight._compare_versions("worker w", VERSIONS, {})
    assert finding == "worker w doesn't report its versions: restart it"


class FakeClient:
    """A client whose workers answer as a test says."""

    def __init__(self, workers: dict[str, dict], answers: dict[str, Any] | None = None) -> None:
        self.workers, self.answers = workers, answers or {}

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": self.workers}

    def get_versions(self) -> dict[str, Any]:
        return {"workers": self.answers}

    def run(self, function: object, *arguments: object, on_error: str) -> dict[str, Any]:
        return self.answers


def test_memory_below_one_partition() -> None:
    workers = {
        "a": {"memory_limit": 400 * MIB, "nthreads": 1},
        "b": {"memory_limit": 300 * MIB, "nthreads": 2},
        "unlimited": {"memory_limit": 0, "nthreads": 8},
        "large": {"memory_limit": 1 << 34, "nthreads": 1},
    }
    budget = budget_of_workers([(400 * MIB, 1)])
    # 224 MiB before any data, and 6 bytes for each of a partition.
    assert preflight.check_memory(FakeClient(workers), budget, 256 * MIB) == [
        "worker a has 400 MiB for 1 thread, and partitions of 256 MiB need 1,760 MiB: start it "
        "with --memory-limit 1760MiB or fewer threads, or use smaller partitions",
        "worker b has 300 MiB for 2 threads, and partitions of 256 MiB need 3,296 MiB: start it "
        "with --memory-limit 3296MiB or fewer threads",
    ]


def test_clocks_disks_and_workers_that_fail() -> None:
    now = time.time()
    fine = preflight.WorkerProbe(now, "/scratch", 1 << 40, "d", "")
    probes = {
        "fine": fine,
        "early": fine._replace(clock=now - 100),
        "full": fine._replace(free_bytes=20 * MIB),
        "broken": RuntimeError("no\nidea"),
    }
    early, full, broken = preflight.check_workers(FakeClient({}, probes), ["a.csv"], "d")
    assert early == "worker early: its clock is off by -100 s: set it by NTP"
    assert full.startswith(
        "worker full has 20 MiB free in /scratch, where it spills, and needs 512"
    )
    assert broken == "worker broken fails (no idea): see its log"


def test_machines_that_differ_are_noted() -> None:
    other = {"a": {"host": {"machine": "riscv64"}}, "b": {}}
    (note,) = preflight.compare_machines(FakeClient({}, other))
    assert note.startswith("workers run on riscv64, and the job on ")


class SilentClient(FakeClient):
    """A client some of whose workers never answer."""

    def __init__(self, workers: dict[str, dict], silent: set[str]) -> None:
        super().__init__(workers)
        self.silent = silent

    def sync(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> object:
        return asyncio.run(function())

    async def run(self, function: object, workers: list[str]) -> None:  # type: ignore[override]
        await asyncio.sleep(60 if workers[0] in self.silent else 0)


@pytest.mark.parametrize(
    ("silent", "message"),
    [
        ({"b"}, "worker b did not answer within 0.1 s: end it and start another"),
        ({"b", "c"}, "worker b and 1 more did not answer within 0.1 s"),
    ],
)
def test_silent_workers(silent: set[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_ANSWER_SECONDS", 0.1)
    workers = {name: {"status": "running"} for name in "abc"} | {"d": {"status": "closing"}}
    preflight.check_responsive(SilentClient(workers, {"d"}))
    with pytest.raises(ClusterError, match=message):
        preflight.check_responsive(SilentClient(workers, silent))


def test_findings_are_listed_and_counted() -> None:
    lines: list[str] = []
    preflight.raise_findings([], lines.append)
    with pytest.raises(ClusterError, match=r"^the cluster fails 1 check; one is wrong$"):
        preflight.raise_findings(["one is wrong"], lines.append)
    assert lines == ["  ✗ one is wrong"]
    with pytest.raises(ClusterError, match=r"^the cluster fails 2 checks; the first: one$"):
        preflight.raise_findings(["one", "two"], lines.append)
    assert lines[1:] == ["  ✗ one", "  ✗ two"]
