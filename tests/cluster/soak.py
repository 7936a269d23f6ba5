"""Repeat the tests of faults and count failures: ``python -m tests.cluster.soak 20``."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter

#: Fault → the tests that inject it at every stage.
FAULTS = {
    "killed": "tests/cluster/test_faults.py::test_a_killed_worker_costs_nothing_but_time",
    "hung": "tests/cluster/test_hangs.py",
    "out of memory": "tests/cluster/test_out_of_memory.py",
    "cut off": "tests/cluster/test_hosts.py::test_a_worker_that_is_cut_off",
}
_RESULT = re.compile(r"^(PASSED|FAILED|ERROR) \S+\[(.+?)\]", re.MULTILINE)


def main(argv: list[str] | None = None) -> int:
    """Run each fault at each stage several times; print runs and failures of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int)
    parser.add_argument("--fault", choices=FAULTS, action="append", help="only this one")
    arguments = parser.parse_args(argv)
    runs: Counter[tuple[str, str]] = Counter()
    failures: Counter[tuple[str, str]] = Counter()
    started = time.monotonic()
    for number in range(1, arguments.rounds + 1):
        for fault in arguments.fault or FAULTS:
            ended = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=short", FAULTS[fault]],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "ALL_STAGES": "1"},
            )
            output = ended.stdout
            if ended.returncode not in (0, 1) or not _RESULT.search(output):
                runs[fault, "(no result)"] += 1
                failures[fault, "(no result)"] += 1
                print(output, file=sys.stderr, flush=True)
            for result, stage in _RESULT.findall(output):
                runs[fault, stage] += 1
                failures[fault, stage] += result != "PASSED"
            if "FAILED" in output or "ERROR" in output:
                print(output, file=sys.stderr, flush=True)
        minutes = (time.monotonic() - started) / 60
        print(
            f"round {number}: {sum(runs.values())} runs, {sum(failures.values())} failures, "
            f"{minutes:.0f} min",
            flush=True,
        )
    for fault, stage in runs:
        print(f"{fault:14} {stage:10} {runs[fault, stage]} runs, {failures[fault, stage]} failures")
    return 1 if sum(failures.values()) or not runs else 0


if __name__ == "__main__":
    sys.exit(main())
