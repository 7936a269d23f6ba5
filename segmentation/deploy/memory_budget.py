"""Plan a run's memory, and derive workers, partition sizes, block sizes and spilling from it.

The words are those of cubed: ``allowed_mem`` is what may be used, ``reserved_mem`` what a process
takes before it holds data, ``available_mem`` the difference. Results depend on none of these
figures.
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
#: What the job's own process takes next to its workers, with libraries and figures. 500 to 600 MB
#: were measured with 2.7 million users, of which 160 MB are pages that it shares with the workers.
_CLIENT_MEM = 512 * MIB
#: What a worker process takes before it reads anything: 190 MB were measured.
_WORKER_RESERVED_MEM = 224 * MIB
#: The same where job and worker share one process.
_IN_PROCESS_RESERVED_MEM = 480 * MIB
#: What each thread of a worker needs in addition, to read partitions of a few MiB.
_MIN_THREAD_MEM = 64 * MIB
#: A worker process with less memory is not worth starting, if the number of workers is open.
_MIN_WORKER_MEM = 480 * MIB
#: Memory per byte of a partition, where the general reader parses it.
_MEM_PER_PARTITION_BYTE = 6
#: The same where its rows are shuffled, because Dask copies them on their way out and in.
_MEM_PER_SHUFFLED_BYTE = 24
#: What a shuffle takes before it has any rows: Dask's dataframes, pandas, and numba.
_SHUFFLE_RESERVED_MEM = 128 * MIB
#: A worker is terminated when it exceeds its share by this much. 140 MB of a worker that shuffles
#: are pages of libraries, which count for each process that has them; the job's own process is
#: small at that time.
_TERMINATE_MARGIN = 96 * MIB
#: Memory per user of a block while its table is made, and blocks at a time per thread.
_MEM_PER_USER, _BLOCKS_PER_THREAD = 640, 6
#: What a worker without a limit is assumed to have.
_ASSUMED_WORKER_MEM = 4 << 30
_PARTITION_BYTES_RANGE = MIB, 32 * MIB
_BLOCK_USERS_RANGE = 2_048, 65_536


@dataclass(frozen=True)
class Budget:
    """The memory of a run, in bytes, and the sizes that follow from it.

    Parameters
    ----------
    allowed_mem
        What all processes of the run may use.
    workers, threads
        The number of worker processes, and of threads in each.
    worker_mem
        What each worker may use.
    reserved_mem
        What a worker takes before it holds any data.

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

    @property
    def available_mem(self) -> int:
        """What a worker has for data."""
        return max(self.worker_mem - self.reserved_mem, _MIN_THREAD_MEM)

    @property
    def total_available_mem(self) -> int:
        """What all workers together have for data."""
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
        """The same where each rating's position and time are kept and rows are sorted."""
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
        """Return the memory that a worker needs to read partitions of this size, bytes."""
        per_thread = max(_MIN_THREAD_MEM, partition_bytes * _MEM_PER_PARTITION_BYTE)
        return self.reserved_mem + per_thread * threads

    def check_shuffle(self, n_bytes: int, *, is_remote: bool) -> None:
        """Check that the workers have the memory to shuffle rows.

        With too little, Dask would terminate worker processes again and again, and a worker
        inside the job's process would exceed the limit.

        Parameters
        ----------
        n_bytes
            The size of the rows.
        is_remote
            Whether the workers have limits of their own.

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
        """Return the configuration that makes `distributed` keep to the budget.

        Spilling goes by the size of results, not by the process's memory. An allocator keeps free
        memory for later, so a worker that paused until its process shrinks could wait forever
        without a task that frees anything. Only a process that exceeds its limit is terminated.
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

    def record(self) -> dict[str, int]:
        """Return what the manifest holds about the budget."""
        return {
            "limit_bytes": self.allowed_mem,
            "worker_bytes": self.worker_mem,
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
        The number of workers and of threads in each. None leaves it open: one worker per CPU, and
        fewer workers with more threads where each would have little memory.
    cpus
        The CPUs of the machine.
    machine_mem
        The memory of the machine, bytes.
    memory_limit
        Bytes for the whole run; None for :data:`DEFAULT_SHARE` of the machine's.
    worker_limit
        Bytes for each worker where ``memory_limit`` is None; None for an equal share.

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
        by_memory = max(1, shared // _MIN_WORKER_MEM)
        n_workers = workers or (cpus if per_worker else min(cpus, by_memory))
        # As many threads in all as there are CPUs, whatever the number of processes.
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
    several = f"{budget.workers} workers with " if budget.workers > 1 else ""
    plural = "s" if budget.threads > 1 else ""
    verb = "need" if budget.workers > 1 or budget.threads > 1 else "needs"
    raise UsageError(
        "{memory_limit} {limit}: {workers} at least {needed} MiB; raise the limit, or use fewer "
        "workers or threads in the cluster's file",
        "memory_limit",
        limit=_format_bytes(budget.allowed_mem),
        workers=f"{several}{budget.threads} thread{plural} {verb}",
        needed=_format_mib(needed if in_process else _CLIENT_MEM + budget.workers * needed),
    )


def budget_of_workers(workers: Sequence[tuple[int, int]]) -> Budget:
    """Return the budget of running workers.

    Parameters
    ----------
    workers
        The memory limit (0 for none) and the threads of each worker.
    """
    limits = [limit for limit, _ in workers if limit]
    smallest = min(limits, default=_ASSUMED_WORKER_MEM)
    threads = max((n for _, n in workers), default=1)
    allowed = sum(limit or smallest for limit, _ in workers)
    return Budget(allowed, max(len(workers), 1), threads, smallest, _WORKER_RESERVED_MEM)


def _format_mib(n_bytes: int) -> str:
    return f"{-(-n_bytes // MIB):,}"


def _format_bytes(n_bytes: int) -> str:
    return f"{n_bytes // MIB:,} MiB" if n_bytes >= MIB else f"{n_bytes:,} bytes"


def _clip(value: int, bounds: tuple[int, int]) -> int:
    low, high = bounds
    return max(low, min(int(value), high))
