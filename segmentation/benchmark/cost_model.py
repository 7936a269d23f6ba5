"""Fit a cost model to measured runs, and check it on a run that was not fitted.

Each run is a cold process. The seconds of each stage of the model are

    c0 + c1 * rows / threads + c2 * users / threads + c3 * users

where a stage has only the terms that :data:`MODEL` lists. The users are not divided by the threads
in the last term, since one process writes the assignments. The coefficients are fitted by
non-negative least squares (Lawson and Hanson 1974).
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.benchmark import results
from segmentation.benchmark.job_report import SIZES
from segmentation.benchmark.job_runner import build_segment_command, run_process
from segmentation.benchmark.results import Results, format_row
from segmentation.deploy.core import open_cluster
from segmentation.errors import UsageError
from segmentation.pipeline.settings import Settings
from segmentation.pipeline.sources import resolve_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from segmentation.progress import Progress

#: Rows of the data sets: the model is fitted on all but the last, and checked on the last.
DEFAULT_SIZES = 2_600_000, 26_024_289, 104_097_156


class ModelStage(NamedTuple):
    """A stage of the model.

    ``run_stages`` are the stages of a run that it covers; None for the seconds of a run that no
    other stage of the model covers. ``terms`` are the names of its terms.
    """

    run_stages: tuple[str, ...] | None
    terms: tuple[str, ...]


MODEL = {
    "reading": ModelStage(("ratings",), ("1", "rows / thread", "users / thread")),
    "users": ModelStage(
        ("kmeans", "pca", "profiles", "assignments"), ("1", "users / thread", "users")
    ),
    "rest": ModelStage(None, ("1", "users / thread", "users")),
}
#: Users merged into one in an extra data set. In all others, rows and users grow in proportion, and
#: the fit could not separate their terms.
_USERS_PER_MERGED = 4
#: Timed passes over the blocks when the scheduler is measured.
_PASSES = 5
#: Numbers of workers for which the scheduler is measured.
_WORKERS = 2, 8, 32
_READ_BYTES = 1 << 24


class RunCost(NamedTuple):
    """One measured run.

    ``seconds`` is the wall time of the process, ``stages`` the seconds of each stage of the run.
    ``tasks`` is the number of tasks, and ``result_bytes`` the size of their results.
    """

    rows: int
    users: int
    threads: int
    seconds: float
    stages: dict[str, float]
    peak_memory_bytes: int
    tasks: int
    result_bytes: int


def benchmark_scaling(
    out: str | Path,
    progress: Progress,
    *,
    sizes: Sequence[int] = DEFAULT_SIZES,
    seed: int = 0,
    rounds: int = 5,
    overwrite: bool = False,
) -> Results:
    """Fit the cost model to runs on synthetic data, check it on another run, and write the results.

    Parameters
    ----------
    out
        Folder of the results.
    sizes
        Rows of at least three data sets. The model is fitted on all but the last: each with two
        threads, and the second to last also with one thread and with a quarter of its users. It
        is checked on the last, with two threads.
    seed
        Seed of the data.
    rounds
        Runs per data set and number of threads, of which the one with the median seconds counts.
    overwrite
        Replace an earlier benchmark in ``out``.

    Raises
    ------
    UsageError
        If a value is out of range, there are fewer than three sizes, or ``out`` can't be used.
    """
    results.check_rounds(rounds)
    sizes = results.check_numbers("sizes", sizes, *SIZES)
    if len(sizes) < 3:
        raise UsageError(
            "{sizes} {values}: pass at least three different sizes; the last is held out to check "
            "the model",
            "sizes",
            values=",".join(map(str, sizes)),
        )
    Settings(seed=seed)  # Raises UsageError for a seed out of range, before hours of measuring.
    with results.open_folder(Path(out), overwrite=overwrite):
        *costs, held_out = measure_runs(sizes, seed, rounds, progress)
        model = {name: fit_stage(name, costs) for name in MODEL}
        record = {
            "points": [cost._asdict() for cost in (*costs, held_out)],
            "model": model,
            "held_out": {
                "measured": held_out.seconds,
                "predicted": predict_seconds(model, held_out),
                "stages": {
                    name: [
                        compute_stage_seconds(name, held_out),
                        predict_seconds({name: model[name]}, held_out),
                    ]
                    for name in MODEL
                },
            },
            "scheduler": [measure_scheduler(workers, progress) for workers in _WORKERS],
        }
        return results.write_results(Path(out), format_table(record), record)


def measure_runs(sizes: Sequence[int], seed: int, rounds: int, progress: Progress) -> list[RunCost]:
    """Measure the job on every data set, and on variants of the second to last.

    Returns
    -------
    list of RunCost
        The run with the median seconds, per data set and number of threads. The last one is the
        run to check the model on.
    """
    costs = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = [_prepare_data(rows, seed, progress) for rows in sizes]
        *fit_folders, held_out_folder = folders
        merged = merge_users(fit_folders[-1], Path(scratch) / "merged")
        plan = [
            *((folder, 2) for folder in fit_folders),
            (fit_folders[-1], 1),
            (merged, 2),
            (held_out_folder, 2),
        ]
        for folder, threads in plan:
            runs = [_run_job(folder, threads, Path(scratch)) for _ in range(rounds)]
            runs.sort(key=lambda run: run.seconds)
            cost = runs[len(runs) // 2]
            costs.append(cost)
            progress.say(
                f"  {cost.rows:,} rows, {cost.users:,} users, {cost.threads} threads: "
                f"{cost.seconds:.2f} s, {cost.peak_memory_bytes / 1e6:,.0f} MB"
            )
    return costs


def _prepare_data(rows: int, seed: int, progress: Progress) -> Path:
    """Generate a data set unless it is cached, and read its ratings into the page cache."""
    with open_cluster("threads") as cluster:
        layout = resolve_data(Settings(data=f"synthetic:{rows}", seed=seed), cluster, progress)
    with open(layout.ratings, "rb") as file:
        while file.read(_READ_BYTES):
            pass
    return Path(layout.folder)


def merge_users(folder: Path, target: Path) -> Path:
    """Copy a data set with every four consecutive user ids merged into one; return ``target``."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pa_csv

    target.mkdir()
    for path in folder.glob("*.csv"):
        if path.name != "ratings.csv":
            (target / path.name).symlink_to(path.resolve())
    # Write no quotes: ordinary ratings files have none, and quoted rows take the slow reader.
    options = pa_csv.WriteOptions(quoting_style="none")
    with (
        pa_csv.open_csv(folder / "ratings.csv") as reader,
        pa_csv.CSVWriter(target / "ratings.csv", reader.schema, write_options=options) as writer,
    ):
        for batch in reader:
            users = pc.divide(batch.column(0), pa.scalar(_USERS_PER_MERGED))
            columns = [users, *batch.columns[1:]]
            writer.write(pa.RecordBatch.from_arrays(columns, schema=reader.schema))
    return target


