"""Several hosts: a scheduler, three workers and the job, each with an address of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from jobs import certificates
from tests.cluster.faults import SLOW_FAULT_STAGES
from tests.cluster.hosts import Network, missing_requirement
from tests.cluster.processes import Process, RunningCluster, assert_equal, start_job, wait_until
from tests.cluster.test_tls import tls_options, write_config

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hosts,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing_requirement()), reason=str(missing_requirement())),
]


class Hosts(NamedTuple):
    """A scheduler, three workers and a host for the job, which all speak TLS."""

    network: Network
    cluster: RunningCluster
    addresses: list[str]
    config: str
    options: list[str]

    def start_worker(self, host: int) -> Process:
        address = self.addresses[host]
        return self.cluster.start_worker(
            "--host", address, *self.options, before=self.network.on(address)
        )

    def start_job(self, stage: str, folder: Path, ratings: Path) -> Process:
        """Start the job on the last host; it waits for three workers, and pauses at the stage."""
        return start_job(
            folder,
            stage,
            str(folder),
            "--data",
            str(ratings),
            "--out",
            str(folder / "out"),
            "--partition-size",
            "64KiB",
            "--cluster",
            self.config,
            "--address",
            self.cluster.address,
            module="tests.cluster.paused_job",
            before=self.network.on(self.addresses[4]),
            DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP="12s",
            PYTHONPATH=str(ROOT),
        )


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network()
    yield network
    network.end()


@pytest.fixture(scope="module")
def hosts(
    python: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("hosts")
    network = Network()
    cluster = RunningCluster(python, folder / "c", shared_cache)
    try:
        addresses = [network.add() for _ in range(5)]
        tls_folder = folder / "certificates"
        names = [option for address in addresses for option in ("--host", address)]
        assert certificates.main(["--out", str(tls_folder), "--quiet", *names]) == 0
        cluster.start_scheduler(
            "--protocol",
            "tls",
            *tls_options(tls_folder, "scheduler"),
            host=addresses[0],
            before=network.on(addresses[0]),
        )
        assert cluster.address.startswith("tls://10.77.0.1:")
        config = Path(write_config(tls_folder, folder / "tls.yaml"))
        config.write_text(config.read_text() + "workers: 3\n")
        hosts = Hosts(network, cluster, addresses, str(config), tls_options(tls_folder, "worker"))
        for host in range(1, 4):
            hosts.start_worker(host)
        yield hosts
    finally:
        cluster.end()
        network.end()


def cut_off_worker(hosts: Hosts, started: Process, folder: Path) -> Process:
    """Cut a worker's link when the job reaches its stage; return the worker."""
    wait_until(
        lambda: (folder / "reached").exists() or not started.is_running(), 100, started.read_log
    )
    assert started.is_running(), started.read_log()
    worker = next(w for w in hosts.cluster.workers if w.is_running())
    hosts.network.set_link(host_of(hosts, worker), up=False)
    return worker


def host_of(hosts: Hosts, worker: Process) -> str:
    return next(host for host in hosts.addresses if f"//{host}:" in _address(worker))


def restore_host(hosts: Hosts, worker: Process) -> Process:
    """Restore the link and start another worker, once the one that was given up has ended."""
    host = host_of(hosts, worker)
    hosts.network.set_link(host, up=True)
    wait_until(lambda: not worker.is_running(), 60, worker.read_log)
    new = hosts.start_worker(hosts.addresses.index(host))
    wait_until(lambda: "Registered to:" in new.read_log(), 60, new.read_log)
    return new


@pytest.mark.parametrize("stage", SLOW_FAULT_STAGES)
def test_a_worker_that_is_cut_off(
    hosts: Hosts, ratings: Path, expected: Path, tmp_path: Path, stage: str
) -> None:
    started = hosts.start_job(stage, tmp_path, ratings)
    worker = cut_off_worker(hosts, started, tmp_path)
    try:
        (tmp_path / "continue").touch()
        assert started.wait(200) == 0, started.read_log() + hosts.cluster.logs()
    finally:
        restore_host(hosts, worker)
    assert_equal(tmp_path / "out", expected)
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["cluster"]["kind"] == "tls"
    assert "warning" not in started.read_log()


def test_a_host_that_comes_back_takes_part_again(
    hosts: Hosts, ratings: Path, expected: Path, tmp_path: Path
) -> None:
    started = hosts.start_job("merging", tmp_path, ratings)
    worker = cut_off_worker(hosts, started, tmp_path)
    scheduler = hosts.cluster.scheduler
    assert scheduler is not None
    removal = f"Remove worker addr: {_address(worker)}"
    wait_until(lambda: removal in scheduler.read_log(), 60, scheduler.read_log)
    new = restore_host(hosts, worker)
    (tmp_path / "continue").touch()
    assert started.wait(200) == 0, started.read_log() + hosts.cluster.logs()
    assert_equal(tmp_path / "out", expected)
    # It was sent the package, and did its share of the rest of the work.
    assert "Starting Worker plugin segmentation-package" in new.read_log()
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["cluster"]["workers"] == 3
    assert manifest["cluster"]["workers_lost"] == 1


def _address(worker: Process) -> str:
    return re.findall(r"Start worker at: +(tls://\S+)", worker.read_log())[-1]


def test_unencrypted_traffic_between_hosts_is_warned_of(
    network: Network, python: Path, shared_cache: Path, ratings: Path, tmp_path: Path
) -> None:
    one, other = network.add(), network.add()
    cluster = RunningCluster(python, tmp_path / "c", shared_cache)
    try:
        cluster.start_scheduler(host=one, before=network.on(one))
        cluster.start_worker("--host", one, before=network.on(one))
        started = start_job(
            tmp_path / "job",
            "--data",
            str(ratings),
            "--out",
            str(tmp_path / "out"),
            "--quiet",
            "--address",
            cluster.address,
            before=network.on(other),
        )
        assert started.wait(200) == 0, started.read_log()
    finally:
        cluster.end()
    assert f"warning: {cluster.address} is unencrypted and" in started.read_log()
