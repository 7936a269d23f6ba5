"""Log lines: each one with its time and level, as text or as a JSON object."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

from jobs import segment
from segmentation.progress import LogProgress


def test_json_lines_of_a_run(tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "out")
    arguments = ["--data", "synthetic:5000", "--out", out, "--log-format", "json"]
    assert segment.main(arguments) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z", line["time"]) for line in lines)
    stages = [line["stage"] for line in lines if line["event"] == "stage"]
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert stages == [stage["name"] for stage in manifest["stages"]]
    last = lines[-1]
    assert (last["event"], last["status"], last["out"]) == ("done", 0, out)
    # Errors are lines too, and nothing is "done" then.
    assert segment.main(arguments) == 2
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["event"], line["status"]) for line in lines] == [
        ("error", "error", 2)
    ]
    assert "pass --resume" in lines[0]["message"]


def test_text_lines() -> None:
    stream = io.StringIO()
    progress = LogProgress(stream)
    with progress.stage("kmeans", "K-Means") as stage:
        stage.note = "k = 5"
    progress.warn("  warning: odd data")
    lines = stream.getvalue().splitlines()
    assert re.fullmatch(r"\S+Z INFO {4}K-Means: k = 5 stage=kmeans seconds=[\d.]+", lines[0])
    assert re.fullmatch(r"\S+Z WARNING odd data", lines[1])


def test_quiet_lines_are_warnings_and_the_last_one(tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "out")
    arguments = ["--data", "synthetic:5000", "--out", out, "--log-format", "text", "--quiet"]
    assert segment.main(arguments) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "done status=0" in lines[-1]
    assert all("WARNING" in line for line in lines[:-1])
