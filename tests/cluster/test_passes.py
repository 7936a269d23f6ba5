"""Hundreds of passes through a scheduler and a worker in processes of their own."""

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
from segmentation.estimators._blockwise import rows_of

pytestmark = pytest.mark.cluster

_PASSES = 300


@pytest.fixture
def standing(tmp_path: Path):
    """A scheduler and a worker as their own command lines start them."""
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


def test_the_scheduler_does_not_grow(standing) -> None:
    client, scheduler = standing
    X = np.random.default_rng(0).normal(size=(4_000, 5))
    held = da.from_array(X, chunks=(1_000, 5)).persist()
    wait(held)
    rows, sets = rows_of(held), [X[:4]]

    def state() -> tuple[int, int]:
        tasks = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        return tasks, scheduler.memory_info().rss

    for _ in range(50):
        _lloyd.lloyd_pass(rows, sets)
    tasks, memory = state()
    for _ in range(_PASSES):
        _lloyd.lloyd_pass(rows, sets)
    # What a pass leaves is let go of a moment after it.
    deadline = time.monotonic() + 10
    while (after := state())[0] > tasks and time.monotonic() < deadline:
        time.sleep(0.1)
    assert after[0] <= tasks, "tasks of earlier passes are still known"
    # Logs of bounded length fill up: some kilobytes a pass would be a leak of the rows.
    assert after[1] - memory < _PASSES * 40_000
