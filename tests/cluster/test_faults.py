"""Workers and schedulers die, jobs are interrupted: the same result, or an end that tells why."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from distributed import Client

from tests.cluster.faults import STAGES, at, killed, run, survives, tidy
from tests.cluster.processes import Standing, assert_equal, job, standing, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_worker_costs_nothing_but_time(
    cluster: Standing, ratings: Path, expected: Path, tmp_path: Path, stage: str
) -> None:
    survives(cluster, killed, stage, ratings, tmp_path / "out")
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
        own = lines[1 + part * 4000 : 1 + (part + 1) * 4000]
        (data / f"ratings-{part}.csv").write_text(lines[0] + "".join(own))
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
    cluster = Standing(python, tmp_path / "c", shared_cache)
    try:
        cluster.start_scheduler()
        for _ in range(2):
            cluster.start_worker("--preload", str(tmp_path / "deadly.py"))
        with _armed(armed):
            assert run(cluster, data, tmp_path / "out") == 4, cluster.logs()
    finally:
        cluster.end()
    told = capsys.readouterr().err
    assert f"workers died 4 times while they read {data}/ratings-1.csv, bytes " in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


class _armed:  # noqa: N801 - a context manager, used like a function
    """From when ratings are read on, a file is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        from segmentation.features import aggregate

        original = aggregate.collect_summaries

        def armed(*arguments, **more):
            self.path.touch()
            return original(*arguments, **more)

        self.patch.setattr(aggregate, "collect_summaries", armed)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


def test_without_its_scheduler_a_run_ends_and_is_resumed(
    python: Path, shared_cache: Path, ratings: Path, expected: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    with standing(python, tmp_path / "c", 2, shared_cache) as cluster:
        began = time.monotonic()
        with at("pass 1", cluster.scheduler.kill):
            assert run(cluster, ratings, out) == 4
        assert time.monotonic() - began < 60
    told = capsys.readouterr().err
    assert "the cluster was lost during the work" in told
    assert "--resume" in told
    assert not (out / "run.json").exists()
    with standing(python, tmp_path / "again", 1, shared_cache) as cluster:
        resumed = job(
            tmp_path / "job",
            "--data",
            str(ratings),
            "--out",
            str(out),
            "--resume",
            "--address",
            cluster.address,
        )
        assert resumed.wait(200) == 0, resumed.text()
        assert "ratings: taken from the finished stage" in resumed.text()
    assert_equal(out, expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_job_leaves_a_standing_cluster_clean(
    cluster: Standing, ratings: Path, tmp_path: Path, number: int
) -> None:
    tidy(cluster, 2)
    started = job(
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
    until(lambda: "catalogue:" in started.text(), 100, started.text)
    time.sleep(0.4)
    os.killpg(started.pid, number)
    ends = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    assert started.wait(60) == ends[number], started.text()
    assert "Traceback" not in started.text()
    with Client(cluster.address, set_as_default=False) as client:

        def left(dask_scheduler=None):
            names = [name for name in dask_scheduler.plugins if "segmentation" in str(name)]
            names += [name for name in dask_scheduler.worker_plugins if "segmentation" in str(name)]
            return len(dask_scheduler.tasks), names

        def left_on_worker(dask_worker=None):
            return [name for name in dask_worker.plugins if "segmentation" in str(name)]

        until(lambda: client.run_on_scheduler(left) == (0, []), 20)
        until(lambda: not any(client.run(left_on_worker).values()), 20)
        until(
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
    with standing(python, tmp_path / "c", 1, shared_cache) as cluster:

        def joined() -> None:
            newcomer = cluster.start_worker(
                before=("unshare", "-m", "sh", "-c", f'{hide} && exec "$@"', "sh")
            )
            until(lambda: not newcomer.running(), 60, newcomer.text)

        with at("reading", joined):
            assert run(cluster, ratings, tmp_path / "out") == 0, cluster.logs()
    told = capsys.readouterr().err
    assert "  turned away: worker tcp://127.0.0.1:" in told
    what = "can't read the input (" if change == "hidden" else "sees another input under the same"
    assert what in told
    assert_equal(tmp_path / "out", expected)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["cluster"]["workers"] == 1


def test_a_worker_that_joins_later_gets_the_package(
    python: Path, shared_cache: Path, ratings: Path, expected: Path, tmp_path: Path
) -> None:
    with standing(python, tmp_path / "c", 1, shared_cache) as cluster:
        first = cluster.workers[0]

        def replaced() -> None:
            cluster.start_worker()
            with Client(cluster.address, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
            first.kill()

        with at("merging", replaced):
            assert run(cluster, ratings, tmp_path / "out") == 0, cluster.logs()
    assert_equal(tmp_path / "out", expected)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["cluster"]["workers_lost"] == 1
