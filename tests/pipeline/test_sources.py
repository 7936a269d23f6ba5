"""Synthetic data in the cache: generated once, also by jobs that start together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_jobs_that_start_together_generate_the_data_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.segment", "--data", "synthetic:20000", "--out"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    jobs = [
        subprocess.Popen(
            [*command, str(tmp_path / name)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for name in "abc"
    ]
    progress = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0], progress
    assert sum("20,000 ratings saved to" in text for text in progress) == 1
