"""Several hosts: a scheduler, three workers and the job, each with an address of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import certificates
from tests.cluster.hosts import Network, refused
from tests.cluster.processes import Standing, assert_equal, job, until
from tests.cluster.test_tls import config_of, options_of

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hosts,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(refused()), reason=str(refused())),
]


@pytest.fixture
def network() -> Iterator[Network]:
    found = Network()
    yield found
    found.end()


@pytest.mark.parametrize("moment", ["catalogue:", "ratings:", "K-Means"])
def test_a_link_that_is_cut_and_one_that_comes_back(
    network: Network, python: Path, shared_cache: Path, ratings: Path, expected: Path,
    tmp_path: Path, moment: str,
) -> None:  # fmt: skip
    addresses = [network.add() for _ in range(5)]
    made = tmp_path / "certificates"
    names = [option for address in addresses for option in ("--host", address)]
    assert certificates.main(["--out", str(made), "--quiet", *names]) == 0
    cluster = Standing(python, tmp_path / "c", shared_cache)
    try:
        cluster.start_scheduler(
            "--protocol", "tls", *options_of(made, "scheduler"),
            host=addresses[0], before=network.on(addresses[0]),
        )  # fmt: skip
        assert cluster.address.startswith("tls://10.77.0.1:")
        for address in addresses[1:4]:
            cluster.start_worker(
                "--host", address, *options_of(made, "worker"), before=network.on(address)
            )
        config = Path(config_of(made, tmp_path / "tls.yaml"))
        config.write_text(config.read_text() + "workers: 3\n")
        out = tmp_path / "out"
        started = job(
            tmp_path / "job", "--data", str(ratings), "--out", str(out),
            "--partition-size", "16KiB", "--cluster", str(config), "--address", cluster.address,
            before=network.on(addresses[4]), DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP="12s",
        )  # fmt: skip
        until(lambda: moment in started.text() or not started.running(), 100, started.text)
        network.cut(addresses[1])
        time.sleep(16)
        # The worker there finds itself given up, and its nanny starts it anew.
        network.cut(addresses[1], mend=True)
        assert started.wait(200) == 0, started.text() + cluster.logs()
    finally:
        cluster.end()
    assert_equal(out, expected)
    assert json.loads((out / "run.json").read_text())["cluster"]["kind"] == "tls"
    assert "warning" not in started.text()


def test_plain_talk_between_hosts_is_warned_of(
    network: Network, python: Path, shared_cache: Path, ratings: Path, tmp_path: Path
) -> None:
    one, other = network.add(), network.add()
    cluster = Standing(python, tmp_path / "c", shared_cache)
    try:
        cluster.start_scheduler(host=one, before=network.on(one))
        cluster.start_worker("--host", one, before=network.on(one))
        started = job(
            tmp_path / "job", "--data", str(ratings), "--out", str(tmp_path / "out"), "--quiet",
            "--address", cluster.address, before=network.on(other),
        )  # fmt: skip
        assert started.wait(200) == 0, started.text()
    finally:
        cluster.end()
    assert f"warning: {cluster.address} is neither encrypted nor" in started.text()