def _run_job(folder: Path, threads: int, scratch: Path) -> RunCost:
    """Run the job in a cold process; raise RuntimeError if it fails."""
    config = scratch / f"threads-{threads}.yaml"
    config.write_text(f"kind: threads\nthreads: {threads}\n", "utf-8")
    out = scratch / "out"
    process = run_process([*build_segment_command(folder, out, config), "--overwrite"])
    manifest = json.loads((out / "run.json").read_text("utf-8"))
    stages = manifest["stages"]
    return RunCost(
        manifest["rows"]["read"],
        manifest["users"],
        threads,
        process.seconds,
        {stage["name"]: stage["seconds"] for stage in stages},
        manifest["peak_memory_bytes"],
        sum(stage.get("tasks", 0) for stage in stages),
        sum(stage.get("bytes", 0) for stage in stages),
    )


def fit_stage(name: str, costs: Sequence[RunCost]) -> dict[str, float]:
    """Fit one stage of the model; return the coefficient of each term, in seconds per unit.

    Residuals are divided by the seconds of the stage, so that relative errors are minimized.
    """
    from scipy.optimize import nnls

    terms = MODEL[name].terms
    seconds = np.array([compute_stage_seconds(name, cost) for cost in costs])
    matrix = np.array([_term_values(terms, cost) for cost in costs])
    weights = 1 / np.maximum(seconds, 1e-3)
    scale = np.abs(matrix).max(axis=0)
    coefficients, _ = nnls(matrix / scale * weights[:, None], seconds * weights)
    return dict(zip(terms, (coefficients / scale).tolist(), strict=True))


def _term_values(terms: Sequence[str], cost: RunCost) -> list[float]:
    values = {
        "1": 1.0,
        "rows / thread": cost.rows / cost.threads,
        "users / thread": cost.users / cost.threads,
        "users": float(cost.users),
    }
    return [values[term] for term in terms]


