"""Kinds of clusters: what the job asks of Dask's deployment classes, certificates, and warnings."""

from __future__ import annotations

import copy
import sys
import types
from contextlib import ExitStack
from pathlib import Path

import dask
import distributed
import pytest

from segmentation.deploy import kinds, tls
from segmentation.deploy.core import open_cluster
from segmentation.errors import ClusterError, UsageError


@pytest.mark.parametrize(
    ("address", "is_exposed"),
    [
        ("tcp://127.0.0.1:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://[::1]:8786", False),
        ("inproc://10.0.0.1/1/2", False),
        ("tls://10.0.0.1:8786", False),
        ("tcp://10.0.0.1:8786", True),
        ("tcp://node-1:8786", True),
        ("tcp://[fe80::1]:8786", True),
    ],
)
def test_unencrypted_traffic_beyond_loopback_is_warned_of(address: str, is_exposed: bool) -> None:
    warning = kinds.format_unencrypted_warning(address)
    assert (warning is not None) == is_exposed
    if warning is not None:
        assert f"{address} is unencrypted and unauthenticated" in warning
        assert "use tls://" in warning


def test_a_running_cluster_needs_an_address() -> None:
    with pytest.raises(UsageError, match="cluster mine: has no address; pass address, or add"):
        with kinds.deploy({"kind": "remote"}, "mine"):
            pass
    config = {"kind": "remote", "address": "tcp://127.0.0.1:1", "workers": 3}
    with kinds.deploy(config, "mine") as deployment:
        assert deployment == ("tcp://127.0.0.1:1", None, 3, None, None)


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "certificates"
    tls.make_certificates(folder, ["127.0.0.1"], 1)
    return pair_in(folder)


def pair_in(folder: Path) -> dict[str, str]:
    return {
        "ca_file": str(folder / "ca.pem"),
        "certificate": str(folder / "client.pem"),
        "key": str(folder / "client-key.pem"),
    }


def test_certificates_of_the_client(certificates: dict[str, str]) -> None:
    security = kinds.load_security(certificates, "tls://h:1")
    assert security is not None
    assert security.require_encryption
    assert (security.tls_ca_file, security.tls_client_cert, security.tls_client_key) == tuple(
        certificates.values()
    )
    assert kinds.load_security({}, "tcp://h:1") is None


def test_an_expired_certificate_is_reported_before_it_is_used(tmp_path: Path) -> None:
    tls.make_certificates(tmp_path, ["127.0.0.1"], -1.0)
    with pytest.raises(ClusterError, match=r"client.pem: the certificate expired on 20\d\d-"):
        kinds.load_security(pair_in(tmp_path), "tls://127.0.0.1:1")


def test_certificates_that_are_missing(certificates: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="tls://h:1: needs ca_file; pass cluster tls"):
        kinds.load_security({}, "tls://h:1")
    with pytest.raises(UsageError, match="ca_file is missing, and this cluster is encrypted"):
        kinds.load_security({}, "tls://")
    with pytest.raises(UsageError, match="ca_file: nowhere.pem: no such file"):
        kinds.load_security({**certificates, "ca_file": "nowhere.pem"}, "tls://h:1")
    with pytest.raises(UsageError, match="names certificates, and the address is not tls://"):
        kinds.load_security(certificates, "tcp://h:1")


def test_a_key_of_another_certificate(certificates: dict[str, str], tmp_path: Path) -> None:
    tls.make_certificates(tmp_path / "other", ["127.0.0.1"], 1)
    other = str(tmp_path / "other" / "client-key.pem")
    with pytest.raises(UsageError, match=r"other/client-key.pem and .*client.pem can't be used"):
        kinds.load_security({**certificates, "key": other}, "tls://h:1")


class StoppedHere(Exception):  # noqa: N818 - not an error
    """Raised in place of starting a cluster."""


def record_ssh(monkeypatch: pytest.MonkeyPatch, config: dict) -> dict:
    options: dict[str, object] = {}

    def start(hosts: list[str], **keywords: object) -> None:
        # A copy, because the configuration is restored in place.
        configured = copy.deepcopy(dask.config.get("distributed.comm.tls"))
        options.update(keywords, hosts=hosts, tls=configured)
        raise StoppedHere

    monkeypatch.setattr(distributed, "SSHCluster", start)
    with ExitStack() as stack, pytest.raises(StoppedHere):
        kinds._start_ssh(config, stack)
    return options


