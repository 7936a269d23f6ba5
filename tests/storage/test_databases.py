"""Runs in SQLite and DuckDB: added whole or not at all, replaced by name, other schemas refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from segmentation.errors import DataError, UsageError
from segmentation.storage.databases import Record, append_run

KINDS = ("sqlite", "duckdb")


def users(*ids: Any) -> pa.Table:
    n = len(ids)
    return pa.table(
        {
            "user_id": pa.array(ids),
            "segment": pa.array([0] * n, pa.int32()),
            "margin": pa.array([None] * n, pa.float64()),
            "distance": pa.array([1.5] * n),
            "is_outlier": pa.array([True] * n),
            "is_holdout": pa.array([False] * n),
        }
    )


def record(run: str, folder: str = "/runs") -> Record:
    place = f"{folder}/{run}"
    return Record(
        run, place, (run, place, "2026", "segment", "log", 3, 2), [(run, 0, "Quiet", 3, 2)]
    )


def read(path: Path, kind: str, query: str) -> list[tuple[Any, ...]]:
    connection: Any = (sqlite3 if kind == "sqlite" else duckdb).connect(str(path))
    try:
        return list(connection.execute(query).fetchall())
    finally:
        connection.close()


@pytest.mark.parametrize("kind", KINDS)
def test_runs_are_added_and_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "audience"
    append_run(path, kind, record("a"), [users(1, 2), users(3)], has_text_ids=False)
    append_run(path, kind, record("b"), [users(2)], has_text_ids=False)
    append_run(path, kind, record("a"), [users(1, 5)], has_text_ids=False)
    rows = read(path, kind, "SELECT run, user_id, margin, is_outlier FROM users ORDER BY 1, 2")
    assert rows == [("a", 1, None, True), ("a", 5, None, True), ("b", 2, None, True)]
    assert read(path, kind, "SELECT run FROM runs ORDER BY 1") == [("a",), ("b",)]
    assert read(path, kind, "SELECT persona FROM segments WHERE run = 'a'") == [("Quiet",)]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_a_run_that_fails(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "audience"

    def failing():
        yield users(9)
        raise DataError("the disk")

    with pytest.raises(DataError, match="the disk"):
        append_run(path, kind, record("a"), failing(), has_text_ids=False)
    append_run(path, kind, record("a"), [users(1)], has_text_ids=False)
    with pytest.raises(DataError, match="the disk"):
        append_run(path, kind, record("a"), failing(), has_text_ids=False)
    # A key that is there twice is the database's own error.
    with pytest.raises(DataError, match=f"can't be written as a {kind} database"):
        append_run(path, kind, record("b"), [users(1), users(1)], has_text_ids=False)
    assert read(path, kind, "SELECT run, user_id FROM users") == [("a", 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_other_databases_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "audience"
    append_run(path, kind, record("a"), [users("x")], has_text_ids=True)
    with pytest.raises(DataError, match="ids are texts, and these are numbers"):
        append_run(path, kind, record("b"), [users(1)], has_text_ids=False)
    with pytest.raises(DataError, match="another run of the name a, from /runs/a"):
        append_run(path, kind, record("a", "/elsewhere"), [users("x")], has_text_ids=True)
    other = tmp_path / "other"
    connection: Any = (sqlite3 if kind == "sqlite" else duckdb).connect(str(other))
    connection.execute("CREATE TABLE users (id INTEGER, name TEXT)")
    connection.commit()
    connection.close()
    with pytest.raises(DataError, match=r"table users with other columns \(id, name\) than"):
        append_run(other, kind, record("a"), [users(1)], has_text_ids=False)
    assert read(other, kind, "SELECT count(*) FROM users") == [(0,)]
    text = tmp_path / "text"
    text.write_text("no database at all, but some text" * 100)
    before = text.read_bytes()
    with pytest.raises(DataError, match=f"can't be written as a {kind} database"):
        append_run(text, kind, record("a"), [users(1)], has_text_ids=False)
    assert text.read_bytes() == before


def test_without_duckdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    with pytest.raises(UsageError, match="the package duckdb is missing: install it"):
        append_run(tmp_path / "a", "duckdb", record("a"), [], has_text_ids=False)
