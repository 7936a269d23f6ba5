"""The report on the whole job: measured in cold processes, shown as a table and a figure."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from jobs import benchmark
from segmentation.benchmark import job_peers, job_report
from segmentation.benchmark.job_runner import JobTimes
from tests.conftest import write_tiny


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the job for five entries on 20,000 synthetic ratings."""
    out = tmp_path_factory.mktemp("jobs") / "out"
    options = ["--sizes", "20000", "--rounds", "1", "--quiet", "--out", str(out)]
    peers = ["threads", "threads-parquet", "pandas", "dask", "floor"]
    assert benchmark.main([*options, "--peers", ",".join(peers)]) == 0
    return out


def test_the_results(out: Path, capsys) -> None:
    record = json.loads((out / "benchmark.json").read_text())
    (size,) = record["results"]
    assert size["rows"] == 20_000
    assert size["synthetic"] is True
    names = [entry["name"] for entry in size["entries"]]
    assert names == ["threads", "threads-parquet", "pandas", "dask", "floor"]
    for entry in size["entries"]:
        assert entry["failure"] is None
        assert 0 < entry["median_to_assignments"] <= entry["median_seconds"]
        assert entry["median_cpu_seconds"] > 0.1
        assert entry["median_peak_memory_bytes"] > 30_000_000
    assert {"ratings", "kmeans", "report"} <= set(size["entries"][0]["stages"][0])
    assert (out / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "benchmark.md").read_text()
    assert text == job_report.format_table(record)
    ours, peer = size["entries"][0], size["entries"][2]
    ratio = peer["median_to_assignments"] / ours["median_to_assignments"]
    assert f"| pandas + scikit-learn | {peer['median_to_assignments']:.2f} |" in text
    assert f"| {ratio:.2f} × |" in text
    assert "### 20,000 synthetic ratings" in text
    assert benchmark.main(["--out", str(out)]) == 2
    assert "already holds a benchmark" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["polars", "duckdb", "spark"])
def test_peers_find_our_genre_means(tmp_path: Path, name: str) -> None:
    module = job_peers.PEERS[name].module
    if not importlib.util.find_spec(module):
        pytest.skip(f"{module} is not installed; `make benchmark` installs the peers")
    out = tmp_path / "out"
    options = ["--sizes", "20000", "--rounds", "1", "--quiet", "--out", str(out)]
    assert benchmark.main([*options, "--peers", f"threads,{name}"]) == 0
    (size,) = json.loads((out / "benchmark.json").read_text())["results"]
    assert [entry["failure"] for entry in size["entries"]] == [None, None]


def test_rows_of_the_table() -> None:
    times = JobTimes("threads", "ours", [3.0], [2.0], [4.5], [7_000_000])
    row = job_report.format_job(times.to_json(), 1.0, 8.0, 6_000_000)
    assert row == "| ours | 2.00 | 3.00 | 2.00 × | 0.25 × | 4.5 | 7 | 3.0 |"
    row = job_report.format_job(times.to_json(), None, None, 6_000_000)
    assert row == "| ours | 2.00 | 3.00 | – | – | 4.5 | 7 | 3.0 |"
    failed = JobTimes("pandas", "pandas", failure="out of memory: more than 20.0 GB")
    row = job_report.format_job(failed.to_json(), 1.0, 1.0, 6)
    assert row == "| pandas | out of memory: more than 20.0 GB |"


def test_the_figure_marks_who_ran_out_of_memory() -> None:
    times = JobTimes("pandas", "pandas", [1.0], [1.0], [1.0], [1_000_000_000])
    failed = JobTimes("pandas", "pandas", failure="out of memory", out_of_memory_bytes=20 * 10**9)
    sizes = [
        {"rows": 10**6, "entries": [times.to_json()]},
        {"rows": 10**7, "entries": [failed.to_json()]},
    ]
    marked = job_report.draw_figure({"results": sizes})
    assert marked.startswith(b"\x89PNG")
    failed.out_of_memory_bytes = None
    sizes[1]["entries"] = [failed.to_json()]
    assert job_report.draw_figure({"results": sizes}) != marked


def test_only_one_local_csv_file(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny")
    (folder / "ratings").mkdir()
    (folder / "ratings.csv").rename(folder / "ratings" / "a.csv")
    out = tmp_path / "out"
    assert benchmark.main(["--data", str(folder), "--out", str(out), "--quiet"]) == 3
    message = "the peers read one local CSV file: pass a folder with one as --data"
    assert message in capsys.readouterr().err
    assert not out.exists()
