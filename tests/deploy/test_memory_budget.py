"""Memory shared out: by hand for some machines, and never more than the limit for any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.deploy.memory_budget import MIB, Budget, plan_budget
from segmentation.errors import ClusterError, UsageError

GIB = 1 << 30


def test_half_of_the_machine_by_default() -> None:
    found = plan_budget(
        embedded=True,
        workers=None,
        threads=None,
        cpus=4,
        machine=32 * GIB,
        limit=None,
        worker_limit=None,
    )
    assert (found.total, found.worker, found.workers, found.threads) == (16 * GIB, 16 * GIB, 1, 4)
    assert found.partition_bytes == 32 * MIB
    assert found.block_users == 65_536


def test_fewer_processes_with_more_threads_where_memory_is_short() -> None:
    def local(limit: int) -> tuple[int, int]:
        found = plan_budget(
            embedded=False,
            workers=None,
            threads=None,
            cpus=4,
            machine=32 * GIB,
            limit=limit,
            worker_limit=None,
        )
        return found.workers, found.threads

    assert local(8 * GIB) == (4, 1)
    assert local(2 * GIB) == (3, 2)
    assert local(GIB) == (1, 4)


def test_a_limit_for_each_worker_stands_where_the_run_has_none() -> None:
    given_ = {"embedded": False, "workers": 3, "threads": None, "cpus": 4, "machine": 32 * GIB}
    found = plan_budget(**given_, limit=None, worker_limit=GIB)  # type: ignore[arg-type]
    assert (found.workers, found.threads, found.worker) == (3, 1, GIB)
    assert found.total > 3 * GIB
    found = plan_budget(**given_, limit=4 * GIB, worker_limit=GIB)  # type: ignore[arg-type]
    assert found.total == 4 * GIB
    assert found.workers * found.worker < 4 * GIB


def test_rows_are_shuffled_in_smaller_parts_where_memory_is_short() -> None:
    def local(limit: int) -> Budget:
        return plan_budget(
            embedded=False,
            workers=1,
            threads=2,
            cpus=2,
            machine=32 * GIB,
            limit=limit,
            worker_limit=None,
        )

    short, ample = local(GIB), local(16 * GIB)
    # A worker of 512 MiB, 352 of which a shuffle takes before it has rows: 160 for two threads.
    assert short.shuffle_bytes == 160 * MIB // 2 // 24
    assert short.detailed_bytes == 288 * MIB // 2 // 6 // 2
    assert ample.shuffle_bytes == ample.partition_bytes == 32 * MIB
    config = short.dask_config()
    assert config["distributed.p2p.storage.buffer"] == 20 * MIB
    # Pages of libraries are counted to the worker: it is not ended for these.
    terminate = config["distributed.worker.memory.terminate"]
    assert int(terminate * short.worker) == (512 + 96) * MIB


@pytest.mark.parametrize(
    ("embedded", "workers", "limit", "least"),
    [(True, None, 500, "544 MiB at least"), (False, 2, 900, "1,088 MiB at least")],
)
def test_too_little_says_how_much(
    embedded: bool, workers: int | None, limit: int, least: str
) -> None:
    def run(size: int) -> None:
        plan_budget(
            embedded=embedded,
            workers=workers,
            threads=1,
            cpus=4,
            machine=32 * GIB,
            limit=size * MIB,
            worker_limit=None,
        )

    with pytest.raises(UsageError, match=least) as caught:
        run(limit)
    assert f"--memory-limit {limit} MiB" in str(caught.value)
    # What it asks for is enough.
    run(int(least.split(maxsplit=1)[0].replace(",", "")))


@pytest.mark.parametrize(
    ("limit", "data", "fine"),
    [
        (900, 500 * MIB, False),
        (992, 500 * MIB, True),
        (900, 10_000, True),
        (900, 2 * MIB, False),
    ],
)
def test_rows_that_memory_is_too_short_to_shuffle_are_refused(
    limit: int, data: int, fine: bool
) -> None:
    found = plan_budget(
        embedded=False,
        workers=1,
        threads=2,
        cpus=2,
        machine=32 * GIB,
        limit=limit * MIB,
        worker_limit=None,
    )
    if fine:
        found.refuse_shuffle(data, elsewhere=False)
        return
    with pytest.raises(UsageError, match=f"--memory-limit {limit} MiB: .* at least") as caught:
        found.refuse_shuffle(data, elsewhere=False)
    assert data < 100 * MIB or "takes 992 MiB at least" in str(caught.value)
    with pytest.raises(ClusterError, match="each worker needs .* MiB, and the smallest has 388"):
        found.refuse_shuffle(data, elsewhere=True)


def test_who_has_one_process_keeps_to_the_limit_as_well() -> None:
    found = plan_budget(
        embedded=True,
        workers=None,
        threads=2,
        cpus=2,
        machine=32 * GIB,
        limit=620 * MIB,
        worker_limit=None,
    )
    with pytest.raises(UsageError, match="--memory-limit 620 MiB: .* takes 736 MiB at least"):
        found.refuse_shuffle(500 * MIB, elsewhere=False)


@given(
    st.booleans(),
    st.none() | st.integers(1, 64),
    st.none() | st.integers(1, 64),
    st.integers(1, 128),
    st.integers(1, 1 << 40),
    st.none() | st.integers(1, 1 << 40),
)
def test_the_parts_are_never_more_than_the_whole(
    embedded: bool,
    workers: int | None,
    threads: int | None,
    cpus: int,
    machine: int,
    limit: int | None,
) -> None:
    try:
        found = plan_budget(
            embedded=embedded,
            workers=None if embedded else workers,
            threads=threads,
            cpus=cpus,
            machine=machine,
            limit=limit,
            worker_limit=None,
        )
    except UsageError:
        return
    assert found.total == (limit or machine // 2)
    assert found.workers * found.worker <= found.total
    held = found.workers * (found.base + found.held)
    assert held + found.workers * found.threads * found.partition_bytes <= found.total
    assert 0 < found.dask_config()["distributed.worker.memory.target"] < 1
