"""Compare the results of two runs by value: ``python -m tests.compare_runs FOLDER OTHER``.

Times, memory, versions and the count of tasks are left out. Exit status 1 if anything differs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

#: What of a manifest depends on the machine, the clock or the version.
VOLATILE = {"seconds", "peak_memory_bytes", "stages", "versions", "cluster"}


def differences(one: Any, other: Any, path: str) -> Iterator[str]:
    """Yield where two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            if key not in one or key not in other:
                yield f"{path}/{key}: in one of them only"
            else:
                yield from differences(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from differences(a, b, f"{path}/{number}")
    elif one != other:
        yield f"{path}: {one!r} != {other!r}"


def compare(one: Path, other: Path) -> list[str]:
    """Return where two runs differ in their assignments, segments and manifests."""
    lines: list[str] = []
    for name in ("segments.json", "run.json"):
        a, b = (json.loads((folder / name).read_text("utf-8")) for folder in (one, other))
        if name == "run.json":
            a, b = ({k: v for k, v in x.items() if k not in VOLATILE} for x in (a, b))
        lines += differences(a, b, name)
    a, b = (pd.read_parquet(folder / "assignments.parquet") for folder in (one, other))
    if list(a.columns) != list(b.columns) or len(a) != len(b):
        return [*lines, f"assignments.parquet: {a.shape} and {b.shape}"]
    for column in a.columns:
        x, y = (f[column].astype(str) if column == "persona" else f[column] for f in (a, b))
        if x.dtype != y.dtype:
            lines.append(f"assignments.parquet/{column}: {x.dtype} != {y.dtype}")
        elif not x.equals(y):
            lines.append(f"assignments.parquet/{column}: values differ")
    return lines


if __name__ == "__main__":
    lines = compare(*map(Path, sys.argv[1:3]))
    print("\n".join(lines) or "equal")
    sys.exit(bool(lines))
