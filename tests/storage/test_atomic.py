"""Files are written whole or not at all, in formats that come back as they were."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from segmentation.storage import atomic


def test_json_has_no_types_of_numpy_and_no_nan(tmp_path: Path) -> None:
    value = {
        "a": np.float32(0.5),
        "b": [np.int64(3), float("nan"), float("inf")],
        "c": np.arange(2),
        4: (True, None, "ü"),
    }
    atomic.write_json(tmp_path / "x" / "v.json", value)
    assert json.loads((tmp_path / "x" / "v.json").read_text("utf-8")) == {
        "a": 0.5,
        "b": [3, None, None],
        "c": [0, 1],
        "4": [True, None, "ü"],
    }
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["v.json"]


def test_csv_keeps_every_character(tmp_path: Path) -> None:
    rows = [("r.csv", 3, "why", 'a,"b"\tc'), ("r.csv", 9, "two\nlines", "ü")]
    path = tmp_path / "rejected" / "r.csv"
    atomic.write_csv(path, ("file", "line", "reason", "text"), iter(rows))
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["file", "line", "reason", "text"]
    assert [tuple(line) for line in lines[1:]] == [(a, str(b), c, d) for a, b, c, d in rows]


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path: Path) -> None:
    formulas = [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "＝1",
        "-",
        "=cmd|' /C calc'!A0",
    ]
    harmless = ["", "1", "Sci-Fi", "a=b", " =1", -1.5, -3, None]
    atomic.write_csv(tmp_path / "a.csv", formulas, [formulas, harmless])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        header, first, second = csv.reader(file)
    assert header == first == ["'" + cell for cell in formulas]
    assert second == ["" if cell is None else str(cell) for cell in harmless]


def test_what_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")

    def rows():
        yield (1,)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic.write_csv(path, ("n",), rows())
    assert path.read_text() == "old"


def test_removal_spares_what_is_not_meant(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    atomic.remove_file(tmp_path / "folder")
    atomic.remove_if_empty(tmp_path / "folder")
    atomic.remove(tmp_path / "link")
    assert (tmp_path / "folder" / "file").exists()
    assert not (tmp_path / "link").exists()
    atomic.remove(tmp_path / "folder")
    atomic.remove(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    order = []

    def wait_for_lock() -> None:
        with atomic.hold_lock(tmp_path / "new" / "lock"):
            order.append("second")

    with atomic.hold_lock(tmp_path / "new" / "lock"):
        thread = threading.Thread(target=wait_for_lock)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_without_a_lock_file_the_work_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with atomic.hold_lock(tmp_path / "file" / "lock"):
        pass
