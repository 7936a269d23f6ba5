"""The report on the estimators: the job, and figures that follow from the fits."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import benchmark
from segmentation.benchmark import estimator_report
from segmentation.benchmark.estimator_runner import EstimatorTimes
from segmentation.progress import Progress
from tests import oracles
from tests.conftest import write_tiny


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the job for four peers on 20,000 synthetic ratings."""
    out = tmp_path_factory.mktemp("estimators") / "out"
    options = ["--data", "synthetic:20000", "--estimators", "--rounds", "2", "--copies", "3"]
    options += ["--peers", "ours,sklearn-1,pca,read", "--quiet", "--out", str(out)]
    assert benchmark.main(options) == 0
    return out


def test_the_record(out: Path) -> None:
    record = json.loads((out / "benchmark.json").read_text())
    assert record["synthetic"] is True
    assert record["versions"]["scikit-learn"]
    (size,) = record["results"]
    recovery = record["recovery"]
    assert [row["preset"] for row in recovery] == ["engagement", "taste", "original"]
    for row in recovery:
        assert row["ours"] == pytest.approx(row["ceiling"], abs=0.1)
    assert size["copies"] == 3
    assert size["rows"] == 3 * recovery[0]["rows"]
    assert [row["name"] for row in size["kmeans"]] == ["ours", "sklearn-1"]
    assert [row["name"] for row in size["pca"]] == ["pca", "read"]
    for row in size["kmeans"] + size["pca"]:
        assert row["failure"] is None
        assert len(row["seconds"]) == 2
        assert row["median_seconds"] == statistics.median(row["seconds"])
        assert row["peak_memory_bytes"] > 10_000_000
    ours, peer = (row["inertia"] for row in size["kmeans"])
    assert max(ours) <= min(peer) * 1.001


def test_the_table_has_the_figures_of_the_record(out: Path, capsys) -> None:
    record = json.loads((out / "benchmark.json").read_text())
    text = (out / "benchmark.md").read_text()
    assert text == estimator_report.format_table(record)
    seconds = record["results"][0]["kmeans"][0]["median_seconds"]
    assert f"| segmentation.KMeans | {seconds:.3f} | 1.00 × |" in text
    assert "of synthetic ratings: synthetic:20000" in text
    assert benchmark.main(["--data", "synthetic:20000", "--out", str(out)]) == 2
    assert "already holds a benchmark: pass --overwrite" in capsys.readouterr().err


def test_every_size_is_a_multiple_of_the_matrix(monkeypatch) -> None:
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    center = [0.5, -1.0, 2.0]
    matrices = []

    def time_estimators(names, matrix, rounds, report) -> list[EstimatorTimes]:
        matrices.append(np.load(matrix))
        centers = [center] if "ours" in names else None
        return [EstimatorTimes(name, name, [2.0], [centers]) for name in names]

    monkeypatch.setattr(estimator_report, "time_estimators", time_estimators)
    sizes = estimator_report.compare_peers(X, [1, 3], 1, ["pca", "ours"], Progress())
    assert [(size["rows"], size["features"], size["copies"]) for size in sizes] == [
        (20, 3, 1),
        (60, 3, 3),
    ]
    np.testing.assert_array_equal(matrices[0], X)
    for size, matrix in zip(sizes, matrices[::2], strict=True):
        (k_means,), (pca,) = size["kmeans"], size["pca"]
        distances = ((matrix.astype(np.float64) - center) ** 2).sum()
        assert k_means["inertia"] == pytest.approx([distances])
        assert (pca["name"], pca["inertia"]) == ("pca", [])


def test_inertia_and_copies() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3)).astype(np.float32)
    centers = rng.normal(size=(4, 3))
    assert estimator_report.compute_inertia(X, centers) == pytest.approx(
        oracles.inertia(X, centers), rel=1e-6
    )
    larger = estimator_report.enlarge_matrix(X, 3, 0)
    assert larger.shape == (1500, 3)
    assert larger.dtype == np.float32
    for copy in range(3):
        noise = larger[500 * copy : 500 * (copy + 1)] - X
        assert 0.01 < noise.std() < 0.1
    assert estimator_report.enlarge_matrix(X, 1, 0) is X


def test_too_few_users(tmp_path: Path, capsys) -> None:
    data = write_tiny(tmp_path / "tiny")
    out = tmp_path / "out"
    options = ["--data", str(data), "--out", str(out), "--quiet", "--estimators"]
    assert benchmark.main(options) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: {data}: 2 distinct users, and the benchmark fits 5 segments: use more ratings"
    )
    assert not out.exists()


def peer_record(**values: Any) -> dict[str, Any]:
    record = {
        "name": "ours",
        "title": "ours",
        "seconds": [2.0],
        "median_seconds": 2.0,
        "inertia": [1.0],
        "peak_memory_bytes": 1_000_000,
        "failure": None,
    }
    return {**record, **values}


def test_a_table_of_one_round_and_no_pca() -> None:
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
        "results": [{"rows": 9, "features": 2, "copies": 1, "pca": [], "kmeans": [peer_record()]}],
    }
    text = estimator_report.format_table(record)
    assert "One fit, after a warm-up fit." in text
    assert "PCA" not in text
    assert "| ours (one fit) | 2.000 | 1.00 × | +0.000 % | +0.000 % | 1 |" in text


def test_rows_of_peers_that_failed() -> None:
    rows = [
        peer_record(seconds=[1.0, 2.0, 3.0], inertia=[4.0, 5.0, 6.0]),
        peer_record(
            name="slow",
            title="slow",
            seconds=[4.0, 4.0],
            median_seconds=4.0,
            failure="x",
            inertia=[8.0],
        ),
        peer_record(name="none", title="none", seconds=[], median_seconds=None, failure="no JVM"),
    ]
    assert estimator_report.format_rows(rows, 4.0) == [
        "| ours | 2.000 | 1.00 × | +25.000 % | +50.000 % | 1 |",
        "| slow (2 fits, then: x) | 4.000 | 2.00 × | +100.000 % | +100.000 % | 1 |",
        "| none | no JVM |",
    ]
