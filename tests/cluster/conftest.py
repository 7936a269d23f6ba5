"""What tests on clusters share: data, the expected result, an environment without the package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask
import pytest

from jobs import segment, synthesize
from tests.cluster.processes import RunningCluster, bare_python, running_cluster


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that all workers of a session share, so that kernels are compiled once."""
    return tmp_path_factory.mktemp("workers-cache")


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_python(tmp_path_factory.mktemp("bare") / "env")


@pytest.fixture(scope="session")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ratings") / "synthetic"
    assert synthesize.main(["--rows", "200000", "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="session")
def expected(ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same data under ``threads``."""
    out = tmp_path_factory.mktemp("expected") / "run"
    assert segment.main(["--data", str(ratings), "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def cluster(
    python: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningCluster]:
    """Three workers that tests may damage, and a job that notices within seconds."""
    with (
        dask.config.set({"distributed.comm.timeouts.tcp": "12s"}),
        running_cluster(python, tmp_path_factory.mktemp("cluster"), 3, shared_cache) as cluster,
    ):
        yield cluster
