"""The workflows of docs/campaigns.md: each command is run, and leaves what the page says."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from jobs import cli
from segmentation.datasets.synthetic.writer import write_dataset

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "campaigns.md").read_text("utf-8")


def test_the_page_from_top_to_bottom(
    tmp_path: Path, client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_dataset(20_000, 1, tmp_path / "ratings", client, lambda done, total: None)
    ratings = pd.read_csv("ratings/ratings.csv")
    ratings.nlargest(2_000, "timestamp").to_csv("february.csv", index=False)
    ratings.nsmallest(18_000, "timestamp").to_csv("ratings/ratings.csv", index=False)
    shutil.copytree("ratings", "new-users")
    ratings[ratings["userId"] % 3 == 0].to_csv("new-users/ratings.csv", index=False)
    commands = re.findall(r"(?m)^\$ segmentation (.*)$", PAGE)
    assert len(commands) == 9
    for command in commands:
        assert cli.main([*shlex.split(command), "--quiet"]) == 0, command
    for name in (
        *("runs/2026-01/report.html", "runs/2026-01/assignments.parquet", "runs/2026-01/model"),
        *("runs/2026-02/drift.html", "scores/new-users/assignments.parquet"),
        *("lists/2026-02/holdout.csv", "lists/2026-02/changes.csv", "audience/audience.sqlite"),
        "model/assign.sql",
    ):
        assert Path(name).exists(), name
    first, second = (
        [entry["persona"] for entry in json.loads(Path(f"runs/{run}/segments.json").read_text())]
        for run in ("2026-01", "2026-02")
    )
    assert first == second
