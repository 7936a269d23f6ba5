"""Fail each file operation of a small run in turn, and resume it.

``python -m tests.disk.sweep LIBRARY FOLDER FAULTS [STEP [PART PARTS]]`` runs in a process that has
preloaded LIBRARY, made from ``faulty_disk.c``, and prints one line of JSON per fault. Each run is a
fork of this process, so that it starts at once.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

FAULTS = {
    "EIO": errno.EIO,
    "ENOSPC": errno.ENOSPC,
    "EDQUOT": errno.EDQUOT,
    "short": -2,
    "kill": -1,
}
_TIMEOUT = 120
#: A tiny run with rejected rows, over input in the folder that fails too.
_ROWS = "".join(f"{user},{10 + 10 * (user % 2)},{user % 9 / 2 + 0.5},1\n" for user in range(3, 200))


def main(
    library: str, folder: Path, faults: list[str], step: int = 1, part: int = 0, n_parts: int = 1
) -> None:
    """Run the sweep in ``folder``."""
    from tests.conftest import write_tiny

    disk = ctypes.CDLL(library)
    disk.failed_operation.restype = ctypes.c_char_p
    folder = folder.resolve()
    data = write_tiny(folder / "data")
    with (data / "ratings.csv").open("a") as file:
        file.write(_ROWS + "no rating\n")
    run(disk, folder, "expected")
    expected = read_results(folder / "expected")
    result = run(disk, folder, "count", armed=(0, 0))
    n_operations = result["operations"]
    for n in range(1 + part * step, n_operations + 1, step * n_parts):
        for name in faults:
            kind = FAULTS[name]
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            first = run(disk, folder, "out", armed=(n, kind))
            problem = judge(first, out, expected)
            second: dict[str, Any] = {}
            if problem is None and first["status"] != 0:
                second = run(disk, folder, "out", "--resume")
                problem = judge_resumed(second, out, expected)
            record = {
                "n": n,
                "of": n_operations,
                "fault": name,
                "operation": first["operation"],
                "status": first["status"],
                "resumed": second.get("status"),
                "problem": problem,
            }
            print(json.dumps(record), flush=True)


def run(
    disk: Any, folder: Path, out: str, *options: str, armed: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Fork, run the job, and return its status, its messages and the operation that failed."""
    report = folder.with_name(folder.name + ".report")
    messages = folder.with_name(folder.name + ".messages")
    report.write_text("{}")
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            sys.stdout = sys.stderr = messages.open("w")
            from jobs import segment

            if armed is not None:
                disk.arm(str(folder).encode(), *armed)
            arguments = ["--data", str(folder / "data"), "--out", str(folder / out)]
            limits = ["--max-rejected", "0.5", "--partition-size", "1KiB"]
            status = segment.main([*arguments, "--k", "2", *limits, *options])
            count, failed = disk.operations(), disk.failed_operation().decode()
            disk.arm(b"", 0, 0)
            report.write_text(json.dumps({"operations": count, "operation": failed}))
        finally:
            sys.stderr.flush()
            os._exit(status)
    deadline = time.monotonic() + _TIMEOUT
    while True:
        ended, code = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return {"status": "hang", "operation": "", "messages": messages.read_text()}
        time.sleep(0.01)
    status = os.waitstatus_to_exitcode(code)
    return {
        "operation": "",
        **json.loads(report.read_text()),
        "status": status,
        "messages": messages.read_text(),
    }


def read_results(out: Path) -> tuple[pd.DataFrame, dict[str, bytes]]:
    """Return what a run leaves, except what holds its time."""
    names = ["segments.json", "segments.csv", "rejected/ratings.csv", "figures/pca.png"]
    files = {name: (out / name).read_bytes() for name in names}
    return pd.read_parquet(out / "assignments.parquet"), files


def judge(
    first: dict[str, Any], out: Path, expected: tuple[pd.DataFrame, dict[str, bytes]]
) -> str | None:
    """Return what is wrong after the fault; None for a contract error, or the results."""
    if first["status"] == 0:
        return compare(out, expected)
    if first["status"] == -signal.SIGKILL:
        return None
    if first["status"] not in (2, 3) or "Traceback" in first["messages"]:
        return f"status {first['status']}: {first['messages'][-600:]}"
    if (out / "run.json").exists():
        return "failed, and left a manifest"
    return None


def judge_resumed(
    second: dict[str, Any], out: Path, expected: tuple[pd.DataFrame, dict[str, bytes]]
) -> str | None:
    """Return what is wrong after a resumed run."""
    if second["status"] != 0 or "Traceback" in second["messages"]:
        return f"resumed, status {second['status']}: {second['messages'][-600:]}"
    return compare(out, expected)


def compare(out: Path, expected: tuple[pd.DataFrame, dict[str, bytes]]) -> str | None:
    """Return what differs from the run without a fault; None if nothing does."""
    assignments, files = read_results(out)
    if not assignments.equals(expected[0]):
        return "other assignments"
    different = [name for name, content in files.items() if content != expected[1][name]]
    return f"other {', '.join(different)}" if different else None


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(","), *map(int, sys.argv[4:]))
