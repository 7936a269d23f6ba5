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
        run = job(tmp_path / "job", *options, "--address", cluster.address)
        assert run.wait(300) == 0, run.text() + cluster.logs()
        assert_equal(out, expected)
        manifest = json.loads((out / "run.json").read_text())
        assert manifest["cluster"]["kind"] == "remote"
        assert manifest["cluster"]["workers"] == 2
        assert manifest["cluster"]["address"] == cluster.address
        print(run.text())
        print(json.dumps(manifest["cluster"]), json.dumps(manifest["stages"]))
