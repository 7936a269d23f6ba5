"""Names of places: each works, or is refused before anything is computed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import segment
from segmentation.errors import UsageError
from segmentation.pipeline.segment import run_segment
from segmentation.pipeline.settings import Settings
from tests.conftest import write_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_tiny(tmp_path / "data")


def run(data: Path, out: str, *options: str) -> int:
    return segment.main(["--data", str(data), "--k", "2", "--quiet", "--out", out, *options])


@pytest.mark.parametrize("out", ["run:1", "exp:a/b", "C:/x", "a b", "ü/ñ", "#1?x=y&z", "-1", "%20"])
def test_unusual_names(data: Path, out: str) -> None:
    assert run(data, f"./{out}" if out.startswith("-") else out) == 0
    assert Path(out, "report.html").exists()
    assert run(data, f"./{out}" if out.startswith("-") else out, "--resume") == 0


def test_a_name_that_is_not_utf_8(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.segment", "--data", str(data), "--k", "2", "--quiet"]
    out = os.fsencode(tmp_path) + b"/caf\xe9"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for options in ([], ["--resume"]):
        process = subprocess.run(
            [*command, *options, b"--out", out], cwd=tmp_path, env=environment, check=False
        )
        assert process.returncode == 0
    assert os.path.exists(out + b"/run.json")


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("s3://bucket/run", "--out s3://bucket/run: is a URL"),
        ("http://me:pw@host/run", "--out http://***@host/run: is a URL"),
        ("memory://run", "is a URL"),
        ("n" * 300, r"n{77}\.\.\.: can't be a folder's name \(File name too long\)"),
        ("a\0b", "can't be a folder's name"),
        ("d/" * 3_000, "can't be a folder's name"),
    ],
)
def test_names_that_are_refused(data: Path, tmp_path: Path, capsys, out: str, message: str) -> None:
    assert run(data, out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message.replace("***", r"\*\*\*"), line)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_url_is_refused_from_python_too(data: Path) -> None:
    with pytest.raises(UsageError, match="out s3://bucket/run: is a URL"):
        run_segment(Settings(data=str(data), k=2), "s3://bucket/run")
    assert not Path("s3:").exists()


def test_pipes_are_refused(data: Path, tmp_path: Path, capsys) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert run(data, "out", "--ratings", str(pipe)) == 3
    assert "is a pipe or a device" in capsys.readouterr().err
    assert run(data, "out", "--ratings", "/dev/null") == 3
    assert "is a pipe or a device" in capsys.readouterr().err
    assert run(data, "out", "--playbook", str(pipe)) == 2
    assert "it is no regular file" in capsys.readouterr().err
    (data / "links.csv").unlink()
    os.mkfifo(data / "links.csv")
    assert run(data, "out") == 3
    assert "links.csv: is a pipe or a device" in capsys.readouterr().err


def test_a_header_without_an_end_is_no_row(data: Path, capsys) -> None:
    (data / "ratings.csv").write_text("userId,movieId,rating," + "x" * 70_000 + "\n1,10,4.0,1\n")
    assert run(data, "out") == 3
    assert "ratings.csv, line 1: no line end within 64 KiB" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["zip://movies.csv::{}/no.zip", "tar://movies.csv::{}/no.zip"])
def test_an_archive_that_is_none(tmp_path: Path, capsys, place: str) -> None:
    (tmp_path / "no.zip").write_text("no archive")
    data = place.format(tmp_path)
    assert segment.main(["--data", data, "--out", str(tmp_path / "out"), "--quiet"]) == 3
    error = capsys.readouterr().err
    assert error.startswith(f"error: {data}")
    assert "can't be read as an archive" in error


def test_data_whose_name_is_not_utf_8(tmp_path: Path, capsys) -> None:
    out = ["--out", str(tmp_path / "out"), "--quiet"]
    assert segment.main(["--data", os.fsdecode(b"ml\xff"), *out]) == 2
    assert capsys.readouterr().err == (
        "error: --data: its name is not valid UTF-8: rename it, or link to it\n"
    )
