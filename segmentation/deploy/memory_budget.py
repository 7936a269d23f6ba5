"""How much memory a run may take, and what follows from it: workers, partitions, blocks, spilling.

What is measured stands beside each figure; results hang on none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segmentation.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 1 << 20
#: Of the machine's memory, or its cgroup's, unless asked otherwise.
DEFAULT_SHARE = 0.5
#: What the job's own process takes beside its workers, libraries and figures included: 500 to 600
#: MB were seen with 2.7 million users, of which 160 MB are pages that it shares with the workers.
_CLIENT = 512 * MIB
#: What a worker's process takes before it has read anything: 190 MB were seen.
_WORKER = 224 * MIB
#: The same where job and worker are one process.
_BOTH = 480 * MIB
#: Beside these, what lets a worker read in partitions of a few MiB.
_LEAST_ROOM = 64 * MIB
#: From so much on a worker process is worth starting where the number is ours to choose.
_WORTH = 480 * MIB
#: A partition takes so many times its bytes where the general reader has to take it.
_PARTITION_COST = 6
#: The same where its rows are shuffled: Dask copies them on their way out and in.
_SHUFFLE_COST = 24
#: What a shuffle takes before there are any rows: Dask's dataframes, pandas, and numba beside them.
_SHUFFLER = 128 * MIB
#: So much above its share a worker is ended: pages of libraries, counted to each process that has
#: them, are 140 MB of what a worker of a shuffle takes, and the job's own process is small then.
_GRACE = 96 * MIB
#: Bytes that a user of a block takes while tables are made of it, and blocks at a time a thread.
_USER_COST, _BLOCKS = 640, 6
#: What a worker without a limit is taken to have.
_UNLIMITED = 4 << 30
_PARTITION = MIB, 32 * MIB
_BLOCK_USERS = 2_048, 65_536


@dataclass(frozen=True)
class Budget:
    """The memory of a run, bytes, and what follows from it.

    Parameters
    ----------
    total
        What all processes of the run may take.
    workers, threads
        Worker processes, and threads in each.
    worker
        What each worker may take.
    base
        What a worker takes before it holds any data.
    """

    total: int
    workers: int
    threads: int
    worker: int
    base: int

    @property
    def room(self) -> int:
        """What a worker has for data."""
        return max(self.worker - self.base, _LEAST_ROOM)

    @property
    def held(self) -> int:
        """What a worker holds of finished tasks before it puts some on disk."""
        return self.room * 3 // 10

    @property
    def memory(self) -> int:
        """What the workers have for data, together."""
        return self.workers * self.room

    @property
    def partition_bytes(self) -> int:
        """Bytes of text that one task reads."""
        return _within(self.room // self.threads // _PARTITION_COST, _PARTITION)

    @property
    def detailed_bytes(self) -> int:
        """The same where a rating's place and time are kept as well, and rows are sorted."""
        return max(self.partition_bytes // 2, _PARTITION[0])

    @property
    def shuffle_bytes(self) -> int:
        """Bytes of text, or of rows, that one task reads or takes in around a shuffle."""
        return _within(self._shuffle_room // self.threads // _SHUFFLE_COST, _PARTITION)

    def refuse_shuffle(self, data: int, *, elsewhere: bool) -> None:
        """See that workers have the memory to shuffle so many bytes of rows.

        Raises
        ------
        UsageError, ClusterError
            If they would be ended over and over, or the one within the job's own process take
            more than it may; the second where they stand ``elsewhere``.
        """
        least = min(_LEAST_ROOM * self.threads, data * _SHUFFLE_COST)
        short = self.base + _SHUFFLER + least - self.worker
        if short <= 0:
            return
        told = "ratings in no order of users are shuffled, for which"
        if elsewhere:
            raise ClusterError(
                f"{told} each worker needs {_mib(self.worker + short)} MiB, and the smallest has "
                f"{_mib(self.worker)}: start it with a larger --memory-limit or fewer threads, or "
                "sort the ratings by userId"
            )
        raise UsageError(
            f"--memory-limit {_told(self.total)}: {told} it takes "
            f"{_mib(self.total + self.workers * short)} MiB at least: raise it, or sort the "
            "ratings by userId"
        )

    @property
    def _shuffle_room(self) -> int:
        return max(self.worker - self.base - _SHUFFLER, _LEAST_ROOM)

    @property
    def block_users(self) -> int:
        """Users of a block at most."""
        return _within(self.room // self.threads // (_USER_COST * _BLOCKS), _BLOCK_USERS)

    def least_for(self, partition_bytes: int, threads: int) -> int:
        """Return the memory of a worker that reads partitions of such a size, bytes."""
        return self.base + max(_LEAST_ROOM, partition_bytes * _PARTITION_COST) * threads

    def dask_config(self) -> dict[str, Any]:
        """Return what makes `distributed` keep to it: when data goes to disk, and how much waits.

        What is held is counted by its size, not by the process' memory, which an allocator keeps
        for later: a worker that waited for that to fall, without a task that could let go of
        any, would wait for ever. Only a process that isn't ours to bound is ended.
        """
        memory = "distributed.worker.memory"
        environ = "distributed.nanny.pre-spawn-environ"
        return {
            f"{memory}.target": self.held / self.worker,
            f"{memory}.spill": False,
            f"{memory}.pause": False,
            f"{memory}.terminate": (self.worker + _GRACE) / self.worker,
            "distributed.p2p.comm.buffer": min(1 << 30, self._shuffle_room // 8),
            "distributed.p2p.storage.buffer": min(100 * MIB, self._shuffle_room // 8),
            # A worker of 26 million ratings took a ninth less with these, and no longer: Arrow's
            # own allocator keeps more for later, and so does glibc for each of many threads.
            f"{environ}.ARROW_DEFAULT_MEMORY_POOL": "system",
            f"{environ}.MALLOC_ARENA_MAX": 2,
        }

    def record(self) -> dict[str, int]:
        """Return what the manifest says of it."""
        return {
            "limit_bytes": self.total,
            "worker_bytes": self.worker,
            "partition_bytes": self.partition_bytes,
            "block_users": self.block_users,
        }


def plan_budget(
    *,
    embedded: bool,
    workers: int | None,
    threads: int | None,
    cpus: int,
    machine: int,
    limit: int | None,
    worker_limit: int | None,
) -> Budget:
    """Share memory out among a job and its workers on one machine.

    Parameters
    ----------
    embedded
        Whether the one worker is a part of the job's process.
    workers, threads
        As asked for; None leaves the number open: a worker a CPU, and fewer with more threads
        where each would have little.
    cpus, machine
        What the machine has: CPUs, and bytes of memory.
    limit
        Bytes for the whole run; None for :data:`DEFAULT_SHARE` of the machine's.
    worker_limit
        Bytes for each worker where ``limit`` is None; None for an equal share.

    Raises
    ------
    UsageError
        If the run can't keep to it.
    """
    total = limit or int(machine * DEFAULT_SHARE)
    if embedded:
        total = limit or worker_limit or total
        found = Budget(total, 1, threads or cpus, total, _BOTH)
    else:
        given = limit is None and worker_limit is not None
        room = max(total - _CLIENT, 0)
        count = workers or (cpus if given else min(cpus, max(1, room // _WORTH)))
        # As many threads in all as there are CPUs, whatever the number of processes.
        each = threads or (1 if workers else -(-cpus // count))
        own = int(worker_limit) if given and worker_limit else room // count
        total = _CLIENT + count * own if given else total
        found = Budget(total, count, each, own, _WORKER)
    least = found.base + _LEAST_ROOM * found.threads
    if found.worker < least:
        whole = least if embedded else _CLIENT + found.workers * least
        several = f"{found.workers} workers with " if found.workers > 1 else ""
        plural = "s" if found.threads > 1 else ""
        raise UsageError(
            f"--memory-limit {_told(total)}: {several}{found.threads} thread{plural} need "
            f"{_mib(whole)} MiB at least: raise it, or take fewer in the cluster's file"
        )
    return found


def _mib(number: int) -> str:
    return f"{-(-number // MIB):,}"


def _told(number: int) -> str:
    return f"{number // MIB:,} MiB" if number >= MIB else f"{number:,} bytes"


def _within(value: int, bounds: tuple[int, int]) -> int:
    low, high = bounds
    return max(low, min(int(value), high))


def budget_of_workers(workers: Sequence[tuple[int, int]]) -> Budget:
    """Return the budget of workers that stand, from each one's memory (0: no limit) and threads."""
    known = [memory for memory, _ in workers if memory]
    least = min(known, default=_UNLIMITED)
    threads = max((n for _, n in workers), default=1)
    total = sum(memory or least for memory, _ in workers)
    return Budget(total, max(len(workers), 1), threads, least, _WORKER)
