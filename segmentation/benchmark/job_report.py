"""Time the whole job next to its peers on data of several sizes; report a table and a figure."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmentation.benchmark import job_runner, results
from segmentation.benchmark.job_peers import FLOOR
from segmentation.benchmark.results import Results, format_row
from segmentation.deploy.core import open_cluster
from segmentation.errors import DataError
from segmentation.pipeline import ground_truth, sources
from segmentation.pipeline.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from segmentation.datasets.layouts import Layout
    from segmentation.progress import Progress

_ROW_GROUP_ROWS = 1 << 20
#: Rows of the smallest and the largest synthetic data set allowed.
SIZES = 1_000, 10**10
#: Style of the line to the memory limit of a job that ran out of memory, with a cross at its end.
_CROSS = {"ls": ":", "marker": "X", "ms": 8, "markevery": [-1]}
#: Packages whose versions the table names.
_SHOWN_VERSIONS = ("python", "dask", "scikit-learn", "pandas", "polars", "duckdb", "pyspark")


def benchmark_job(
    data: str,
    out: str | Path,
    progress: Progress,
    *,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    rounds: int = 5,
    peers: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Results:
    """Time the whole job next to its peers on the same ratings, and write the results.

    Parameters
    ----------
    data
        Source of the ratings.
    out
        Folder of the results.
    sizes
        Rows of synthetic data sets to use in place of ``data``.
    seed
        Seed of synthetic data.
    rounds
        Runs per job, of which the median counts.
    peers
        Names from :data:`job_runner.NAMES`; None for all.
    overwrite
        Replace an earlier benchmark in ``out``.

    Raises
    ------
    UsageError
        If a value is out of range, a peer is unknown, or ``out`` can't be used.
    DataError
        If the ratings are not in one local CSV file.
    """
    results.check_rounds(rounds)
    if sizes is None:
        all_settings = [Settings(data=data, seed=seed)]
    else:
        sizes = results.check_numbers("sizes", sizes, *SIZES)
        all_settings = [Settings(data=f"synthetic:{rows}", seed=seed) for rows in sizes]
    names = results.check_peers(peers, job_runner.NAMES)
    with results.open_folder(Path(out), overwrite=overwrite):
        record = {
            "seed": seed,
            "rounds": rounds,
            **results.describe_machine(),
            "results": [
                _time_data_set(settings, rounds, names, progress) for settings in all_settings
            ],
        }
        return results.write_results(Path(out), format_table(record), record, draw_figure(record))


def _time_data_set(
    settings: Settings, rounds: int, names: Sequence[str], progress: Progress
) -> dict[str, Any]:
    """Time all jobs on one data set; return its record for ``benchmark.json``."""
    with open_cluster("threads") as cluster:
        layout = sources.resolve_data(settings, cluster, progress)
    with tempfile.TemporaryDirectory() as scratch:
        data = _prepare_data(layout, Path(scratch))
        times = job_runner.time_jobs(data, names, rounds, lambda line: progress.say(f"  {line}"))
    return {
        "data": settings.data,
        "synthetic": ground_truth.synthetic_folder(layout) is not None,
        "rows": data.rows,
        "bytes": Path(layout.ratings).stat().st_size,
        "entries": [entry.to_json() for entry in times],
    }


def _prepare_data(layout: Layout, scratch: Path) -> job_runner.JobData:
    """Copy the ratings to Parquet, which also brings the CSV file into the page cache."""
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    if "://" in layout.ratings or not layout.ratings.endswith(".csv") or layout.parts[1:]:
        raise DataError(
            "{ratings}: the peers read one local CSV file: pass a folder with one as {data}",
            "data",
            ratings=layout.ratings,
        )
    parquet = scratch / "ratings.parquet"
    rows = 0
    with (
        pa_csv.open_csv(layout.ratings) as reader,
        pq.ParquetWriter(
            parquet, reader.schema, compression="zstd", write_statistics=True
        ) as writer,
    ):
        for batch in reader:
            writer.write_batch(batch, row_group_size=_ROW_GROUP_ROWS)
            rows += batch.num_rows
    folder, csv = Path(layout.folder).resolve(), Path(layout.ratings).resolve()
    return job_runner.JobData(folder, csv, parquet, rows)


def format_table(record: dict[str, Any]) -> str:
    """Format a record as Markdown."""
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in _SHOWN_VERSIONS)
    lines = [
        f"Cold processes on one file in the page cache; medians of {record['rounds']}, "
        f"interleaved; {record['threads']} threads, {record['machine']}, {record['cores']} cores, "
        f"{versions}. Peak memory is that of the process tree.",
    ]
    for size in record["results"]:
        kind = "synthetic" if size["synthetic"] else "real"
        lines += [
            "",
            f"### {size['rows']:,} {kind} ratings ({size['bytes'] / 1e6:,.0f} MB of CSV)",
            "",
            "| | to assignments, s | whole job, s | ratio to ours | ratio to floor | CPU s "
            "| peak MB | million rows/s |",
            "|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
        medians = {entry["name"]: entry["median_to_assignments"] for entry in size["entries"]}
        ours = next((medians[name] for name in job_runner.OURS if medians.get(name)), None)
        lines += [
            format_job(entry, ours, medians.get(FLOOR), size["rows"]) for entry in size["entries"]
        ]
    return "\n".join(lines) + "\n"


def format_job(entry: dict[str, Any], ours: float | None, floor: float | None, rows: int) -> str:
    """Format the row of a job; ratios are relative to the seconds ``ours`` and ``floor``."""
    seconds = entry["median_to_assignments"]
    if seconds is None:
        return format_row([entry["title"], entry["failure"] or "not run"])
    note = f" (then: {entry['failure']})" if entry["failure"] else ""
    cells = [
        entry["title"] + note,
        f"{seconds:.2f}",
        f"{entry['median_seconds']:.2f}",
        *(f"{seconds / base:.2f} ×" if base else "–" for base in (ours, floor)),
        f"{entry['median_cpu_seconds']:.1f}",
        f"{entry['median_peak_memory_bytes'] / 1e6:,.0f}",
        f"{rows / seconds / 1e6:.1f}",
    ]
    return format_row(cells)


def draw_figure(record: dict[str, Any]) -> bytes:
    """Draw seconds and peak memory by the number of ratings, on logarithmic axes, as PNG."""
    from segmentation.reporting.figures import new_figure, render_png

    figure = new_figure(11, 5)
    seconds, memory = figure.subplots(1, 2)
    _draw_panel(seconds, record, "Seconds to assignments", "median_to_assignments", 1.0)
    _draw_panel(memory, record, "Peak memory, GB", "median_peak_memory_bytes", 1e-9)
    handles, labels = seconds.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8.5)
    return render_png(figure)


def _draw_panel(axes: Axes, record: dict[str, Any], title: str, key: str, scale: float) -> None:
    """Draw one line per job: the value of ``key``, times ``scale``, by the number of ratings."""
    from matplotlib.ticker import LogLocator, NullFormatter

    from segmentation.reporting.figures import FAINT, INK, style_axes

    style_axes(axes)
    for style, name in zip(_line_styles(), job_runner.NAMES, strict=False):
        entries = [
            (size["rows"], entry)
            for size in record["results"]
            for entry in size["entries"]
            if entry["name"] == name
        ]
        points = [(rows, entry[key] * scale) for rows, entry in entries if entry[key] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=entries[0][1]["title"], **style)
        if key == "median_peak_memory_bytes":
            for rows, entry in entries:
                # A cross at the memory limit: the job exceeded it and was killed.
                if entry["out_of_memory_bytes"]:
                    limit = rows, entry["out_of_memory_bytes"] * scale
                    axes.plot(*zip(*points[-1:], limit, strict=True), **style | _CROSS)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel("ratings", fontsize=9, color=INK)
    axes.set_xticks([size["rows"] for size in record["results"]])
    axes.xaxis.set_major_formatter(lambda rows, _: f"{rows / 1e6:.3g} M")
    axes.xaxis.set_minor_formatter(NullFormatter())
    # Ticks at 1, 2, 5, 10, …, written as numbers and not as powers of ten.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="major", color=FAINT, alpha=0.25, lw=0.6)


def _line_styles() -> list[dict[str, Any]]:
    """Return a style per name in :data:`job_runner.NAMES`: warm colors for ours, thin for peers."""
    ours = [
        {"color": "#D55E00", "lw": 2.4, "ls": "-", "marker": "o", "ms": 5},
        {"color": "#E69F00", "lw": 2.4, "ls": "-", "marker": "o", "ms": 5},
        {"color": "#D55E00", "lw": 1.6, "ls": "--", "marker": "o", "ms": 4},
        {"color": "#E69F00", "lw": 1.6, "ls": "--", "marker": "o", "ms": 4},
    ]
    peers = [
        {"color": color, "lw": 1.4, "ls": "-", "marker": marker, "ms": 4}
        for color, marker in (
            ("#0072B2", "s"),
            ("#009E73", "^"),
            ("#56B4E9", "v"),
            ("#CC79A7", "D"),
            ("#555555", "P"),
        )
    ]
    floor = {"color": "#AAAAAA", "lw": 1.2, "ls": ":", "marker": ".", "ms": 4}
    return [*ours, *peers, floor]
