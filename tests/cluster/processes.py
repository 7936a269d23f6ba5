"""Schedulers and workers by Dask's own command lines, where this package is not installed."""

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

#: What tests wait for silent workers and dead links, in place of minutes.
QUICK = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "3s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
}


def bare_python(folder: Path) -> Path:
    """Make an environment with all libraries of this one, but without this package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    (site,) = (folder / "lib").glob("python*/site-packages")
    libraries = [place for place in sys.path if place.endswith("site-packages")]
    # A path in a .pth file is put on the path; what .pth files lie there is not looked at.
    (site / "libraries.pth").write_text("\n".join(libraries) + "\n")
    found = subprocess.run(
        [str(python), "-c", "import distributed, segmentation"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert "No module named 'segmentation'" in found.stderr, found.stderr
    return python


def until(done: Callable[[], object], seconds: float = 60, told: Callable[[], str] = str) -> None:
    """Poll until something holds."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


class Process:
    """One process in a working directory and cache of its own, its output in a file."""

    def __init__(
        self, command: list[str], folder: Path, before: tuple[str, ...] = (), **environment: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        # Nothing of this test run's paths leads to the package.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DASK"))}
        with self.log.open("w") as out:
            self._process = subprocess.Popen(
                [*before, *command],
                cwd=folder,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env={**kept, **QUICK, **environment},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float = 120) -> int:
        return self._process.wait(seconds)

    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to it and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)
        if number == signal.SIGKILL:
            self._process.wait(20)


class Standing:
    """A scheduler and workers, each in a folder of its own; ended together."""

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
        place = self.folder / "scheduler"
        told = place / "scheduler.json"
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
                str(told),
                *options,
            ],
            place,
            before,
            XDG_CACHE_HOME=self.cache,
            **environment,
        )
        until(told.exists, 60, self.scheduler.text)
        until(lambda: told.read_text().strip().endswith("}"))
        self.address = json.loads(told.read_text())["address"]
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
        known = [self.scheduler, *self.workers]
        return "\n".join(f"== {p.log}\n{p.text()[-3000:]}" for p in known if p)

    def end(self) -> None:
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            process.kill()


@contextmanager
def standing(
    python: Path, folder: Path, workers: int = 2, cache: Path | None = None
) -> Iterator[Standing]:
    found = Standing(python, folder, cache)
    try:
        found.start_scheduler()
        for _ in range(workers):
            found.start_worker()
        yield found
    finally:
        found.end()


def job(
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
    """Hold two runs' results to one another: labels equal, numbers to 1e-6."""
    left, right = (pd.read_parquet(path / "assignments.parquet") for path in (one, other))
    for name in ("userId", "segment", "persona", "movies"):
        np.testing.assert_array_equal(left[name].astype(str), right[name].astype(str))
    numbers = [c for c in left if c not in ("userId", "segment", "persona", "movies", "runner_up")]
    for name in numbers:
        np.testing.assert_allclose(left[name], right[name], atol=1e-6, err_msg=name)
    rows = [json.loads((path / "run.json").read_text())["rows"] for path in (one, other)]
    assert rows[0] == rows[1]
