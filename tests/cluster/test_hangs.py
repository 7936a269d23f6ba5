"""A worker hangs at a stage: the run continues, with the same result."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.faults import SLOW_FAULT_STAGES, hang_worker, run_with_fault
from tests.cluster.processes import RunningCluster, assert_equal

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.mark.parametrize("stage", SLOW_FAULT_STAGES)
def test_the_run_goes_on(
    cluster: RunningCluster, ratings: Path, expected: Path, tmp_path: Path, stage: str
) -> None:
    run_with_fault(cluster, hang_worker, stage, ratings, tmp_path / "out")
    assert_equal(tmp_path / "out", expected)
