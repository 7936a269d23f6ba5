"""Every file operation may fail, or be the last: the run ends in one line, and resumes to the same.

The whole sweep takes an hour; ``sweep.py`` says how to run it. Here some operations stand for all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("faulty_disk.c")
ROOT = SOURCE.parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is of Linux")
def test_faults_of_some_operations(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path / "faulty_disk.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-w", "-o", library, SOURCE, "-ldl"], check=True
    )
    command = [sys.executable, "-m", "tests.disk.sweep", library, tmp_path / "sweep"]
    (tmp_path / "sweep").mkdir()
    process = subprocess.run(
        [*command, "ENOSPC,short,kill", "75"],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=280,
    )
    records = [json.loads(line) for line in process.stdout.splitlines()]
    assert [record for record in records if record["problem"]] == []
    outcomes = Counter(record["status"] for record in records)
    # It did fail, was killed, and was resumed.
    assert outcomes[3] > 0
    assert outcomes[-9] == len(records) / 3
    assert records[0]["of"] > 250
