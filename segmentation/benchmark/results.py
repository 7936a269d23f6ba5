"""What every benchmark shares: checked settings, the folder of its results, the machine."""

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
_MOST_ROUNDS = 1_000
_PEER_PACKAGES = ("duckdb", "faiss-cpu", "polars", "pyspark")


class Results(NamedTuple):
    """What a benchmark wrote: its table in Markdown, and the paths of all its files."""

    table: str
    files: list[Path]


@contextlib.contextmanager
def open_folder(out: Path, *, overwrite: bool) -> Iterator[None]:
    """Check and create the folder before hours of measuring; leave no new folder on an error.

    Raises
    ------
    UsageError
        If ``out`` is a file, or holds a run, foreign files under our names, or, unless
        ``overwrite``, an earlier benchmark.
    """
    _check_folder(out, overwrite=overwrite)
    is_new = not out.exists()
    with translate_errors(out):
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
                "{path}: belongs to no benchmark: move it away, or choose another {out}",
                "out",
                path=path,
            )


def write_results(
    out: Path, table: str, record: dict[str, Any], figure: bytes | None = None
) -> Results:
    """Write the table, the figure and, last, the record."""
    files = [out / _TABLE]
    atomic.write_bytes(out / _TABLE, table.encode("utf-8"))
    if figure is not None:
        files.append(out / _FIGURE)
        atomic.write_bytes(out / _FIGURE, figure)
    files.append(out / _RECORD)
    atomic.write_json(out / _RECORD, record)
    return Results(table, files)


def describe_machine() -> dict[str, Any]:
    """Return what the measurements depend on: the machine, threads per peer, and versions."""
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
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def check_rounds(rounds: int) -> None:
    """Raise :class:`UsageError` if ``rounds`` is out of range."""
    if not 1 <= rounds <= _MOST_ROUNDS:
        raise UsageError(
            "{rounds} {value}: choose from 1 to {most}", "rounds", value=rounds, most=_MOST_ROUNDS
        )


def check_numbers(field: str, values: Sequence[int], low: int, high: int) -> list[int]:
    """Return the distinct values of a setting; raise :class:`UsageError` if one is out of range."""
    if not values or not all(low <= value <= high for value in values):
        raise UsageError(
            f"{{{field}}} {{values}}: choose from {low} to {high}",
            field,
            values=",".join(map(str, values)),
        )
    return list(dict.fromkeys(values))


def check_peers(peers: Sequence[str] | None, available: Sequence[str]) -> list[str]:
    """Return distinct peers, all of them for None; raise :class:`UsageError` for an unknown one."""
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