def compute_stage_seconds(name: str, cost: RunCost) -> float:
    """Return the seconds of a run that a stage of the model covers."""
    run_stages = MODEL[name].run_stages
    if run_stages is not None:
        return sum(cost.stages[stage] for stage in run_stages)
    others = sum(compute_stage_seconds(stage, cost) for stage in MODEL if stage != name)
    return cost.seconds - others


def predict_seconds(model: dict[str, dict[str, float]], cost: RunCost) -> float:
    """Predict the seconds of the given stages from the rows, users and threads of ``cost``."""
    return sum(
        coefficient * value
        for coefficients in model.values()
        for coefficient, value in zip(
            coefficients.values(), _term_values(list(coefficients), cost), strict=True
        )
    )


def measure_scheduler(workers: int, progress: Progress) -> dict[str, float]:
    """Measure the scheduling overhead per task, with workers of one thread each.

    The blocks are so small that computing takes next to no time: the scheduler, the client and
    their messages take nearly all of it.
    """
    import psutil
    from distributed import Client, LocalCluster

    n_blocks = 64 * workers
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        blocks = client.map(_make_block, range(n_blocks), pure=False)
        client.gather(client.map(_sum_block, blocks, pure=False))
        process = psutil.Process()
        cpu_started, started = sum(process.cpu_times()[:2]), time.perf_counter()
        for _ in range(_PASSES):
            client.gather(client.map(_sum_block, blocks, pure=False))
        seconds = time.perf_counter() - started
        cpu_seconds = sum(process.cpu_times()[:2]) - cpu_started
    load = {
        "workers": workers,
        "blocks": n_blocks,
        "milliseconds_per_task": 1e3 * seconds / _PASSES / n_blocks,
        "cpu_milliseconds_per_task": 1e3 * cpu_seconds / _PASSES / n_blocks,
    }
    progress.say(
        f"  {workers} workers, {n_blocks:,} blocks: {load['milliseconds_per_task']:.2f} ms per "
        f"task; CPU of scheduler and client: {load['cpu_milliseconds_per_task']:.2f} ms per task"
    )
    return load


def _make_block(value: int) -> NDArray[np.float32]:
    return np.full((8, 20), value, np.float32)


def _sum_block(block: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(block.sum(axis=0))


def format_table(record: dict[str, Any]) -> str:
    """Format a record as Markdown."""
    held_out = record["held_out"]
    lines = [
        *_format_costs([RunCost(**values) for values in record["points"]]),
        "",
        *_format_model(record["model"]),
        "",
        f"The last run was not fitted: {held_out['predicted']:.2f} s predicted, "
        f"{held_out['measured']:.2f} s measured.",
        "",
        "| workers of one thread | blocks | ms per task "
        "| ms of CPU per task, scheduler and client |",
        "|--:|--:|--:|--:|",
    ]
    for load in record["scheduler"]:
        milliseconds = (load["milliseconds_per_task"], load["cpu_milliseconds_per_task"])
        cells = [str(load["workers"]), f"{load['blocks']:,}", *_format_numbers(milliseconds)]
        lines.append(format_row(cells))
    return "\n".join(lines) + "\n"


def _format_costs(costs: Sequence[RunCost]) -> list[str]:
    lines = [
        "| rows | users | threads | seconds | reading | users' stages | rest | peak MB | tasks |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for cost in costs:
        seconds = (cost.seconds, *(compute_stage_seconds(name, cost) for name in MODEL))
        sizes = [f"{cost.rows:,}", f"{cost.users:,}", str(cost.threads)]
        totals = [f"{cost.peak_memory_bytes / 1e6:,.0f}", f"{cost.tasks:,}"]
        lines.append(format_row([*sizes, *_format_numbers(seconds), *totals]))
    return lines


def _format_model(model: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        "| stage | constant, s | s per million rows per thread | s per million users per thread "
        "| s per million users |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, coefficients in model.items():
        cells = [name, *_format_numbers([coefficients.get("1", 0)])]
        for term in ("rows / thread", "users / thread", "users"):
            coefficient = coefficients.get(term)
            cells += _format_numbers([1e6 * coefficient]) if coefficient else ["–"]
        lines.append(format_row(cells))
    return lines


def _format_numbers(values: Sequence[float]) -> list[str]:
    return [f"{value:.2f}" for value in values]
