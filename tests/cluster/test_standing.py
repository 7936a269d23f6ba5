"""A scheduler that stands and workers that have never seen this package; real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster.processes import assert_equal, job, standing

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_the_package_comes_with_the_job(
    python: Path, shared_cache: Path, ratings: Path, expected: Path, tmp_path: Path
) -> None:
    with standing(python, tmp_path / "c", cache=shared_cache) as cluster:
        out = tmp_path / "out"
        options = ["--data", str(ratings), "--out", str(out), "--partition-size", "256KiB"]
        config = tmp_path / "two.yaml"
        config.write_text("kind: remote\nworkers: 2\n")
        options += ["--cluster", str(config), "--address", cluster.address]
        run = job(tmp_path / "job", *options)
        assert run.wait(300) == 0, run.text() + cluster.logs()
        assert_equal(out, expected)
        manifest = json.loads((out / "run.json").read_text())
        assert manifest["cluster"]["kind"] == "remote"
        assert manifest["cluster"]["workers"] == 2
        assert manifest["cluster"]["address"] == cluster.address
        assert manifest["cluster"]["dashboard"].startswith("http://127.0.0.1:")
        assert "distributed.segmentation" not in run.text()
        logs = "".join(worker.text() for worker in cluster.workers)
        assert f"ratings: {ratings}/ratings.csv, bytes " in logs
        stages = {stage["name"]: stage for stage in manifest["stages"]}
        assert stages["ratings"]["tasks"] > 3 * 15
        assert stages["ratings"]["bytes"] > 1e6
        assert stages["report"]["tasks"] == 0
