"""A run's folder: finished stages, atomic writes, and a manifest that comes last."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from segmentation.errors import DataError, UsageError
from segmentation.schema import USER, UserStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from segmentation.schema import RejectedRow

MANIFEST = "run.json"
#: Unfinished work: stages that are done, and results that are not all there yet.
WORK = ".work"
_STATE = "state.json"
#: What a run leaves in its folder; nothing else there is ever touched.
PRODUCTS = (
    MANIFEST, "assignments.parquet", "segments.json", "segments.csv", "report.html", "report.md",
    "figures", "model", "rejected", WORK,
)  # fmt: skip


class RunFolder:
    """One run's folder, opened to start, to go on, or to start anew.

    Parameters
    ----------
    path
        The folder; made if need be.
    identity
        What every stage hangs on: the data's fingerprint. Only the same run is resumed.
    resume, overwrite
        Go on from finished stages; remove what an earlier run left.

    Raises
    ------
    UsageError
        If the folder holds a run and neither is asked for, or the run is another one.
    DataError
        If the folder can't be written.
    """

    def __init__(
        self, path: str | Path, identity: Mapping[str, Any], *, resume: bool, overwrite: bool
    ) -> None:
        self.path = Path(path)
        self._made = not self.path.exists()
        self._work = self.path / WORK
        found = existing_run(self.path)
        if found and not (resume or overwrite):
            refuse_existing(self.path, found)
        try:
            if overwrite:
                self._clear()
            self._work.mkdir(parents=True, exist_ok=True)
            self._state = self._load_state(identity, strict=resume)
            if not self._state["stages"]:
                _remove(self._work / "products")
        except OSError as error:
            raise DataError(
                f"{self.path}: can't be written ({error.strerror}): choose another --out"
            ) from error

    def _load_state(self, identity: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
        plain = json.loads(json.dumps(identity))
        try:
            state = json.loads((self._work / _STATE).read_text("utf-8"))
        except (OSError, ValueError):
            state = {"identity": plain, "stages": {}}
        if state.get("identity") != plain:
            if strict:
                refuse_other(self.path, state.get("identity", {}), plain)
            state = {"identity": plain, "stages": {}}
        return dict(state)

    def stage(self, name: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what a finished stage left, or None if it wasn't finished with this ``key``."""
        found = self._state["stages"].get(name)
        if found is None or found["key"] != jsonable(dict(key)):
            return None
        return dict(found["result"])

    def finish_stage(self, name: str, key: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Remember a stage's result and the settings that it hangs on; it survives from here on."""
        self._state["stages"][name] = jsonable({"key": dict(key), "result": dict(result)})
        write_json(self._work / _STATE, self._state)

    def discard(self, name: str) -> None:
        """Remove a result that an earlier attempt left."""
        _remove(self._work / "products" / name)

    def product(self, name: str) -> Path:
        """Return where a result is written until the run is complete."""
        path = self._work / "products" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def work(self, name: str) -> Path:
        """Return the path of a stage's own file."""
        return self._work / name

    def publish(self, manifest: Mapping[str, Any]) -> None:
        """Move all results into place and write the manifest last."""
        products = self._work / "products"
        for item in sorted(products.iterdir()) if products.is_dir() else ():
            target = self.path / item.name
            _remove(target)
            os.replace(item, target)
        write_json(self.path / MANIFEST, manifest)
        _remove(self._work)

    def abandon(self) -> None:
        """Leave nothing behind if no stage was finished; else keep what ``--resume`` needs.

        What stages have written stays under :data:`WORK`, where nothing reads as a result.
        """
        if not self._state["stages"]:
            _remove(self._work)
            if self._made and self.path.is_dir() and not any(self.path.iterdir()):
                self.path.rmdir()

    def _clear(self) -> None:
        # The manifest goes first: without it the rest no longer reads as a result.
        for name in PRODUCTS:
            _remove(self.path / name)


def existing_run(path: str | Path) -> str | None:
    """Say what a folder holds of an earlier run: a finished one, an unfinished one, or None.

    Raises
    ------
    UsageError
        If ``path`` is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file: choose a folder for --out")
    if (path / MANIFEST).exists():
        return "a finished run"
    if (path / WORK / _STATE).exists():
        return "an unfinished run"
    return None


def refuse_existing(path: Path, found: str) -> NoReturn:
    """Say that a folder is taken, and what can be done."""
    raise UsageError(
        f"{path}: holds {found} already: add --resume to go on from its finished stages, "
        "--overwrite to start anew, or choose another --out"
    )


def refuse_other(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Say that a run can't be resumed with other settings or data, if they are others."""
    differ = sorted(key for key in {*now, *before} if now.get(key) != before.get(key))
    if differ:
        raise UsageError(
            f"{path}: was run with other {', '.join(differ)}: repeat them to resume, "
            "or add --overwrite in place of --resume"
        )


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest of a finished run, None where there is none.

    Raises
    ------
    DataError
        If it can't be read.
    """
    try:
        found = json.loads((path / MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path / MANIFEST}: can't be read ({error}): use --overwrite") from error
    return dict(found)


def jsonable(value: Any) -> Any:
    """Return ``value`` with NumPy types and NaN as JSON has them."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside its place and rename it."""
    text = json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file beside its place and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_rejected(path: Path, rows: Iterable[RejectedRow]) -> None:
    """Write rejected rows with their place and reason, one CSV line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "line", "reason", "text"))
        writer.writerows(rows)
    os.replace(partial, path)


def write_statistics(path: Path, blocks: Iterable[UserStatistics], genres: Sequence[str]) -> None:
    """Write user statistics as Parquet, a row group a block."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [(USER, pa.int64()), ("movies", pa.int64()), ("rating_sum", pa.float64())]
        + [(f"sum:{genre}", pa.float64()) for genre in genres]
        + [(f"count:{genre}", pa.int32()) for genre in genres]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with pq.ParquetWriter(partial, schema, compression="zstd", compression_level=1) as writer:
        for block in blocks:
            columns = [block.users, block.movies, block.rating_sum]
            columns += [np.ascontiguousarray(column) for column in block.sums.T]
            columns += [np.ascontiguousarray(column) for column in block.counts.T]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    os.replace(partial, path)


def read_statistics(path: Path, group: int) -> UserStatistics:
    """Read one row group of :func:`write_statistics` back."""
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read_row_group(group)
    width = (table.num_columns - 3) // 2
    columns = [column.to_numpy() for column in table.columns]
    return UserStatistics(
        columns[0],
        columns[1],
        columns[2],
        np.column_stack(columns[3 : 3 + width]),
        np.column_stack(columns[3 + width :]),
    )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
