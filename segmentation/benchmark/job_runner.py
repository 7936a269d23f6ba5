"""The whole job beside its peers: cold processes on one file, in a rotating order, medians."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.benchmark.job_peers import RIVALS, THREADS
from segmentation.storage.parquet import list_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: This program's own entries: how it runs, and what it reads.
OURS = {
    "threads": ("segmentation, threads", "threads", "csv"),
    "local": ("segmentation, local", "local", "csv"),
    "threads-parquet": ("segmentation, threads, Parquet", "threads", "parquet"),
    "local-parquet": ("segmentation, local, Parquet", "local", "parquet"),
}
NAMES = (*OURS, *RIVALS)
#: What took longer than this is not repeated.
_LONG_SECONDS = 300.0
_PATIENCE_SECONDS = 3_600.0
_SAMPLE_SECONDS = 0.02
#: Who takes more than this share of the machine's memory, or its cgroup's, has run out of it.
_MEMORY_SHARE = 0.8
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
#: Means of float32 ratings differ by no more than this from those of float64.
_TOLERANCE = 1e-3
_ASSIGNMENTS = "assignments.parquet"


class Data(NamedTuple):
    """What a size is measured on: the folder with the catalogue, ratings as text, as Parquet."""

    folder: Path
    csv: Path
    parquet: Path
    rows: int


@dataclass
class Measured:
    """What was measured of one entry: a figure a run; seconds, bytes."""

    name: str
    title: str
    seconds: list[float] = field(default_factory=list)
    to_assignments: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_memory_bytes: list[int] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    failure: str | None = None
    out_of_memory_bytes: int | None = None

    def record(self) -> dict[str, Any]:
        """Return all of it, with the medians."""
        middle = {
            f"median_{name}": statistics.median(values) if values else None
            for name, values in (
                ("seconds", self.seconds),
                ("to_assignments", self.to_assignments),
                ("cpu_seconds", self.cpu_seconds),
                ("peak_memory_bytes", self.peak_memory_bytes),
            )
        }
        return {**self.__dict__, **middle}


def measure(
    data: Data, names: Sequence[str], rounds: int, told: Callable[[str], None]
) -> list[Measured]:
    """Run every entry ``rounds`` times, each time in a cold process, in a rotating order.

    One that fails, whose module isn't installed, or whose genre means are not ours, is kept with
    the reason.
    """
    found = [Measured(name, (OURS.get(name) or RIVALS[name])[0]) for name in names]
    for entry in found:
        module = None if entry.name in OURS else RIVALS[entry.name][1]
        if module and not importlib.util.find_spec(module):
            entry.failure = f"{module} is not installed"
    with tempfile.TemporaryDirectory(dir=data.csv.parent) as scratch:
        expected: Any = None
        for number in range(rounds):
            for entry in [found[(i + number) % len(found)] for i in range(len(found))]:
                if entry.failure or (entry.seconds and max(entry.seconds) > _LONG_SECONDS):
                    continue
                out = Path(scratch) / "out"
                out.mkdir()
                try:
                    _run(entry, data, out)
                    if entry.name != "floor":
                        means = genre_means(out / _ASSIGNMENTS)
                        expected = means if expected is None else expected
                        _check(means, expected)
                except RuntimeError as error:
                    entry.failure = str(error)
                finally:
                    shutil.rmtree(out)
                last = f"{entry.seconds[-1]:.1f} s" if entry.seconds else "–"
                told(
                    f"{data.rows:,} rows, round {number + 1}: {entry.title}: "
                    f"{entry.failure or last}"
                )
    return found


def _command(name: str, data: Data, out: Path) -> list[str]:
    if name not in OURS:
        module = "segmentation.benchmark.job_peers"
        return [sys.executable, "-m", module, name, str(data.folder), str(data.csv), str(out)]
    _, cluster, kind = OURS[name]
    ratings = data.csv if kind == "csv" else data.parquet
    return [
        sys.executable,
        "-m",
        "jobs.segment",
        "--quiet",
        "--data",
        str(data.folder),
        "--ratings",
        str(ratings),
        "--cluster",
        cluster,
        "--out",
        str(out),
    ]


def _run(entry: Measured, data: Data, out: Path) -> None:
    environment = {**os.environ, **dict.fromkeys(_THREADS, str(THREADS))}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as words:
        most = int(_MEMORY_SHARE * _machine_memory())
        clock, began = time.perf_counter(), time.time()
        process = subprocess.Popen(
            _command(entry.name, data, out),
            stdout=words,
            stderr=words,
            env=environment,
            start_new_session=True,
        )
        limit = threading.Timer(_PATIENCE_SECONDS, _kill, (process.pid,))
        limit.start()
        try:
            with _TreeMemory(process.pid, most) as memory:
                # Not Popen's own wait, which keeps what the process used to itself.
                _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _kill(process.pid)
            raise
        finally:
            limit.cancel()
        seconds = time.perf_counter() - clock
        process.returncode = os.waitstatus_to_exitcode(status)
        if memory.exceeded:
            entry.out_of_memory_bytes = most
            raise RuntimeError(f"out of memory: more than {most / 1e9:.1f} GB")
        if process.returncode:
            words.seek(0)
            last = words.read().strip().splitlines()[-1:] or ["ended without a word"]
            raise RuntimeError(f"{last[0][:200]} (status {process.returncode})")
    entry.seconds.append(seconds)
    entry.cpu_seconds.append(max(usage.ru_utime + usage.ru_stime, memory.cpu_seconds))
    entry.peak_memory_bytes.append(memory.peak)
    if entry.name in OURS:
        import json

        # Of a folder the parts tell, which keep their time when they are put in place.
        written = max(path.stat().st_mtime for path in list_parts(out / _ASSIGNMENTS))
        entry.to_assignments.append(written - began)
        manifest = json.loads((out / "run.json").read_text("utf-8"))
        entry.stages.append({stage["name"]: stage["seconds"] for stage in manifest["stages"]})
    else:
        # It is the last that they do.
        entry.to_assignments.append(seconds)


def _machine_memory() -> int:
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT)


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


class _TreeMemory:
    """Samples the resident memory of a process and its children, summed, and their CPU time.

    The kernel adds up the CPU time of those children alone that their parents waited for. They
    are ended once they take more than ``limit`` bytes, before the machine has to choose whom.
    """

    def __init__(self, pid: int, limit: int) -> None:
        self._pid = pid
        self._limit = limit
        self.peak = 0
        self._cpu: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _TreeMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def exceeded(self) -> bool:
        """Whether it took more than it may."""
        return self.peak > self._limit

    @property
    def cpu_seconds(self) -> float:
        """What each was last seen to have used, summed."""
        return sum(self._cpu.values())

    def _watch(self) -> None:
        import psutil

        from segmentation.deploy.memory import peak_rss

        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._pid)
            while not self._stop.wait(_SAMPLE_SECONDS):
                total = 0
                for member in [process, *process.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        total += member.memory_info().rss
                        # Between two samples; getrusage would count from the fork on, with the
                        # size of the one who forked.
                        self.peak = max(self.peak, peak_rss(member.pid))
                        times = member.cpu_times()
                        self._cpu[member.pid] = times.user + times.system
                self.peak = max(self.peak, total)
                if self.exceeded:
                    _kill(self._pid)


def genre_means(path: Path) -> Any:
    """Return a table of users × genres from anybody's assignments; 0 where unseen."""
    import pandas as pd

    table = pd.read_parquet(path)
    others = {
        "segment",
        "persona",
        "distance",
        "runner_up",
        "margin",
        "pc1",
        "pc2",
        "movies",
        "mean_rating",
    }
    if "userId" in table:
        table = table.set_index("userId")
    means = table.drop(columns=[name for name in table if name in others])
    # Users and genres without a rating have no row or column where rows were exploded.
    means = means.astype(np.float64).fillna(0.0)
    means = means.loc[(means > 0).any(axis=1), (means > 0).any(axis=0)]
    return means.sort_index().sort_index(axis=1)


def _check(means: Any, expected: Any) -> None:
    same = means.shape == expected.shape and (means.index == expected.index).all()
    if not same or not np.allclose(means.to_numpy(), expected.to_numpy(), atol=_TOLERANCE):
        raise RuntimeError("its genre means are not ours")
