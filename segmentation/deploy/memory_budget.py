"""Plan a run's memory, and derive workers, partition sizes, block sizes and spilling from it.

The terms are those of cubed: ``allowed_mem`` is the memory that may be used, ``reserved_mem`` the
memory of a process before it holds data, ``available_mem`` the rest. Results don't depend on any of
these figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segmentation.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 1 << 20
#: The share of the machine's memory, or its cgroup's, that a run may use by default.
DEFAULT_SHARE = 0.5
#: Memory of the job's process next to its worker processes, with libraries and figures. It was
#: measured as 500 to 600 MB with 2.7 million users; 160 MB of it are pages shared with the workers.
_CLIENT_MEM = 512 * MIB
#: Memory of a worker process before it reads anything; 190 MB were measured.
_WORKER_RESERVED_MEM = 224 * MIB
#: Memory of the job's process before it reads anything, if it is also the worker.
_IN_PROCESS_RESERVED_MEM = 480 * MIB
#: Memory that each thread of a worker needs in addition, to read partitions of a few MiB.
_MIN_THREAD_MEM = 64 * MIB
#: Minimum memory of each worker process if the number of workers is not set.
_MIN_WORKER_MEM = 480 * MIB
#: Memory per byte of a partition: with many ratings per user, and with one, whose statistics take
#: 136 bytes per 16 bytes of text, twice while they are merged.
_MIN_MEM_PER_PARTITION_BYTE, _MEM_PER_PARTITION_BYTE = 6, 20
#: Memory per byte of a partition that is shuffled: Dask copies rows on sending and on receiving.
_MEM_PER_SHUFFLED_BYTE = 24
#: Memory of a shuffle before it has any rows: Dask's dataframes, pandas, and numba.
_SHUFFLE_RESERVED_MEM = 128 * MIB
#: A worker is terminated when it exceeds its limit by this much. The machine can afford the margin:
#: 140 MB of a worker that shuffles are pages of libraries, which count once per process, and the
#: job's process is small at that time.
_TERMINATE_MARGIN = 96 * MIB
#: Memory per user of a block while its table is built, and blocks in memory per thread.
_MEM_PER_USER, _BLOCKS_PER_THREAD = 640, 6
#: Memory that a worker without a limit is assumed to have.
_ASSUMED_WORKER_MEM = 4 << 30
_PARTITION_BYTES_RANGE = MIB, 32 * MIB
_BLOCK_USERS_RANGE = 2_048, 65_536


@dataclass(frozen=True)
class Budget:
    """The memory of a run, in bytes, and the sizes that follow from it.

    Parameters
    ----------
    allowed_mem
        Memory that all processes of the run may use.
    workers, threads
        The number of worker processes, and of threads in each.
    worker_mem
        Memory that each worker may use.
    reserved_mem
        Memory of a worker before it holds any data.
    is_limited
        Whether the workers have a limit; if not, ``worker_mem`` is assumed.

    Examples
    --------
    >>> budget = Budget(4 << 30, workers=1, threads=2, worker_mem=4 << 30, reserved_mem=480 * MIB)
    >>> budget.available_mem // MIB, budget.partition_bytes // MIB
    (3616, 32)
    """

    allowed_mem: int
    workers: int
    threads: int
    worker_mem: int
    reserved_mem: int
    is_limited: bool = True

    @property
    def available_mem(self) -> int:
        """The memory that a worker has for data, at least that of one thread."""
        return max(self.worker_mem - self.reserved_mem, _MIN_THREAD_MEM)

    @property
    def total_available_mem(self) -> int:
        """The memory that all workers together have for data."""
        return self.workers * self.available_mem

    @property
    def spill_threshold(self) -> int:
        """The bytes of results that a worker keeps in memory before it spills."""
        return self.available_mem * 3 // 10

    @property
    def partition_bytes(self) -> int:
        """The bytes of text that one task reads."""
        size = self.available_mem // self.threads // _MEM_PER_PARTITION_BYTE
        return _clip(size, _PARTITION_BYTES_RANGE)

    @property
    def detailed_partition_bytes(self) -> int:
        """The bytes of text per task where times and positions are kept and rows are sorted."""
        return max(self.partition_bytes // 2, _PARTITION_BYTES_RANGE[0])

    @property
    def shuffle_partition_bytes(self) -> int:
        """The bytes of text or rows that one task of a shuffle reads or receives."""
        size = self._shuffle_available_mem // self.threads // _MEM_PER_SHUFFLED_BYTE
        return _clip(size, _PARTITION_BYTES_RANGE)

    @property
    def block_users(self) -> int:
        """The largest number of users of a block."""
        size = self.available_mem // self.threads // (_MEM_PER_USER * _BLOCKS_PER_THREAD)
        return _clip(size, _BLOCK_USERS_RANGE)

    @property
    def _shuffle_available_mem(self) -> int:
        return max(self.worker_mem - self.reserved_mem - _SHUFFLE_RESERVED_MEM, _MIN_THREAD_MEM)

    def required_mem(self, partition_bytes: int, threads: int) -> int:
        """Return the bytes that a worker needs at least for partitions of ``partition_bytes``."""
        per_thread = max(_MIN_THREAD_MEM, partition_bytes * _MIN_MEM_PER_PARTITION_BYTE)
        return self.reserved_mem + per_thread * threads

    def check_shuffle(self, n_bytes: int, *, is_remote: bool) -> None:
        """Check that the workers have the memory to shuffle rows.

        With too little, Dask would terminate worker processes repeatedly, and a worker inside the
        job's process would exceed the limit.

        Parameters
        ----------
        n_bytes
            The size of the rows.
        is_remote
            Whether the workers' limits were set where they were started, not by the job.

        Raises
        ------
        UsageError
            If the run's memory limit is too small.
        ClusterError
            If the memory of remote workers is too small.
        """
        needed = min(_MIN_THREAD_MEM * self.threads, n_bytes * _MEM_PER_SHUFFLED_BYTE)
        missing = self.reserved_mem + _SHUFFLE_RESERVED_MEM + needed - self.worker_mem
        if missing <= 0:
            return
        if is_remote:
            raise ClusterError(
                "shuffling ratings that are not sorted by user takes at least "
                f"{_format_mib(self.worker_mem + missing)} MiB per worker, and the smallest worker "
                f"has {_format_mib(self.worker_mem)} MiB; start it with a larger --memory-limit or "
                "fewer threads, or sort the ratings by userId"
            )
        raise UsageError(
            "{memory_limit} {limit}: shuffling ratings that are not sorted by user takes at least "
            "{needed} MiB; raise the limit, or sort the ratings by userId",
            "memory_limit",
            limit=_format_bytes(self.allowed_mem),
            needed=_format_mib(self.allowed_mem + self.workers * missing),
        )

    def dask_config(self) -> dict[str, Any]:
        """Return the configuration that makes ``distributed`` keep to the budget.

        Spilling depends on the size of results, not on the process's memory. Allocators keep freed
        memory, so a worker that pauses until its process shrinks could wait forever. Only a process
        that exceeds its limit is terminated.
        """
        memory = "distributed.worker.memory"
        environ = "distributed.nanny.pre-spawn-environ"
        return {
            f"{memory}.target": self.spill_threshold / self.worker_mem,
            f"{memory}.spill": False,
            f"{memory}.pause": False,
            f"{memory}.terminate": (self.worker_mem + _TERMINATE_MARGIN) / self.worker_mem,
            "distributed.p2p.comm.buffer": min(1 << 30, self._shuffle_available_mem // 8),
            "distributed.p2p.storage.buffer": min(100 * MIB, self._shuffle_available_mem // 8),
            # With these, a worker that read 26 million ratings took a ninth less memory and no more
            # time: Arrow's own allocator keeps more for later, and so does glibc per thread.
            f"{environ}.ARROW_DEFAULT_MEMORY_POOL": "system",
            f"{environ}.MALLOC_ARENA_MAX": 2,
        }

    def record(self) -> dict[str, int | None]:
        """Return the manifest's record of the budget; None for a missing limit."""
        return {
            "limit_bytes": self.allowed_mem if self.is_limited else None,
            "worker_bytes": self.worker_mem if self.is_limited else None,
            "partition_bytes": self.partition_bytes,
            "block_users": self.block_users,
        }


