"""The run's folder: nothing half-written reads as a result, finished stages survive."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segmentation.errors import DataError, UsageError
from segmentation.storage import atomic, integrity, run_folder
from segmentation.storage.run_folder import DamagedStageError, RunFolder, RunOutputs

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
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "complete"
    assert record["files"] == {
        name: [len(content), hashlib.sha256(content).hexdigest()]
        for name, content in (("report.md", b"text"), ("figures/pca.png", b"png"))
    }


def test_an_existing_run_is_an_error_that_names_both_ways_on(tmp_path: Path) -> None:
    open_folder(tmp_path).publish({"status": "complete"})
    with pytest.raises(UsageError, match="holds a finished run: pass resume .* overwrite"):
        open_folder(tmp_path)
    open_folder(tmp_path, overwrite=True).finish_stage("a", {}, {})
    assert (tmp_path / "run.json").exists(), "the old run stays until the new one is complete"
    with pytest.raises(UsageError, match="holds an unfinished run: pass resume .* overwrite"):
        open_folder(tmp_path)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Overwrite touches no files that no run writes, in its own folders either."""
    run = open_folder(tmp_path)
    write_results(run)
    run.publish({"status": "complete"})
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
    with pytest.raises(UsageError, match=r"holds report.html but no run"):
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
    (tmp_path / ".gitkeep").write_text("mine")
    open_folder(tmp_path).abandon()
    assert [p.name for p in tmp_path.iterdir()] == [".gitkeep"]


def test_results_of_an_unfinished_stage_are_not_published(tmp_path: Path) -> None:
    """A run that was killed before its first stage ended leaves results that must not be used."""
    atomic.write_bytes(open_folder(tmp_path).result_path("rejected/ratings.csv"), b"stale")
    open_folder(tmp_path).publish({})
    assert not (tmp_path / "rejected").exists()


def test_only_the_same_run_is_resumed(tmp_path: Path) -> None:
    open_folder(tmp_path).finish_stage("ratings", KEY, {})
    with pytest.raises(UsageError, match="was run with another data: use the same"):
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
    with pytest.raises(UsageError, match="holds mine.txt, which no run leaves there"):
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
    [
        ("{", "can't be read .*: pass overwrite"),
        ("[]", "differs from what a run of this version wrote"),
        ('{"status": "complete"}', "differs from what a run of this version wrote"),
    ],
)
def test_a_manifest_that_is_none(tmp_path: Path, content: str, message: str) -> None:
    assert run_folder.read_manifest(tmp_path) is None
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError, match=message):
        run_folder.read_manifest(tmp_path)
    manifest = integrity.add_checksum({"settings": {}, "data": {}, "rows": {}})
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    assert run_folder.read_manifest(tmp_path) == manifest


def test_a_manifest_with_any_bit_flipped_is_refused(tmp_path: Path) -> None:
    open_folder(tmp_path).publish({"status": "complete", "kmeans": {"inertia": 25.5}})
    path = tmp_path / "run.json"
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with contextlib.suppress(DataError):
            # White space between the fields may differ.
            assert run_folder.read_manifest(tmp_path) == json.loads(content)


def finish_ratings(path: Path) -> RunFolder:
    folder = open_folder(path)
    atomic.write_bytes(folder.result_path("model/statistics"), b"sums and counts")
    folder.finish_stage("ratings", KEY, {"rows": 5, "centers": [0.25]}, ["model/statistics"])
    return folder


@pytest.mark.parametrize("content", [b"", b"sums and c", b"Sums and counts", None])
def test_a_damaged_file_of_a_stage_is_not_used(tmp_path: Path, content: bytes | None) -> None:
    path = finish_ratings(tmp_path).result_path("model/statistics")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    resumed = open_folder(tmp_path, resume=True)
    with pytest.raises(DamagedStageError) as caught:
        resumed.stage_result("ratings", KEY)
    assert caught.value.path == path
    assert resumed.stage_result("ratings", KEY) is None


@pytest.mark.parametrize("size", [0, 20, None])
def test_a_damaged_state_is_not_used(tmp_path: Path, size: int | None) -> None:
    finish_ratings(tmp_path)
    state = tmp_path / ".work" / "state.json"
    text = state.read_text()
    state.write_text(text.replace("0.25", "0.5") if size is None else text[:size])
    resumed = open_folder(tmp_path, resume=True)
    assert resumed.is_state_damaged
    assert resumed.stage_result("ratings", KEY) is None


