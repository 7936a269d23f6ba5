"""A cluster by name, file or address: what it reports, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from segmentation.deploy.core import Cluster, open_cluster
from segmentation.errors import UsageError


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with open_cluster("threads") as opened:
        yield opened


def test_the_record_of_an_embedded_cluster(cluster: Cluster) -> None:
    record = cluster.record()
    assert record["kind"] == "threads"
    assert record["workers"] == 1
    assert record["threads"] == sum(cluster.client.nthreads().values())
    assert record["workers_lost"] == 0
    assert record["dashboard"] is None
    assert set(record["memory"]) == {
        *("limit_bytes", "worker_bytes", "partition_bytes", "block_users", "spilled_bytes")
    }


def test_workers_on_this_machine_see_it_and_need_no_check(cluster: Cluster, tmp_path: Path) -> None:
    lines: list[str] = []
    assert cluster.check(["none.csv"], "0", None) == []
    assert cluster.sees_folder(tmp_path / "none")
    cluster.require_shared_folder(tmp_path / "none", lines.append)
    cluster.watch(["none.csv"], "0", None, lines.append)
    assert lines == []


def test_a_shared_folder_is_tried_with_a_new_file(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers of this process, taken for remote ones, see the folder."""
    monkeypatch.setattr(Cluster, "is_remote", property(lambda self: True))
    assert cluster.sees_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_fails_on_a_worker_is_left_out(cluster: Cluster) -> None:
    def fail(dask_worker: object) -> None:
        raise ValueError(dask_worker)

    assert cluster.run_on_workers(lambda: 7) == [7]
    assert cluster.run_on_workers(fail) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "10.0.0.1:8786"}, "address 10.0.0.1:8786: expected tcp:// or tls://, a host"),
        ({"address": "tcp://h"}, "address tcp://h: expected tcp:// or tls://, a host and a port"),
        (
            {"address": "tcp://h:1", "name": "local"},
            "address connects to a running cluster, and cluster local starts one; pass only one",
        ),
        (
            {"address": "tcp://h:1", "memory_limit": 1 << 30},
            "memory_limit is for clusters on this machine; the workers of 'threads' have their own",
        ),
        ({"name": "remote"}, "cluster remote: has no address; pass address, or add the key"),
    ],
)
def test_settings_that_contradict_each_other(options: dict, message: str) -> None:
    name = options.pop("name", "threads")
    with pytest.raises(UsageError) as error, open_cluster(name, **options):
        pass
    assert message in str(error.value)
    assert error.value.fields