def test_ssh_on_loopback_is_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"hosts": ["127.0.0.1"], "user": "me", "port": 2222, "workers_per_host": 2}
    options = record_ssh(monkeypatch, config)
    # The scheduler's host comes first, and again as a host of workers.
    assert options["hosts"] == ["127.0.0.1", "127.0.0.1"]
    assert options["connect_options"] == {"username": "me", "port": 2222}
    assert options["remote_python"] == "python3"
    assert options["scheduler_options"] == {
        "host": "127.0.0.1",
        "port": 0,
        "idle_timeout": "10 minutes",
        "dashboard_address": "127.0.0.1:0",
        "dashboard": True,
    }
    assert options["worker_options"] == {
        "nthreads": 1,
        "memory_limit": "auto",
        "n_workers": 2,
        "dashboard_address": "127.0.0.1:0",
        "death_timeout": "1 minute",
        "host": "127.0.0.1",
    }


def test_ssh_to_other_hosts_is_encrypted(
    monkeypatch: pytest.MonkeyPatch, certificates: dict[str, str]
) -> None:
    hosts = ["10.0.0.1", "10.0.0.2"]
    options = record_ssh(monkeypatch, {"hosts": hosts, **certificates})
    assert options["scheduler_options"]["protocol"] == "tls://"
    assert options["tls"]["ca-file"] == certificates["ca_file"]
    for role in ("scheduler", "worker", "client"):
        assert options["tls"][role]["cert"] == certificates["certificate"]
        assert options["tls"][role]["key"] == certificates["key"]
    assert "host" not in options["worker_options"]
    with pytest.raises(UsageError, match="ca_file is missing"), ExitStack() as stack:
        kinds._start_ssh({"hosts": hosts}, stack)
    plain = record_ssh(monkeypatch, {"hosts": hosts, "encrypted": False})
    assert "protocol" not in plain["scheduler_options"]


def test_the_kubernetes_operator_gets_the_files_keys_and_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster in this process stands in for the operator's."""
    from dask_kubernetes import operator

    options: dict[str, object] = {}

    def start(**keywords: object) -> distributed.LocalCluster:
        options.update(keywords)
        return distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        )

    monkeypatch.setattr(operator, "KubeCluster", start)
    path = tmp_path / "k.yaml"
    path.write_text(
        "kind: kubernetes\nimage: here/segmentation:1\nworkers: 2\nthreads_per_worker: 3\n"
        "memory_per_worker: 3 GiB\nnamespace: ours\n"
    )
    warnings: list[str] = []
    with open_cluster(str(path), warn=warnings.append) as cluster:
        assert cluster.is_remote
        assert cluster.workers == 2
        assert cluster.client.submit(sum, [1, 2]).result() == 3
    amount = {"memory": str(3 << 30), "cpu": "3"}
    assert options["resources"] == {"requests": amount, "limits": amount}
    assert (options["image"], options["n_workers"]) == ("here/segmentation:1", 2)
    assert options["namespace"] == "ours"
    assert str(options["name"]).startswith("segmentation-")
    assert len(warnings) == 1
    assert "restrict access with a network policy" in warnings[0]


def test_a_clouds_package_gets_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    coiled = types.ModuleType("coiled")
    coiled.Cluster = lambda **options: options  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "coiled", coiled)
    config = {"provider": "coiled", "workers": 4, "options": {"region": "eu-central-1"}}
    with ExitStack() as stack:
        options, expected = kinds._start_cloud(config, stack)
    assert options == {"n_workers": 4, "region": "eu-central-1"}
    assert expected == 4


def test_what_a_deployment_class_raises_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(config: object, stack: object) -> None:
        raise RuntimeError("no quota\nleft")

    monkeypatch.setitem(kinds._STARTERS, "cloud", start)
    with pytest.raises(ClusterError, match="cluster 'mine' can't be started: no quota left; check"):
        with kinds.deploy({"kind": "cloud"}, "mine"):
            pass