LINKS = [
    ".work",
    ".work/lock",
    ".work/products",
    ".work/state.json",
    "assignments.parquet",
    "assignments.parquet/part-00000.parquet",
    "figures",
    "figures/pca.png",
    "rejected",
    "report.html",
    "run.json",
]


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_a_link_in_the_place_of_a_result_is_refused(
    tmp_path: Path, name: str, how: dict[str, bool]
) -> None:
    """What it leads to is neither written nor deleted."""
    target, out = tmp_path / "mine", tmp_path / "run"
    run = open_folder(out)
    write_results(run)
    folder = run.result_path("assignments.parquet")
    folder.mkdir()
    (folder / "part-00000.parquet").write_text("part")
    run.publish({"status": "complete", "job": "segment"})
    is_folder = name in (".work", ".work/products", "assignments.parquet", "figures", "rejected")
    if is_folder:
        target.mkdir()
        for inner in ("ratings.csv", "state.json", "part-00000.parquet"):
            (target / inner).write_text("mine")
    else:
        target.write_text("mine")
    link = out / name
    link.parent.mkdir(exist_ok=True)
    atomic.remove(link)
    link.symlink_to(target)
    with pytest.raises(UsageError, match="is a symbolic link|holds part-00000.parquet"):
        open_folder(out, **how)
    files = list(target.iterdir()) if is_folder else [target]
    assert [path.read_text() for path in files] == ["mine"] * len(files)


def test_a_link_to_nowhere_in_the_place_of_a_partial_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "report.md.partial").symlink_to(tmp_path / "elsewhere")
    atomic.write_bytes(tmp_path / "report.md", b"text")
    assert (tmp_path / "report.md").read_bytes() == b"text"
    assert not (tmp_path / "elsewhere").exists()


def test_the_root_and_the_home_folder_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to("/")
    for path in (Path("/"), tmp_path, tmp_path / "link", tmp_path / "run" / ".."):
        (tmp_path / "run").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match="is the root or the home folder"):
            run_folder.check_available(path, OUTPUTS, overwrite=True)
    run_folder.check_available(tmp_path / "run", OUTPUTS)


def test_folders_with_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / ".DS_Store").touch()
    run_folder.check_available(tmp_path, OUTPUTS)
    (tmp_path / "thesis.tex").touch()
    for how in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(UsageError, match=r"holds thesis\.tex but no run: choose another out"):
            run_folder.check_available(tmp_path, OUTPUTS, **how)
    (tmp_path / "thesis.tex").unlink()
    (tmp_path / "report.md").mkdir()
    with pytest.raises(UsageError, match=r"report\.md: is not what a run leaves there"):
        run_folder.check_available(tmp_path, OUTPUTS)


def read_files(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and run_folder.WORK not in file.parts
    }


def prepare_second_run(path: Path) -> tuple[RunFolder, dict[str, bytes]]:
    """Publish a run and compute another; return that one, and the files of the first."""
    for run_number in (1, 2):
        folder = open_folder(path, overwrite=True)
        names = ["report.md", "figures/pca.png", "model/statistics"]
        # Each run has a file that the other lacks.
        names.append("report.html" if run_number == 1 else "rejected/ratings.csv")
        for name in names:
            atomic.write_bytes(folder.result_path(name), f"{name} of {run_number}".encode())
        parts = folder.result_path("assignments.parquet")
        parts.mkdir()
        for part in range(run_number):
            (parts / f"part-0000{part}.parquet").write_text(f"{part} of {run_number}")
        if run_number == 1:
            folder.publish({"status": "complete", "job": "segment", "run": 1})
    return folder, read_files(path)


class Killed(BaseException):
    """Simulates the end of the process."""


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Killed()])
def test_a_publish_that_ends_anywhere_leaves_the_old_run_or_becomes_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """The sweep ends at the first rename that isn't needed any more."""
    outcomes: list[tuple[dict[str, bytes], dict[str, bytes]]] = []
    rename = os.replace
    n_renames = left = 0

    def replace(source: Path, target: Path) -> None:
        nonlocal left
        left -= 1
        if left == 0 or (left < 0 and isinstance(error, Killed)):
            raise error
        rename(source, target)

    is_published = False
    while not is_published:
        n_renames += 1
        path = tmp_path / str(n_renames)
        folder, old = prepare_second_run(path)
        left = n_renames
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            try:
                folder.publish({"status": "complete", "job": "segment", "run": 2})
                is_published = True
            except OSError:
                assert read_files(path) == old, "a failed publish leaves the old run"
                folder.abandon()
            except Killed:
                pass
        unlock_all()
        run_folder.finish_publishing(path, OUTPUTS)
        outcomes.append((old, read_files(path)))
    new = outcomes[-1][1]
    assert n_renames > 12
    assert "report.html" not in new
    assert new["rejected/ratings.csv"] == b"rejected/ratings.csv of 2"
    # The first rename completes the new run: only if it fails does the old one stay.
    assert outcomes[0][0] == outcomes[0][1]
    assert all(files == new for _, files in outcomes[1:])


