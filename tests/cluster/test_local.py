"""Worker processes on this machine: one is killed, none is left behind, all memory counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from jobs import segment, synthesize

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "synthetic"
    assert synthesize.main(["--rows", "400000", "--out", str(out), "--quiet"]) == 0
    return out


def worker_processes(pid: int) -> list[psutil.Process]:
    workers = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                workers.append(child)
        except psutil.Error:
            continue
    return workers


def test_a_worker_killed_while_reading_costs_nothing_but_time(data: Path, tmp_path: Path) -> None:
    options = ["--data", str(data), "--partition-size", "64KiB"]
    assert segment.main([*options, "--out", str(tmp_path / "threads"), "--quiet"]) == 0
    config = tmp_path / "two.yaml"
    config.write_text("kind: local\nworkers: 2\n")
    out, log = tmp_path / "local", tmp_path / "log"
    with log.open("w") as file:
        job = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jobs.segment",
                *options,
                "--out",
                str(out),
                "--cluster",
                str(config),
            ],
            stdout=file,
            stderr=file,
        )
        deadline = time.monotonic() + 120
        while "catalogue:" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        workers = worker_processes(job.pid)
        assert len(workers) == 2
        os.kill(workers[0].pid, signal.SIGKILL)
        assert job.wait(180) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    one, other = (
        pd.read_parquet(tmp_path / n / "assignments.parquet") for n in ("threads", "local")
    )
    for name in ("userId", "segment", "items"):
        np.testing.assert_array_equal(one[name], other[name])
    np.testing.assert_allclose(one["distance"], other["distance"], atol=1e-6)
    rows = [
        json.loads((tmp_path / n / "run.json").read_text())["rows"] for n in ("threads", "local")
    ]
    assert rows[0] == rows[1]
    assert json.loads((out / "run.json").read_text())["cluster"]["workers_lost"] >= 1


def test_no_process_is_left_behind(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "two.yaml"
    config.write_text("kind: local\nworkers: 2\n")
    arguments = ["--data", str(data), "--out", str(tmp_path / "o"), "--cluster", str(config)]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.segment", *arguments, "--quiet"], start_new_session=True
    )
    assert done.returncode == 0
    left = [
        p
        for p in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(p.info["cmdline"] or ())
    ]
    assert left == []


def test_memory_of_all_processes_is_in_the_manifest(data: Path, tmp_path: Path) -> None:
    peaks = {}
    for workers in (1, 3):
        config = tmp_path / f"{workers}.yaml"
        config.write_text(f"kind: local\nworkers: {workers}\n")
        out = tmp_path / str(workers)
        options = ["--data", str(data), "--out", str(out), "--cluster", str(config), "--quiet"]
        assert segment.main(options) == 0
        peaks[workers] = json.loads((out / "run.json").read_text())["peak_memory_bytes"]
    assert peaks[3] > peaks[1] + 100e6
