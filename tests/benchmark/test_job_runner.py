"""The runner of whole jobs: cold processes, measured, and only where their genre means agree."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segmentation.benchmark import job_peers, job_runner
from tests.conftest import write_tiny


def ignore(line: str) -> None:
    pass


@pytest.fixture
def data(tmp_path: Path) -> job_runner.JobData:
    folder = write_tiny(tmp_path / "tiny")
    return job_runner.JobData(folder, folder / "ratings.csv", folder / "none.parquet", 6)


def run_python(code: str, memory_limit: float = 1e12) -> job_runner.ProcessCost:
    return job_runner.run_process([sys.executable, "-c", code], memory_limit)


def test_a_process_is_measured_with_its_children() -> None:
    code = """
import subprocess, sys
child = "import time; x = bytearray(60_000_000); t = time.process_time()\\n"
child += "while time.process_time() - t < 0.5: pass"
subprocess.Popen([sys.executable, "-c", child]).wait()
"""
    started = time.perf_counter()
    cost = run_python(code)
    assert cost.cpu_seconds > 0.5
    assert 0.5 < cost.seconds <= time.perf_counter() - started
    assert 60_000_000 < cost.peak_memory_bytes < 300_000_000


def test_libraries_have_two_threads() -> None:
    run_python("import os; assert os.environ['OMP_NUM_THREADS'] == '2'")


def test_the_last_line_of_a_failure_is_kept() -> None:
    with pytest.raises(RuntimeError, match=r"^ValueError: broken \(status 1\)$"):
        run_python("raise ValueError('broken')")
    with pytest.raises(RuntimeError, match=r"^no output \(status 3\)$"):
        run_python("import os; os._exit(3)")


def test_a_process_that_takes_too_much_memory_is_killed() -> None:
    code = "import time; x = bytearray(100_000_000); time.sleep(60)"
    with pytest.raises(job_runner.OutOfMemoryError, match=r"^out of memory: more than 0.1 GB$"):
        run_python(code, 90_000_000)


def test_a_hanging_process_is_killed(monkeypatch) -> None:
    monkeypatch.setattr(job_runner, "_TIMEOUT_SECONDS", 0.1)
    with pytest.raises(RuntimeError, match=r"^no output \(status -9\)$"):
        run_python("import time; time.sleep(60)")


def test_failures_have_a_reason(data: job_runner.JobData, monkeypatch) -> None:
    absent = job_peers.JobPeer("Absent", "no_such_module", job_peers.read_columns)
    monkeypatch.setitem(job_peers.PEERS, "absent", absent)
    data = data._replace(csv=data.folder / "none.csv")
    floor, absent_times = job_runner.time_jobs(data, ["floor", "absent"], 2, ignore)
    assert floor.failure is not None
    assert "none.csv" in floor.failure
    assert floor.failure.endswith("(status 1)")
    assert absent_times.failure == "no_such_module is not installed"
    assert floor.seconds == absent_times.seconds == []
    assert list(data.folder.glob("tmp*")) == []


def test_the_memory_limit_is_a_share_of_the_machine(data: job_runner.JobData, monkeypatch) -> None:
    monkeypatch.setattr(job_runner, "_get_machine_memory", lambda: 50_000_000)
    (times,) = job_runner.time_jobs(data, ["pandas"], 2, ignore)
    assert times.failure == "out of memory: more than 0.0 GB"
    assert times.out_of_memory_bytes == 40_000_000
    assert times.seconds == []


def test_rounds_rotate_and_slow_jobs_run_once(data: job_runner.JobData, monkeypatch) -> None:
    runs: list[str] = []

    def time_job(entry: job_runner.JobTimes, data: job_runner.JobData, out: Path) -> None:
        runs.append(entry.name)
        entry.seconds.append(400.0 if entry.name == "duckdb" else 1.0)

    monkeypatch.setattr(job_runner, "_time_job", time_job)
    monkeypatch.setattr(job_runner, "read_genre_means", lambda path: means(Drama=[1.0, 2.0]))
    monkeypatch.setattr(job_runner.importlib.util, "find_spec", lambda module: module)
    job_runner.time_jobs(data, ["threads", "duckdb", "floor"], 3, ignore)
    assert runs == ["threads", "duckdb", "floor", "floor", "threads", "floor", "threads"]


def means(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.Index([1, 2], name="userId"))


def test_means_that_differ_are_an_error() -> None:
    expected = means(Crime=[3.0, 0.0], Drama=[1.0, 4.0])
    job_runner.check_genre_means(means(Crime=[3.0, 0.0], Drama=[1.0, 4.0004]), expected)
    for other in (
        means(Crime=[3.0, 0.0], Drama=[1.0, 4.01]),
        means(Crime=[3.0, 0.0]),
        expected.set_axis(pd.Index([1, 3])),
    ):
        with pytest.raises(RuntimeError, match="its genre means differ from those of the first"):
            job_runner.check_genre_means(other, expected)


def test_means_from_the_assignments_of_any_job(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "userId": [2, 1, 3],
            "segment": [0, 1, 0],
            "pc1": [0.0] * 3,
            "mean_rating": [1.0] * 3,
            "Drama": [4.0, 1.0, np.nan],
            "Crime": [np.nan, 3.0, 0.0],
            "War": [0.0] * 3,
        }
    )
    table.to_parquet(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(
        job_runner.read_genre_means(tmp_path / "a.parquet"),
        means(Crime=[3.0, 0.0], Drama=[1.0, 4.0]),
    )


def test_medians_are_recorded() -> None:
    times = job_runner.JobTimes("threads", "ours", [3.0, 1.0, 5.0], [2.0, 1.0], [4.0], [])
    record = times.to_json()
    assert record["seconds"] == [3.0, 1.0, 5.0]
    assert record["median_seconds"] == 3.0
    assert record["median_to_assignments"] == 1.5
    assert record["median_peak_memory_bytes"] is None
