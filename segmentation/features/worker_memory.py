"""How much the workers can hold, and so how large partitions and blocks may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from distributed import Client

MIB = 1 << 20
#: Bytes that a worker process takes before it holds data (190 MB were measured), and the least
#: that it needs for data.
_BASE, _MIN_AVAILABLE = 224 * MIB, 64 * MIB
#: Memory limit that is assumed for a worker without one, bytes.
_UNLIMITED = 4 << 30
#: Peak memory of a task over the bytes of its partition: parsing rows, and shuffling them.
_PARSE_FACTOR, _SHUFFLE_FACTOR = 6, 24
#: Bytes per user while tables are made of a block, times the blocks that a thread may hold.
_USER_BYTES = 640 * 6
_PARTITION_BYTES = MIB, 32 * MIB
_BLOCK_USERS = 2_048, 65_536


class MemoryBudget(Protocol):
    """What :func:`segmentation.features.aggregate.aggregate_ratings` needs to know of memory.

    No result depends on it.
    """

    @property
    def total_available_mem(self) -> int:
        """Bytes that all workers together have for data."""

    @property
    def partition_bytes(self) -> int:
        """Bytes of text that one task reads."""

    @property
    def detailed_partition_bytes(self) -> int:
        """The same where the task keeps and sorts its rows, for deduplication."""

    @property
    def shuffle_partition_bytes(self) -> int:
        """The same where the rows are shuffled."""

    @property
    def block_users(self) -> int:
        """Users per block, at most."""


@dataclass(frozen=True)
class WorkerMemory:
    """A :class:`MemoryBudget` that follows from the memory limits of a client's workers."""

    total_available_mem: int
    partition_bytes: int
    detailed_partition_bytes: int
    shuffle_partition_bytes: int
    block_users: int

    @classmethod
    def of_client(cls, client: Client) -> WorkerMemory:
        """Return what the smallest of a client's workers allows for."""
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        return cls.of_workers([(w["memory_limit"] or 0, w["nthreads"]) for w in workers])

    @classmethod
    def of_workers(cls, workers: list[tuple[int, int]]) -> WorkerMemory:
        """Return what workers allow for, from each one's memory limit (0: none) and threads.

        Examples
        --------
        >>> WorkerMemory.of_workers([(8 << 30, 4)]).partition_bytes >> 20
        32
        """
        limit = min((limit or _UNLIMITED for limit, _ in workers), default=_UNLIMITED)
        n_threads = max((threads for _, threads in workers), default=1)
        available = max(limit - _BASE, _MIN_AVAILABLE)
        per_thread = available // n_threads
        partition_bytes = _clip(per_thread // _PARSE_FACTOR, _PARTITION_BYTES)
        return cls(
            total_available_mem=len(workers) * available,
            partition_bytes=partition_bytes,
            detailed_partition_bytes=max(partition_bytes // 2, _PARTITION_BYTES[0]),
            shuffle_partition_bytes=_clip(per_thread // _SHUFFLE_FACTOR, _PARTITION_BYTES),
            block_users=_clip(per_thread // _USER_BYTES, _BLOCK_USERS),
        )


def _clip(value: int, bounds: tuple[int, int]) -> int:
    low, high = bounds
    return max(low, min(value, high))
