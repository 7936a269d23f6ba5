"""Hundreds of passes on a scheduler and a worker in separate processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import dask.array as da
import numpy as np
import psutil
import pytest
from distributed import Client, wait

from segmentation.estimators import _lloyd
from segmentation.estimators._blockwise import split_rows

pytestmark = pytest.mark.cluster

_PASSES = 300


@pytest.fixture
def separate_processes(tmp_path: Path):
    """A client of a scheduler and a worker, both started by command line; and the scheduler."""
    file = tmp_path / "scheduler.json"
    common = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [
            *common,
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--dashboard-address",
            "127.0.0.1:0",
            "--scheduler-file",
            str(file),
        ],
        **quiet,
    )
    worker = subprocess.Popen(
        [
            *common,
            "worker",
            "--host",
            "127.0.0.1",
            "--nthreads",
            "2",
            "--no-dashboard",
            "--dashboard-address",
            "127.0.0.1:0",
            "--scheduler-file",
            str(file),
            "--local-directory",
            str(tmp_path),
        ],
        **quiet,
    )
    try:
        deadline = time.monotonic() + 60
        while not (file.exists() and file.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.1)
        with Client(scheduler_file=str(file), timeout=60) as client:
            client.wait_for_workers(1, timeout=60)
            yield client, psutil.Process(scheduler.pid)
    finally:
        for process in (worker, scheduler):
            process.terminate()
        for process in (worker, scheduler):
            process.wait(30)


def test_the_scheduler_does_not_grow(separate_processes) -> None:
    client, scheduler = separate_processes
    array = np.random.default_rng(0).normal(size=(4_000, 5))
    X = da.from_array(array, chunks=(1_000, 5)).persist()
    wait(X)
    rows, center_sets = split_rows(X), [array[:4]]

    def measure() -> tuple[int, int]:
        n_tasks = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        return n_tasks, scheduler.memory_info().rss

    for _ in range(50):
        _lloyd.lloyd_pass(rows, center_sets)
    n_tasks, memory = measure()
    for _ in range(_PASSES):
        _lloyd.lloyd_pass(rows, center_sets)
    # The tasks of a pass are released a moment after it.
    deadline = time.monotonic() + 10
    while (after := measure())[0] > n_tasks and time.monotonic() < deadline:
        time.sleep(0.1)
    assert after[0] <= n_tasks, "the scheduler still knows tasks of earlier passes"
    # Bounded logs may still fill up; 40 kB per pass would mean that results leak.
    assert after[1] - memory < _PASSES * 40_000
