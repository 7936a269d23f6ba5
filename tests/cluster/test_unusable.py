"""Clusters that can't be used: one line, status 4 or 2, within half a minute."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from distributed import Client

from jobs import segment
from tests.cluster.processes import RunningCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def run_refused(capsys, data: Path, out: Path, *options: str, status: int = 4) -> list[str]:
    """Run the job, which has to be refused; return the lines on stderr."""
    with within(30):
        exit_status = segment.main(["--data", str(data), "--out", str(out), "--quiet", *options])
    lines = capsys.readouterr().err.splitlines()
    assert exit_status == status, lines
    assert lines[-1].startswith("error: ")
    assert not out.exists()
    return lines


@pytest.fixture
def cluster(python: Path, shared_cache: Path, tmp_path: Path) -> Iterator[RunningCluster]:
    cluster = RunningCluster(python, tmp_path / "c", shared_cache)
    yield cluster
    cluster.end()


def test_nobody_listens(ratings: Path, tmp_path: Path, capsys) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    (line,) = run_refused(capsys, ratings, tmp_path / "out", "--address", address)
    assert line.startswith(f"error: {address}: no scheduler answered; check that it is running")


def test_a_peer_that_accepts_and_never_answers(ratings: Path, tmp_path: Path, capsys) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        (line,) = run_refused(capsys, ratings, tmp_path / "out", "--address", address)
    assert line.startswith(f"error: {address}: no scheduler answered")


def test_a_worker_that_does_not_answer(
    cluster: RunningCluster, ratings: Path, tmp_path: Path, capsys
) -> None:
    patient = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "5 minutes"}
    address = cluster.start_scheduler(**patient)
    for _ in range(2):
        cluster.start_worker()
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    cluster.workers[1].kill(signal.SIGSTOP)
    (line,) = run_refused(capsys, ratings, tmp_path / "out", "--address", address)
    assert line.startswith("error: worker tcp://127.0.0.1:")
    assert line.endswith("did not answer within 15 s: end it and start another")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8786",
        "http://127.0.0.1:8786",
        " ",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://",
        "tcp://127.0.0.1:8786/x",
        "tcp://127.0.0.1:99999",
        "tcp://127.0.0.1:-1",
    ],
)
def test_what_is_no_address(ratings: Path, tmp_path: Path, capsys, address: str) -> None:
    (line,) = run_refused(capsys, ratings, tmp_path / "out", "--address", address, status=2)
    assert line.startswith(f"error: --address {address}".rstrip())
    assert "expected tcp:// or tls://, a host and a port" in line


def test_an_address_and_a_cluster_to_start(ratings: Path, tmp_path: Path, capsys) -> None:
    options = ["--address", "tcp://127.0.0.1:1", "--cluster", "local"]
    (line,) = run_refused(capsys, ratings, tmp_path / "out", *options, status=2)
    assert "--address connects to a running cluster, and --cluster local starts one" in line
    (line,) = run_refused(capsys, ratings, tmp_path / "out", "--cluster", "remote", status=2)
    assert "--cluster remote: has no address; pass --address" in line


def test_a_scheduler_without_workers(
    cluster: RunningCluster, ratings: Path, tmp_path: Path, capsys
) -> None:
    address = cluster.start_scheduler()
    config = tmp_path / "two.yaml"
    config.write_text("kind: remote\nworkers: 2\nwait_seconds: 3\n")
    cluster.start_worker()
    options = ["--address", address, "--cluster", str(config)]
    (line,) = run_refused(capsys, ratings, tmp_path / "out", *options)
    assert line.startswith(f"error: {address}: ")
    assert "of 2 workers joined within 3 s; start more" in line
    options += ["--memory-limit", "2GiB"]
    (line,) = run_refused(capsys, ratings, tmp_path / "out", *options, status=2)
    assert "--memory-limit is for clusters on this machine" in line


OTHER_VERSION = """
from distributed import versions
if versions.get_package_info.__name__ != "other":  # preloaded by nanny and worker
    before = versions.get_package_info
    def other(packages):
        return {**before(packages), "distributed": "2025.1.0", "numba": None}
    versions.get_package_info = other
