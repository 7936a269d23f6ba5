"""The job that turns the assignments of a run into lists, one per segment, for a campaign."""

from __future__ import annotations

import hashlib
import json
import math
import re
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.errors import DataError, UsageError
from segmentation.features.sketches import hash_ids, mix_bits
from segmentation.pipeline import movement
from segmentation.progress import Progress
from segmentation.schema import USER
from segmentation.storage import atomic, databases, parquet, run_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    import pyarrow as pa
    from numpy.typing import NDArray

    from segmentation.pipeline.saved_run import SavedRun

#: What an export leaves next to its lists; a folder with it may be overwritten.
MANIFEST = "export.json"
_PARTIAL = ".export-partial"
#: What else an export may have left in its folder.
_OTHER_OUTPUTS = {
    *("audience.sqlite", "audience.sqlite-journal", "audience.duckdb", "audience.duckdb.wal"),
    *("assign.sql", "model.json", _PARTIAL),
}
_ASSIGNMENTS = "assignments.parquet"
#: What a user is in place of the number of a segment.
_UNDECIDED, _HOLDOUT, _NOT_SAMPLED, _TOO_SMALL = -1, -2, -3, -4
_UNLISTED = {
    "undecided": _UNDECIDED,
    "holdout": _HOLDOUT,
    "not_sampled": _NOT_SAMPLED,
    "small_segments": _TOO_SMALL,
}


@dataclass(frozen=True)
class ExportSettings:
    """Who is listed, and how.

    Parameters
    ----------
    format
        ``csv``, ``parquet``, ``sqlite`` or ``duckdb``.
    min_margin
        Users with a smaller margin to the next segment are left out.
    holdout
        The share of users that form a control group, and are in no list.
    sample
        At most so many users per segment; None for all.
    min_size
        Segments with fewer users to list are left out.
    hash_ids
        ``sha256`` to write the digest of each id in its place; None to write the id.
    salt
        A text that the digests, the control group and the sample follow from.

    Raises
    ------
    UsageError
        If a value is out of range.
    """

    format: str = "csv"
    min_margin: float = 0.0
    holdout: float = 0.0
    sample: int | None = None
    min_size: int = 1
    hash_ids: str | None = None
    salt: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.holdout < 1:
            raise UsageError(
                "{holdout} {value:g}: give a share from 0 to less than 1",
                "holdout",
                value=self.holdout,
            )
        if not 0 <= self.min_margin < math.inf:
            raise UsageError(
                "{min_margin} {value:g}: give 0 or more", "min_margin", value=self.min_margin
            )
        for field in ("sample", "min_size"):
            value = getattr(self, field)
            if value is not None and not 1 <= value < 2**62:
                raise UsageError(f"{{{field}}} {{value}}: give at least 1", field, value=value)
        if self.sample is not None and self.min_size > self.sample:
            raise UsageError(
                "{min_size} {value}: with {sample} {sample_value} no list is so long",
                "min_size",
                "sample",
                value=self.min_size,
                sample_value=self.sample,
            )


class _Users(NamedTuple):
    """Users of one part, in ascending order; all columns of shape (n_users,)."""

    ids: NDArray[Any]
    segments: NDArray[np.int64]
    margin: NDArray[np.float64]
    distance: NDArray[np.float64]
    is_outlier: NDArray[np.bool_]


class _Rules(NamedTuple):
    """Who of a run is listed: by the settings, and by limits that follow from all of its users.

    ``limits`` are the largest hashes of each segment's sample, and ``is_listed`` says which
    segments are large enough.
    """

    settings: ExportSettings
    limits: NDArray[np.uint64]
    is_listed: NDArray[np.bool_]

    def place(self, users: _Users) -> NDArray[np.int64]:
        """Return each user's segment, or one of the negative numbers of :data:`_UNLISTED`."""
        places = _exclude(users, self.settings)
        listed = places >= 0
        hashes = _hash(users.ids, self.settings, "sample")
        is_out = hashes > self.limits[np.where(listed, places, 0)]
        places[listed & is_out] = _NOT_SAMPLED
        listed &= ~is_out
        places[listed & ~self.is_listed[np.where(listed, places, 0)]] = _TOO_SMALL
        return places


