"""The run's folder: nothing half-written reads as a result, finished stages survive."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segmentation.errors import DataError, UsageError
from segmentation.storage import atomic, run_folder
from segmentation.storage.run_folder import RunFolder, RunOutputs

OUTPUTS = RunOutputs(
    "segment",
    (
        "assignments.parquet",
        "report.html",
        "report.md",
        "figures/pca.png",
        "model/statistics",
        "rejected/ratings.csv",
    ),
    resumable=("model/statistics",),
    exclusive=("assignments.parquet",),
    replaces=("choose-k",),
)
KEY = {"k": 5}
OPENED: list[RunFolder] = []


def open_folder(
    path: Path, fingerprint: str = "abc", outputs: RunOutputs = OUTPUTS, **how: bool
) -> RunFolder:
    """Open a folder after unlocking the one before, as the end of its process would."""
    unlock_all()
    OPENED.append(RunFolder(path, outputs, fingerprint, **how))
    return OPENED[-1]


def unlock_all() -> None:
    while OPENED:
        OPENED.pop()._lock.close()


@pytest.fixture(autouse=True)
def _unlock():
    yield
    unlock_all()


def write_results(folder: RunFolder) -> None:
    atomic.write_bytes(folder.result_path("report.md"), b"text")
    atomic.write_bytes(folder.result_path("figures/pca.png"), b"png")


def test_results_appear_all_at_once(tmp_path: Path) -> None:
    out = tmp_path / "run"
    folder = open_folder(out)
    write_results(folder)
    assert [p.name for p in out.iterdir()] == [run_folder.WORK]
    folder.publish({"status": "complete"})
    assert sorted(p.name for p in out.iterdir()) == ["figures", "report.md", "run.json"]
    assert json.loads((out / "run.json").read_text()) == {"status": "complete"}


def test_an_existing_run_is_an_error_that_names_both_ways_on(tmp_path: Path) -> None:
    open_folder(tmp_path).publish({"status": "complete"})
    with pytest.raises(UsageError, match="holds a finished run: pass resume .* overwrite"):
        open_folder(tmp_path)
    open_folder(tmp_path, overwrite=True).finish_stage("a", {}, {})
    assert not (tmp_path / "run.json").exists(), "the manifest goes first"
    with pytest.raises(UsageError, match="holds an unfinished run: pass resume .* overwrite"):
        open_folder(tmp_path)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Neither a run nor overwrite touches files that no run writes, in its own folders either."""
    paths = [tmp_path / "notes.txt", tmp_path / "figures" / "mine.png", tmp_path / "model" / "w.pt"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    for _ in range(2):
        folder = open_folder(tmp_path, overwrite=True)
        write_results(folder)
        folder.publish({"status": "complete"})
    assert all(path.read_text() == "mine" for path in paths)
    assert (tmp_path / "figures" / "pca.png").exists()


@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_a_foreign_file_in_the_place_of_a_result_is_refused(tmp_path: Path, how: dict) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(UsageError, match=r"holds report.html but no finished run"):
        open_folder(tmp_path, **how)
    assert (tmp_path / "report.html").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_one_run_at_a_time(tmp_path: Path) -> None:
    """Two runs that start together must not mix; the lock ends with the process that holds it."""
    code = (
        "import sys; from segmentation.storage.run_folder import RunFolder, RunOutputs\n"
        f"f = RunFolder({str(tmp_path / 'o')!r}, RunOutputs('segment', ()), 'a', overwrite=True)\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(UsageError, match="another run is writing to it"):
            open_folder(tmp_path / "o", overwrite=True)
        other.kill()
    open_folder(tmp_path / "o", overwrite=True).publish({})


def test_finished_stages_and_their_files_survive_a_failure(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    atomic.write_bytes(folder.result_path("model/statistics"), b"stage")
    atomic.write_bytes(folder.result_path("report.md"), b"half")
    folder.finish_stage("ratings", KEY, {"rows": np.int64(5), "nan": float("nan")})
    folder.abandon()
    resumed = open_folder(tmp_path, resume=True)
    resumed.discard_unfinished()
    assert resumed.stage_result("ratings", KEY) == {"rows": 5, "nan": None}
    assert resumed.stage_result("ratings", {"k": 6}) is None
    assert resumed.stage_result("kmeans", KEY) is None
    assert resumed.result_path("model/statistics").read_bytes() == b"stage"
    assert not resumed.result_path("report.md").exists()


def test_nothing_is_left_where_no_stage_was_finished(tmp_path: Path) -> None:
    out = tmp_path / "new"
    folder = open_folder(out)
    atomic.write_bytes(folder.result_path("report.md"), b"half")
    folder.abandon()
    assert not out.exists()
    (tmp_path / "notes.txt").write_text("mine")
    open_folder(tmp_path).abandon()
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_results_of_an_unfinished_stage_are_not_published(tmp_path: Path) -> None:
    """A run that was killed before its first stage ended leaves results that must not be used."""
    atomic.write_bytes(open_folder(tmp_path).result_path("rejected/ratings.csv"), b"stale")
    open_folder(tmp_path).publish({})
    assert not (tmp_path / "rejected").exists()


def test_only_the_same_run_is_resumed(tmp_path: Path) -> None:
    open_folder(tmp_path).finish_stage("ratings", KEY, {})
    with pytest.raises(UsageError, match="was run with another fingerprint: use the same"):
        open_folder(tmp_path, "x", resume=True)
    assert open_folder(tmp_path, resume=True).stage_result("ratings", KEY) == {}


def test_a_job_replaces_only_the_runs_it_may(tmp_path: Path) -> None:
    choose_k = RunOutputs("choose-k", OUTPUTS.files, replaces=("segment",))
    convert = RunOutputs("convert", ("ratings.parquet",))
    folder = open_folder(tmp_path)
    write_results(folder)
    folder.publish({"job": "segment"})
    with pytest.raises(UsageError, match="holds a run of segment: choose another out"):
        open_folder(tmp_path, outputs=convert, overwrite=True)
    assert (tmp_path / "report.md").exists()
    open_folder(tmp_path, outputs=choose_k, overwrite=True).publish({"job": "choose-k"})
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file: choose a folder for out"):
        open_folder(tmp_path / "file")


def test_results_in_parts_are_published_and_replaced(tmp_path: Path) -> None:
    for text, n_parts in (("first", 2), ("second", 1)):
        run = open_folder(tmp_path / "run", overwrite=True)
        folder = run.result_path("assignments.parquet")
        folder.mkdir(parents=True)
        for number in range(n_parts):
            (folder / f"part-0000{number}.parquet").write_text(text)
        run.publish({})
    assignments = tmp_path / "run" / "assignments.parquet"
    assert {path.name: path.read_text() for path in assignments.iterdir()} == {
        "part-00000.parquet": "second"
    }
    (assignments / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds files other than part"):
        open_folder(tmp_path / "run", overwrite=True)
    assert (assignments / "mine.txt").exists()


def test_a_single_file_of_an_earlier_version_is_replaced(tmp_path: Path) -> None:
    open_folder(tmp_path).publish({})
    (tmp_path / "assignments.parquet").write_bytes(b"PAR1")
    run = open_folder(tmp_path, overwrite=True)
    folder = run.result_path("assignments.parquet")
    folder.mkdir(parents=True)
    (folder / "part-00000.parquet").write_text("new")
    run.publish({})
    assert (tmp_path / "assignments.parquet" / "part-00000.parquet").read_text() == "new"


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "can't be read .*: pass overwrite"), ("[]", "is not the manifest of a run")],
)
def test_a_manifest_that_is_none(tmp_path: Path, content: str, message: str) -> None:
    assert run_folder.read_manifest(tmp_path) is None
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError, match=message):
        run_folder.read_manifest(tmp_path)
    manifest = {"settings": {}, "data": {}, "rows": {}}
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    assert run_folder.read_manifest(tmp_path) == manifest
