"""Workers and schedulers die, jobs are interrupted: the same result, or an error that says why."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from distributed import Client

from tests.cluster.faults import (
    STAGES,
    at_stage,
    kill_worker,
    run_job,
    run_with_fault,
    start_workers,
)
from tests.cluster.processes import (
    RunningCluster,
    assert_equal,
    running_cluster,
    start_job,
    wait_until,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_worker_costs_nothing_but_time(
    cluster: RunningCluster, ratings: Path, expected: Path, tmp_path: Path, stage: str
) -> None:
    run_with_fault(cluster, kill_worker, stage, ratings, tmp_path / "out")
    assert_equal(tmp_path / "out", expected)


def test_a_partition_that_kills_every_worker_is_named(
    python: Path, shared_cache: Path, ratings: Path, tmp_path: Path, capsys
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in ratings.glob("*.csv"):
        if path.name != "ratings.csv":
            (data / path.name).symlink_to(path)
    lines = (ratings / "ratings.csv").read_text().splitlines(keepends=True)
    for part in range(3):
        rows = lines[1 + part * 4000 : 1 + (part + 1) * 4000]
        (data / f"ratings-{part}.csv").write_text(lines[0] + "".join(rows))
    armed = tmp_path / "armed"
    (tmp_path / "deadly.py").write_text(
        "import builtins, os\n"
        "from _io import open as before\n"
        "def deadly(file, *a, **k):\n"
        f"    if str(file).endswith('ratings-1.csv') and os.path.exists({str(armed)!r}):\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return before(file, *a, **k)\n"
        "import io\n"
        "builtins.open = io.open = deadly\n"
    )
    cluster = RunningCluster(python, tmp_path / "c", shared_cache)
    try:
        cluster.start_scheduler()
        for _ in range(2):
            cluster.start_worker("--preload", str(tmp_path / "deadly.py"))
        with arm_when_reading(armed):
            assert run_job(cluster, data, tmp_path / "out") == 4, cluster.logs()
    finally:
        cluster.end()
    message = capsys.readouterr().err
    assert f"workers died 4 times while they read {data}/ratings-1.csv, bytes " in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


@contextmanager
def arm_when_reading(path: Path) -> Iterator[None]:
    """Create a file as soon as the job submits the first tasks that read ratings."""
    from segmentation.features import aggregate

    original = aggregate.map_tasks

    def arm(*arguments, **keywords):
        path.touch()
        return original(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregate, "map_tasks", arm)
        yield


def test_without_its_scheduler_a_run_ends_and_is_resumed(
    python: Path, shared_cache: Path, ratings: Path, expected: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    with running_cluster(python, tmp_path / "c", 2, shared_cache) as cluster:
        began = time.monotonic()
        with at_stage("pass 1", cluster.scheduler.kill):
            assert run_job(cluster, ratings, out) == 4
        assert time.monotonic() - began < 60
    message = capsys.readouterr().err
    assert "the connection to the cluster was lost" in message
    assert "--resume" in message
    assert not (out / "run.json").exists()
    with running_cluster(python, tmp_path / "again", 1, shared_cache) as cluster:
        resumed = start_job(
            tmp_path / "job",
            "--data",
            str(ratings),
            "--out",
            str(out),
            "--resume",
            "--address",
            cluster.address,
        )
        assert resumed.wait(200) == 0, resumed.read_log()
        assert "ratings: taken from the finished stage" in resumed.read_log()
    assert_equal(out, expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_job_leaves_a_running_cluster_clean(
    cluster: RunningCluster, ratings: Path, tmp_path: Path, number: int
) -> None:
    start_workers(cluster, 2)
    started = start_job(
        tmp_path / "job",
        "--data",
        str(ratings),
        "--out",
        str(tmp_path / "out"),
        "--partition-size",
        "8KiB",
        "--address",
        cluster.address,
    )
    wait_until(lambda: "catalogue:" in started.read_log(), 100, started.read_log)
    time.sleep(0.4)
    os.killpg(started.pid, number)
    ends = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    assert started.wait(60) == ends[number], started.read_log()
    assert "Traceback" not in started.read_log()
    with Client(cluster.address, set_as_default=False) as client:

        def scheduler_state(dask_scheduler=None):
            plugins = [*dask_scheduler.plugins, *dask_scheduler.worker_plugins]
            return len(dask_scheduler.tasks), [n for n in plugins if "segmentation" in str(n)]

        def worker_plugins(dask_worker=None):
            return [name for name in dask_worker.plugins if "segmentation" in str(name)]

        wait_until(lambda: client.run_on_scheduler(scheduler_state) == (0, []), 20)
        wait_until(lambda: not any(client.run(worker_plugins).values()), 20)
        wait_until(
            lambda: set(client.run(lambda dask_worker: len(dask_worker.data)).values()) == {0}, 20
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide a folder from a process")
@pytest.mark.parametrize("change", ["hidden", "other"])
def test_a_worker_that_joins_and_sees_another_input_is_turned_away(
    python: Path,
    shared_cache: Path,
    ratings: Path,
    expected: Path,
    tmp_path: Path,
    capsys,
    change: str,
) -> None:
    hide = f"mount -t tmpfs none {ratings}"
    if change == "other":
        copy = tmp_path / "copy"
        copy.mkdir()
        for path in ratings.iterdir():
            (copy / path.name).write_bytes(path.read_bytes().replace(b",4.0,", b",1.0,"))
        hide = f"mount --bind {copy} {ratings}"
    with running_cluster(python, tmp_path / "c", 1, shared_cache) as cluster:

        def start_newcomer() -> None:
            newcomer = cluster.start_worker(
                before=("unshare", "-m", "sh", "-c", f'{hide} && exec "$@"', "sh")
            )
            wait_until(lambda: not newcomer.is_running(), 60, newcomer.read_log)

        with at_stage("reading", start_newcomer):
            assert run_job(cluster, ratings, tmp_path / "out") == 0, cluster.logs()
    message = capsys.readouterr().err
    assert "  turned away: worker tcp://127.0.0.1:" in message
    reason = "can't read the input (" if change == "hidden" else "sees other data under the same"
    assert reason in message
    assert_equal(tmp_path / "out", expected)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["cluster"]["workers"] == 1


def test_a_worker_that_joins_later_gets_the_package(
    python: Path, shared_cache: Path, ratings: Path, expected: Path, tmp_path: Path
) -> None:
    with running_cluster(python, tmp_path / "c", 1, shared_cache) as cluster:
        first = cluster.workers[0]

        def replace_first() -> None:
            cluster.start_worker()
            with Client(cluster.address, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
            first.kill()

        with at_stage("merging", replace_first):
            assert run_job(cluster, ratings, tmp_path / "out") == 0, cluster.logs()
    assert_equal(tmp_path / "out", expected)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["cluster"]["workers_lost"] == 1
