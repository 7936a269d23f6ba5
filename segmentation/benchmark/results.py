"""Shared by all benchmarks: check values, open the folder, write results, describe the machine."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

from segmentation.benchmark.job_peers import THREADS
from segmentation.errors import UsageError
from segmentation.pipeline.error_messages import translate_errors
from segmentation.pipeline.manifest import library_versions
from segmentation.storage import atomic, run_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_TABLE, _FIGURE, _RECORD = "benchmark.md", "benchmark.png", "benchmark.json"
_MAX_ROUNDS = 1_000
#: Packages of the peers whose versions are recorded.
_PEER_PACKAGES = ("duckdb", "faiss-cpu", "polars", "pyspark")


class Results(NamedTuple):
    """The results of a benchmark: its table as Markdown, and the paths of all files written."""

    table: str
    files: list[Path]


@contextlib.contextmanager
def open_folder(out: Path, *, overwrite: bool) -> Iterator[None]:
    """Check the folder, and create it if missing, before hours of measuring.

    If the block raises an error, a new folder without files is removed, but not its new parents.

    Raises
    ------
    UsageError
        If ``out`` is a file, holds another job's run, or holds benchmark.md or benchmark.png
        without benchmark.json; or if it holds a benchmark and ``overwrite`` is False.
    DataError
        If a file can't be read or written.
    ClusterError
        If workers or the scheduler are lost.
    """
    _check_folder(out, overwrite=overwrite)
    is_new = not out.exists()
    with translate_errors(out, can_resume=False):
        out.mkdir(parents=True, exist_ok=True)
        try:
            yield
        except BaseException:
            if is_new:
                with contextlib.suppress(OSError):
                    out.rmdir()
            raise


def _check_folder(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError("{path}: is a file: choose a folder for {out}", "out", path=out)
    if any((out / name).exists() for name in (run_folder.MANIFEST, run_folder.WORK)):
        raise UsageError("{path}: holds another job's run: choose another {out}", "out", path=out)
    if (out / _RECORD).exists():
        if not overwrite:
            raise UsageError(
                "{path}: already holds a benchmark: pass {overwrite}, or choose another {out}",
                "overwrite",
                "out",
                path=out,
            )
        return
    for path in (out / _TABLE, out / _FIGURE):
        if path.exists():
            raise UsageError(
                "{path}: exists without benchmark.json: move it away, or choose another {out}",
                "out",
                path=path,
            )


def write_results(
    out: Path, table: str, record: dict[str, Any], figure: bytes | None = None
) -> Results:
    """Write the table, the figure if there is one, and finally the record."""
    files = [out / _TABLE]
    atomic.write_bytes(out / _TABLE, table.encode("utf-8"))
    if figure is not None:
        files.append(out / _FIGURE)
        atomic.write_bytes(out / _FIGURE, figure)
    else:
        # A figure left by an earlier benchmark would look like part of this one.
        atomic.remove_file(out / _FIGURE)
    files.append(out / _RECORD)
    atomic.write_json(out / _RECORD, record)
    return Results(table, files)


def describe_machine() -> dict[str, Any]:
    """Return the machine, the number of threads per peer, and the versions of libraries."""
    peers = {}
    for name in _PEER_PACKAGES:
        try:
            peers[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            peers[name] = "not installed"
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": THREADS,
        "versions": {**library_versions(), **peers},
    }


def format_row(cells: Sequence[str]) -> str:
    """Format a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def check_rounds(rounds: int) -> None:
    """Raise :class:`UsageError` if ``rounds`` is out of range."""
    if not 1 <= rounds <= _MAX_ROUNDS:
        raise UsageError(
            "{rounds} {value}: choose from 1 to {high}", "rounds", value=rounds, high=_MAX_ROUNDS
        )


def check_numbers(field: str, values: Sequence[int], low: int, high: int) -> list[int]:
    """Return the values of a setting without duplicates, in the order given.

    Raises
    ------
    UsageError
        If there are no values, or one is not in ``low`` to ``high``, both included.
    """
    if not values or not all(low <= value <= high for value in values):
        raise UsageError(
            f"{{{field}}} {{values}}: choose from {low} to {high}",
            field,
            values=",".join(map(str, values)),
        )
    return list(dict.fromkeys(values))


def check_peers(peers: Sequence[str] | None, available: Sequence[str]) -> list[str]:
    """Return the peers without duplicates, in the order given, or all available ones for None.

    Raises
    ------
    UsageError
        If a peer is not in ``available``.
    """
    if peers is None:
        return list(available)
    for peer in peers:
        if peer not in available:
            raise UsageError(
                "{peers} {value}: choose from {available}",
                "peers",
                value=peer,
                available=", ".join(available),
            )
    return list(dict.fromkeys(peers))
