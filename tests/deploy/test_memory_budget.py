"""The memory budget: worked out by hand for some machines, and never above the limit for any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.deploy.memory_budget import MIB, Budget, budget_of_workers, plan_budget
from segmentation.errors import ClusterError, UsageError

GIB = 1 << 30


def plan(
    *,
    in_process: bool = False,
    workers: int | None = None,
    threads: int | None = None,
    cpus: int = 4,
    machine_mem: int = 32 * GIB,
    memory_limit: int | None = None,
    worker_limit: int | None = None,
) -> Budget:
    return plan_budget(
        in_process=in_process,
        workers=workers,
        threads=threads,
        cpus=cpus,
        machine_mem=machine_mem,
        memory_limit=memory_limit,
        worker_limit=worker_limit,
    )


def test_half_of_the_machine_by_default() -> None:
    budget = plan(in_process=True)
    assert (budget.allowed_mem, budget.worker_mem) == (16 * GIB, 16 * GIB)
    assert (budget.workers, budget.threads) == (1, 4)
    assert budget.partition_bytes == 32 * MIB
    assert budget.block_users == 65_536
    assert budget.record() == {
        "limit_bytes": 16 * GIB,
        "worker_bytes": 16 * GIB,
        "partition_bytes": 32 * MIB,
        "block_users": 65_536,
    }


@pytest.mark.parametrize(
    ("limit", "workers", "threads"), [(8 * GIB, 4, 1), (2 * GIB, 3, 2), (GIB, 1, 4)]
)
def test_fewer_processes_with_more_threads_where_memory_is_short(
    limit: int, workers: int, threads: int
) -> None:
    budget = plan(memory_limit=limit)
    assert (budget.workers, budget.threads) == (workers, threads)


def test_a_limit_per_worker_applies_only_without_one_for_the_run() -> None:
    budget = plan(workers=3, worker_limit=GIB)
    assert (budget.workers, budget.threads, budget.worker_mem) == (3, 1, GIB)
    assert budget.allowed_mem == 3 * GIB + 512 * MIB
    budget = plan(workers=3, worker_limit=GIB, memory_limit=4 * GIB)
    assert budget.allowed_mem == 4 * GIB
    assert budget.workers * budget.worker_mem < 4 * GIB


def test_partitions_of_a_shuffle_are_smaller_where_memory_is_short() -> None:
    short = plan(workers=1, threads=2, memory_limit=GIB)
    ample = plan(workers=1, threads=2, memory_limit=16 * GIB)
    # A worker of 512 MiB, 352 of which a shuffle takes before it has rows: 160 for two threads.
    assert short.shuffle_partition_bytes == 160 * MIB // 2 // 24
    assert short.detailed_partition_bytes == 288 * MIB // 2 // 20 // 2
    assert ample.shuffle_partition_bytes == ample.partition_bytes == 32 * MIB
    config = short.dask_config()
    assert config["distributed.p2p.storage.buffer"] == 20 * MIB
    # Pages of libraries count for the worker, which must not be terminated for them.
    terminate = config["distributed.worker.memory.terminate"]
    assert int(terminate * short.worker_mem) == (512 + 96) * MIB


@pytest.mark.parametrize(
    ("in_process", "workers", "limit", "message"),
    [
        (True, None, 500, "1 thread needs at least 544 MiB"),
        (False, 2, 900, "2 workers with 1 thread need at least 1,088 MiB"),
    ],
)
def test_the_limit_that_an_error_asks_for_is_enough(
    in_process: bool, workers: int | None, limit: int, message: str
) -> None:
    with pytest.raises(UsageError, match=f"memory_limit {limit} MiB: {message}") as error:
        plan(in_process=in_process, workers=workers, threads=1, memory_limit=limit * MIB)
    assert str(error.value).endswith(
        "raise the limit, or use fewer workers or threads in the cluster's file"
    )
    needed = int(message.split()[-2].replace(",", ""))
    plan(in_process=in_process, workers=workers, threads=1, memory_limit=needed * MIB)
    with pytest.raises(UsageError):
        plan(in_process=in_process, workers=workers, threads=1, memory_limit=(needed - 2) * MIB)


@pytest.mark.parametrize(
    ("limit", "n_bytes", "fits"),
    [
        (900, 500 * MIB, False),
        (992, 500 * MIB, True),
        (900, 10_000, True),
        (900, 2 * MIB, False),
    ],
)
def test_a_shuffle_that_memory_is_too_short_for_is_refused(
    limit: int, n_bytes: int, fits: bool
) -> None:
    budget = plan(workers=1, threads=2, memory_limit=limit * MIB)
    if fits:
        budget.check_shuffle(n_bytes, is_remote=False)
        return
    with pytest.raises(UsageError, match=f"memory_limit {limit} MiB: .* at least") as error:
        budget.check_shuffle(n_bytes, is_remote=False)
    assert n_bytes < 100 * MIB or "takes at least 992 MiB" in str(error.value)
    with pytest.raises(ClusterError, match="MiB per worker, and the smallest worker has 388 MiB"):
        budget.check_shuffle(n_bytes, is_remote=True)


def test_a_shuffle_inside_the_jobs_process_keeps_to_the_limit() -> None:
    budget = plan(in_process=True, threads=2, memory_limit=620 * MIB)
    with pytest.raises(UsageError, match="memory_limit 620 MiB: .* takes at least 736 MiB"):
        budget.check_shuffle(500 * MIB, is_remote=False)


def test_running_workers_are_as_good_as_the_smallest() -> None:
    budget = budget_of_workers([(2 * GIB, 1), (GIB, 4), (0, 2)])
    assert (budget.workers, budget.threads, budget.worker_mem) == (3, 4, GIB)
    # A worker without a limit counts like the smallest.
    assert budget.allowed_mem == 4 * GIB
    assert budget.total_available_mem == 3 * (GIB - 224 * MIB)
    assert budget_of_workers([]).worker_mem == 4 * GIB


@given(
    st.booleans(),
    st.none() | st.integers(1, 64),
    st.none() | st.integers(1, 64),
    st.integers(1, 128),
    st.integers(1, 1 << 40),
    st.none() | st.integers(1, 1 << 40),
)
def test_the_parts_never_exceed_the_whole(
    in_process: bool,
    workers: int | None,
    threads: int | None,
    cpus: int,
    machine_mem: int,
    memory_limit: int | None,
) -> None:
    try:
        budget = plan(
            in_process=in_process,
            workers=None if in_process else workers,
            threads=threads,
            cpus=cpus,
            machine_mem=machine_mem,
            memory_limit=memory_limit,
        )
    except UsageError:
        return
    assert budget.allowed_mem == (memory_limit or machine_mem // 2)
    assert budget.workers * budget.worker_mem <= budget.allowed_mem
    in_memory = budget.workers * (budget.reserved_mem + budget.spill_threshold)
    in_tasks = budget.workers * budget.threads * budget.partition_bytes
    assert in_memory + in_tasks <= budget.allowed_mem
    assert 0 < budget.dask_config()["distributed.worker.memory.target"] < 1
