"""What a run costs by its rows, users and threads: fitted on measured runs, checked on another.

Each run is a cold process. A stage's seconds are taken for a sum of terms that grow with the rows
and the users that a thread has, and with the users that the job's own process writes; no term may
be negative (Lawson and Hanson 1974, non-negative least squares).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.deploy.core import open_cluster
from segmentation.pipeline.settings import Settings
from segmentation.pipeline.sources import resolve_data

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from segmentation.progress import Progress

#: stage of the model → the stages of a run, and the terms that it may have.
MODEL = {
    "reading": (("ratings",), ("1", "rows / thread", "users / thread")),
    "users": (("kmeans", "pca", "profiles", "assignments"), ("1", "users / thread", "users")),
    "rest": (None, ("1", "users / thread", "users")),
}
#: Users of these data sets are joined by so many, so that rows and users don't grow alike.
JOINED = 4


class Point(NamedTuple):
    """One measured run; ``stages`` in seconds, ``results`` bytes of tasks' results."""

    rows: int
    users: int
    threads: int
    seconds: float
    stages: dict[str, float]
    peak: int
    tasks: int
    results: int


def terms(names: Sequence[str], point: Point) -> list[float]:
    """Return the value of each term for a run."""
    known = {
        "1": 1.0,
        "rows / thread": point.rows / point.threads,
        "users / thread": point.users / point.threads,
        "users": float(point.users),
    }
    return [known[name] for name in names]