"""


@pytest.mark.parametrize("who", ["scheduler", "worker"])
def test_another_version(
    cluster: RunningCluster, ratings: Path, tmp_path: Path, capsys, who: str
) -> None:
    (tmp_path / "other.py").write_text(OTHER_VERSION)
    preload = {who: ["--preload", str(tmp_path / "other.py")]}
    address = cluster.start_scheduler(*preload.get("scheduler", []))
    cluster.start_worker(*preload.get("worker", []))
    *findings, line = run_refused(capsys, ratings, tmp_path / "out", "--address", address)
    where = "the scheduler" if who == "scheduler" else "worker tcp://127.0.0.1:"
    assert len(findings) == 2, line
    assert findings[0].startswith(f"  ✗ {where}")
    assert "has distributed 2025.1.0, and the job has 20" in findings[0]
    assert "has no numba: install numba " in findings[1]
    assert line.startswith("error: the cluster fails 2 checks; the first: ")


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an older release of Dask, to put on the path of a process."""
    target = tmp_path_factory.mktemp("older")
    lock = Path(__file__).with_name("older.lock")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--require-hashes",
            "--target",
            str(target),
            "--requirement",
            str(lock),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"an older Dask can't be installed here: {done.stderr.splitlines()[-1:]}")
    return target


@pytest.mark.parametrize("who", ["scheduler", "worker", "both"])
def test_an_older_release(
    cluster: RunningCluster, older: Path, ratings: Path, tmp_path: Path, capsys, who: str
) -> None:
    old = {"PYTHONPATH": str(older)}
    address = cluster.start_scheduler(**(old if who != "worker" else {}))
    cluster.start_worker(**(old if who != "scheduler" else {}))
    *findings, line = run_refused(capsys, ratings, tmp_path / "out", "--address", address)
    others = {"scheduler": ["the scheduler"], "worker": ["worker tcp://"]}
    expected = [
        (start, name)
        for start in others.get(who, ["the scheduler", "worker tcp://"])
        for name in ("dask", "distributed")
    ]
    assert len(findings) == len(expected), findings
    for finding, (start, name) in zip(findings, expected, strict=True):
        assert finding.startswith(f"  ✗ {start}")
        assert f" has {name} 2025.12.0, and the job has " in finding
        assert finding.endswith("install the same version (see requirements.lock)")
    assert line.startswith(f"error: the cluster fails {len(expected)} checks; the first: ")


def test_memory_below_one_partition(
    cluster: RunningCluster, ratings: Path, tmp_path: Path, capsys
) -> None:
    address = cluster.start_scheduler()
    cluster.start_worker(memory="400MiB")
    options = ["--address", address, "--partition-size", "256MiB"]
    *_, line = run_refused(capsys, ratings, tmp_path / "out", *options)
    assert "has 400 MiB for 1 thread, and partitions of 256 MiB need 1,760 MiB" in line
    assert "or use smaller partitions" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide a folder from a process")
@pytest.mark.parametrize("change", ["hidden", "other"])
def test_a_worker_that_does_not_see_the_input(
    cluster: RunningCluster, ratings: Path, tmp_path: Path, capsys, change: str
) -> None:
    address = cluster.start_scheduler()
    hide = f"mount -t tmpfs none {ratings}"
    if change == "other":
        copy = tmp_path / "copy"
        copy.mkdir()
        for path in ratings.iterdir():
            (copy / path.name).write_bytes(
                path.read_bytes()[: -10 if "ratings" in path.name else None]
            )
        hide = f"mount --bind {copy} {ratings}"
    # Both are on one host, and only one of them sees it.
    cluster.start_worker()
    cluster.start_worker(before=("unshare", "-m", "sh", "-c", f'{hide} && exec "$@"', "sh"))
    config = tmp_path / "two.yaml"
    config.write_text("kind: remote\nworkers: 2\n")
    options = ["--address", address, "--cluster", str(config)]
    *_, line = run_refused(capsys, ratings, tmp_path / "out", *options)
    if change == "hidden":
        assert "can't read the input (" in line
        assert "ratings.csv: no such file" in line
        assert "put it where all workers see it under the same path, or pass a URL" in line
    else:
        assert f"sees other data under the same path ({ratings}/ratings.csv)" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_no_disk_space_to_spill(
    cluster: RunningCluster, ratings: Path, tmp_path: Path, capsys
) -> None:
    address = cluster.start_scheduler()
    folder = cluster.folder / "w0" / "scratch"
    folder.mkdir(parents=True)
    small = f"mount -t tmpfs -o size=20m none {folder}"
    cluster.start_worker(before=("unshare", "-m", "sh", "-c", f'{small} && exec "$@"', "sh"))
    *_, line = run_refused(capsys, ratings, tmp_path / "out", "--address", address)
    assert "MiB free in " in line
    assert "start it with --local-directory on a larger disk" in line


def test_synthetic_data_is_written_on_this_machine(tmp_path: Path, capsys) -> None:
    from jobs import synthesize

    options = ["--rows", "1000", "--out", str(tmp_path / "s"), "--cluster", "remote"]
    assert synthesize.main(options) == 2
    assert "data is written on this one: choose threads or local" in capsys.readouterr().err
