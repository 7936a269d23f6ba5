"""A worker that hangs, at every stage: the run goes on, with the same result."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.faults import STAGES, hung, survives
from tests.cluster.processes import Standing, assert_equal

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.mark.parametrize("stage", STAGES)
def test_the_run_goes_on(
    cluster: Standing, ratings: Path, expected: Path, tmp_path: Path, stage: str
) -> None:
    survives(cluster, hung, stage, ratings, tmp_path / "out")
    assert_equal(tmp_path / "out", expected)
