"""What tests with processes of their own share: data, the reference, an environment without us."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask
import pytest

from jobs import segment, synthesize
from tests.cluster.processes import Standing, bare_python, standing


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that all workers of a session share, so that loops are compiled once."""
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
    """The same run under ``threads``."""
    out = tmp_path_factory.mktemp("expected") / "run"
    assert segment.main(["--data", str(ratings), "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def cluster(
    python: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Standing]:
    """Three workers that tests may do anything to, with a job that finds out soon."""
    with (
        dask.config.set({"distributed.comm.timeouts.tcp": "12s"}),
        standing(python, tmp_path_factory.mktemp("cluster"), 3, shared_cache) as found,
    ):
        yield found
