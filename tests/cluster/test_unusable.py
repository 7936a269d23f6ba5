"""Clusters that can't be used: told in one line, with status 4 or 2, within half a minute."""

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
from tests.cluster.processes import Standing

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def refused(capsys, data: Path, out: Path, *options: str, status: int = 4) -> list[str]:
    with within(30):
        found = segment.main(["--data", str(data), "--out", str(out), "--quiet", *options])
    told = capsys.readouterr().err.splitlines()
    assert found == status, told
    assert told[-1].startswith("error: ")
    assert not out.exists()
    return told


@pytest.fixture
def cluster(python: Path, shared_cache: Path, tmp_path: Path) -> Iterator[Standing]:
    found = Standing(python, tmp_path / "c", shared_cache)
    yield found
    found.end()


def test_nobody_listens(ratings: Path, tmp_path: Path, capsys) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    (line,) = refused(capsys, ratings, tmp_path / "out", "--address", address)
    assert line.startswith(f"error: {address}: nobody answers there: is the scheduler up")


def test_somebody_else_listens(ratings: Path, tmp_path: Path, capsys) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        (line,) = refused(capsys, ratings, tmp_path / "out", "--address", address)
    assert line.startswith(f"error: {address}: ")


def test_a_worker_that_does_not_answer(
    cluster: Standing, ratings: Path, tmp_path: Path, capsys
) -> None:
    patient = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "5 minutes"}
    address = cluster.start_scheduler(**patient)
    for _ in range(2):
        cluster.start_worker()
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    cluster.workers[1].kill(signal.SIGSTOP)
    (line,) = refused(capsys, ratings, tmp_path / "out", "--address", address)
    assert line.startswith("error: worker tcp://127.0.0.1:")
    assert line.endswith("it hangs or is cut off: end it and start it anew")


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
def test_no_address(ratings: Path, tmp_path: Path, capsys, address: str) -> None:
    (line,) = refused(capsys, ratings, tmp_path / "out", "--address", address, status=2)
    assert line.startswith(f"error: --address {address}".rstrip())
    assert "give tcp:// or tls://" in line


def test_an_address_and_a_cluster_to_start(ratings: Path, tmp_path: Path, capsys) -> None:
    options = ["--address", "tcp://127.0.0.1:1", "--cluster", "local"]
    (line,) = refused(capsys, ratings, tmp_path / "out", *options, status=2)
    assert "--address is for a cluster that stands" in line
    (line,) = refused(capsys, ratings, tmp_path / "out", "--cluster", "remote", status=2)
    assert "--cluster remote: has no address: add --address" in line


def test_a_scheduler_without_workers(
    cluster: Standing, ratings: Path, tmp_path: Path, capsys
) -> None:
    address = cluster.start_scheduler()
    config = tmp_path / "two.yaml"
    config.write_text("kind: remote\nworkers: 2\nwait_seconds: 3\n")
    cluster.start_worker()
    options = ["--address", address, "--cluster", str(config)]
    (line,) = refused(capsys, ratings, tmp_path / "out", *options)
    assert line.startswith(f"error: {address}: ")
    assert "of 2 workers came within 3 s: start more" in line
    options += ["--memory-limit", "2GiB"]
    (line,) = refused(capsys, ratings, tmp_path / "out", *options, status=2)
    assert "have their own" in line


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
    cluster: Standing, ratings: Path, tmp_path: Path, capsys, who: str
) -> None:
    (tmp_path / "other.py").write_text(OTHER_VERSION)
    preload = {who: ["--preload", str(tmp_path / "other.py")]}
    address = cluster.start_scheduler(*preload.get("scheduler", []))
    cluster.start_worker(*preload.get("worker", []))
    *list_of_all, line = refused(capsys, ratings, tmp_path / "out", "--address", address)
    where = "the scheduler" if who == "scheduler" else "worker tcp://127.0.0.1:"
    assert len(list_of_all) == 2, line
    assert list_of_all[0].startswith(f"  ✗ {where}")
    assert "has distributed 2025.1.0, and the job 20" in list_of_all[0]
    assert "has no numba: install numba " in list_of_all[1]
    assert line.startswith("error: the cluster fails 2 checks; the first: ")


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an older release of Dask, for the path of whoever is to run it."""
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
    cluster: Standing, older: Path, ratings: Path, tmp_path: Path, capsys, who: str
) -> None:
    old = {"PYTHONPATH": str(older)}
    address = cluster.start_scheduler(**(old if who != "worker" else {}))
    cluster.start_worker(**(old if who != "scheduler" else {}))
    *found, line = refused(capsys, ratings, tmp_path / "out", "--address", address)
    others = {"scheduler": ["the scheduler"], "worker": ["worker tcp://"]}
    expected = [
        (start, name)
        for start in others.get(who, ["the scheduler", "worker tcp://"])
        for name in ("dask", "distributed")
    ]
    assert len(found) == len(expected), found
    for told, (start, name) in zip(found, expected, strict=True):
        assert told.startswith(f"  ✗ {start}")
        assert f" has {name} 2025.12.0, and the job " in told
        assert told.endswith("install the same (requirements.lock names them)")
    assert line.startswith(f"error: the cluster fails {len(expected)} checks; the first: ")


def test_memory_below_one_partition(
    cluster: Standing, ratings: Path, tmp_path: Path, capsys
) -> None:
    address = cluster.start_scheduler()
    cluster.start_worker(memory="400MiB")
    options = ["--address", address, "--partition-size", "256MiB"]
    *_, line = refused(capsys, ratings, tmp_path / "out", *options)
    assert "has 400 MiB for 1 threads, and partitions of 256 MiB need 1,760 MiB" in line
    assert "or lower --partition-size" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide a folder from a process")
@pytest.mark.parametrize("change", ["hidden", "other"])
def test_a_worker_that_does_not_see_the_input(
    cluster: Standing, ratings: Path, tmp_path: Path, capsys, change: str
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
    # Behind one address with one that does see it.
    cluster.start_worker()
    cluster.start_worker(before=("unshare", "-m", "sh", "-c", f'{hide} && exec "$@"', "sh"))
    config = tmp_path / "two.yaml"
    config.write_text("kind: remote\nworkers: 2\n")
    options = ["--address", address, "--cluster", str(config)]
    *_, line = refused(capsys, ratings, tmp_path / "out", *options)
    if change == "hidden":
        assert "can't read the input (" in line
        assert "ratings.csv: no such file" in line
        assert "put it where all workers see it under the same path, or give a URL" in line
    else:
        assert f"sees another input under the same path ({ratings}/ratings.csv)" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_no_room_to_spill(cluster: Standing, ratings: Path, tmp_path: Path, capsys) -> None:
    address = cluster.start_scheduler()
    place = cluster.folder / "w0" / "scratch"
    place.mkdir(parents=True)
    small = f"mount -t tmpfs -o size=20m none {place}"
    cluster.start_worker(before=("unshare", "-m", "sh", "-c", f'{small} && exec "$@"', "sh"))
    *_, line = refused(capsys, ratings, tmp_path / "out", "--address", address)
    assert "MiB free in " in line
    assert "start it with --local-directory on a larger disk" in line


def test_synthetic_data_is_made_here(tmp_path: Path, capsys) -> None:
    from jobs import synthesize

    options = ["--rows", "1000", "--out", str(tmp_path / "s"), "--cluster", "remote"]
    assert synthesize.main(options) == 2
    assert "data is written on this one: choose threads or local" in capsys.readouterr().err
