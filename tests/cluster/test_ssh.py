"""A real SSH server on loopback, with its own keys and port, and the job through --cluster."""

from __future__ import annotations

import contextlib
import gc
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobs import certificates, segment
from tests.cluster.processes import Process, assert_equal, start_job, wait_until

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.ssh,
    pytest.mark.timeout(600),
    pytest.mark.skipif(SSHD is None, reason="no sshd on this machine: install openssh-server"),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, object]]:
    place = tmp_path / "sshd"
    place.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (place / "authorized").write_text((place / "user.pub").read_text())
    host_key = (place / "host.pub").read_text().rsplit(" ", 1)[0]
    (place / "known").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (place / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nPidFile {place}/pid\n"
        f"AuthorizedKeysFile {place}/authorized\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 50\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    daemon = Process([str(SSHD), "-D", "-e", "-f", str(place / "config")], place)
    wait_until(lambda: "Server listening" in daemon.read_log(), 20, daemon.read_log)
    yield {"port": port, "key": place / "user", "known": place / "known", "daemon": daemon}
    daemon.kill()


def write_config(server: dict, python: Path, target: Path, **other: object) -> str:
    keys = {
        "kind": "ssh",
        "hosts": ["127.0.0.1"],
        "user": getpass.getuser(),
        "port": server["port"],
        "key_file": str(server["key"]),
        "known_hosts": str(server["known"]),
        "python": str(python),
        "workers_per_host": 2,
        "threads_per_worker": 1,
        "memory_per_worker": "1 GiB",
        **other,
    }
    target.write_text(json.dumps(keys))
    return str(target)


@pytest.mark.parametrize("encrypted", [False, True])
def test_the_job_over_ssh(
    server: dict, python: Path, ratings: Path, expected: Path, tmp_path: Path, encrypted: bool
) -> None:
    other: dict[str, object] = {"local_directory": str(tmp_path / "s")}
    if encrypted:
        tls_folder = tmp_path / "certificates"
        assert certificates.main(["--out", str(tls_folder), "--quiet"]) == 0
        other |= {
            "encrypted": True,
            "ca_file": f"{tls_folder}/ca.pem",
            "certificate": f"{tls_folder}/client.pem",
            "key": f"{tls_folder}/client-key.pem",
        }
    config = write_config(server, python, tmp_path / "ssh.yaml", **other)
    out = tmp_path / "out"
    run = start_job(
        tmp_path / "job", "--data", str(ratings), "--out", str(out), "--cluster", config
    )
    wait_until(lambda: "catalogue:" in run.read_log() or not run.is_running(), 100, run.read_log)
    listening = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(python) in " ".join(process.cmdline()):
                listening |= {
                    connection.laddr.ip
                    for connection in process.net_connections("inet")
                    if connection.status == psutil.CONN_LISTEN
                }
    assert listening <= {"127.0.0.1", "::1"}
    assert run.wait(300) == 0, run.read_log() + server["daemon"].read_log()
    assert_equal(out, expected)
    cluster = json.loads((out / "run.json").read_text())["cluster"]
    assert (cluster["kind"], cluster["workers"]) == ("ssh", 2)
    assert cluster["address"].startswith("tls://" if encrypted else "tcp://")


def cluster_processes(python: Path) -> list[psutil.Process]:
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(python) in " ".join(process.cmdline()):
                processes.append(process)
    return processes


def start_with_timeout(name: str, value: str, place: Path, *options: str) -> Process:
    """Start the job with a shorter timeout of SSH clusters."""
    code = (
        f"import sys; from segmentation.deploy import kinds; kinds.{name} = {value!r}; "
        "from jobs import segment; sys.exit(segment.main(sys.argv[1:]))"
    )
    return Process(
        [sys.executable, "-c", code, *options],
        place,
        XDG_CACHE_HOME=os.environ["XDG_CACHE_HOME"],
    )


def test_what_a_killed_job_leaves_ends_by_itself(
    server: dict, python: Path, ratings: Path, tmp_path: Path
) -> None:
    config = write_config(server, python, tmp_path / "ssh.yaml")
    options = ["--data", str(ratings), "--out", str(tmp_path / "out"), "--cluster", config]
    run = start_with_timeout("_IDLE_TIMEOUT", "25 s", tmp_path / "job", *options)
    wait_until(lambda: "catalogue:" in run.read_log() or not run.is_running(), 100, run.read_log)
    assert run.is_running(), run.read_log()
    assert len(cluster_processes(python)) >= 3
    run.kill()
    wait_until(lambda: not cluster_processes(python), 150, lambda: str(cluster_processes(python)))


def test_a_host_that_does_not_answer_leaves_nothing_on_the_others(
    server: dict, python: Path, ratings: Path, tmp_path: Path
) -> None:
    hosts = ["127.0.0.1", "127.0.0.1", "127.0.0.2"]
    config = write_config(server, python, tmp_path / "ssh.yaml", hosts=hosts)
    options = ["--data", str(ratings), "--out", str(tmp_path / "out"), "--cluster", config]
    run = start_with_timeout("_DEATH_TIMEOUT", "5 s", tmp_path / "job", *options)
    assert run.wait(200) == 4, run.read_log()
    assert f"cluster '{config}' can't be started: " in run.read_log()
    assert "Traceback" not in run.read_log()
    # Workers that had not reached the scheduler before it was closed end by themselves.
    wait_until(lambda: not cluster_processes(python), 60, lambda: str(cluster_processes(python)))


# SSHCluster leaves what it could not start to the garbage collector, which warns about it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_key_that_is_refused(
    server: dict, python: Path, ratings: Path, tmp_path: Path, capsys
) -> None:
    stranger = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    config = write_config(server, python, tmp_path / "ssh.yaml", key_file=str(stranger))
    arguments = ["--data", str(ratings), "--out", str(tmp_path / "out"), "--cluster", config]
    assert segment.main([*arguments, "--quiet"]) == 4
    line = capsys.readouterr().err
    assert line.startswith(f"error: cluster '{config}' can't be started: ")
    assert "Permission denied" in line
    assert line.count("\n") == 1
    gc.collect()
