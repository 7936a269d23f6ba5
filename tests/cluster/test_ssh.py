"""A real SSH server on loopback, with keys and a port of its own, and the job through --cluster."""

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
from tests.cluster.processes import Process, assert_equal, job, until

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
    until(lambda: "Server listening" in daemon.text(), 20, daemon.text)
    yield {"port": port, "key": place / "user", "known": place / "known", "daemon": daemon}
    daemon.kill()


def config_of(server: dict, python: Path, target: Path, **other: object) -> str:
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
        made = tmp_path / "certificates"
        assert certificates.main(["--out", str(made), "--quiet"]) == 0
        other |= {
            "encrypted": True,
            "ca_file": f"{made}/ca.pem",
            "certificate": f"{made}/client.pem",
            "key": f"{made}/client-key.pem",
        }
    config = config_of(server, python, tmp_path / "ssh.yaml", **other)
    out = tmp_path / "out"
    run = job(tmp_path / "job", "--data", str(ratings), "--out", str(out), "--cluster", config)
    until(lambda: "catalogue:" in run.text() or not run.running(), 100, run.text)
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
    assert run.wait(300) == 0, run.text() + server["daemon"].text()
    assert_equal(out, expected)
    cluster = json.loads((out / "run.json").read_text())["cluster"]
    assert (cluster["kind"], cluster["workers"]) == ("ssh", 2)
    assert cluster["address"].startswith("tls://" if encrypted else "tcp://")


def of_cluster(python: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(python) in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_a_killed_job_leaves_nothing_for_long(
    server: dict, python: Path, ratings: Path, tmp_path: Path
) -> None:
    config = config_of(server, python, tmp_path / "ssh.yaml")
    options = ["--data", str(ratings), "--out", str(tmp_path / "out"), "--cluster", config]
    sooner = (
        "import sys; from segmentation.deploy import kinds; kinds._IDLE = '25 s'; "
        "from jobs import segment; segment.main(sys.argv[1:])"
    )
    run = Process(
        [sys.executable, "-c", sooner, *options],
        tmp_path / "job",
        XDG_CACHE_HOME=os.environ["XDG_CACHE_HOME"],
    )
    until(lambda: "catalogue:" in run.text() or not run.running(), 100, run.text)
    assert run.running(), run.text()
    assert len(of_cluster(python)) >= 3
    run.kill()
    until(lambda: not of_cluster(python), 150, lambda: str(of_cluster(python)))


# SSHCluster leaves what it could not start to the garbage collector, which asks for its closing.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_key_that_is_refused(
    server: dict, python: Path, ratings: Path, tmp_path: Path, capsys
) -> None:
    stranger = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    config = config_of(server, python, tmp_path / "ssh.yaml", key_file=str(stranger))
    arguments = ["--data", str(ratings), "--out", str(tmp_path / "out"), "--cluster", config]
    assert segment.main([*arguments, "--quiet"]) == 4
    line = capsys.readouterr().err
    assert line.startswith(f"error: cluster '{config}' can't be started: ")
    assert "Permission denied" in line
    assert line.count("\n") == 1
    gc.collect()
