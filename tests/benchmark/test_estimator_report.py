"""The benchmark: contestants in processes of their own, figures that follow from what they did."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import numpy as np
import pytest

from jobs import benchmark
from segmentation.benchmark import estimator_peers, estimator_report, estimator_runner
from tests import oracles
from tests.conftest import write_tiny

QUICK = "ours,sklearn-1,pca,read"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("benchmark") / "out"
    arguments = ["--data", "synthetic:20000", "--rounds", "2", "--copies", "1,3", "--quiet"]
    arguments += ["--estimators", "--peers", QUICK, "--out", str(out)]
    assert benchmark.main(arguments) == 0
    return out


def test_the_figures(measured: Path) -> None:
    record = json.loads((measured / "benchmark.json").read_text())
    assert record["synthetic"] is True
    assert record["versions"]["scikit-learn"]
    one, three = record["results"]
    assert three["rows"] == 3 * one["rows"]
    for result in record["results"]:
        assert [row["name"] for row in result["kmeans"]] == ["ours", "sklearn-1"]
        assert [row["name"] for row in result["pca"]] == ["pca", "read"]
        for row in result["kmeans"] + result["pca"]:
            assert row["failure"] is None
            assert len(row["seconds"]) == 2
            assert row["median_seconds"] == statistics.median(row["seconds"])
            assert row["peak_memory_bytes"] > 10_000_000
        ours, theirs = (row["inertia"] for row in result["kmeans"])
        assert max(ours) <= min(theirs) * 1.001
    assert [row["preset"] for row in record["recovery"]] == ["engagement", "taste", "original"]
    for row in record["recovery"]:
        assert row["ours"] == pytest.approx(row["ceiling"], abs=0.1)


def test_the_table_says_what_the_record_says(measured: Path, capsys) -> None:
    record = json.loads((measured / "benchmark.json").read_text())
    text = (measured / "benchmark.md").read_text()
    assert text == estimator_report.table(record)
    own = record["results"][0]["kmeans"][0]["median_seconds"]
    assert f"| segmentation.KMeans | {own:.3f} | 1.00 × |" in text
    assert "synthetic ratings: synthetic:20000" in text
    assert benchmark.main(["--data", "synthetic:20000", "--out", str(measured)]) == 2
    assert "holds a benchmark already: add --overwrite" in capsys.readouterr().err


def test_who_cannot_run_is_told(tmp_path: Path, monkeypatch) -> None:
    matrix = tmp_path / "matrix.npy"
    np.save(matrix, np.full((30, 2), np.nan, np.float32))
    monkeypatch.setitem(estimator_peers.KMEANS, "absent", ("Absent", "no_such_module", None))
    monkeypatch.setitem(estimator_peers.ALL, "absent", ("Absent", "no_such_module", None))
    told: list[str] = []
    absent, broken = estimator_runner.race(["absent", "sklearn-1"], matrix, 1, told.append)
    assert absent.failure == "no_such_module is not installed"
    assert broken.failure is not None
    assert "NaN" in broken.failure
    assert absent.median is None
    lines = estimator_report._rows(
        [
            estimator_report._record(found, np.zeros((1, 2), np.float32))
            for found in (absent, broken)
        ],
        1.0,
    )
    assert lines[0] == "| Absent | no_such_module is not installed |"


def test_a_slow_one_is_timed_once(tmp_path: Path, monkeypatch) -> None:
    matrix = tmp_path / "matrix.npy"
    np.save(matrix, np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32))
    monkeypatch.setattr(estimator_runner, "_LONG_SECONDS", 0.0)
    (found,) = estimator_runner.race(["sklearn-1"], matrix, 3, lambda _: None)
    assert len(found.seconds) == 1
    assert (
        "(one fit)"
        in estimator_report._rows([estimator_report._record(found, np.load(matrix))], 1.0)[0]
    )


def test_inertia_and_copies() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3)).astype(np.float32)
    centers = rng.normal(size=(4, 3))
    assert estimator_report.inertia(X, centers) == pytest.approx(
        oracles.inertia(X, centers), rel=1e-6
    )
    larger = estimator_report.enlarged(X, 3, 0)
    assert larger.shape == (1500, 3)
    assert larger.dtype == np.float32
    for copy in range(3):
        gap = larger[500 * copy : 500 * (copy + 1)] - X
        assert 0.01 < gap.std() < 0.1
    assert estimator_report.enlarged(X, 1, 0) is X


def test_too_few_users(tmp_path: Path, capsys) -> None:
    data = write_tiny(tmp_path / "tiny")
    out = tmp_path / "out"
    arguments = ["--data", str(data), "--out", str(out), "--quiet", "--estimators"]
    assert benchmark.main(arguments) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: {data}: 2 users that differ, and the benchmark makes 5 segments: give it more "
        "ratings"
    )
    assert not out.exists()


def test_a_strangers_file_stays(tmp_path: Path, capsys) -> None:
    (tmp_path / "benchmark.md").write_text("mine")
    assert benchmark.main(["--overwrite", "--out", str(tmp_path)]) == 2
    assert "is there without a benchmark of ours" in capsys.readouterr().err
    assert (tmp_path / "benchmark.md").read_text() == "mine"


def test_one_group_and_one_round() -> None:
    record = {
        "synthetic": False,
        "preset": "taste",
        "data": "here",
        "threads": 2,
        "machine": "x86_64",
        "cores": 2,
        "rounds": 1,
        "recovery": [],
        "versions": dict.fromkeys(
            ("python", "dask", "dask-ml", "scikit-learn", "faiss-cpu", "pyspark"), "1"
        ),
        "results": [
            {
                "rows": 9,
                "features": 2,
                "copies": 1,
                "pca": [],
                "kmeans": [
                    {
                        "name": "ours",
                        "title": "ours",
                        "seconds": [2.0],
                        "median_seconds": 2.0,
                        "inertia": [1.0],
                        "peak_memory_bytes": 1_000_000,
                        "failure": None,
                    }
                ],
            }
        ],
    }
    text = estimator_report.table(record)
    assert "One fit each, after one to warm up." in text
    assert "PCA" not in text
    assert "| ours (one fit) | 2.000 | 1.00 × | +0.000 % | +0.000 % | 1 |" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "0"], "--rounds 0: from 1 to 1000"),
        (["--estimators", "--copies", "1,x"], "--copies 1,x: give numbers from 1 to 1000"),
        (["--estimators", "--copies", "0"], "--copies 0: give numbers"),
        (["--estimators", "--peers", "ours,julia"], "--peers julia: choose from ours, sklearn-1"),
        (["--peers", "threads,julia"], "--peers julia: choose from threads, local"),
        (["--sizes", "1000,9"], "--sizes 1000,9: give numbers from 1000 to"),
        (["--sizes", "1000", "--estimators"], "--sizes is of the whole job"),
        (["--copies", "3"], "--copies needs --estimators"),
        (["--preset", "taste"], "--preset needs --estimators"),
        (["--ratings", "r.csv"], "--ratings needs --estimators"),
    ],
)
def test_wrong_usage(options: list[str], message: str, tmp_path: Path, capsys) -> None:
    assert benchmark.main([*options, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()
