"""Connections: what failed is named by its cause, and nothing of the job stays behind."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster
from distributed.comm.core import CommClosedError

from segmentation.deploy import connect, package_upload, tls
from segmentation.deploy.kinds import Deployment
from segmentation.errors import ClusterError


def handshake(folder: Path, ca_file: Path | None, server_days: float = 1) -> ssl.SSLError:
    """Return the error of a TLS handshake, in memory, with a server that has its own authority."""
    tls.make_certificates(folder, ["127.0.0.1"], server_days)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(folder / "scheduler.pem", folder / "scheduler-key.pem")
    client_context = ssl.create_default_context(cafile=ca_file or folder / "ca.pem")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                return error
    raise AssertionError("the handshake succeeded")


def caused_by(cause: BaseException) -> OSError:
    """Return an error as Dask raises it, two causes above what the handshake raised."""
    closed, timeout = CommClosedError("closed"), OSError("Timed out")
    closed.__cause__, timeout.__context__ = cause, closed
    return timeout


def test_an_authority_that_did_not_sign(tmp_path: Path) -> None:
    tls.make_certificates(tmp_path / "other", ["127.0.0.1"], 1)
    error = caused_by(handshake(tmp_path / "own", tmp_path / "other" / "ca.pem"))
    message = connect.describe_connection_error("tls://h:1", error)
    assert message.startswith("tls://h:1: the scheduler's certificate is not accepted (")
    assert "check that ca_file is the authority that signed it" in message


def test_an_expired_certificate(tmp_path: Path) -> None:
    error = caused_by(handshake(tmp_path, None, server_days=-1))
    message = connect.describe_connection_error("tls://h:1", error)
    assert message.startswith("tls://h:1: the scheduler's certificate has expired; make new ones")


def test_other_errors() -> None:
    alert = ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")
    message = connect.describe_connection_error("tls://h:1", caused_by(alert))
    assert message.startswith("tls://h:1: the TLS handshake failed (")
    message = connect.describe_connection_error("tls://h:1", TimeoutError("no answer"))
    assert message.endswith("(dask scheduler), the address, and TLS on both sides")
    # A text that mentions a certificate is no evidence of one.
    message = connect.describe_connection_error("tcp://h:1", OSError("no certificate expired"))
    assert message == (
        "tcp://h:1: no scheduler answered; check that it is running (dask scheduler) and the "
        "address"
    )
    message = connect.describe_connection_error("tcp://h:1", ValueError("what\nis this"))
    assert "was not understood (ValueError: what is this); install the same versions" in message


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_CONNECT_SECONDS", 0.3)


def refused(address: str) -> str:
    with pytest.raises(ClusterError) as error:
        with connect.connect(Deployment(address, None, 1), "mine"):
            pass
    return str(error.value)


def test_nobody_listens(impatient: None) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    assert refused(address).startswith(f"{address}: no scheduler answered; check that it is run")


def test_a_peer_that_accepts_and_never_answers(impatient: None) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        assert refused(address).startswith(f"{address}: no scheduler answered")


@pytest.fixture
def local_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def test_the_jobs_plugins_are_removed_at_the_end(local_cluster: LocalCluster) -> None:
    def names() -> list[str]:
        scheduler = local_cluster.scheduler
        plugins = [*scheduler.plugins, *scheduler.worker_plugins]
        return [name for name in map(str, plugins) if name.startswith("segmentation-")]

    with connect.connect(Deployment(local_cluster, None, 1), "mine") as client:
        package_upload.upload_package(client)
        assert len(names()) == 2
    assert names() == []
    assert client.status == "closed"
