"""Sizes of partitions and blocks that workers' memory allows for."""

from __future__ import annotations

from dataclasses import astuple

import pytest
from distributed import Client

from segmentation.features.worker_memory import WorkerMemory

MIB = 1 << 20


def test_by_hand() -> None:
    # The smaller worker has 2,048 − 224 MiB for data, 456 MiB for each of the most threads.
    memory = WorkerMemory.of_workers([(4096 * MIB, 2), (2048 * MIB, 4)])
    assert memory.total_available_mem == 2 * 1824 * MIB
    assert memory.partition_bytes == 456 * MIB // 20
    assert memory.detailed_partition_bytes == 228 * MIB // 20
    assert memory.shuffle_partition_bytes == 19 * MIB
    assert memory.block_users == 65_536


@pytest.mark.parametrize("workers", [[(1, 64)], [(100 * MIB, 1)]])
def test_small_workers_read_small_partitions(workers: list[tuple[int, int]]) -> None:
    memory = WorkerMemory.of_workers(workers)
    assert memory.shuffle_partition_bytes >= MIB
    assert memory.detailed_partition_bytes >= MIB
    assert memory.block_users >= 2_048


def test_workers_without_a_limit() -> None:
    assert WorkerMemory.of_workers([(0, 4)]) == WorkerMemory.of_workers([(4096 * MIB, 4)])


def test_of_client(client: Client) -> None:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [(worker["memory_limit"], worker["nthreads"]) for worker in workers]
    memory = WorkerMemory.of_client(client)
    assert memory == WorkerMemory.of_workers(limits)
    assert min(astuple(memory)) > 0
