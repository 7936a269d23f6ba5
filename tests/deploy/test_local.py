"""Clusters on this machine: where they listen, spill and log, and that Ctrl-C waits for them."""

from __future__ import annotations

import logging
import signal
import tempfile
from pathlib import Path

import psutil
import pytest
from distributed import Scheduler

from segmentation.deploy import local
from segmentation.deploy.core import open_cluster


def test_without_a_cache_folder_it_spills_to_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert local.spill_dir() == tmp_path / "cache" / "segmentation" / "spill"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert local.spill_dir() == Path(tempfile.gettempdir())
    with open_cluster("threads") as cluster:
        assert cluster.client.submit(sum, [1, 2]).result() == 3


def read_loggers() -> list[tuple[int, int, bool]]:
    loggers = [logging.getLogger(name) for name in ("segmentation", "distributed")]
    return [(logger.level, len(logger.handlers), logger.propagate) for logger in loggers]


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["threads", "local"])
def test_it_listens_on_loopback_and_logs_like_dask(name: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    threads = "workers: 2\n" if name == "local" else "threads: 2\n"
    path.write_text(f"kind: {name}\n{threads}memory_limit: 1 GiB\n")
    with open_cluster(str(path)) as cluster:
        assert not cluster.is_remote
        assert cluster.threads == sum(cluster.client.nthreads().values()) == 2
        assert cluster.workers == (2 if name == "local" else 1)
        limits = [w["memory_limit"] for w in cluster.client.scheduler_info()["workers"].values()]
        assert limits == [2**30] * cluster.workers
        assert cluster.client.submit(sum, [1, 2]).result() == 3
        for package, dask in cluster.run_on_workers(read_loggers):
            assert package == dask
        here = psutil.Process()
        hosts = {
            connection.laddr.ip
            for process in [here, *here.children(recursive=True)]
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
    assert hosts <= {"127.0.0.1", "::1"}


def test_ctrl_c_waits_until_there_is_something_to_close() -> None:
    handler = signal.getsignal(signal.SIGINT)
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with local._defer_interrupts():
            signal.raise_signal(signal.SIGINT)
            steps.append("started")
    assert steps == ["started"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_dashboard_has_an_address_on_request(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("kind: threads\nthreads: 1\ndashboard: 127.0.0.1:0\n")
    with open_cluster(str(path)) as cluster:
        assert cluster.dashboard is not None
        assert cluster.dashboard.startswith("http://127.0.0.1:")
        assert cluster.dashboard.endswith("/status")


class _TerminatedError(Exception):
    """What the caller's handler raises."""


def test_a_handled_sigterm_waits_until_the_cluster_has_started() -> None:
    def terminate(number: int, frame: object) -> None:
        raise _TerminatedError

    previous = signal.signal(signal.SIGTERM, terminate)
    steps = []
    try:
        with pytest.raises(_TerminatedError), local._defer_interrupts():
            signal.raise_signal(signal.SIGTERM)
            steps.append("started")
        assert signal.getsignal(signal.SIGTERM) is terminate
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert steps == ["started"]


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["threads", "local"])
def test_a_worker_that_was_stopped_comes_back(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after Ctrl-Z and fg: the scheduler has heard nothing of its workers for a long time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with open_cluster(name) as cluster:
        client = cluster.client

        async def stop(dask_scheduler: Scheduler) -> None:
            for worker in dask_scheduler.workers.values():
                worker.last_seen -= 1_000
            if dask_scheduler.worker_ttl:
                await dask_scheduler.check_worker_ttl()

        client.run_on_scheduler(stop)
        assert client.submit(sum, [1, 2]).result(timeout=60) == 3
