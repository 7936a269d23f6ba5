"""The run's folder: nothing half-written reads as a result, finished stages survive."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segmentation.errors import UsageError
from segmentation.features import user_blocks
from segmentation.schema import RejectedRow, UserStatistics
from segmentation.storage import atomic, run_folder

IDENTITY = {"fingerprint": "abc"}
KEY = {"k": 5}


OPENED: list[run_folder.RunFolder] = []


def open_folder(path: Path, identity: dict = IDENTITY, **how: bool) -> run_folder.RunFolder:
    """Open a folder; what held it before is let go, as it is when a process ends."""
    while OPENED:
        OPENED.pop()._lock.close()
    folder = run_folder.RunFolder(path, identity, **{"resume": False, "overwrite": False, **how})
    OPENED.append(folder)
    return folder


@pytest.fixture(autouse=True)
def _let_go():
    yield
    while OPENED:
        OPENED.pop()._lock.close()


def test_results_appear_all_at_once(tmp_path: Path) -> None:
    out = tmp_path / "run"
    folder = open_folder(out)
    atomic.write_bytes(folder.product("report.md"), b"text")
    atomic.write_bytes(folder.product("figures/pca.png"), b"png")
    assert [p.name for p in out.iterdir()] == [run_folder.WORK]
    folder.publish({"status": "complete"})
    assert sorted(p.name for p in out.iterdir()) == ["figures", "report.md", "run.json"]
    assert json.loads((out / "run.json").read_text()) == {"status": "complete"}


def test_an_existing_run_is_an_error_that_names_both_ways_on(tmp_path: Path) -> None:
    open_folder(tmp_path).publish({"status": "complete"})
    with pytest.raises(UsageError, match="holds a finished run .*--resume .*--overwrite"):
        open_folder(tmp_path)
    open_folder(tmp_path, overwrite=True).finish_stage("a", {}, {})
    assert not (tmp_path / "run.json").exists(), "the manifest goes first"
    with pytest.raises(UsageError, match="holds an unfinished run .*--resume .*--overwrite"):
        open_folder(tmp_path)


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """Neither a run nor --overwrite touches files that no run writes, in our folders either."""
    mine = [tmp_path / "notes.txt", tmp_path / "figures" / "mine.png", tmp_path / "model" / "w.pt"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    for _ in range(2):
        folder = open_folder(tmp_path, overwrite=True)
        store_products(folder)
        folder.publish({"status": "complete"})
    assert all(path.read_text() == "mine" for path in mine)
    assert (tmp_path / "figures" / "pca.png").exists()


@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_somebody_elses_file_in_a_results_place_is_refused(tmp_path: Path, how: dict) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(UsageError, match="holds report.html, which is not of a run"):
        open_folder(tmp_path, **how)
    assert (tmp_path / "report.html").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def store_products(folder: run_folder.RunFolder) -> None:
    atomic.write_bytes(folder.product("report.md"), b"text")
    atomic.write_bytes(folder.product("figures/pca.png"), b"png")


def test_one_run_at_a_time(tmp_path: Path) -> None:
    """Two runs that begin together must not mix; the lock goes with the process that held it."""
    code = (
        "import sys; from segmentation.storage import run_folder as store\n"
        f"f = store.RunFolder({str(tmp_path / 'o')!r}, {{}}, resume=False, overwrite=True)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match="another run is at work in it"):
            open_folder(tmp_path / "o", overwrite=True)
        other.kill()
    open_folder(tmp_path / "o", overwrite=True).publish({})


def test_finished_stages_and_their_files_survive_a_failure(tmp_path: Path) -> None:
    first = open_folder(tmp_path)
    atomic.write_bytes(first.product("model/statistics"), b"kept")
    first.finish_stage("ratings", KEY, {"rows": np.int64(5), "nan": float("nan")})
    first.abandon()
    again = open_folder(tmp_path, resume=True)
    assert again.stage("ratings", KEY) == {"rows": 5, "nan": None}
    assert again.stage("ratings", {"k": 6}) is None
    assert again.stage("kmeans", KEY) is None
    assert again.product("model/statistics").read_bytes() == b"kept"


def test_nothing_is_left_where_no_stage_was_finished(tmp_path: Path) -> None:
    out = tmp_path / "new"
    folder = open_folder(out)
    atomic.write_bytes(folder.product("report.md"), b"half")
    folder.abandon()
    assert not out.exists()
    (tmp_path / "notes.txt").write_text("mine")
    open_folder(tmp_path).abandon()
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_products_of_an_unfinished_stage_are_not_taken_up(tmp_path: Path) -> None:
    """Killed before its first stage was finished: what it wrote must not be published later."""
    atomic.write_bytes(open_folder(tmp_path).product("rejected/ratings.csv"), b"stale")
    again = open_folder(tmp_path)
    again.publish({})
    assert not (tmp_path / "rejected").exists()


def test_only_the_same_run_is_resumed(tmp_path: Path) -> None:
    open_folder(tmp_path).finish_stage("ratings", KEY, {})
    with pytest.raises(UsageError, match="was run with other fingerprint: repeat them"):
        open_folder(tmp_path, {"fingerprint": "x"}, resume=True)
    assert open_folder(tmp_path, resume=True).stage("ratings", KEY) == {}


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file: choose a folder for --out"):
        open_folder(tmp_path / "file")


def test_rejected_rows_are_kept_as_they_were(tmp_path: Path) -> None:
    import csv

    rows = [RejectedRow("r.csv", 3, "why", 'a,"b"\tc'), RejectedRow("r.csv", 9, "why", "ü")]
    atomic.write_rejected(tmp_path / "rejected" / "r.csv", rows)
    with (tmp_path / "rejected" / "r.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.reader(file))
    assert read[0] == ["file", "line", "reason", "text"]
    assert [tuple(row) for row in read[1:]] == [(*r[:1], str(r.line), *r[2:]) for r in rows]


@pytest.mark.parametrize("copies", [1, 6], ids=["one file", "a folder of parts"])
def test_statistics_come_back_block_by_block(tmp_path: Path, client, copies: int) -> None:
    rng = np.random.default_rng(0)
    found = [
        UserStatistics(
            np.arange(n, dtype=np.int64) + 10 * n,
            rng.integers(1, 9, n),
            rng.random(n),
            rng.random((n, 3)),
            rng.integers(0, 5, (n, 3)).astype(np.int32),
        )
        for n in (4, 1)
    ] * copies
    path = tmp_path / "s.parquet"
    held = user_blocks.UserBlocks(
        [client.scatter([block], hash=False)[0] for block in found],
        [len(block.users) for block in found],
    )
    user_blocks.save_blocks(client, path, held, ("a", "b", "c"), 4)
    assert path.is_dir() == (copies > 1)
    assert not (tmp_path / "s.parquet.partial").exists()
    for shared in (True, False):
        again = user_blocks.load_blocks(client, path, held.sizes, shared=shared)
        for block, future in zip(found, again.statistics, strict=True):
            for one, other in zip(future.result(), block, strict=True):
                np.testing.assert_array_equal(one, other)
                assert one.dtype == other.dtype
    # What was there before goes, whichever of the two it was.
    user_blocks.save_blocks(
        client, path, user_blocks.UserBlocks(held.statistics[:1], [4]), ("a", "b", "c"), 4
    )
    assert path.is_file()


def test_a_result_in_parts_is_published_and_replaced(tmp_path: Path) -> None:
    for text in ("first", "second"):
        run = run_folder.RunFolder(
            tmp_path / "run", {"job": "segment"}, resume=False, overwrite=True
        )
        folder = run.product("assignments.parquet")
        folder.mkdir(parents=True)
        for number in range(2 if text == "first" else 1):
            (folder / f"part-0000{number}.parquet").write_text(text)
        run.publish({})
    left = {
        path.name: path.read_text() for path in (tmp_path / "run" / "assignments.parquet").iterdir()
    }
    assert left == {"part-00000.parquet": "second"}
    own = tmp_path / "run" / "assignments.parquet" / "mine.txt"
    own.write_text("kept")
    with pytest.raises(UsageError, match="holds files that are not of a run"):
        run_folder.RunFolder(tmp_path / "run", {"job": "segment"}, resume=False, overwrite=True)
    assert own.exists()
