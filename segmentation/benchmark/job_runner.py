"""Time the whole job and its peers in cold processes, in an order that rotates every round.

A shared machine that is slow for a while then affects all of them alike.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from segmentation.benchmark import job_peers
from segmentation.benchmark.job_peers import ASSIGNMENTS, FLOOR, THREADS
from segmentation.storage.parquet import list_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    import psutil


class OurJob(NamedTuple):
    """A way to run this program: its title in tables, the cluster, and whether it reads Parquet."""

    title: str
    cluster: str
    reads_parquet: bool


OURS = {
    "threads": OurJob("segmentation, threads", "threads", False),
    "local": OurJob("segmentation, local", "local", False),
    "threads-parquet": OurJob("segmentation, threads, Parquet", "threads", True),
    "local-parquet": OurJob("segmentation, local, Parquet", "local", True),
}
NAMES = (*OURS, *job_peers.PEERS)
#: A job is not run again after a run that took longer.
_LONG_SECONDS = 300.0
#: A job that takes longer is killed.
_TIMEOUT_SECONDS = 3_600.0
#: Interval between two samples of memory and CPU time.
_SAMPLE_SECONDS = 0.02
#: Share of the memory of the machine, or its cgroup, above which a job is killed.
_MEMORY_SHARE = 0.8
#: Environment variables that limit the threads of libraries, by default one per core.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "POLARS_MAX_THREADS",
)
#: Absolute tolerance between means computed in float32 and in float64.
_TOLERANCE = 1e-3
#: Columns of an assignments table that are not genres.
_OTHER_COLUMNS = {
    "segment",
    "persona",
    "distance",
    "runner_up",
    "margin",
    "pc1",
    "pc2",
    "items",
    "mean_rating",
}


class JobData(NamedTuple):
    """A data set: the folder with the catalogue, and the ratings as CSV and as Parquet."""

    folder: Path
    csv: Path
    parquet: Path
    rows: int


@dataclass
class JobTimes:
    """The measurements of one job, with one value per run that finished.

    ``to_assignments`` are the seconds until the assignments are on disk. Only this program goes on
    from there, to its report; for peers, and for the floor, they are the seconds of the process.
    ``stages`` are the seconds per stage of this program, and empty for peers. ``failure`` is the
    reason why a job failed or can't run. A slow job is not repeated, which is not a failure.
    ``out_of_memory_bytes`` is the limit that a job was killed for, None if it was not.
    """

    name: str
    title: str
    seconds: list[float] = field(default_factory=list)
    to_assignments: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_memory_bytes: list[int] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    failure: str | None = None
    out_of_memory_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the measurements with their medians."""
        names = ("seconds", "to_assignments", "cpu_seconds", "peak_memory_bytes")
        medians = {
            f"median_{name}": statistics.median(values) if (values := getattr(self, name)) else None
            for name in names
        }
        return {**asdict(self), **medians}


def time_jobs(
    data: JobData, names: Sequence[str], rounds: int, report: Callable[[str], None]
) -> list[JobTimes]:
    """Run every job in a cold process, once per round, until it fails or is slow.

    A job is not repeated after a run of more than five minutes.

    Parameters
    ----------
    data
        The data set that all jobs read.
    names
        Jobs from :data:`NAMES`.
    rounds
        Maximum number of runs per job.
    report
        Called with each line of progress.

    Returns
    -------
    list of JobTimes
        One per name. ``failure`` is set for a job that fails, whose module is not installed, or
        whose genre means differ from those of the first job that finished.
    """
    times = [_new_times(name) for name in names]
    expected: pd.DataFrame | None = None
    with tempfile.TemporaryDirectory(dir=data.csv.parent) as scratch:
        for round_index in range(rounds):
            shift = round_index % len(times) if times else 0
            for entry in times[shift:] + times[:shift]:
                if entry.failure or max(entry.seconds, default=0.0) > _LONG_SECONDS:
                    continue
                out = Path(scratch) / "out"
                out.mkdir()
                try:
                    _time_job(entry, data, out)
                    if entry.name != FLOOR:
                        means = read_genre_means(out / ASSIGNMENTS)
                        expected = means if expected is None else expected
                        check_genre_means(means, expected)
                except RuntimeError as error:
                    entry.failure = str(error)
                finally:
                    shutil.rmtree(out)
                last = f"{entry.seconds[-1]:.1f} s" if entry.seconds else "–"
                report(
                    f"{data.rows:,} rows, round {round_index + 1}: {entry.title}: "
                    f"{entry.failure or last}"
                )
    return times


def _new_times(name: str) -> JobTimes:
    if name in OURS:
        return JobTimes(name, OURS[name].title)
    peer = job_peers.PEERS[name]
    times = JobTimes(name, peer.title)
    if not importlib.util.find_spec(peer.module):
        times.failure = f"{peer.module} is not installed"
    return times


def build_segment_command(
    folder: Path, out: Path, cluster: str | Path, ratings: Path | None = None
) -> list[str]:
    """Return the command that segments the data in ``folder``."""
    command = [sys.executable, "-m", "jobs.segment", "--quiet", "--data", str(folder)]
    if ratings is not None:
        command += ["--ratings", str(ratings)]
    return [*command, "--cluster", str(cluster), "--out", str(out)]