def plan_budget(
    *,
    in_process: bool,
    workers: int | None,
    threads: int | None,
    cpus: int,
    machine_mem: int,
    memory_limit: int | None,
    worker_limit: int | None,
) -> Budget:
    """Share memory among a job and its workers on one machine.

    Parameters
    ----------
    in_process
        Whether the only worker is part of the job's process.
    workers, threads
        The number of workers and of threads in each. Without ``workers``, there is one worker per
        CPU, or fewer workers with more threads if each would have too little memory. Without
        ``threads``, workers whose number is set have one thread, and a worker inside the job's
        process has one per CPU; it ignores ``workers``.
    cpus
        The CPUs of the machine.
    machine_mem
        The memory of the machine, bytes.
    memory_limit
        Bytes for the whole run; None for what follows from ``worker_limit``, or without that for
        :data:`DEFAULT_SHARE` of the machine's memory.
    worker_limit
        Bytes for each worker, ignored if ``memory_limit`` is set; None for an equal share.

    Raises
    ------
    UsageError
        If the limit is too small for the workers.
    """
    allowed = memory_limit or int(machine_mem * DEFAULT_SHARE)
    if in_process:
        allowed = memory_limit or worker_limit or allowed
        budget = Budget(allowed, 1, threads or cpus, allowed, _IN_PROCESS_RESERVED_MEM)
    else:
        per_worker = worker_limit if memory_limit is None else None
        shared = max(allowed - _CLIENT_MEM, 0)
        max_workers = max(1, shared // _MIN_WORKER_MEM)
        n_workers = workers or (cpus if per_worker else min(cpus, max_workers))
        # At least as many threads in total as CPUs, if neither number is set.
        n_threads = threads or (1 if workers else -(-cpus // n_workers))
        worker_mem = per_worker or shared // n_workers
        if per_worker:
            allowed = _CLIENT_MEM + n_workers * per_worker
        budget = Budget(allowed, n_workers, n_threads, worker_mem, _WORKER_RESERVED_MEM)
    _check_worker_mem(budget, in_process=in_process)
    return budget


def _check_worker_mem(budget: Budget, *, in_process: bool) -> None:
    needed = budget.reserved_mem + _MIN_THREAD_MEM * budget.threads
    if budget.worker_mem >= needed:
        return
    prefix = f"{budget.workers} workers with " if budget.workers > 1 else ""
    plural = "s" if budget.threads > 1 else ""
    verb = "need" if budget.workers > 1 or budget.threads > 1 else "needs"
    raise UsageError(
        "{memory_limit} {limit}: {workers} at least {needed} MiB; raise the limit, or use fewer "
        "workers or threads in the cluster's file",
        "memory_limit",
        limit=_format_bytes(budget.allowed_mem),
        workers=f"{prefix}{budget.threads} thread{plural} {verb}",
        needed=_format_mib(needed if in_process else _CLIENT_MEM + budget.workers * needed),
    )


def budget_of_workers(workers: Sequence[tuple[int, int]]) -> Budget:
    """Return the budget of running workers, from the smallest limit and the most threads.

    Parameters
    ----------
    workers
        The memory limit (0 for none) and the threads of each worker.
    """
    limits = [limit for limit, _ in workers if limit]
    smallest = min(limits, default=_ASSUMED_WORKER_MEM)
    threads = max((n for _, n in workers), default=1)
    allowed = sum(limit or smallest for limit, _ in workers)
    return Budget(
        allowed,
        max(len(workers), 1),
        threads,
        smallest,
        _WORKER_RESERVED_MEM,
        is_limited=len(limits) == len(workers),
    )


def _format_mib(n_bytes: int) -> str:
    return f"{-(-n_bytes // MIB):,}"


def _format_bytes(n_bytes: int) -> str:
    return f"{n_bytes // MIB:,} MiB" if n_bytes >= MIB else f"{n_bytes:,} bytes"


def _clip(value: int, bounds: tuple[int, int]) -> int:
    low, high = bounds
    return max(low, min(int(value), high))