def test_a_folder_that_may_not_be_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(DataError, match=r"run: can't be written \(Permission denied\): choose"):
        run_folder.check_available(tmp_path / "run", OUTPUTS)
    with pytest.raises(DataError, match="Permission denied"):
        run_folder.finish_publishing(tmp_path / "run", OUTPUTS)


@pytest.mark.parametrize("name", ["mine.txt", "complete/mine.txt"])
def test_other_files_among_the_unfinished_work_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / ".work" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    for how in ({}, {"overwrite": True}, {"resume": True}):
        with contextlib.suppress(UsageError):
            folder = open_folder(tmp_path, **how)
            folder.publish({"status": "complete"})
            pytest.fail("it was not refused")
        assert path.read_text() == "mine"


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "none")
    with pytest.raises(UsageError, match="is a link that leads nowhere"):
        run_folder.check_available(tmp_path / "run", OUTPUTS)


def test_records_nested_too_deep_are_damaged(tmp_path: Path) -> None:
    finish_ratings(tmp_path)
    (tmp_path / ".work" / "state.json").write_text("[" * 100_000)
    assert open_folder(tmp_path, resume=True).is_state_damaged
    unlock_all()
    (tmp_path / "run.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="can't be read"):
        run_folder.read_manifest(tmp_path)
    open_folder(tmp_path, overwrite=True).publish({})


@pytest.mark.parametrize("inner", ["products/figures", "products/a/b", "complete/x.png"])
@pytest.mark.parametrize("how", [{"overwrite": True}, {"resume": True}])
def test_a_link_among_unfinished_results_is_refused(
    tmp_path: Path, inner: str, how: dict[str, bool]
) -> None:
    target, out = tmp_path / "mine", tmp_path / "run"
    target.mkdir()
    (target / "pca.png").write_text("mine")
    run = open_folder(out)
    run.finish_stage("ratings", {}, {})
    link = out / ".work" / inner
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    with pytest.raises(UsageError, match="is a symbolic link|which no run leaves there"):
        open_folder(out, **how)
    assert [path.read_text() for path in target.iterdir()] == ["mine"]


def test_a_folder_stays_locked_after_a_killed_publishing_is_finished(tmp_path: Path) -> None:
    run = open_folder(tmp_path)
    write_results(run)
    run.publish({"status": "complete", "job": "segment"})
    work = tmp_path / run_folder.WORK
    (work / "complete").mkdir(parents=True)
    (tmp_path / "run.json").rename(work / "complete" / "run.json")
    open_folder(tmp_path, overwrite=True)
    assert (tmp_path / "run.json").exists()
    with pytest.raises(UsageError, match="another run is writing to it"):
        RunFolder(tmp_path, OUTPUTS, "abc", overwrite=True)


def test_a_file_that_changed_since_the_run_began(tmp_path: Path) -> None:
    versions = {"/data/ratings.csv": "1 1 1"}
    run = open_folder(tmp_path, versions=versions)
    run.finish_stage("ratings", {}, {})
    changed = {"/data/ratings.csv": "1 2 1"}
    with pytest.raises(UsageError, match="/data/ratings.csv: changed after the run in") as caught:
        open_folder(tmp_path, versions=changed, resume=True)
    assert "overwrite" in str(caught.value)
    # Data that lies elsewhere now can't be compared.
    moved = {"/moved/ratings.csv": "1 2 1"}
    assert open_folder(tmp_path, versions=moved, resume=True).stage_result("ratings", {}) == {}


@pytest.mark.parametrize(
    "forged",
    [
        {"identity": {"fingerprint": "abc", "job": "segment", "a{b": 1}},
        {"identity": None},
        {"stages": []},
        {"stages": {"ratings": {"key": {}, "result": {}, "files": {"x": 1}}}},
        {"stages": {"ratings": {"key": {}, "result": {}, "files": {"../x": [1, "a"]}}}},
    ],
)
def test_a_forged_state_is_not_used(tmp_path: Path, forged: dict) -> None:
    run = open_folder(tmp_path)
    run.finish_stage("ratings", {}, {})
    path = tmp_path / run_folder.WORK / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps(integrity.add_checksum({**state, **forged})))
    run = open_folder(tmp_path, resume=True)
    assert run.is_state_damaged
    assert run.stage_result("ratings", {}) is None


def test_a_pipe_is_no_manifest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(DataError, match="run.json: can't be read .is not a regular file"):
        run_folder.read_manifest(tmp_path)
