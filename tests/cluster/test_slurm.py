"""A real Slurm with one node, and the job on it through --cluster."""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobs import segment
from tests.cluster.processes import Process, assert_equal, start_job, wait_until

_PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
_MISSING = [name for name in NEEDED if shutil.which(name, path=_PATH) is None]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slurm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        bool(_MISSING) or os.geteuid() != 0,
        reason=f"no {', '.join(_MISSING) or 'root'} here: install slurmctld, slurmd, munge",
    ),
]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    numbers = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return numbers


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start munge, the controller and one node; yield the environment that finds them."""
    place = tmp_path_factory.mktemp("slurm")
    place.chmod(0o755)
    key, socket_ = place / "munge.key", place / "munge.socket"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    daemons: list[Process] = []

    def start(name: str, *options: str, **environment: str) -> Process:
        program = shutil.which(name, path=_PATH)
        assert program
        daemons.append(Process([program, *options], place / name, **environment))
        return daemons[-1]

    munge = start(
        "munged",
        "--foreground",
        "--force",
        f"--socket={socket_}",
        f"--key-file={key}",
        f"--pid-file={place}/munge.pid",
        f"--seed-file={place}/munge.seed",
        f"--log-file={place}/munge.log",
    )
    wait_until(socket_.exists, 20, munge.read_log)
    host = socket.gethostname().partition(".")[0]
    control, node = free_ports(2)
    memory = psutil.virtual_memory().total // (1 << 20) - 512
    config = place / "slurm.conf"
    config.write_text(
        f"ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\n"
        f"AuthType=auth/munge\nAuthInfo=socket={socket_}\nCryptoType=crypto/munge\n"
        f"SlurmctldPort={control}\nSlurmdPort={node}\nProctrackType=proctrack/linuxproc\n"
        "TaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none\nReturnToService=2\n"
        "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nMpiDefault=none\n"
        f"StateSaveLocation={place}/state\nSlurmdSpoolDir={place}/spool\n"
        f"SlurmctldPidFile={place}/ctld.pid\nSlurmdPidFile={place}/d.pid\n"
        f"NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory={memory} "
        "State=UNKNOWN\n"
        f"PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP\n"
    )
    for name in ("state", "spool"):
        (place / name).mkdir()
    environment = {"SLURM_CONF": str(config)}
    try:
        control_log = start("slurmctld", "-D", "-f", str(config), **environment)
        node_log = start("slurmd", "-D", "-f", str(config), "-N", host, **environment)

        def idle() -> bool:
            states = subprocess.run(
                ["sinfo", "--noheader", "--format=%T"],
                capture_output=True,
                text=True,
                env={**os.environ, **environment},
            )
            return states.stdout.strip() == "idle"

        wait_until(idle, 60, lambda: control_log.read_log() + node_log.read_log())
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.kill()


def write_config(python: Path, folder: Path, **other: object) -> str:
    keys = {
        "kind": "slurm",
        "interface": "lo",
        "jobs": 2,
        "workers_per_job": 1,
        "threads_per_worker": 1,
        "memory_per_worker": "1 GiB",
        "walltime": "00:10:00",
        "python": str(python),
        "queue": "main",
        "local_directory": str(folder / "scratch"),
        "shared_directory": str(folder),
        "log_directory": str(folder / "logs"),
        "directives": ["--oversubscribe"],
        "wait_seconds": 120,
        **other,
    }
    target = folder / "slurm.yaml"
    target.write_text(json.dumps(keys))
    return str(target)


def read_queue(environment: dict[str, str]) -> str:
    return subprocess.run(
        ["squeue", "--noheader"], capture_output=True, text=True, env={**os.environ, **environment}
    ).stdout


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_job_in_a_queue(
    slurm: dict[str, str],
    python: Path,
    ratings: Path,
    expected: Path,
    tmp_path: Path,
    adaptive: bool,
) -> None:
    other = {"adaptive": {"minimum": 1, "maximum": 2}} if adaptive else {}
    config = write_config(python, tmp_path, **other)
    out = tmp_path / "out"
    run = start_job(
        tmp_path / "job", "--data", str(ratings), "--out", str(out), "--cluster", config, **slurm
    )
    logs = lambda: "".join(p.read_text() for p in (tmp_path / "logs").glob("*"))  # noqa: E731
    assert run.wait(300) == 0, run.read_log() + logs()
    assert_equal(out, expected)
    cluster = json.loads((out / "run.json").read_text())["cluster"]
    assert cluster["kind"] == "slurm"
    assert cluster["address"].startswith("tls://127.0.0.1:")
    assert cluster["workers"] >= (1 if adaptive else 2)
    # No job is left in the queue, and no certificate on the disk.
    wait_until(lambda: not read_queue(slurm).strip(), 30, lambda: read_queue(slurm))
    assert not list(tmp_path.glob(".dask-jobqueue*"))


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_queue_that_is_not_there(
    slurm: dict[str, str],
    python: Path,
    ratings: Path,
    tmp_path: Path,
    capsys,
    monkeypatch,
    adaptive: bool,
) -> None:
    monkeypatch.setenv("SLURM_CONF", slurm["SLURM_CONF"])
    other = {"adaptive": {"minimum": 1, "maximum": 2}} if adaptive else {}
    config = write_config(python, tmp_path, queue="nowhere", wait_seconds=5, **other)
    arguments = ["--data", str(ratings), "--out", str(tmp_path / "out"), "--cluster", config]
    assert segment.main([*arguments, "--quiet"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: cluster {config!r} can't be started: ")
    assert "invalid partition specified: nowhere" in line
    assert not list(tmp_path.glob(".dask-jobqueue*"))
    assert not (tmp_path / "out").exists()
    # What is left open would warn here, and warnings are errors.
    gc.collect()
