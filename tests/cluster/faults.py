"""What can befall a worker, and the moments at which it does; for tests and the soak."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client

from jobs import segment
from segmentation import progress
from segmentation.estimators import _lloyd
from segmentation.features import aggregate, shuffle
from segmentation.pipeline import stages
from tests.cluster.processes import Process, Standing

#: As many as K-Means takes on the tests' data, with the one that makes the inertia exact.
PASSES = 2
STAGES = (
    "reading",
    "shuffling",
    "summing",
    "merging",
    *(f"pass {n}" for n in range(1, PASSES + 1)),
    "pca",
    "writing",
)


def killed(cluster: Standing, worker: Process) -> None:
    """SIGKILL for a worker and its nanny, as when a machine goes down."""
    worker.kill()


def hung(cluster: Standing, worker: Process) -> None:
    """SIGSTOP for the worker: its connections stand, and nothing answers; its nanny does."""
    for child in psutil.Process(worker.pid).children(recursive=True):
        if "spawn_main" in " ".join(child.cmdline()):
            child.suspend()


def out_of_memory(cluster: Standing, worker: Process) -> None:
    """Allocate until the nanny ends the worker, and starts it anew."""

    def hog(dask_worker: Any = None) -> None:
        import time

        held = []
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            held.append(b"x" * (1 << 27))
            time.sleep(0.02)

    def run() -> None:
        with Client(cluster.address, set_as_default=False) as client:
            names = {
                info["name"]: address
                for address, info in client.scheduler_info(n_workers=-1)["workers"].items()
            }
            name = f"w{cluster.workers.index(worker)}"
            client.run(hog, workers=[names[name]], on_error="ignore")

    threading.Thread(target=run, daemon=True).start()


@contextmanager
def at(stage: str, happen: Callable[[], None]) -> Any:
    """Let something happen once, as soon as the job in this process comes to a stage."""
    happened: list[bool] = []

    def once() -> None:
        if not happened:
            happened.append(True)
            happen()

    with pytest.MonkeyPatch.context() as patch:

        def before(place: Any, name: str, wanted: int = 1) -> None:
            calls = []
            original = getattr(place, name)

            def wrapped(*arguments: Any, **more: Any) -> Any:
                calls.append(None)
                if len(calls) == wanted:
                    once()
                return original(*arguments, **more)

            patch.setattr(place, name, wrapped)

        if stage in ("shuffling", "summing"):
            # As where sums of rows in random order take more than the workers have.
            patch.setattr(shuffle, "exceeds_memory", lambda *known: True)
        if stage in ("reading", "shuffling"):
            update = progress.Stage.update

            def told(self: Any, done: int, total: int, unit: str, rows: int | None = None) -> None:
                if unit == "partitions" and done >= 3:
                    once()
                update(self, done, total, unit, rows)

            patch.setattr(progress.Stage, "update", told)
        elif stage == "summing":
            submit = aggregate.map_tasks

            def submitted(client: Any, name: str, *more: Any) -> Any:
                # All are on their way out of the shuffle.
                if name == "sketch":
                    once()
                return submit(client, name, *more)

            patch.setattr(aggregate, "map_tasks", submitted)
        elif stage == "merging":
            before(aggregate, "merge_by_user_range")
        elif stage == "pca":
            before(stages, "find_axes")
        elif stage == "writing":
            before(stages.tables, "write")
        else:
            before(_lloyd, "lloyd_pass", int(stage.split()[1]))
        yield
    assert happened, f"the run never came to {stage}"


def tidy(cluster: Standing, workers: int) -> None:
    """Start workers until there are as many as wanted."""
    while sum(worker.running() for worker in cluster.workers) < workers:
        cluster.start_worker()


def alive(cluster: Standing) -> list[Process]:
    return [worker for worker in cluster.workers if worker.running()]


def run(cluster: Standing, data: Path, out: Path) -> int:
    """Run the job in this process, in partitions enough for something to happen between them."""
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


def survives(
    cluster: Standing, fault: Callable[[Standing, Process], None], stage: str, data: Path, out: Path
) -> None:
    """Run the job on three workers, one of which the fault befalls at a stage."""
    tidy(cluster, 3)
    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(3, timeout=60)
    victim = alive(cluster)[0]
    with at(stage, lambda: fault(cluster, victim)):
        assert run(cluster, data, out) == 0, cluster.logs()
