"""Batch systems: the job scripts that dask-jobqueue writes from a cluster's file."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from segmentation.deploy import jobqueue


@pytest.mark.parametrize(
    ("kind", "directives"),
    [
        ("slurm", ["#SBATCH -p long", "#SBATCH -A grant", "#SBATCH -t 01:30:00", "--mem=6G"]),
        (
            "pbs",
            ["#PBS -q long", "#PBS -A grant", "#PBS -l walltime=01:30:00", "ncpus=8:mem=6144"],
        ),
        ("lsf", ["#BSUB -q long", '#BSUB -P "grant"', "#BSUB -W 01:30\n", "#BSUB -M 6"]),
        ("sge", ["#$ -q long", "#$ -P grant", "#$ -l h_rt=01:30:00"]),
    ],
)
def test_the_job_script(kind: str, directives: list[str], tmp_path: Path) -> None:
    config = {
        "kind": kind,
        "interface": "lo",
        "jobs": 3,
        "workers_per_job": 2,
        "threads_per_worker": 4,
        "memory_per_worker": "3 GiB",
        "queue": "long",
        "account": "grant",
        "walltime": "01:30:00",
        "shared_directory": str(tmp_path),
        "python": "/opt/python",
        "prologue": ["module load python"],
        "dashboard": False,
    }
    with ExitStack() as stack:
        cluster, expected = jobqueue.start_cluster(config, stack)
        with cluster:
            assert expected == 6
            script = cluster.job_script()
    for directive in directives:
        assert directive in script
    assert "module load python" in script
    assert re.search(r"/opt/python -m distributed\.cli\.dask_worker tls://127\.0\.0\.1:", script)
    assert "--nthreads 4" in script
    assert "--nworkers 2" in script
    assert "--dashboard-address 127.0.0.1:0" in script
    # The certificates that were written for the jobs are gone.
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "walltime", "expected"),
    [
        ("slurm", "01:30:00", "01:30:00"),
        ("lsf", "01:30:00", "01:30"),
        ("lsf", "01:30", "01:30"),
        ("lsf", None, None),
    ],
)
def test_lsf_takes_no_seconds(kind: str, walltime: str | None, expected: str | None) -> None:
    assert jobqueue.format_walltime(kind, walltime) == expected


def test_an_adaptive_cluster_starts_with_its_minimum() -> None:
    assert jobqueue._count_jobs({"jobs": 5, "adaptive": {"minimum": 2, "maximum": 9}}) == 2
    assert jobqueue._count_jobs({"jobs": 5}) == 5
    assert jobqueue._count_jobs({}) == 1
