"""Several hosts: a scheduler, three workers and the job, each with an address of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from jobs import certificates
from tests.cluster.faults import STAGES
from tests.cluster.hosts import Network, refused
from tests.cluster.processes import Process, Standing, assert_equal, job, until
from tests.cluster.test_tls import config_of, options_of

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hosts,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(refused()), reason=str(refused())),
]


class Hosts(NamedTuple):
    """A scheduler, three workers and a place for the job, on hosts of their own, by TLS."""

    network: Network
    cluster: Standing
    addresses: list[str]
    config: str
    options: list[str]

    def start_worker(self, host: int) -> Process:
        address = self.addresses[host]
        return self.cluster.start_worker(
            "--host", address, *self.options, before=self.network.on(address)
        )

    def job(self, stage: str, folder: Path, ratings: Path) -> Process:
        """Start the job on the last host; it waits for three workers, and at the stage."""
        return job(
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
            module="tests.cluster.moments",
            before=self.network.on(self.addresses[4]),
            DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP="12s",
            PYTHONPATH=str(ROOT),
        )


@pytest.fixture
def network() -> Iterator[Network]:
    found = Network()
    yield found
    found.end()


@pytest.fixture(scope="module")
def hosts(
    python: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("hosts")
    network = Network()
    cluster = Standing(python, folder / "c", shared_cache)
    try:
        addresses = [network.add() for _ in range(5)]
        made = folder / "certificates"
        names = [option for address in addresses for option in ("--host", address)]
        assert certificates.main(["--out", str(made), "--quiet", *names]) == 0
        cluster.start_scheduler(
            "--protocol",
            "tls",
            *options_of(made, "scheduler"),
            host=addresses[0],
            before=network.on(addresses[0]),
        )
        assert cluster.address.startswith("tls://10.77.0.1:")
        config = Path(config_of(made, folder / "tls.yaml"))
        config.write_text(config.read_text() + "workers: 3\n")
        found = Hosts(network, cluster, addresses, str(config), options_of(made, "worker"))
        for host in range(1, 4):
            found.start_worker(host)
        yield found
    finally:
        cluster.end()
        network.end()


def cut_off(hosts: Hosts, started: Process, folder: Path) -> Process:
    """Cut a worker's link as the job comes to its stage; return the worker."""
    until(lambda: (folder / "there").exists() or not started.running(), 100, started.text)
    assert started.running(), started.text()
    worker = next(w for w in hosts.cluster.workers if w.running())
    hosts.network.cut(host_of(hosts, worker))
    return worker


def host_of(hosts: Hosts, worker: Process) -> str:
    return next(host for host in hosts.addresses if f"//{host}:" in _address(worker))


def bring_back(hosts: Hosts, worker: Process) -> Process:
    """Mend the link. A worker that was given up ends by itself; another takes its place."""
    host = host_of(hosts, worker)
    hosts.network.cut(host, mend=True)
    until(lambda: not worker.running(), 60, worker.text)
    new = hosts.start_worker(hosts.addresses.index(host))
    until(lambda: "Registered to:" in new.text(), 60, new.text)
    return new


@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_that_is_cut_off(
    hosts: Hosts, ratings: Path, expected: Path, tmp_path: Path, stage: str
) -> None:
    started = hosts.job(stage, tmp_path, ratings)
    worker = cut_off(hosts, started, tmp_path)
    try:
        (tmp_path / "on").touch()
        assert started.wait(200) == 0, started.text() + hosts.cluster.logs()
    finally:
        bring_back(hosts, worker)
    assert_equal(tmp_path / "out", expected)
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["cluster"]["kind"] == "tls"
    assert "warning" not in started.text()


def test_a_host_that_comes_back_half_way_has_its_place_again(
    hosts: Hosts, ratings: Path, expected: Path, tmp_path: Path
) -> None:
    started = hosts.job("merging", tmp_path, ratings)
    worker = cut_off(hosts, started, tmp_path)
    known = hosts.cluster.scheduler
    assert known is not None
    gone = f"Remove worker addr: {_address(worker)}"
    until(lambda: gone in known.text(), 60, known.text)
    new = bring_back(hosts, worker)
    (tmp_path / "on").touch()
    assert started.wait(200) == 0, started.text() + hosts.cluster.logs()
    assert_equal(tmp_path / "out", expected)
    # It was sent the package, and is one of the three that the rest of the work went to.
    assert "Starting Worker plugin segmentation-package" in new.text()
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["cluster"]["workers"] == 3
    assert manifest["cluster"]["workers_lost"] == 1


def _address(worker: Process) -> str:
    return re.findall(r"Start worker at: +(tls://\S+)", worker.text())[-1]


def test_plain_talk_between_hosts_is_warned_of(
    network: Network, python: Path, shared_cache: Path, ratings: Path, tmp_path: Path
) -> None:
    one, other = network.add(), network.add()
    cluster = Standing(python, tmp_path / "c", shared_cache)
    try:
        cluster.start_scheduler(host=one, before=network.on(one))
        cluster.start_worker("--host", one, before=network.on(one))
        started = job(
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
        assert started.wait(200) == 0, started.text()
    finally:
        cluster.end()
    assert f"warning: {cluster.address} is neither encrypted nor" in started.text()
