"""Time the estimators' peers, each in a separate process, in an order that rotates every round.

A shared machine that is slow for a while then affects all peers alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from segmentation.benchmark import estimator_peers
from segmentation.benchmark.job_peers import THREADS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: A peer whose warm-up fit takes longer is not fitted again; that fit counts.
_LONG_SECONDS = 60.0
#: A process that takes longer to respond is killed.
_TIMEOUT_SECONDS = 1_800.0
#: Time for a process to exit by itself before it is killed.
_EXIT_SECONDS = 30.0
#: Environment variables that limit the threads of libraries, by default one per core.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class EstimatorTimes:
    """The measurements of one peer: seconds and centers per fit, and its peak memory.

    The centers of a fit are None for PCA. ``failure`` is the reason why a peer failed or did not
    start. A slow peer has the time of its warm-up fit only, and no failure.
    """

    name: str
    title: str
    seconds: list[float] = field(default_factory=list)
    centers: list[list[list[float]] | None] = field(default_factory=list)
    peak_memory_bytes: int = 0
    failure: str | None = None

    @property
    def median(self) -> float | None:
        """The median of the seconds; None if there are no fits."""
        return statistics.median(self.seconds) if self.seconds else None

    def add(self, response: dict[str, Any]) -> None:
        """Add one fit, as a peer's process reported it."""
        self.seconds.append(response["seconds"])
        self.centers.append(response["centers"])
        self.peak_memory_bytes = response["peak_memory_bytes"]


def time_estimators(
    names: Sequence[str], matrix: Path, rounds: int, report: Callable[[str], None]
) -> list[EstimatorTimes]:
    """Time one fit of every peer per round, after a warm-up fit.

    A peer whose warm-up fit takes more than a minute is not fitted again; that fit counts.

    Parameters
    ----------
    names
        Keys of :data:`estimator_peers.PEERS`.
    matrix
        The ``.npy`` file to fit.
    rounds
        Timed fits per peer. All peers use the same seed within a round; it differs between rounds.
    report
        Called with each line of progress.

    Returns
    -------
    list of EstimatorTimes
        One per name. A peer that fails, or whose module is not installed, has the reason in
        ``failure``.
    """
    times = [EstimatorTimes(name, estimator_peers.PEERS[name].title) for name in names]
    with contextlib.ExitStack() as stack:
        processes = _start_processes(times, matrix, stack)
        _warm_up(times, processes, report)
        for round_index in range(rounds):
            shift = round_index % len(times) if times else 0
            for entry in times[shift:] + times[:shift]:
                if entry.name in processes:
                    _fit(entry, processes, seed=round_index)
            report(f"round {round_index + 1} of {rounds}")
    return times


def _start_processes(
    times: Sequence[EstimatorTimes], matrix: Path, stack: contextlib.ExitStack
) -> dict[str, PeerProcess]:
    """Start the processes of all installed peers at once, since imports take seconds."""
    processes = {}
    for entry in times:
        module = estimator_peers.find_missing_module(entry.name)
        if module is None:
            processes[entry.name] = stack.enter_context(PeerProcess(entry.name, matrix))
        else:
            entry.failure = f"{module} is not installed"
    for entry in times:
        if entry.name in processes:
            try:
                processes[entry.name].wait_until_ready()
            except RuntimeError as error:
                entry.failure = str(error)
                processes.pop(entry.name).close()
    return processes


def _warm_up(
    times: Sequence[EstimatorTimes],
    processes: dict[str, PeerProcess],
    report: Callable[[str], None],
) -> None:
    """Let each peer fit once, to load compiled code and warm up the JVM."""
    for entry in times:
        if entry.name not in processes:
            continue
        try:
            response = processes[entry.name].fit(seed=1_000)
        except RuntimeError as error:
            entry.failure = str(error)
            processes.pop(entry.name).close()
            continue
        report(f"{entry.title}: ready, first fit {response['seconds']:.2f} s")
        if response["seconds"] > _LONG_SECONDS:
            entry.add(response)
            processes.pop(entry.name).close()


def _fit(entry: EstimatorTimes, processes: dict[str, PeerProcess], seed: int) -> None:
    """Add the time of one fit; close the process of a peer that fails."""
    try:
        entry.add(processes[entry.name].fit(seed))
    except RuntimeError as error:
        entry.failure = str(error)
        processes.pop(entry.name).close()


class PeerProcess:
    """The process of one peer, which fits on request; a context manager that ends it.

    Parameters
    ----------
    name
        Key of :data:`estimator_peers.PEERS`.
    matrix
        The ``.npy`` file to fit.
    """

    def __init__(self, name: str, matrix: Path) -> None:
        # A file and not a pipe: a pipe that is not read fills up and blocks its writer.
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "segmentation.benchmark.estimator_peers", name, str(matrix)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(THREADS))},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            # After an error or Ctrl-C, do not wait for the fit to end.
            self._process.kill()
        self.close()

    def close(self) -> None:
        """End the process; further calls do nothing."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()

    def wait_until_ready(self) -> None:
        """Wait until the libraries are imported and the matrix is loaded.

        Raises
        ------
        RuntimeError
            If the process ended or timed out instead, with the last line that it printed.
        """
        self._read_response()

    def fit(self, seed: int) -> dict[str, Any]:
        """Request one fit and wait for the response.

        Raises
        ------
        RuntimeError
            If the process ended or timed out instead, with the last line that it printed.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps({"seed": seed}) + "\n")
            self._process.stdin.flush()
        return self._read_response()

    def _read_response(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        # Killing a process that hangs ends its output, so that readline returns.
        timer = threading.Timer(_TIMEOUT_SECONDS, self._process.kill)
        try:
            timer.start()
            line = self._process.stdout.readline()
        finally:
            # Also after Ctrl-C: the interpreter would wait for the timer before it exits.
            timer.cancel()
        with contextlib.suppress(ValueError):
            response = json.loads(line)
            if isinstance(response, dict):
                return response
        # The output ends shortly before the process: wait for the exit status.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_EXIT_SECONDS)
        self._process.kill()
        status = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().strip().splitlines() or ["no output"]
        raise RuntimeError(f"{lines[-1][:200]} (status {status})")
