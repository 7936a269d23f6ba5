"""The whole job beside its peers: measured in cold processes, and only where they agree."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs import benchmark
from segmentation.benchmark import job_peers, job_report, job_runner
from tests.conftest import write_tiny


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    arguments = ["--sizes", "20000", "--rounds", "1", "--quiet", "--out", str(out)]
    peers = ["threads", "threads-parquet", "pandas", "dask", "floor"]
    assert benchmark.main([*arguments, "--peers", ",".join(peers)]) == 0
    return out


def test_the_figures(measured: Path, capsys) -> None:
    record = json.loads((measured / "benchmark.json").read_text())
    assert [result["rows"] for result in record["results"]] == [20_000]
    for result in record["results"]:
        assert result["synthetic"] is True
        names = [entry["name"] for entry in result["entries"]]
        assert names == ["threads", "threads-parquet", "pandas", "dask", "floor"]
        for entry in result["entries"]:
            assert entry["failure"] is None
            assert 0 < entry["median_to_assignments"] <= entry["median_seconds"]
            assert entry["median_cpu_seconds"] > 0.1
            assert entry["median_peak_memory_bytes"] > 30_000_000
        assert {"ratings", "kmeans", "report"} <= set(result["entries"][0]["stages"][0])
    assert (measured / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    text = (measured / "benchmark.md").read_text()
    assert text == job_report.table(record)
    own, peer = record["results"][0]["entries"][0], record["results"][0]["entries"][2]
    ratio = peer["median_to_assignments"] / own["median_to_assignments"]
    assert f"| pandas + scikit-learn | {peer['median_to_assignments']:.2f} |" in text
    assert f"| {ratio:.2f} × |" in text
    assert "### 20,000 synthetic ratings" in text
    assert benchmark.main(["--out", str(measured)]) == 2
    assert "holds a benchmark already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["polars", "duckdb", "spark"])
def test_rivals_find_our_genre_means(tmp_path: Path, measured: Path, name: str, capsys) -> None:
    module = job_peers.RIVALS[name][1]
    if not importlib.util.find_spec(module):
        pytest.skip(f"{module} is one of the peers, which are not installed: make benchmark")
    out = tmp_path / "out"
    arguments = ["--sizes", "20000", "--rounds", "1", "--quiet", "--out", str(out)]
    assert benchmark.main([*arguments, "--peers", f"threads,{name}"]) == 0
    (result,) = json.loads((out / "benchmark.json").read_text())["results"]
    assert [entry["failure"] for entry in result["entries"]] == [None, None]


def means(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.Index([1, 2], name="userId"))


def test_means_that_differ_are_told() -> None:
    expected = means(Crime=[3.0, 0.0], Drama=[1.0, 4.0])
    job_runner._check(means(Crime=[3.0, 0.0], Drama=[1.0, 4.0004]), expected)
    for other in (
        means(Crime=[3.0, 0.0], Drama=[1.0, 4.01]),
        means(Crime=[3.0, 0.0]),
        expected.set_axis(pd.Index([1, 3])),
    ):
        with pytest.raises(RuntimeError, match="genre means are not ours"):
            job_runner._check(other, expected)


def test_means_from_anybodys_table(tmp_path: Path) -> None:
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
    found = job_runner.genre_means(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(found, means(Crime=[3.0, 0.0], Drama=[1.0, 4.0]))


def test_who_fails_is_told_and_stays(tmp_path: Path, monkeypatch) -> None:
    folder = write_tiny(tmp_path / "tiny")
    data = job_runner.Data(folder, folder / "none.csv", folder / "none.parquet", 6)
    monkeypatch.setitem(job_peers.RIVALS, "absent", ("Absent", "no_such_module", job_peers.floor))
    floor, absent = job_runner.measure(data, ["floor", "absent"], 2, lambda _: None)
    assert "none.csv" in (floor.failure or "")
    assert "(status 1)" in (floor.failure or "")
    assert absent.failure == "no_such_module is not installed"
    row = job_report._row(floor.record(), None, None, 6)
    assert row.startswith("| pyarrow reading three columns, no more | ")
    assert list(folder.glob("tmp*")) == []


def test_who_takes_too_much_memory_is_ended_and_shown(tmp_path: Path, monkeypatch) -> None:
    folder = write_tiny(tmp_path / "tiny")
    data = job_runner.Data(folder, folder / "ratings.csv", folder / "none.parquet", 6)
    monkeypatch.setattr(job_runner, "_machine_memory", lambda: 50_000_000)
    (pandas,) = job_runner.measure(data, ["pandas"], 2, lambda _: None)
    assert pandas.failure == "out of memory: more than 0.0 GB"
    assert pandas.out_of_memory_bytes == 40_000_000
    assert pandas.seconds == []
    assert "| out of memory" in job_report._row(pandas.record(), None, None, 6)
    result = {"rows": 6, "entries": [pandas.record()]}
    assert job_report.figure({"results": [result]}).startswith(b"\x89PNG")


def test_the_catalogue_of_the_rivals(tmp_path: Path) -> None:
    pairs = job_peers.genres_of(write_tiny(tmp_path / "tiny"))
    found = sorted(zip(pairs["movieId"], pairs["genre"].astype(str), strict=True))
    assert found == [(10, "Crime"), (10, "Drama"), (20, "Comedy")]


def test_one_local_file_alone(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny")
    (folder / "ratings").mkdir()
    (folder / "ratings.csv").rename(folder / "ratings" / "a.csv")
    out = tmp_path / "out"
    assert benchmark.main(["--data", str(folder), "--out", str(out), "--quiet"]) == 3
    assert "the peers read one local CSV file" in capsys.readouterr().err
    assert not out.exists()