def _build_job_command(name: str, data: JobData, out: Path) -> list[str]:
    if name in OURS:
        ratings = data.parquet if OURS[name].reads_parquet else data.csv
        return build_segment_command(data.folder, out, OURS[name].cluster, ratings)
    module = "segmentation.benchmark.job_peers"
    return [sys.executable, "-m", module, name, str(data.folder), str(data.csv), str(out)]


def _time_job(entry: JobTimes, data: JobData, out: Path) -> None:
    """Run a job once and add its measurements; raise RuntimeError if it fails."""
    memory_limit = int(_MEMORY_SHARE * _get_machine_memory())
    started = time.time()
    try:
        cost = run_process(_build_job_command(entry.name, data, out), memory_limit)
    except OutOfMemoryError:
        entry.out_of_memory_bytes = memory_limit
        raise
    entry.seconds.append(cost.seconds)
    entry.cpu_seconds.append(cost.cpu_seconds)
    entry.peak_memory_bytes.append(cost.peak_memory_bytes)
    if entry.name in OURS:
        # Publishing the folder does not change the modification times of the parts.
        written = max(path.stat().st_mtime for path in list_parts(out / ASSIGNMENTS))
        entry.to_assignments.append(written - started)
        manifest = json.loads((out / "run.json").read_text("utf-8"))
        entry.stages.append({stage["name"]: stage["seconds"] for stage in manifest["stages"]})
    else:
        # The peers write their assignments last.
        entry.to_assignments.append(cost.seconds)


class ProcessCost(NamedTuple):
    """Time and peak memory of a process and its descendants."""

    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


class OutOfMemoryError(RuntimeError):
    """A process and its descendants exceeded their memory limit."""


def run_process(command: Sequence[str], memory_limit: float = math.inf) -> ProcessCost:
    """Run a command, with :data:`THREADS` threads per library, and measure it.

    Raises
    ------
    OutOfMemoryError
        If it was killed because it took more than ``memory_limit`` bytes.
    RuntimeError
        If it failed or timed out, with the last line that it printed.
    """
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(THREADS))}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        timer = threading.Timer(_TIMEOUT_SECONDS, _kill_group, (process.pid,))
        try:
            timer.start()
            with ProcessTreeMonitor(process.pid, memory_limit) as monitor:
                # Unlike Popen.wait, os.wait4 returns the resource usage.
                _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _kill_group(process.pid)
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if monitor.is_over_limit:
            raise OutOfMemoryError(f"out of memory: more than {memory_limit / 1e9:.1f} GB")
        if process.returncode:
            output.seek(0)
            lines = output.read().strip().splitlines() or ["no output"]
            raise RuntimeError(f"{lines[-1][:200]} (status {process.returncode})")
    cpu_seconds = max(usage.ru_utime + usage.ru_stime, monitor.cpu_seconds)
    return ProcessCost(seconds, cpu_seconds, monitor.peak_memory_bytes)


def _get_machine_memory() -> int:
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


class ProcessTreeMonitor:
    """Sample the resident memory and CPU time of a process tree, summed over its processes.

    The CPU time of the kernel leaves out children that their parent did not wait for. A tree that
    takes more than ``memory_limit`` bytes is killed, before the system runs out of memory and kills
    another process.
    """

    def __init__(self, pid: int, memory_limit: float) -> None:
        self._pid = pid
        self._memory_limit = memory_limit
        self.peak_memory_bytes = 0
        self._cpu_seconds: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def is_over_limit(self) -> bool:
        """Whether the tree took more memory than its limit."""
        return self.peak_memory_bytes > self._memory_limit

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all processes, as of their last samples."""
        return sum(self._cpu_seconds.values())

    def _watch(self) -> None:
        import psutil

        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._pid)
            while not self._stop.wait(_SAMPLE_SECONDS):
                self._sample(process)
                if self.is_over_limit:
                    _kill_group(self._pid)

    def _sample(self, process: psutil.Process) -> None:
        import psutil

        from segmentation.deploy.memory import peak_rss

        total = 0
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
                # The kernel's peak includes the time between samples. That of getrusage is no
                # alternative: it starts with the size of the parent, which forked.
                self.peak_memory_bytes = max(self.peak_memory_bytes, peak_rss(member.pid))
                times = member.cpu_times()
                self._cpu_seconds[member.pid] = times.user + times.system
        self.peak_memory_bytes = max(self.peak_memory_bytes, total)


def read_genre_means(path: Path) -> pd.DataFrame:
    """Read the genre means from the assignments of any job, of shape (n_users, n_genres).

    Genres that a user has not rated are 0. Users and genres without any rating are left out, since
    some libraries have no row or column for them.
    """
    import pandas as pd

    table = pd.read_parquet(path)
    if "userId" in table:
        table = table.set_index("userId")
    means = table.drop(columns=[name for name in table if name in _OTHER_COLUMNS])
    means = means.astype(np.float64).fillna(0.0)
    means = means.loc[(means > 0).any(axis=1), (means > 0).any(axis=0)]
    return means.sort_index().sort_index(axis=1)


def check_genre_means(means: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Compare two tables of :func:`read_genre_means`: their users, shapes and values.

    Raises
    ------
    RuntimeError
        If they differ. The names of the genres are not compared.
    """
    is_aligned = means.shape == expected.shape and (means.index == expected.index).all()
    if not is_aligned or not np.allclose(means.to_numpy(), expected.to_numpy(), atol=_TOLERANCE):
        raise RuntimeError("its genre means differ from those of the first job that finished")
