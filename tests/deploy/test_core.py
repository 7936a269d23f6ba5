"""Cluster files: validated, a typo is named, and nothing listens beyond loopback."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psutil
import pytest

from segmentation.deploy import local
from segmentation.deploy.core import load_config, open_cluster
from segmentation.errors import UsageError


@pytest.mark.parametrize("name", ["threads", "local"])
def test_files_of_the_project(name: str) -> None:
    assert load_config(name)["kind"] == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: threads\nthread: 2\n", "unknown key 'thread': did you mean threads?"),
        ("kind: local\nzzz: 2\n", "unknown key 'zzz': known are kind, workers"),
        ("kind: clouds\n", "needs a line 'kind: ' with one of threads, local"),
        ("- a\n", "needs a line 'kind: '"),
        ("kind: [", "is not YAML"),
        ("kind: threads\nthreads: many\n", "threads: 'many': give a number from 1 on, or auto"),
        ("kind: threads\nthreads: 0\n", "threads: 0: give a number from 1 on, or auto"),
        ("kind: threads\nthreads: true\n", "threads: True: give a number from 1 on, or auto"),
        ("kind: local\nworkers: 1.5\n", "workers: 1.5: give a number from 1 on, or auto"),
        ("kind: threads\ndashboard: true\n", "dashboard: True: give an address"),
        ("kind: threads\nmemory_limit: lots\n", "memory_limit: 'lots': give bytes with a unit"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught, open_cluster(str(path)):
        pass
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_and_paths(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="--cluster thread: choose from cloud, kubernetes, local, .*, tls, or give"
    ):
        load_config("thread")
    with pytest.raises(UsageError, match="no such file"):
        load_config(str(tmp_path / "none.yaml"))


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


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["threads", "local"])
def test_listens_on_loopback_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    extra = "workers: 2\n" if name == "local" else "threads: 2\n"
    path.write_text(f"kind: {name}\n{extra}memory_limit: 1 GiB\n")
    with open_cluster(str(path)) as cluster:
        assert sum(cluster.client.nthreads().values()) == 2
        assert cluster.workers == (2 if name == "local" else 1)
        limits = [w["memory_limit"] for w in cluster.client.scheduler_info()["workers"].values()]
        assert limits == [2**30] * cluster.workers
        assert cluster.client.submit(sum, [1, 2]).result() == 3
        here = psutil.Process()
        hosts = {
            c.laddr.ip
            for process in [here, *here.children(recursive=True)]
            for c in process.net_connections("inet")
            if c.status == psutil.CONN_LISTEN
        }
    assert hosts <= {"127.0.0.1", "::1"}


def test_an_operators_cluster_is_asked_for_and_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the job asks of the operator; a cluster of this process stands in for its own."""
    from dask_kubernetes import operator
    from distributed import LocalCluster

    asked: dict[str, object] = {}

    def made(**options: object) -> LocalCluster:
        asked.update(options)
        return LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        )

    monkeypatch.setattr(operator, "KubeCluster", made)
    path = tmp_path / "k.yaml"
    path.write_text(
        "kind: kubernetes\nimage: here/segmentation:1\nworkers: 2\nthreads_per_worker: 3\n"
        "memory_per_worker: 3 GiB\nnamespace: ours\n"
    )
    warnings: list[str] = []
    with open_cluster(str(path), warn=warnings.append) as cluster:
        assert cluster.workers == 2
        assert cluster.client.submit(sum, [1, 2]).result() == 3
    amount = {"memory": str(3 << 30), "cpu": "3"}
    assert asked["resources"] == {"requests": amount, "limits": amount}
    assert (asked["image"], asked["n_workers"], asked["namespace"]) == (
        "here/segmentation:1",
        2,
        "ours",
    )
    assert str(asked["name"]).startswith("segmentation-")
    assert len(warnings) == 1
    assert "keep them out by a network policy" in warnings[0]