def export_lists(
    saved: SavedRun,
    out: str | Path,
    settings: ExportSettings,
    changes_since: SavedRun | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write one list per segment, or add the run to a database; return the record of the export.

    Parameters
    ----------
    saved
        The run whose users are listed.
    out
        The folder of the lists, or that of the database.
    changes_since
        An earlier run of the same segments: what has changed in the lists since then is written
        as well.
    overwrite
        Replace an earlier export of lists.
    progress
        Receives the stages; None reports nothing.

    Raises
    ------
    SegmentationError
        One of its subclasses, with a message for the user.
    """
    out, progress = check_out(out), progress or Progress()
    is_database = settings.format in ("sqlite", "duckdb")
    if changes_since is not None:
        _check_changes(saved, changes_since, settings, is_database=is_database)
    names = saved.model.personas
    with progress.stage("rules", "choosing users"):
        _check_digests(saved, settings)
        rules = _find_rules(saved, settings)
    with progress.stage("lists", "lists") as stage, name_unwritable(out):
        if is_database:
            record = _write_database(saved, out, rules)
        else:
            with _replace_lists(out, overwrite=overwrite) as folder:
                record = _write_lists(saved, folder, rules)
                if changes_since is not None:
                    earlier = _find_rules(changes_since, settings)
                    record["changes"] = _write_changes(
                        folder, settings, (changes_since, earlier), (saved, rules)
                    )
                    record["changes_since"] = str(changes_since.folder)
                record["files"] = [*sorted(path.name for path in folder.iterdir()), MANIFEST]
                atomic.write_json(folder / MANIFEST, record)
        n_listed = sum(entry["listed"] for entry in record["segments"])
        stage.note = f"{n_listed:,} users in {sum(map(bool, rules.is_listed))} of {len(names)}"
    return record


def _find_rules(saved: SavedRun, settings: ExportSettings) -> _Rules:
    """Read the users once, to find the limits that follow from all of them."""
    k = len(saved.model.centers)
    sizes = np.zeros(k, np.int64)
    smallest: list[NDArray[np.uint64]] = [np.empty(0, np.uint64) for _ in range(k)]
    for users in _read_users(saved):
        places = _exclude(users, settings)
        listed = places >= 0
        sizes += np.bincount(places[listed], minlength=k)
        if settings.sample is None:
            continue
        hashes = _hash(users.ids, settings, "sample")
        for s in range(k):
            pool = np.concatenate([smallest[s], hashes[places == s]])
            smallest[s] = np.sort(pool)[: settings.sample]
    limits = np.full(k, np.iinfo(np.uint64).max)
    if settings.sample is not None:
        for s in range(k):
            if sizes[s] > settings.sample:
                limits[s] = smallest[s][-1]
        sizes = np.minimum(sizes, settings.sample)
    return _Rules(settings, limits, sizes >= settings.min_size)


def _exclude(users: _Users, settings: ExportSettings) -> NDArray[np.int64]:
    """Return each user's segment; a negative number for the undecided and the control group."""
    places = users.segments.copy()
    # With a single segment there is no margin, and nobody is undecided.
    places[users.margin < settings.min_margin] = _UNDECIDED
    if settings.holdout:
        # Whatever the margin is this month: the group consists of the same people next month.
        limit = np.uint64(int(settings.holdout * 2**64))
        places[_hash(users.ids, settings, "holdout") < limit] = _HOLDOUT
    return places


def _hash(ids: NDArray[Any], settings: ExportSettings, purpose: str) -> NDArray[np.uint64]:
    """Return numbers that follow from the id, the salt and the purpose, and look like chance."""
    if settings.hash_ids and ids.dtype.kind == "S":
        ids = np.array([_normalize(user.decode()).encode() for user in ids], np.bytes_)
    digest = hashlib.sha256(f"{purpose}:{settings.salt}".encode()).digest()
    key = np.frombuffer(digest[:8], "<u8")[0]
    return mix_bits(mix_bits(hash_ids(ids) ^ key) ^ key)


def _read_users(saved: SavedRun) -> Iterator[_Users]:
    """Yield the users of each part of a run's assignments."""
    limits = saved.model.distance_p99
    parts = saved.list_parts(_ASSIGNMENTS)
    for columns in movement.read_columns(parts, "segment", "margin", "distance"):
        ids, segments, margin, distance = columns
        is_outlier = distance > limits[segments]
        yield _Users(ids, segments.astype(np.int64), margin, distance, is_outlier)


def _write_ids(ids: NDArray[Any], settings: ExportSettings, *, in_csv: bool) -> pa.Array:
    """Return ids as they are written: as they are, safe in a spreadsheet, or as digests."""
    import pyarrow as pa

    if settings.hash_ids:
        texts = (user.decode() for user in ids) if ids.dtype.kind == "S" else map(str, ids.tolist())
        return pa.array([hash_id(text, settings.salt) for text in texts])
    if ids.dtype.kind == "S" and in_csv:
        return pa.array([_quote_formula(user.decode()) for user in ids])
    return parquet.arrow_array(ids)


def _quote_formula(text: str) -> str:
    """Return an id that no spreadsheet executes; an apostrophe at the beginning is doubled."""
    return "'" + text if text.startswith("'") else str(atomic.neutralize_formula(text))


def hash_id(text: str, salt: str) -> str:
    """Return the SHA-256 of an id, without spaces around it and in lower case, after the salt.

    Examples
    --------
    >>> hash_id(" Ann@Example.com", "") == hash_id("ann@example.com", "")
    True
    """
    return hashlib.sha256((salt + _normalize(text)).encode()).hexdigest()


def _normalize(text: str) -> str:
    return text.strip().lower()


def _check_digests(saved: SavedRun, settings: ExportSettings) -> None:
    """Check that no two ids have the same digest.

    Raises
    ------
    DataError
        If they do: they differ in case or in spaces around them only.
    """
    if not settings.hash_ids:
        return
    hashes: list[NDArray[np.uint64]] = []
    for users in _read_users(saved):
        if users.ids.dtype.kind != "S":
            return
        hashes.append(_hash(users.ids, settings, "duplicates"))
    values, counts = np.unique(np.concatenate(hashes), return_counts=True)
    twice = values[counts > 1]
    if not len(twice):
        return
    for users in _read_users(saved):
        repeated = users.ids[np.isin(_hash(users.ids, settings, "duplicates"), twice)]
        if len(repeated):
            raise DataError(
                "{hash_ids}: {n:,} users differ from others only in case or in spaces, such as "
                "{example!r}, and would have the same digest: unite them in the ratings, or leave "
                "it out",
                "hash_ids",
                n=int((counts - 1).sum()),
                example=repeated[0].decode(),
            )


def _list_table(users: _Users, rows: NDArray[np.bool_], ids: pa.Array) -> pa.Table:
    import pyarrow as pa

    return pa.table(
        {
            USER: ids.filter(pa.array(rows)),
            "margin": pa.array(users.margin[rows], from_pandas=True),
            "distance": pa.array(users.distance[rows]),
            "is_outlier": pa.array(users.is_outlier[rows]),
        }
    )


def _write_lists(saved: SavedRun, folder: Path, rules: _Rules) -> dict[str, Any]:
    import pyarrow as pa

    settings, names = rules.settings, saved.model.personas
    k = len(names)
    files = {
        s: f"segment-{s}-{_slug(names[s])}.{settings.format}"
        for s in range(k)
        if rules.is_listed[s]
    }
    if settings.holdout:
        files[_HOLDOUT] = f"holdout.{settings.format}"
    totals, counts = np.zeros(k, np.int64), np.zeros(k + len(_UNLISTED), np.int64)
    with ExitStack() as stack:
        writers = {
            place: stack.enter_context(_TableWriter(folder / name, settings.format))
            for place, name in files.items()
        }
        for users in _read_users(saved):
            places = rules.place(users)
            totals += np.bincount(users.segments, minlength=k)
            counts += np.bincount(places + len(_UNLISTED), minlength=len(counts))
            ids = _write_ids(users.ids, settings, in_csv=settings.format == "csv")
            for place, writer in writers.items():
                rows = places == place
                table = _list_table(users, rows, ids)
                if place == _HOLDOUT:
                    # Segments that are too small to be listed are not distinguished here either.
                    small = ~rules.is_listed[users.segments[rows]]
                    segments = pa.array(users.segments[rows], mask=small)
                    table = table.append_column("segment", segments)
                writer.write(table)
    return _build_record(saved, rules, totals, counts, files)


def _build_record(
    saved: SavedRun,
    rules: _Rules,
    totals: NDArray[np.int64],
    counts: NDArray[np.int64],
    files: dict[int, str],
) -> dict[str, Any]:
    listed = counts[len(_UNLISTED) :]
    settings = asdict(rules.settings)
    # Who knows the salt can find out whose digest it is.
    settings["salt"] = "***" if settings["salt"] else ""
    return {
        "job": "export",
        "run": str(saved.folder),
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "settings": settings,
        "segments": [
            {
                "segment": s,
                "persona": name,
                "users": int(totals[s]),
                "listed": int(listed[s]),
                "file": files.get(s),
            }
            for s, name in enumerate(saved.model.personas)
        ],
        "unlisted": {name: int(counts[len(_UNLISTED) + n]) for name, n in _UNLISTED.items()},
    }


def _write_changes(
    folder: Path,
    settings: ExportSettings,
    before: tuple[SavedRun, _Rules],
    now: tuple[SavedRun, _Rules],
) -> dict[str, int]:
    """Write who entered, left and changed the lists; return their numbers."""
    import pyarrow as pa

    numbers = {"entered": 0, "left": 0, "moved": 0}
    kinds = np.array(list(numbers))
    # A segment that got another name is another one, with the number of the earlier.
    names = zip(before[0].model.personas, now[0].model.personas, strict=True)
    is_other = np.array([one != other for one, other in names])
    with _TableWriter(folder / f"changes.{settings.format}", settings.format) as writer:
        for ids, from_place, to_place in _join_places(before, now):
            is_in, was_in = to_place >= 0, from_place >= 0
            is_changed = (from_place != to_place) | is_other[np.maximum(from_place, 0)]
            rows = np.flatnonzero((is_in | was_in) & is_changed)
            kind = np.where(~was_in, 0, np.where(~is_in, 1, 2))[rows]
            for code, name in enumerate(kinds):
                numbers[str(name)] += int((kind == code).sum())
            writer.write(
                pa.table(
                    {
                        USER: _write_ids(ids[rows], settings, in_csv=settings.format == "csv"),
                        "change": pa.array(kinds[kind]),
                        "from_segment": _nullable(from_place[rows]),
                        "to_segment": _nullable(to_place[rows]),
                    }
                )
            )
    return numbers


def _nullable(places: NDArray[np.int64]) -> pa.Array:
    import pyarrow as pa

    return pa.array(places, pa.int32(), mask=places < 0)


def _join_places(
    before: tuple[SavedRun, _Rules], now: tuple[SavedRun, _Rules]
) -> Iterator[tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield ids and their places before and now, range by range; where there is none, −1."""
    streams = [_read_places(*before), _read_places(*now)]
    parts = [next(stream, None) for stream in streams]
    while any(part is not None for part in parts):
        present = [part for part in parts if part is not None]
        if len({part[0].dtype.kind for part in present}) > 1:
            raise DataError(
                f"{before[0].folder} and {now[0].folder}: user ids are texts in the one and "
                "numbers in the other: read both alike"
            )
        # All users up to the smaller of the two last ids are known in both.
        stop = min(part[0][-1] for part in present)
        taken: list[tuple[NDArray[Any], NDArray[np.int64]] | None] = []
        for i, part in enumerate(parts):
            if part is None:
                taken.append(None)
                continue
            n = int(np.searchsorted(part[0], stop, side="right"))
            taken.append((part[0][:n], part[1][:n]))
            parts[i] = (part[0][n:], part[1][n:]) if n < len(part[0]) else next(streams[i], None)
        ids = np.unique(np.concatenate([part[0] for part in taken if part is not None]))
        places = []
        for part in taken:
            column = np.full(len(ids), -1, np.int64)
            if part is not None:
                column[np.searchsorted(ids, part[0])] = part[1]
            places.append(column)
        yield ids, places[0], places[1]


def _read_places(
    saved: SavedRun, rules: _Rules
) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    for users in _read_users(saved):
        yield users.ids, rules.place(users)


def _check_changes(
    saved: SavedRun, earlier: SavedRun, settings: ExportSettings, *, is_database: bool
) -> None:
    """Check that the lists of two runs can be compared.

    Raises
    ------
    UsageError
        If they can't.
    """
    if is_database:
        raise UsageError(
            "{changes_since}: a database holds all runs, so that changes are a query: leave it "
            "out, or choose {format} csv or parquet",
            "changes_since",
            "format",
        )
    if not saved.has_segments_of(earlier):
        raise UsageError(
            "{changes_since} {path}: its segments are not those of {run}: name a run that this one "
            "was refreshed from, or one with the same model",
            "changes_since",
            path=earlier.folder,
            run=saved.folder,
        )


def _write_database(saved: SavedRun, out: Path, rules: _Rules) -> dict[str, Any]:
    """Add the run to the database in ``out``; users in no list are left out."""
    settings, k = rules.settings, len(saved.model.personas)
    totals, counts = np.zeros(k, np.int64), np.zeros(k + len(_UNLISTED), np.int64)
    has_text_ids = settings.hash_ids is not None
    for users in _read_users(saved):
        totals += np.bincount(users.segments, minlength=k)
        counts += np.bincount(rules.place(users) + len(_UNLISTED), minlength=len(counts))
        has_text_ids |= users.ids.dtype.kind == "S"
    record = _build_record(saved, rules, totals, counts, {})
    run = saved.folder.resolve().name
    n_listed = int(counts[len(_UNLISTED) :].sum())
    out.mkdir(parents=True, exist_ok=True)
    database = out / f"audience.{settings.format}"
    databases.append_run(
        database,
        settings.format,
        databases.Record(
            run,
            str(saved.folder.resolve()),
            (
                *(run, str(saved.folder.resolve()), record["created"], saved.manifest.job),
                *(str(saved.manifest.data["source"]), int(totals.sum()), n_listed),
            ),
            [
                (run, entry["segment"], entry["persona"], entry["users"], entry["listed"])
                for entry in record["segments"]
            ],
        ),
        (_database_table(users, rules) for users in _read_users(saved)),
        has_text_ids=has_text_ids,
    )
    return {**record, "database": str(database)}


def _database_table(users: _Users, rules: _Rules) -> pa.Table:
    import pyarrow as pa

    places = rules.place(users)
    rows = (places >= 0) | (places == _HOLDOUT)
    ids = _write_ids(users.ids, rules.settings, in_csv=False)
    table = _list_table(users, rows, ids).rename_columns(
        ["user_id", "margin", "distance", "is_outlier"]
    )
    table = table.add_column(1, "segment", pa.array(users.segments[rows].astype(np.int32)))
    return table.append_column("is_holdout", pa.array(places[rows] == _HOLDOUT))


@contextmanager
def _replace_lists(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a folder for new lists, which move into ``out`` once all of them are complete.

    The lists of an earlier export in ``out`` are removed then. No other file there is touched.
    """
    earlier = _find_export(out)
    if earlier is None:
        foreign = [path for path in _list_folder(out) if path.name not in _OTHER_OUTPUTS]
        if foreign:
            raise UsageError(
                "{out} {path}: holds {name} but no export: name another folder",
                "out",
                path=out,
                name=foreign[0].name,
            )
    elif not overwrite:
        raise UsageError(
            "{out} {path}: already holds an export: pass {overwrite} to replace it, or name "
            "another folder",
            "out",
            "overwrite",
            path=out,
        )
    partial = out / _PARTIAL
    atomic.remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        atomic.sync_folder(partial, with_files=True)
    except BaseException:
        atomic.remove(partial)
        raise
    # From here on an export that is interrupted is finished, or replaced, by the next one.
    for name in earlier or ():
        atomic.remove_file(out / name)
    for path in sorted(partial.iterdir(), key=lambda path: path.name == MANIFEST):
        path.replace(out / path.name)
    partial.rmdir()
    atomic.sync_folder(out)


def _find_export(out: Path) -> list[str] | None:
    """Return the files of the export in a folder, finished or not; None if there is none."""
    if not out.is_dir():
        return None
    names: list[str] = []
    is_export = False
    for path in (out / MANIFEST, out / _PARTIAL / MANIFEST):
        try:
            record = json.loads(path.read_text("utf-8"))
            names += [str(name) for name in record["files"]]
            is_export = record["job"] == "export"
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError):
            raise UsageError(
                "{out} {path}: is no record of an export: name another folder", "out", path=path
            ) from None
    # A name that leads out of the folder was not written by an export.
    return [name for name in names if Path(name).name == name] if is_export else None


def _list_folder(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def check_out(out: str | Path) -> Path:
    """Return the folder to write to, after a check that it may be one.

    Raises
    ------
    UsageError
        If it is a URL or a file, or lies in the folder of a run.
    """
    run_folder.check_is_local(out)
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise UsageError("{out} {path}: is a file: name a folder", "out", path=path)
    resolved = path.resolve()
    for folder in (resolved, *resolved.parents):
        if (folder / run_folder.MANIFEST).is_file():
            raise UsageError(
                "{out} {path}: lies in the folder of a run, which stays as it is: name another",
                "out",
                path=path,
            )
    return path


@contextmanager
def name_unwritable(out: str | Path) -> Iterator[None]:
    """Turn the system's errors into one that names the folder and the reason."""
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:
        raise DataError(
            "{out} {path}: can't be written ({reason}): see to that, or name another folder",
            "out",
            path=str(out).encode("utf-8", "backslashreplace").decode(),
            reason=getattr(error, "strerror", None) or error,
        ) from error


class _TableWriter:
    """Write tables into one file, a CSV or a Parquet file."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path, self._kind = path, kind
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Write the rows of a table; the first one decides on the columns."""
        if self._writer is None:
            self._writer = self._open(table.schema)
        self._writer.write_table(table)

    def _open(self, schema: pa.Schema) -> Any:
        if self._kind == "csv":
            import pyarrow.csv

            return pyarrow.csv.CSVWriter(self._path, schema)
        import pyarrow.parquet

        return pyarrow.parquet.ParquetWriter(
            self._path, schema, compression="zstd", write_page_checksum=True
        )


def _slug(name: str) -> str:
    """Return a name in the letters that every file system allows.

    Examples
    --------
    >>> _slug("Premium Loyalists (Sci-Fi)"), _slug("Ünï/../")
    ('premium-loyalists-sci-fi', 'n')
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "segment"
