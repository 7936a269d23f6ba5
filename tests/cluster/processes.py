"""Start schedulers and workers with Dask's own commands, where this package is not installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd

#: How long tests wait for silent workers and dead links, in place of minutes.
QUICK = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "3s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
}


def bare_python(folder: Path) -> Path:
    """Create an environment with all libraries of this one, but without this package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    (site,) = (folder / "lib").glob("python*/site-packages")
    libraries = [place for place in sys.path if place.endswith("site-packages")]
    # A .pth file adds a folder to the path without reading the .pth files in that folder.
    (site / "libraries.pth").write_text("\n".join(libraries) + "\n")
    done = subprocess.run(
        [str(python), "-c", "import distributed, segmentation"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert "No module named 'segmentation'" in done.stderr, done.stderr
    return python


def wait_until(
    condition: Callable[[], object], seconds: float = 60, describe: Callable[[], str] = str
) -> None:
    """Poll until a condition holds; ``describe`` says what to show if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, describe()
        time.sleep(0.05)


class Process:
    """A process in a working directory of its own, with its output in a file there."""

    def __init__(
        self, command: list[str], folder: Path, before: tuple[str, ...] = (), **environment: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        # The package must not be found through this test run's own paths.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DASK"))}
        with self.log.open("w") as out:
            self._process = subprocess.Popen(
                [*before, *command],
                cwd=folder,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env={**inherited, **QUICK, **environment},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def read_log(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float = 120) -> int:
        return self._process.wait(seconds)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process and to all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)
        if number == signal.SIGKILL:
            self._process.wait(20)


class RunningCluster:
    """A scheduler and workers, each process in a folder of its own."""

    def __init__(self, python: Path, folder: Path, cache: Path | None = None) -> None:
        self.python = str(python)
        self.folder = folder
        self.cache = str(cache or folder / "cache")
        self.workers: list[Process] = []
        self.scheduler: Process | None = None
        self.address = ""

    def start_scheduler(
        self,
        *options: str,
        host: str = "127.0.0.1",
        before: tuple[str, ...] = (),
        **environment: str,
    ) -> str:
        folder = self.folder / "scheduler"
        scheduler_file = folder / "scheduler.json"
        self.scheduler = Process(
            [
                self.python,
                "-m",
                "dask",
                "scheduler",
                "--host",
                host,
                "--port",
                "0",
                "--dashboard-address",
                "127.0.0.1:0",
                "--scheduler-file",
                str(scheduler_file),
                *options,
            ],
            folder,
            before,
            XDG_CACHE_HOME=self.cache,
            **environment,
        )
        wait_until(scheduler_file.exists, 60, self.scheduler.read_log)
        wait_until(lambda: scheduler_file.read_text().strip().endswith("}"))
        self.address = json.loads(scheduler_file.read_text())["address"]
        return self.address

    def start_worker(
        self, *options: str, before: tuple[str, ...] = (), memory: str = "1GiB", **environment: str
    ) -> Process:
        name = f"w{len(self.workers)}"
        worker = Process(
            [
                self.python,
                "-m",
                "dask",
                "worker",
                self.address,
                "--name",
                name,
                "--nthreads",
                "1",
                "--memory-limit",
                memory,
                "--local-directory",
                str(self.folder / name / "scratch"),
                "--dashboard-address",
                "127.0.0.1:0",
                *options,
            ],
            self.folder / name,
            before,
            XDG_CACHE_HOME=self.cache,
            **environment,
        )
        self.workers.append(worker)
        return worker

    def logs(self) -> str:
        processes = [self.scheduler, *self.workers]
        return "\n".join(f"== {p.log}\n{p.read_log()[-3000:]}" for p in processes if p)

    def end(self) -> None:
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            process.kill()


@contextmanager
def running_cluster(
    python: Path, folder: Path, workers: int = 2, cache: Path | None = None
) -> Iterator[RunningCluster]:
    cluster = RunningCluster(python, folder, cache)
    try:
        cluster.start_scheduler()
        for _ in range(workers):
            cluster.start_worker()
        yield cluster
    finally:
        cluster.end()


def start_job(
    folder: Path,
    *arguments: str,
    module: str = "jobs.segment",
    before: tuple[str, ...] = (),
    **environment: str,
) -> Process:
    """Start the main job in a process of its own."""
    return Process(
        [sys.executable, "-m", module, *arguments],
        folder,
        before,
        XDG_CACHE_HOME=os.environ["XDG_CACHE_HOME"],
        **environment,
    )


def assert_equal(one: Path, other: Path) -> None:
    """Compare the results of two runs: labels equal, numbers to 1e-6."""
    left, right = (pd.read_parquet(path / "assignments.parquet") for path in (one, other))
    for name in ("userId", "segment", "persona", "items"):
        np.testing.assert_array_equal(left[name].astype(str), right[name].astype(str))
    numbers = [c for c in left if c not in ("userId", "segment", "persona", "items", "runner_up")]
    for name in numbers:
        np.testing.assert_allclose(left[name], right[name], atol=1e-6, err_msg=name)
    rows = [json.loads((path / "run.json").read_text())["rows"] for path in (one, other)]
    assert rows[0] == rows[1]