def measure(
    sizes: Sequence[int], held_out: int, rounds: int, seed: int, progress: Progress
) -> dict[str, Any]:
    """Run the job on each size, on fewer users, and on one thread; fit, and predict ``held_out``.

    Parameters
    ----------
    sizes
        Rows of synthetic data that the model is fitted on; the last also with one thread, and with
        a quarter of the users.
    held_out
        Rows of the run that it is checked on.
    rounds
        Cold runs of each; the medians count.
    """
    points = []
    with tempfile.TemporaryDirectory() as scratch:
        places = {rows: _data(rows, seed, progress) for rows in [*sizes, held_out]}
        fewer = _joined(places[sizes[-1]], Path(scratch) / "fewer")
        plan = [(places[rows], 2) for rows in sizes]
        plan += [(places[sizes[-1]], 1), (fewer, 2), (places[held_out], 2)]
        for folder, threads in plan:
            runs = [_run(folder, threads, Path(scratch)) for _ in range(rounds)]
            runs.sort(key=lambda run: run.seconds)
            points.append(runs[len(runs) // 2])
            found = points[-1]
            progress.say(
                f"  {found.rows:,} rows, {found.users:,} users, {threads} threads: "
                f"{found.seconds:.2f} s, {found.peak / 1e6:,.0f} MB"
            )
    fitted = {name: fit(name, points[:-1]) for name in MODEL}
    return {
        "points": [point._asdict() for point in points],
        "model": fitted,
        "held_out": {
            "measured": points[-1].seconds,
            "predicted": predict(fitted, points[-1]),
            "stages": {
                name: [measured(name, points[-1]), predict({name: fitted[name]}, points[-1])]
                for name in MODEL
            },
        },
        "scheduler": [scheduler_load(workers, progress) for workers in (2, 8, 32)],
    }


def fit(name: str, points: Sequence[Point]) -> dict[str, float]:
    """Fit one stage of the model; seconds a unit of each term.

    Runs weigh by the inverse of their seconds, so that it is shares that are fitted.
    """
    from scipy.optimize import nnls

    names = MODEL[name][1]
    seconds = np.array([measured(name, point) for point in points])
    matrix = np.array([terms(names, point) for point in points])
    weights = 1 / np.maximum(seconds, 1e-3)
    scale = np.abs(matrix).max(axis=0)
    found, _ = nnls(matrix / scale * weights[:, None], seconds * weights)
    return dict(zip(names, (found / scale).tolist(), strict=True))


def measured(name: str, point: Point) -> float:
    """Return the seconds that a run spent in a stage of the model."""
    stages = MODEL[name][0]
    if stages is not None:
        return sum(point.stages[stage] for stage in stages)
    named = [stage for own, _ in MODEL.values() if own for stage in own]
    return point.seconds - sum(point.stages[stage] for stage in named)


def predict(fitted: dict[str, dict[str, float]], point: Point) -> float:
    """Return the seconds that the model gives a run."""
    return sum(
        cost * term
        for costs in fitted.values()
        for cost, term in zip(costs.values(), terms(list(costs), point), strict=True)
    )


def _data(rows: int, seed: int, progress: Progress) -> Path:
    with open_cluster("threads") as cluster:
        found = resolve_data(Settings(data=f"synthetic:{rows}", seed=seed), cluster, progress)
    # Read once, so that all runs find it cached.
    with open(found.ratings, "rb") as file:
        while file.read(1 << 24):
            pass
    return Path(found.folder)


def _joined(folder: Path, target: Path) -> Path:
    """Copy a data set with every few users made one."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    target.mkdir()
    for path in folder.glob("*.csv"):
        if path.name != "ratings.csv":
            (target / path.name).symlink_to(path.resolve())
    # Without quotes, as everybody's ratings are.
    plain = csv.WriteOptions(quoting_style="none")
    with (
        csv.open_csv(folder / "ratings.csv") as reader,
        csv.CSVWriter(target / "ratings.csv", reader.schema, write_options=plain) as writer,
    ):
        for batch in reader:
            users = pc.divide(batch.column(0), pa.scalar(JOINED))
            columns = [users, *batch.columns[1:]]
            writer.write(pa.RecordBatch.from_arrays(columns, schema=reader.schema))
    return target


def _run(folder: Path, threads: int, scratch: Path) -> Point:
    config = scratch / f"threads-{threads}.yaml"
    config.write_text(f"kind: threads\nthreads: {threads}\n", "utf-8")
    out = scratch / "out"
    began = time.perf_counter()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "jobs.segment",
            "--quiet",
            "--overwrite",
            "--data",
            str(folder),
            "--out",
            str(out),
            "--cluster",
            str(config),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    manifest = json.loads((out / "run.json").read_text("utf-8"))
    stages = manifest["stages"]
    return Point(
        manifest["rows"]["read"],
        manifest["users"],
        threads,
        seconds,
        {stage["name"]: stage["seconds"] for stage in stages},
        manifest["peak_memory_bytes"],
        sum(stage.get("tasks", 0) for stage in stages),
        sum(stage.get("bytes", 0) for stage in stages),
    )


def scheduler_load(workers: int, progress: Progress) -> dict[str, float]:
    """Measure what a task costs the scheduler, with workers of one thread each.

    Passes over blocks too small to take any time: what is left is the scheduler, its messages and
    the client.
    """
    import psutil
    from distributed import Client, LocalCluster

    blocks = 64 * workers
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        held = client.map(_block, range(blocks), pure=False)
        client.gather(client.map(_step, held, pure=False))
        own = psutil.Process()
        before, began = sum(own.cpu_times()[:2]), time.perf_counter()
        passes = 5
        for _ in range(passes):
            client.gather(client.map(_step, held, pure=False))
        seconds = time.perf_counter() - began
        cpu = sum(own.cpu_times()[:2]) - before
    found = {
        "workers": workers,
        "blocks": blocks,
        "milliseconds_a_task": 1e3 * seconds / passes / blocks,
        "cpu_milliseconds_a_task": 1e3 * cpu / passes / blocks,
    }
    progress.say(
        f"  {workers} workers, {blocks:,} blocks: {found['milliseconds_a_task']:.2f} ms a task, "
        f"{found['cpu_milliseconds_a_task']:.2f} ms of the scheduler's CPU"
    )
    return found


def _block(number: int) -> Any:
    return np.full((8, 20), number, np.float32)


def _step(block: Any) -> Any:
    return block.sum(axis=0)


def table(record: dict[str, Any], told: Callable[[float], str] = "{:.2f}".format) -> str:
    """Return measurements, model and check as Markdown."""
    lines = [
        "| rows | users | threads | seconds | reading | users' stages | rest | peak MB | tasks |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for values in record["points"]:
        point = Point(**values)
        cells = [
            f"{point.rows:,}",
            f"{point.users:,}",
            str(point.threads),
            told(point.seconds),
            *(told(measured(name, point)) for name in MODEL),
            f"{point.peak / 1e6:,.0f}",
            f"{point.tasks:,}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "| stage | constant, s | a million rows a thread, s | a million users a thread, s "
        "| a million users, s |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, costs in record["model"].items():
        cells = [told(costs.get("1", 0))]
        cells += [
            told(1e6 * costs[term]) if costs.get(term) else "–"
            for term in ("rows / thread", "users / thread", "users")
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    held = record["held_out"]
    lines += [
        "",
        f"The last run was not fitted: {told(held['predicted'])} s predicted, "
        f"{told(held['measured'])} s measured.",
        "",
        "| workers of one thread | blocks | ms a task | of it the scheduler's and client's CPU |",
        "|--:|--:|--:|--:|",
    ]
    for load in record["scheduler"]:
        cells = [
            str(load["workers"]),
            f"{load['blocks']:,}",
            told(load["milliseconds_a_task"]),
            told(load["cpu_milliseconds_a_task"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
