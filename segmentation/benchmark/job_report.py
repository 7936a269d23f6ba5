"""The benchmark of the whole job: data of each size, measurements, a table, and a figure."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmentation.benchmark import estimator_report, job_runner
from segmentation.deploy.core import open_cluster
from segmentation.errors import DataError
from segmentation.pipeline import ground_truth, sources
from segmentation.pipeline.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segmentation.datasets.layouts import Layout
    from segmentation.progress import Progress

_ROW_GROUP = 1 << 20
#: How the figure marks an entry that ran out of memory.
_CROSS = {"ls": ":", "marker": "X", "ms": 8, "markevery": [-1]}


def run_whole(
    sources_named: Sequence[str],
    seed: int,
    rounds: int,
    names: Sequence[str],
    progress: Progress,
) -> dict[str, Any]:
    """Measure everyone on each of some data sets.

    Parameters
    ----------
    sources_named
        What ``--data`` takes, one for each size.
    rounds
        Cold runs of each; the median is what counts.
    names
        Entries, of :data:`wholejob.NAMES`.
    """
    results = []
    for named in sources_named:
        with open_cluster("threads") as cluster:
            layout = sources.resolve_data(Settings(data=named, seed=seed), cluster, progress)
        with tempfile.TemporaryDirectory() as scratch:
            data = _data(layout, Path(scratch))
            measured = job_runner.measure(
                data, names, rounds, lambda line: progress.say(f"  {line}")
            )
        results.append(
            {
                "data": named,
                "synthetic": ground_truth.synthetic_folder(layout) is not None,
                "rows": data.rows,
                "bytes": Path(layout.ratings).stat().st_size,
                "entries": [entry.record() for entry in measured],
            }
        )
    return {"seed": seed, "rounds": rounds, **estimator_report.machine(), "results": results}


def _data(layout: Layout, scratch: Path) -> job_runner.Data:
    """Prepare one size: the same rows as Parquet; text is read once, so that all find it cached."""
    import pyarrow.parquet as pq
    from pyarrow import csv

    if "://" in layout.ratings or not layout.ratings.endswith(".csv") or layout.parts[1:]:
        raise DataError(
            f"{layout.ratings}: the peers read one local CSV file: give --data a folder with one"
        )
    copied = scratch / "ratings.parquet"
    rows = 0
    with csv.open_csv(layout.ratings) as reader:
        options = {"compression": "zstd", "write_statistics": True}
        with pq.ParquetWriter(copied, reader.schema, **options) as writer:
            for batch in reader:
                writer.write_batch(batch, row_group_size=_ROW_GROUP)
                rows += batch.num_rows
    return job_runner.Data(
        Path(layout.folder).resolve(), Path(layout.ratings).resolve(), copied, rows
    )


def table(record: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    versions = record["versions"]
    shown = ("python", "dask", "scikit-learn", "pandas", "polars", "duckdb", "pyspark")
    lines = [
        f"Cold processes on one file, medians of {record['rounds']}, in turns, whatever is in the "
        f"page cache; {record['threads']} threads, {record['machine']}, {record['cores']} cores, "
        + ", ".join(f"{name} {versions[name]}" for name in shown)
        + ". Peak memory is that of the process tree.",
    ]
    for result in record["results"]:
        told = "synthetic" if result["synthetic"] else "real"
        lines += [
            "",
            f"### {result['rows']:,} {told} ratings ({result['bytes'] / 1e6:,.0f} MB of CSV)",
            "",
            "| | to assignments, s | whole, s | of ours | of the floor | CPU s | peak MB "
            "| million rows/s |",
            "|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
        medians = {e["name"]: e["median_to_assignments"] for e in result["entries"]}
        own = next((medians[name] for name in job_runner.OURS if medians.get(name)), None)
        for entry in result["entries"]:
            lines.append(_row(entry, own, medians.get("floor"), result["rows"]))
    return "\n".join(lines) + "\n"


def _row(entry: dict[str, Any], own: float | None, floor: float | None, rows: int) -> str:
    seconds = entry["median_to_assignments"]
    if seconds is None:
        return f"| {entry['title']} | {entry['failure'] or 'not run'} |"
    told = f" (then: {entry['failure']})" if entry["failure"] else ""

    def ratio(base: float | None) -> str:
        return f"{seconds / base:.2f} ×" if base else "–"

    cells = [
        entry["title"] + told,
        f"{seconds:.2f}",
        f"{entry['median_seconds']:.2f}",
        ratio(own),
        ratio(floor),
        f"{entry['median_cpu_seconds']:.1f}",
        f"{entry['median_peak_memory_bytes'] / 1e6:,.0f}",
        f"{rows / seconds / 1e6:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def figure(record: dict[str, Any]) -> bytes:
    """Draw seconds and peak memory over the number of rows, both axes logarithmic; PNG."""
    from matplotlib.ticker import LogLocator, NullFormatter

    from segmentation.reporting.figures import FAINT, INK, new_figure, render_png, style_axes

    picture = new_figure(11, 5)
    panels = picture.subplots(1, 2)
    ways = (
        ("Seconds to assignments", "median_to_assignments", 1.0),
        ("Peak memory, GB", "median_peak_memory_bytes", 1e-9),
    )
    for axes, (title, key, scale) in zip(panels, ways, strict=True):
        style_axes(axes)
        for style, name in zip(_styles(), job_runner.NAMES, strict=False):
            points = [
                (result["rows"], entry[key] * scale)
                for result in record["results"]
                for entry in result["entries"]
                if entry["name"] == name and entry[key] is not None
            ]
            if points:
                label = next(
                    e["title"] for r in record["results"] for e in r["entries"] if e["name"] == name
                )
                axes.plot(*zip(*points, strict=True), label=label, **style)
            if key == "median_peak_memory_bytes":
                for result, entry in _out_of_memory(record, name):
                    # A cross where it took all that there is and wanted more.
                    place = result["rows"], entry["out_of_memory_bytes"] * scale
                    axes.plot(*zip(*points[-1:], place, strict=True), **style | _CROSS)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
        axes.set_xlabel("ratings", fontsize=9, color=INK)
        ticks = [result["rows"] for result in record["results"]]
        axes.set_xticks(ticks)
        axes.xaxis.set_major_formatter(lambda rows, _: f"{rows / 1e6:.3g} M")
        axes.xaxis.set_minor_formatter(NullFormatter())
        # 1, 2, 5, 10 …, as numbers rather than as powers of ten.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(visible=True, which="major", color=FAINT, alpha=0.25, lw=0.6)
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8.5)
    return render_png(picture)


def _out_of_memory(record: dict[str, Any], name: str) -> list[tuple[Any, Any]]:
    return [
        (result, entry)
        for result in record["results"]
        for entry in result["entries"]
        if entry["name"] == name and entry["out_of_memory_bytes"]
    ]


def _styles() -> list[dict[str, Any]]:
    """Return a line's look for each entry: ours thick and warm, one kind of line a way to run."""
    ours = [
        {"color": "#D55E00", "lw": 2.4, "ls": "-", "marker": "o", "ms": 5},
        {"color": "#E69F00", "lw": 2.4, "ls": "-", "marker": "o", "ms": 5},
        {"color": "#D55E00", "lw": 1.6, "ls": "--", "marker": "o", "ms": 4},
        {"color": "#E69F00", "lw": 1.6, "ls": "--", "marker": "o", "ms": 4},
    ]
    theirs = [
        {"color": color, "lw": 1.4, "ls": "-", "marker": marker, "ms": 4}
        for color, marker in (
            ("#0072B2", "s"),
            ("#009E73", "^"),
            ("#56B4E9", "v"),
            ("#CC79A7", "D"),
            ("#555555", "P"),
        )
    ]
    return [*ours, *theirs, {"color": "#AAAAAA", "lw": 1.2, "ls": ":", "marker": ".", "ms": 4}]
