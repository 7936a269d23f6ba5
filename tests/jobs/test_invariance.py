"""Equal input, settings and seed give equal segments, however the work is split and run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs import segment, synthesize
from segmentation.deploy import local
from segmentation.deploy.memory_budget import Budget
from segmentation.features import aggregate
from tests.jobs.reading import Result, assert_same_users, read

NUMBERS = ["distance", "margin", "pc1", "pc2", "mean_rating"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "synthetic"
    assert synthesize.main(["--rows", "60000", "--out", str(out), "--quiet"]) == 0
    return out


def run(data: Path, out: Path, *options: str) -> Result:
    assert segment.main(["--data", str(data), "--out", str(out), "--quiet", *options]) == 0
    return result(out)


def result(out: Path) -> Result:
    return pd.read_parquet(out / "assignments.parquet"), json.loads((out / "run.json").read_text())


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(data, tmp_path_factory.mktemp("reference") / "out")


def assert_same(actual: Result, expected: Result) -> None:
    """Compare two runs: labels are equal, numbers to 1e-6."""
    assert_same_users(actual, expected)
    frame, other = actual[0], expected[0]
    for name in ("segment", "runner_up"):
        np.testing.assert_array_equal(frame[name], other[name])
    assert frame["persona"].astype(str).tolist() == other["persona"].astype(str).tolist()
    for name in NUMBERS:
        np.testing.assert_allclose(frame[name], other[name], atol=1e-6)
    inertia = (result[1]["kmeans"]["inertia"] for result in (actual, expected))
    assert next(inertia) == pytest.approx(next(inertia), rel=1e-9)


@pytest.mark.parametrize("size", ["1KiB", "37kB", "300kB"])
def test_partition_size(data: Path, reference, client, tmp_path: Path, size: str) -> None:
    if size == "1KiB":
        # 150 partitions of some 40 rows.
        small = cut(data, tmp_path / "small", 6_000)
        actual = read(client, small, "--partition-size", size)
        assert_same_users(actual, run(small, tmp_path / "whole"))
        return
    assert_same(run(data, tmp_path / "out", "--partition-size", size), reference)


@pytest.mark.parametrize("order", ["random", "by time", "backwards"])
def test_row_order(data: Path, reference, tmp_path: Path, order: str) -> None:
    header, *lines = (data / "ratings.csv").read_text().splitlines(keepends=True)
    if order == "random":
        random.Random(0).shuffle(lines)
    elif order == "by time":
        lines.sort(key=lambda line: int(line.rsplit(",", 1)[1]))
    else:
        lines.reverse()
    folder = copy(data, tmp_path / "data")
    (folder / "ratings.csv").write_text(header + "".join(lines))
    assert_same(run(folder, tmp_path / "out", "--partition-size", "100kB"), reference)


@pytest.mark.parametrize("kind", ["threads", pytest.param("local", marks=pytest.mark.cluster)])
def test_random_order_by_a_shuffle(
    data: Path, reference, tmp_path: Path, kind: str, capsys, monkeypatch
) -> None:
    """Dask's shuffle gives the same result, and rejected rows keep their line numbers."""
    header, *lines = (data / "ratings.csv").read_text().splitlines(keepends=True)
    random.Random(1).shuffle(lines)
    lines[4_000:4_000] = ["7,1.5,3.5,1\n"] * 3
    folder = copy(data, tmp_path / "data")
    (folder / "ratings.csv").write_text(header + "".join(lines))
    monkeypatch.setattr(aggregate, "_SUMS_DIVISOR", 10**9)
    out = tmp_path / "out"
    arguments = ["--data", str(folder), "--out", str(out), "--cluster", kind]
    assert segment.main([*arguments, "--partition-size", "100kB"]) == 0
    assert "they are shuffled first" in capsys.readouterr().err
    rejected = pd.read_csv(out / "rejected" / "ratings.csv")
    assert rejected["line"].tolist() == [4_002, 4_003, 4_004]
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["rows"].pop("rejected") == 3
    manifest["rows"] = {**manifest["rows"], "read": manifest["rows"]["read"] - 3, "rejected": 0}
    assert manifest["items"] == reference[1]["items"]
    assert_same((pd.read_parquet(out / "assignments.parquet"), manifest), reference)


@pytest.mark.cluster
@pytest.mark.parametrize(
    "config",
    [
        "kind: threads\nthreads: 1\n",
        "kind: threads\nthreads: 7\n",
        "kind: local\nworkers: 1\nthreads_per_worker: 2\n",
        "kind: local\nworkers: 3\n",
    ],
)
def test_kind_and_size_of_the_cluster(data, reference, tmp_path: Path, config: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(config)
    matches = run(data, tmp_path / "out", "--cluster", str(path), "--partition-size", "200kB")
    assert_same(matches, reference)
    assert matches[1]["cluster"]["kind"] == config.split()[1]


@pytest.mark.parametrize("kind", ["threads", pytest.param("local", marks=pytest.mark.cluster)])
@pytest.mark.parametrize("preset", ["engagement", "taste"])
def test_features_that_are_spilled(
    data: Path, reference, tmp_path: Path, kind: str, preset: str, monkeypatch
) -> None:
    expected = reference
    if preset != "engagement":
        expected = run(data, tmp_path / "expected", "--preset", preset)
    # Of 600 users of about 200 bytes each, a worker keeps some 50 in memory.
    monkeypatch.setattr(Budget, "spill_threshold", property(lambda self: 10_000))
    monkeypatch.setattr(Budget, "block_users", property(lambda self: 20))
    matches = run(
        data, tmp_path / "out", "--cluster", kind, "--preset", preset, "--partition-size", "100kB"
    )
    assert_same(matches, expected)
    memory = matches[1]["cluster"]["memory"]
    assert memory["spilled_bytes"] > 50_000
    assert expected[1]["cluster"]["memory"]["spilled_bytes"] == 0
    assert matches[1]["cluster"]["workers_lost"] == 0
    assert not any(local.cache_dir("spill").rglob("*.spill"))


def test_memory_limit(data: Path, reference, tmp_path: Path, capsys) -> None:
    matches = run(data, tmp_path / "out", "--memory-limit", "700MiB")
    assert_same(matches, reference)
    assert matches[1]["cluster"]["memory"]["limit_bytes"] == 700 << 20
    limited = ["--data", str(data), "--out", str(tmp_path / "none"), "--memory-limit"]
    assert segment.main([*limited, "100MiB"]) == 2
    message = capsys.readouterr().err.strip().splitlines()
    assert len(message) == 1
    assert "--memory-limit 100 MiB" in message[0]
    assert segment.main([*limited, "lots"]) == 2
    assert "--memory-limit" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_seed_decides(data: Path, reference, tmp_path: Path) -> None:
    again = run(data, tmp_path / "again", "--seed", "0")
    pd.testing.assert_frame_equal(again[0], reference[0])


def cut(data: Path, folder: Path, rows: int) -> Path:
    copy(data, folder)
    lines = (data / "ratings.csv").read_text().splitlines(keepends=True)[: rows + 1]
    (folder / "ratings.csv").write_text("".join(lines))
    return folder


def copy(data: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in ("movies_metadata.csv", "links.csv"):
        (folder / name).write_bytes((data / name).read_bytes())
    return folder
