"""Derive the sizes of partitions and blocks from the memory of the workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from distributed import Client

MIB = 1 << 20
#: Bytes that a worker process takes before it holds data (190 MB were measured), and the least
#: that it is assumed to have for data.
_BASE, _MIN_AVAILABLE = 224 * MIB, 64 * MIB
#: Assumed memory limit of a worker without a limit, in bytes.
_ASSUMED_LIMIT = 4 << 30
#: Peak memory of a task per byte of its partition: aggregating rows, down to one per user, and
#: shuffling them.
_AGGREGATE_FACTOR, _SHUFFLE_FACTOR = 20, 24
#: Bytes per user while a block is converted to tables, times the blocks that a thread may hold.
_USER_BYTES = 640 * 6
#: Minimum and maximum of each size.
_PARTITION_BYTES = MIB, 32 * MIB
_BLOCK_USERS = 2_048, 65_536


class MemoryBudget(Protocol):
    """The sizes of tasks that suit the workers' memory.

    :func:`segmentation.features.aggregate.aggregate_ratings` asks for them. Results do not depend
    on them.
    """

    @property
    def total_available_mem(self) -> int:
        """Bytes that all workers together have for data."""

    @property
    def partition_bytes(self) -> int:
        """Bytes of text that one task reads."""

    @property
    def detailed_partition_bytes(self) -> int:
        """Bytes of text that one task reads if it keeps and sorts its rows, for deduplication."""

    @property
    def shuffle_partition_bytes(self) -> int:
        """Bytes of text that one task reads if the rows are shuffled."""

    @property
    def block_users(self) -> int:
        """Maximum number of users per block."""


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
        """Return the budget of a client's workers, sized for the lowest memory limit."""
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        return cls.of_workers([(w["memory_limit"] or 0, w["nthreads"]) for w in workers])

    @classmethod
    def of_workers(cls, workers: list[tuple[int, int]]) -> WorkerMemory:
        """Return the budget of workers, given as pairs of memory limit and number of threads.

        A limit of 0 means no limit. All workers are taken to have the lowest limit and the most
        threads of any.

        Examples
        --------
        >>> WorkerMemory.of_workers([(8 << 30, 4)]).partition_bytes >> 20
        32
        """
        limit = min((limit or _ASSUMED_LIMIT for limit, _ in workers), default=_ASSUMED_LIMIT)
        n_threads = max((threads for _, threads in workers), default=1)
        available = max(limit - _BASE, _MIN_AVAILABLE)
        per_thread = available // n_threads
        partition_bytes = _clip(per_thread // _AGGREGATE_FACTOR, _PARTITION_BYTES)
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
