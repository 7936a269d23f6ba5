"""Faults of workers, and the stages of a run at which to inject them; for tests and the soak."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client

from jobs import segment
from segmentation import progress
from segmentation.estimators import _lloyd, metrics, stability
from segmentation.features import aggregate, shuffle
from segmentation.pipeline import stages
from tests.cluster.processes import Process, RunningCluster

#: The passes of K-Means on the tests' data, with the last one, which makes the inertia exact.
PASSES = 2
STAGES = (
    "reading",
    "shuffling",
    "summing",
    "merging",
    *(f"pass {n}" for n in range(1, PASSES + 1)),
    "pca",
    "writing",
    "quality",
    "stability",
)
#: A kill is tried at every stage. The slower faults are tried at these, one for each way in which a
#: stage depends on its workers, and at all of them by the soak.
SLOW_FAULT_STAGES = (
    STAGES if os.environ.get("ALL_STAGES") else ("reading", "merging", "pass 2", "stability")
)


def kill_worker(cluster: RunningCluster, worker: Process) -> None:
    """Send SIGKILL to a worker and its nanny, as when a machine goes down."""
    worker.kill()


def hang_worker(cluster: RunningCluster, worker: Process) -> None:
    """Send SIGSTOP to a worker: its connections stay open, and only its nanny answers."""
    for child in psutil.Process(worker.pid).children(recursive=True):
        if "spawn_main" in " ".join(child.cmdline()):
            child.suspend()


def exhaust_memory(cluster: RunningCluster, worker: Process) -> None:
    """Allocate memory on a worker until its nanny ends and restarts it."""

    def hog(dask_worker: Any = None) -> None:
        import time

        blocks = []
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            blocks.append(b"x" * (1 << 27))
            time.sleep(0.02)

    def run() -> None:
        with Client(cluster.address, set_as_default=False) as client:
            addresses = {
                info["name"]: address
                for address, info in client.scheduler_info(n_workers=-1)["workers"].items()
            }
            name = f"w{cluster.workers.index(worker)}"
            client.run(hog, workers=[addresses[name]], on_error="ignore")

    threading.Thread(target=run, daemon=True).start()


class Once:
    """Call a function the first time only, and remember that it was called."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function
        self.was_called = False

    def __call__(self) -> None:
        if not self.was_called:
            self.was_called = True
            self.function()


@contextmanager
def at_stage(stage: str, inject: Callable[[], None]) -> Iterator[None]:
    """Inject a fault once, as soon as the job in this process reaches a stage."""
    once = Once(inject)
    with pytest.MonkeyPatch.context() as patch:
        if stage in ("shuffling", "summing"):
            # As if the sums of rows in random order exceeded the workers' memory.
            patch.setattr(shuffle, "exceeds_memory", lambda *arguments: True)
        if stage in ("reading", "shuffling"):
            _patch_progress(patch, once)
        elif stage == "summing":
            # Sketches are submitted when all partitions are shuffled.
            _call_before(
                patch, aggregate, "map_tasks", once, lambda client, name, *_: name == "sketch"
            )
        elif stage == "merging":
            _call_before(patch, aggregate, "merge_by_user_range", once)
        elif stage == "pca":
            _call_before(patch, stages, "fit_pca", once)
        elif stage == "writing":
            _call_before(patch, stages, "write_assignments", once)
        elif stage == "quality":
            _call_before(patch, metrics, "silhouette_score", once)
        elif stage == "stability":
            # The sample is put on the cluster, and the fits are about to be repeated on it.
            _call_before(patch, stability, "share_value", once)
        else:
            passes = iter(range(1, 1000))
            number = int(stage.split()[1])
            _call_before(patch, _lloyd, "lloyd_pass", once, lambda *_: next(passes) == number)
        yield
    assert once.was_called, f"the run never reached {stage}"


def _call_before(
    patch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    function: Callable[[], None],
    condition: Callable[..., bool] = lambda *_: True,
) -> None:
    """Call a function before each call of a module's function that meets the condition."""
    original = getattr(module, name)

    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        if condition(*arguments):
            function()
        return original(*arguments, **keywords)

    patch.setattr(module, name, wrapper)


def _patch_progress(patch: pytest.MonkeyPatch, function: Callable[[], None]) -> None:
    """Call a function once three partitions are read."""
    original = progress.Stage.update

    def update(self: Any, done: int, total: int, unit: str, rows: int | None = None) -> None:
        if unit == "partitions" and done >= 3:
            function()
        original(self, done, total, unit, rows)

    patch.setattr(progress.Stage, "update", update)


def start_workers(cluster: RunningCluster, n_workers: int) -> None:
    """Start workers until so many are running."""
    while len(running_workers(cluster)) < n_workers:
        cluster.start_worker()


def running_workers(cluster: RunningCluster) -> list[Process]:
    return [worker for worker in cluster.workers if worker.is_running()]


def run_job(cluster: RunningCluster, data: Path, out: Path) -> int:
    """Run the job in this process, with partitions small enough for faults between them."""
    return segment.main(
        [
            "--data",
            str(data),
            "--out",
            str(out),
            "--partition-size",
            "64KiB",
            "--quiet",
            "--address",
            cluster.address,
        ]
    )


def run_with_fault(
    cluster: RunningCluster,
    fault: Callable[[RunningCluster, Process], None],
    stage: str,
    data: Path,
    out: Path,
) -> None:
    """Run the job on three workers, and inject a fault into one of them at a stage."""
    start_workers(cluster, 3)
    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(3, timeout=60)
    victim = running_workers(cluster)[0]
    with at_stage(stage, lambda: fault(cluster, victim)):
        assert run_job(cluster, data, out) == 0, cluster.logs()
