"""Users, segments and runs in an SQLite or a DuckDB database, to which each run is added.

All of a run is written in one transaction: another process sees the whole of it, or nothing.
"""

from __future__ import annotations

import contextlib
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from segmentation.errors import DataError, UsageError, format_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

#: Table → its columns. A user's id is a number or a text, as in the log.
TABLES: dict[str, tuple[tuple[str, str], ...]] = {
    "runs": (
        ("run", "TEXT"),
        ("folder", "TEXT"),
        ("created", "TEXT"),
        ("job", "TEXT"),
        ("source", "TEXT"),
        ("users", "BIGINT"),
        ("listed", "BIGINT"),
    ),
    "segments": (
        ("run", "TEXT"),
        ("segment", "INTEGER"),
        ("persona", "TEXT"),
        ("users", "BIGINT"),
        ("listed", "BIGINT"),
    ),
    "users": (
        ("run", "TEXT"),
        ("user_id", "{id_type}"),
        ("segment", "INTEGER"),
        ("margin", "DOUBLE"),
        ("distance", "DOUBLE"),
        ("is_outlier", "BOOLEAN"),
        ("is_holdout", "BOOLEAN"),
    ),
}
#: How long to wait for another process that writes to the same database.
_WAIT_SECONDS = 60
_KEYS = {"runs": ("run",), "segments": ("run", "segment"), "users": ("run", "user_id")}
_INDEXES = (("users_by_user", "users", "user_id"), ("users_by_segment", "users", "run, segment"))


class Record(NamedTuple):
    """What is written of one run: the rows of ``runs`` and ``segments``, in the order of columns.

    ``run`` is its name, which the users' rows begin with, and ``folder`` tells it from others of
    this name.
    """

    run: str
    folder: str
    runs: Sequence[Any]
    segments: Sequence[Sequence[Any]]


def append_run(
    path: Path, kind: str, record: Record, users: Iterable[Any], *, has_text_ids: bool
) -> None:
    """Add a run to a database, which is created if there is none; replace the same run.

    Parameters
    ----------
    path
        The database file.
    kind
        ``sqlite`` or ``duckdb``.
    record
        The run and its segments.
    users
        Tables of Arrow with the columns of ``users`` after ``run``.
    has_text_ids
        Whether ids are texts; a database holds one kind.

    Raises
    ------
    DataError
        If the file is no such database, has other tables, or can't be written.
    UsageError
        If DuckDB is not installed.
    """
    id_type = "TEXT" if has_text_ids else "BIGINT"
    try:
        with _open(path, kind) as connection:
            _create_tables(connection, path, id_type)
            _check_name(connection, path, record)
            for table in TABLES:
                connection.execute(f"DELETE FROM {table} WHERE run = ?", [record.run])
            _insert(connection, "runs", [record.runs])
            _insert(connection, "segments", record.segments)
            for rows in users:
                if kind == "duckdb":
                    connection.register("new_rows", rows)
                    connection.execute("INSERT INTO users SELECT ?, * FROM new_rows", [record.run])
                    connection.unregister("new_rows")
                else:
                    columns = [column.to_pylist() for column in rows.columns]
                    _insert(
                        connection,
                        "users",
                        [(record.run, *row) for row in zip(*columns, strict=True)],
                    )
    except (DataError, UsageError):
        raise
    except Exception as error:
        # Both libraries have errors of their own, which share no base but Exception.
        if type(error).__module__.split(".")[0] not in ("sqlite3", "duckdb", "_duckdb"):
            raise
        raise DataError(
            f"{path}: can't be written as a {kind} database ({format_error(error)}): it may be in "
            "use, read-only, damaged or on a full disk: see to that, or name another folder"
        ) from error


@contextmanager
def _open(path: Path, kind: str) -> Iterator[Any]:
    """Open a database in one transaction, which is undone on an error."""
    if kind == "duckdb":
        try:
            import duckdb
        except ImportError:
            raise UsageError(
                "{format} duckdb: the package duckdb is missing: install it, as in pip install "
                "duckdb, or choose sqlite",
                "format",
            ) from None
        connection: Any = duckdb.connect(str(path))
    else:
        import sqlite3

        connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
    with closing(connection):
        connection.execute("BEGIN" if kind == "duckdb" else "BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            # A database that could not begin, or has given up, has nothing to undo.
            with contextlib.suppress(Exception):
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _create_tables(connection: Any, path: Path, id_type: str) -> None:
    """Create the tables that are missing, and check the others."""
    present = _list_columns(connection)
    for table, columns in TABLES.items():
        named = [(name, kind.format(id_type=id_type)) for name, kind in columns]
        if table not in present:
            fields = ", ".join(f"{name} {kind}" for name, kind in named)
            key = ", ".join(_KEYS[table])
            connection.execute(f"CREATE TABLE {table} ({fields}, PRIMARY KEY ({key}))")
            continue
        # SQLite and DuckDB name types in their own way; only that of the ids may differ.
        if [name for name, _ in present[table]] != [name for name, _ in named]:
            columns_there = ", ".join(name for name, _ in present[table])
            expected = ", ".join(name for name, _ in named)
            raise DataError(
                f"{path}: has a table {table} with other columns ({columns_there}) than those that "
                f"are written ({expected}): name another folder"
            )
        if table == "users":
            is_text = dict(present[table])["user_id"].upper() in ("TEXT", "VARCHAR")
            if is_text != (id_type == "TEXT"):
                raise DataError(
                    f"{path}: holds users whose ids are {'texts' if is_text else 'numbers'}, and "
                    f"these are {'numbers' if is_text else 'texts'}: name another folder"
                )
    for name, table, columns_text in _INDEXES:
        connection.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {table} ({columns_text})")


def _check_name(connection: Any, path: Path, record: Record) -> None:
    """Check that no other run has the name of this one."""
    folders = connection.execute("SELECT folder FROM runs WHERE run = ?", [record.run]).fetchall()
    if folders and folders[0][0] != record.folder:
        raise DataError(
            f"{path}: holds another run of the name {record.run}, from {folders[0][0]}: rename one "
            "of the two folders"
        )


def _list_columns(connection: Any) -> dict[str, list[tuple[str, str]]]:
    """Return the names and types of the columns of each of our tables that there is."""
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    columns = {}
    for table in TABLES.keys() & {name for (name,) in names}:
        rows = connection.execute(f"PRAGMA table_info('{table}')").fetchall()
        columns[table] = [(str(row[1]), str(row[2])) for row in rows]
    return columns


def _insert(connection: Any, table: str, rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        places = ", ".join("?" * len(TABLES[table]))
        connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)
