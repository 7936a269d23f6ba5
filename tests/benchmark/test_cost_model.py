"""The cost model: it recovers costs that runs were made from, and predicts another run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs import benchmark
from segmentation.benchmark import cost_model
from segmentation.benchmark.cost_model import RunCost
from segmentation.progress import Progress
from tests.conftest import write_tiny

#: Rows, users and threads of runs that tell all terms apart.
RUNS = [
    (1_000_000, 10_000, 2),
    (10_000_000, 100_000, 2),
    (40_000_000, 400_000, 2),
    (40_000_000, 400_000, 1),
    (40_000_000, 100_000, 2),
    (100_000_000, 1_000_000, 2),
]


def make_cost(rows: int, users: int, threads: int) -> RunCost:
    """A run whose seconds follow a formula."""
    reading = 0.5 + 4e-8 * rows / threads + 7e-7 * users / threads
    assigning = 0.25 + 1e-6 * users / threads + 1.6e-6 * users
    rest = 3.5 + 1e-6 * users / threads
    stages = {
        "catalogue": rest - 3.0,
        "ratings": reading,
        "kmeans": assigning / 2,
        "pca": assigning / 4,
        "profiles": 0.0,
        "assignments": assigning / 4,
    }
    return RunCost(rows, users, threads, reading + assigning + rest, stages, 10**9, 100, 10**6)


def test_stages_add_up() -> None:
    cost = make_cost(*RUNS[0])
    assert cost_model.compute_stage_seconds("reading", cost) == cost.stages["ratings"]
    assert cost_model.compute_stage_seconds("rest", cost) == pytest.approx(3.505)
    total = sum(cost_model.compute_stage_seconds(name, cost) for name in cost_model.MODEL)
    assert total == pytest.approx(cost.seconds)


def test_the_fit_recovers_the_costs() -> None:
    costs = [make_cost(*run) for run in RUNS[:-1]]
    model = {name: cost_model.fit_stage(name, costs) for name in cost_model.MODEL}
    assert model["reading"] == pytest.approx(
        {"1": 0.5, "rows / thread": 4e-8, "users / thread": 7e-7}, rel=1e-6
    )
    assert model["users"] == pytest.approx(
        {"1": 0.25, "users / thread": 1e-6, "users": 1.6e-6}, rel=1e-6
    )
    assert model["rest"]["1"] == pytest.approx(3.5)
    check = make_cost(*RUNS[-1])
    assert cost_model.predict_seconds(model, check) == pytest.approx(check.seconds)


def test_no_coefficient_is_negative() -> None:
    """Seconds that fall with the users would need a negative coefficient."""
    costs = [make_cost(*run) for run in RUNS[:-1]]
    costs = [
        cost._replace(stages={**cost.stages, "ratings": 2 - 1e-6 * cost.users}) for cost in costs
    ]
    assert min(cost_model.fit_stage("reading", costs).values()) >= 0


def test_every_four_users_are_merged(tmp_path: Path) -> None:
    rows = [f"{user},10,{user % 10 / 2 + 0.5},{user}" for user in range(1, 21)]
    header = "userId,movieId,rating,timestamp"
    folder = write_tiny(tmp_path / "tiny", "\n".join([header, *rows]) + "\n")
    merged = cost_model.merge_users(folder, tmp_path / "merged")
    before, after = (pd.read_csv(path / "ratings.csv") for path in (folder, merged))
    assert after["userId"].tolist() == [user // 4 for user in range(1, 21)]
    pd.testing.assert_frame_equal(after.drop(columns="userId"), before.drop(columns="userId"))
    assert '"' not in (merged / "ratings.csv").read_text().splitlines()[1]
    assert (merged / "links.csv").read_text() == (folder / "links.csv").read_text()


def test_the_scheduler_is_measured() -> None:
    load = cost_model.measure_scheduler(1, Progress())
    assert load["blocks"] == 64
    assert 0 < load["cpu_milliseconds_per_task"] < 100
    assert 0.01 < load["milliseconds_per_task"] < 100


def test_blocks_are_summed() -> None:
    np.testing.assert_array_equal(cost_model._sum_block(cost_model._make_block(3)), [24.0] * 20)


def test_the_job_plans_fits_and_checks(tmp_path: Path, monkeypatch, capsys) -> None:
    """The runs themselves are replaced by a formula."""
    users = {1_000_000: 10_000, 10_000_000: 100_000, 40_000_000: 400_000}
    runs = []

    def prepare_data(rows: int, seed: int, progress: Progress) -> Path:
        return Path(str(rows))

    def run_job(folder: Path, threads: int, scratch: Path) -> RunCost:
        runs.append((folder.name, threads))
        if folder.name == "merged":
            return make_cost(10_000_000, 25_000, threads)
        rows = int(folder.name)
        return make_cost(rows, users[rows], threads)

    load = {
        "workers": 2,
        "blocks": 128,
        "milliseconds_per_task": 0.654,
        "cpu_milliseconds_per_task": 0.333,
    }
    monkeypatch.setattr(cost_model, "_prepare_data", prepare_data)
    monkeypatch.setattr(cost_model, "merge_users", lambda folder, target: target)
    monkeypatch.setattr(cost_model, "_run_job", run_job)
    monkeypatch.setattr(cost_model, "measure_scheduler", lambda workers, progress: load)
    out = tmp_path / "out"
    options = ["--scaling", "--sizes", ",".join(map(str, users)), "--rounds", "1", "--quiet"]
    assert benchmark.main([*options, "--out", str(out)]) == 0
    assert runs == [
        ("1000000", 2),
        ("10000000", 2),
        ("10000000", 1),
        ("merged", 2),
        ("40000000", 2),
    ]
    record = json.loads((out / "benchmark.json").read_text())
    assert record["held_out"]["predicted"] == pytest.approx(record["held_out"]["measured"])
    assert record["model"]["users"]["users"] == pytest.approx(1.6e-6)
    text = (out / "benchmark.md").read_text()
    assert "| 40,000,000 | 400,000 | 2 | 6.23 | 1.44 | 1.09 | 3.70 | 1,000 | 100 |" in text
    assert "| users | 0.25 | – | 1.00 | 1.60 |" in text
    assert "| 2 | 128 | 0.65 | 0.33 |" in text
    assert f"written: {out}/benchmark.md, {out}/benchmark.json" in capsys.readouterr().out
