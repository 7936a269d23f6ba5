"""Manage a run's folder: lock it, save finished stages, and publish all results at once.

Unfinished work lies in :data:`WORK`. When it is complete, its manifest is written there too, and
from then on only renames are left: the results of an earlier run move to ``.work/replaced``, the
new ones into their place, the manifest last. If a rename fails, all are undone; if the process is
killed between two of them, the next one that opens the folder does the rest.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from segmentation.errors import DataError, UsageError
from segmentation.storage import integrity
from segmentation.storage.atomic import (
    jsonable,
    remove,
    remove_file,
    remove_if_empty,
    sync_folder,
    write_json,
)
from segmentation.storage.parquet import PART_PATTERN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

MANIFEST = "run.json"
#: Holds unfinished work: the state of the stages, and results until all of them are complete.
WORK = ".work"
_STATE = "state.json"
_LOCK = "lock"
#: What the manifest records in place of a setting.
_FIELDS = {
    "fingerprint": "data",
    "playbook_sha256": "playbook",
    "model_sha256": "model",
    "from_sha256": "from_run",
}
#: The new results until all are complete; then the same, on their way into place; and the earlier
#: run's results on their way out.
_RESULTS, _COMPLETE, _REPLACED = "products", "complete", "replaced"
_WORK_NAMES = (_STATE, _LOCK, _RESULTS, _COMPLETE, _REPLACED)


@dataclass(frozen=True)
class RunOutputs:
    """What a job may leave in a run's folder; nothing else there is ever touched.

    Parameters
    ----------
    job
        The job's name, as recorded in the manifest.
    files
        Paths in the folder. One that ends in ``.parquet`` may be a folder of parts, in which no
        other file may lie, because it is read as a whole.
    required
        Those that every finished run has.
    resumable
        Those that a finished stage leaves and a later attempt reads again.
    replaces
        The jobs whose runs ``overwrite`` may replace: data sets never replace results, or results
        data sets.
    """

    job: str
    files: tuple[str, ...]
    required: tuple[str, ...] = ()
    resumable: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every path that a run writes, the manifest first."""
        return (MANIFEST, *self.files)


class DamagedStageError(Exception):
    """A file of a finished stage is missing, or differs from what was written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


class RunFolder:
    """The folder of one run, locked for this process.

    Parameters
    ----------
    path
        The folder; created if missing.
    outputs
        What the job may leave there.
    fingerprint
        Identifies the data. Only a run over the same data is resumed.
    versions
        The version of each file of the data. A run is not resumed if one of its files changed.
    resume, overwrite
        Continue from finished stages, or start again. An earlier run's results stay until the new
        ones are complete.

    Attributes
    ----------
    is_state_damaged
        Whether the record of finished stages could not be used, so that none is resumed.

    Raises
    ------
    UsageError
        If the folder is a file, is locked, holds links or files that are not a run's, holds
        another job's run, or holds a run and neither ``resume`` nor ``overwrite`` is set; with
        ``resume``, if the data differs.
    DataError
        If the folder can't be written.
    """

    def __init__(
        self,
        path: str | Path,
        outputs: RunOutputs,
        fingerprint: str,
        *,
        versions: Mapping[str, str] | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.outputs = outputs
        self.is_state_damaged = False
        self._work = self.path / WORK
        self._results = self._work / _RESULTS
        with _name_unwritable(self.path):
            _check_paths(self.path, outputs)
            self._is_new = not self.path.exists()
            self._work.mkdir(parents=True, exist_ok=True)
            self._lock = _lock_file(self._work / _LOCK, self.path)
            try:
                _check_run(self.path, outputs, resume=resume, overwrite=overwrite)
                _move_into_place(self.path, outputs, keep_lock=True)
                if overwrite:
                    remove_file(self._work / _STATE)
                    remove(self._results)
                identity = {"fingerprint": fingerprint, "job": outputs.job}
                self._state = self._load_state(identity, versions or {}, strict=resume)
            except (UsageError, OSError):
                self._release()
                raise
            if not self._state["stages"]:
                remove(self._results)

    def _release(self) -> None:
        """Unlock the folder, and remove what opening it created."""
        self._lock.close()
        if not (self._work / _STATE).exists() and not _is_publishing(self.path):
            remove(self._work)
            if self._is_new:
                remove_if_empty(self.path)

    def _load_state(
        self, identity: Mapping[str, Any], versions: Mapping[str, str], *, strict: bool
    ) -> dict[str, Any]:
        state: Any = None
        new = {"identity": identity, "versions": dict(versions), "stages": {}}
        try:
            state = integrity.read_json(self._work / _STATE)
        except FileNotFoundError:
            return new
        except (OSError, ValueError):
            pass  # A state that can't be read has no valid checksum.
        if not integrity.verify_checksum(state) or not _is_state(state):
            self.is_state_damaged = True
            return new
        if state["identity"] == identity:
            changed = find_changed(state["versions"], versions)
            if changed is None:
                return {**state, "versions": dict(versions)}
            if strict:
                raise changed_error(self.path, changed)
        elif strict:
            check_same_job(self.path, state["identity"]["job"], self.outputs.job)
            check_same_settings(self.path, state["identity"], identity)
        return new

    def stage_result(self, name: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the result of a finished stage; None unless it was finished with this ``key``.

        Raises
        ------
        DamagedStageError
            If one of its files differs from what was written. The stage then counts as unfinished.
        """
        stage = self._state["stages"].get(name)
        if stage is None or stage["key"] != jsonable(dict(key)):
            return None
        damaged = integrity.find_damage(self._results, stage["files"])
        if damaged is not None:
            del self._state["stages"][name]
            raise DamagedStageError(damaged)
        return dict(stage["result"])

    def finish_stage(
        self,
        name: str,
        key: Mapping[str, Any],
        result: Mapping[str, Any],
        files: Iterable[str] = (),
    ) -> None:
        """Save the result of a stage, so that it can be resumed.

        Parameters
        ----------
        name
            The stage.
        key
            The settings that it depends on.
        result
            What a resumed run needs of it, as JSON types.
        files
            The results that it left. They are on disk before the stage counts as finished.
        """
        digests = _digest_files(self._results, files)
        if digests:
            sync_folder(self._results, with_files=True)
        stage = {"key": dict(key), "result": dict(result), "files": digests}
        self._state["stages"][name] = jsonable(stage)
        write_json(self._work / _STATE, integrity.add_checksum(self._state))

    def result_path(self, name: str) -> Path:
        """Return the temporary path of a result; :meth:`publish` moves it into place."""
        path = self._results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def discard(self, name: str) -> None:
        """Remove a result that an earlier attempt left unpublished."""
        remove(self._results / name)

    def discard_unfinished(self) -> None:
        """Remove what an earlier attempt wrote, except the resumable files."""
        for name in self.outputs.names:
            if name not in self.outputs.resumable:
                self.discard(name)

    def publish(
        self, manifest: Mapping[str, Any], digests: Mapping[str, integrity.FileDigest] | None = None
    ) -> None:
        """Move all results into place, the manifest last.

        Parameters
        ----------
        manifest
            The record of the run. The digests of all files and a checksum are added to it.
        digests
            Digests of files that are known already.

        Raises
        ------
        UsageError
            If links or files that are not a run's came into the way.
        """
        _check_paths(self.path, self.outputs)
        known = dict(digests or {})
        for stage in self._state["stages"].values():
            known |= stage["files"]
        for name in self.outputs.files:
            if (self._results / name).is_dir():
                _remove_foreign_files(self._results / name)
        files = _digest_files(self._results, self.outputs.files, known)
        record = integrity.add_checksum({**manifest, "files": files})
        self._results.mkdir(exist_ok=True)
        sync_folder(self._results, with_files=True)
        write_json(self._results / MANIFEST, record)
        _move_into_place(self.path, self.outputs)
        self._lock.close()

    def abandon(self) -> None:
        """Clean up after a failure, and keep only what resuming needs.

        It stays under :data:`WORK`, where nothing can be mistaken for a result.
        """
        if self._state["stages"] or _is_publishing(self.path):
            self._lock.close()
        else:
            remove_file(self._work / _STATE)
            self._release()


def _is_state(state: Mapping[str, Any]) -> bool:
    """Return whether a record with a valid checksum has the form of a state."""
    identity, stages = state.get("identity"), state.get("stages")
    return (
        isinstance(identity, dict)
        and identity.keys() == {"fingerprint", "job"}
        and all(isinstance(value, str) for value in identity.values())
        and isinstance(state.get("versions"), dict)
        and isinstance(stages, dict)
        and all(
            isinstance(stage, dict)
            and isinstance(stage.get("key"), dict)
            and isinstance(stage.get("result"), dict)
            and integrity.are_digests(stage.get("files"))
            for stage in stages.values()
        )
    )


def find_changed(before: Mapping[str, Any], now: Mapping[str, str]) -> str | None:
    """Return the first file that has another version than before; None without one.

    Files that lie elsewhere now are not compared.
    """
    return next((path for path in now if before.get(path, now[path]) != now[path]), None)


def changed_error(folder: Path, path: str) -> UsageError:
    """Return the error of resuming a run one of whose files changed."""
    return UsageError(
        "{path}: changed after the run in {folder} had begun: pass {overwrite} instead of "
        "{resume} to start again",
        "overwrite",
        "resume",
        path=path,
        folder=folder,
    )


def _digest_files(
    folder: Path, names: Iterable[str], known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    known = known or {}
    return {
        name: known[name] if name in known else integrity.FileDigest.of(folder / name)
        for name in integrity.list_files(folder, names)
    }


def _remove_foreign_files(folder: Path) -> None:
    """Remove what a killed writer left in a folder of parts."""
    for entry in folder.iterdir():
        if not entry.match(PART_PATTERN):
            remove(entry)


def finish_publishing(path: str | Path, outputs: RunOutputs) -> None:
    """Move the results of a complete run into place, if it was killed while it did that itself.

    Raises
    ------
    UsageError
        If another process is writing to the folder.
    DataError
        If the folder can't be written.
    """
    path = Path(path)
    with _name_unwritable(path):
        if not _is_publishing(path):
            return
        _check_paths(path, outputs)
        with _lock_file(path / WORK / _LOCK, path):
            if _read_job(path) in (outputs.job, *outputs.replaces):
                _move_into_place(path, outputs)


def _is_publishing(path: Path) -> bool:
    """Whether a run in the folder is complete, and not all of its results are in place."""
    work = path / WORK
    return (work / _COMPLETE).exists() or (work / _RESULTS / MANIFEST).exists()


def _move_into_place(path: Path, outputs: RunOutputs, *, keep_lock: bool = False) -> None:
    """Move the results of a complete run into place, or none of them if a rename fails.

    With ``keep_lock``, the folder stays locked.
    """
    work = path / WORK
    results, complete, replaced = work / _RESULTS, work / _COMPLETE, work / _REPLACED
    if not _is_publishing(path):
        return
    moves = []
    if not complete.exists():
        # The manifest goes first: without it, the rest can't be mistaken for a result.
        moves += [(path / name, replaced / name) for name in outputs.names]
        moves.append((results, complete))
    # And comes last.
    moves += [(complete / name, path / name) for name in (*outputs.files, MANIFEST)]
    with _block_interrupts():
        _move_all(moves, path)
        for parent in {(path / name).parent for name in outputs.files} - {path}:
            remove_if_empty(parent)
        # The results are in place: a failure to clean up is not a failure of the run.
        with contextlib.suppress(OSError):
            remove_file(work / _STATE)
            remove(complete)
            remove(replaced)
            if not keep_lock:
                remove(work)


def _move_all(moves: Iterable[tuple[Path, Path]], folder: Path) -> None:
    """Rename what exists, in order, and sync the folders; if that fails, undo the renames."""
    done = []
    try:
        for source, target in moves:
            if os.path.lexists(source):
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)
                done.append((source, target))
        for parent in {folder, *(target.parent for _, target in done)}:
            sync_folder(parent)
    except OSError:
        # What can't be undone is done by the next process that opens the folder.
        with contextlib.suppress(OSError):
            for source, target in reversed(done):
                source.parent.mkdir(parents=True, exist_ok=True)
                os.replace(target, source)
        raise


def check_is_local(path: str | Path, field: str = "out") -> None:
    """Check that the location of a run's folder is a path; raise :class:`UsageError` for a URL.

    ``field`` is the setting that names it.
    """
    if re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]+:(/|:[A-Za-z])", str(path)):
        written = "results are written to" if field == "out" else "runs are read from"
        raise UsageError(
            f"{{{field}}} {{value}}: is a URL, and {written} a folder of this machine: name one, "
            f"and copy it {'from' if field == 'out' else 'to'} there",
            field,
            value=str(path),
        )


def check_available(
    path: str | Path, outputs: RunOutputs, *, resume: bool = False, overwrite: bool = False
) -> None:
    """Check that a job may write into a folder.

    Raises
    ------
    UsageError
        If ``path`` is a file, the root or the home folder; holds links in the place of results;
        holds a run and it is neither resumed nor overwritten; holds a run that this job must not
        replace; or holds no run but other files.
    DataError
        If the folder can't be read.
    """
    path = Path(path)
    with _name_unwritable(path):
        _check_paths(path, outputs)
        _check_run(path, outputs, resume=resume, overwrite=overwrite)


def _check_run(path: Path, outputs: RunOutputs, *, resume: bool, overwrite: bool) -> None:
    """Check that this job may continue or replace the run in a folder, if it holds one."""
    state = _find_run(path)
    job = _read_job(path)
    if job is not None and job not in (outputs.job, *outputs.replaces):
        raise UsageError(
            "{path}: holds a run of {job}: choose another {out}", "out", path=path, job=job
        )
    if state and not (resume or overwrite):
        raise UsageError(
            "{path}: already holds {state} run: pass {resume} to continue from its finished "
            "stages, {overwrite} to start again, or choose another {out}",
            "resume",
            "overwrite",
            "out",
            path=path,
            state=state,
        )


def _find_run(path: Path) -> str | None:
    """Return "a finished", "an unfinished" or None; raise where there are other files and no run.

    Empty folders and names that start with a dot are no obstacle, nor is ``lost+found``.
    """
    if (path / WORK / _STATE).exists() or _is_publishing(path):
        return "an unfinished"
    if (path / MANIFEST).exists():
        return "a finished"
    entries = sorted(path.iterdir()) if path.is_dir() else []
    for entry in entries:
        is_empty_folder = entry.is_dir() and not any(entry.iterdir())
        if not (entry.name.startswith(".") or entry.name == "lost+found" or is_empty_folder):
            raise UsageError(
                "{path}: holds {name} but no run: choose another {out}",
                "out",
                path=path,
                name=entry.name,
            )
    return None


def _check_paths(path: Path, outputs: RunOutputs) -> None:
    """Check that nothing lies in the place of a run's files that a run did not write.

    A run never writes, or deletes, through a link: it could lead out of the folder.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            "{path}: can't be a folder's name ({reason}): choose another {out}",
            "out",
            path=_shorten_path(path),
            reason=reason,
        ) from error
    if path.exists() and not path.is_dir():
        raise UsageError("{path}: is a file: choose a folder for {out}", "out", path=path)
    if path.is_dir() and any(path.samefile(folder) for folder in _find_protected_folders()):
        raise UsageError(
            "{path}: is the root or the home folder: choose another {out}", "out", path=path
        )
    if path.is_symlink() and not path.exists():
        raise UsageError(
            "{path}: is a link that leads nowhere: choose another {out}", "out", path=path
        )
    folders = {parent for name in outputs.names for parent in Path(name).parents} - {Path()}
    work = {Path(WORK), *(Path(WORK, name) for name in (_RESULTS, _COMPLETE, _REPLACED))}
    files = [*outputs.names, f"{WORK}/{_LOCK}", f"{WORK}/{_STATE}"]
    for folder in sorted(folders | work):
        _check_kind(path / folder, stat.S_ISDIR)
    results = {Path(name).parts[0] for name in outputs.names}
    _check_entries(path / WORK, {*_WORK_NAMES, f"{_STATE}.partial"})
    _check_entries(path / WORK / _COMPLETE, results)
    _check_entries(path / WORK / _REPLACED, results)
    _check_tree(path / WORK)
    for name in files:
        if not name.endswith(".parquet"):
            _check_kind(path / name, stat.S_ISREG)
        elif stat.S_ISDIR(_check_kind(path / name, stat.S_ISREG, stat.S_ISDIR)):
            _check_parts(path / name)


def _shorten_path(path: Path) -> str:
    return text if len(text := str(path)) <= 80 else text[:77] + "..."


def _check_entries(folder: Path, names: Collection[str]) -> None:
    """Check that a folder, if there is one, holds nothing but files of these names."""
    for entry in folder.iterdir() if folder.exists() else ():
        if entry.name not in names:
            raise _make_foreign_error(folder, entry.name)


def _check_tree(folder: Path) -> None:
    """Check that nothing below a folder is a link, a pipe or a device."""
    for entry in sorted(folder.iterdir()) if folder.exists() else ():
        if entry.is_dir() and not entry.is_symlink():
            _check_tree(entry)
        else:
            _check_kind(entry, stat.S_ISREG)


def _find_protected_folders() -> list[Path]:
    folders = [Path("/")]
    with contextlib.suppress(RuntimeError):
        folders.append(Path.home())
    return [folder for folder in folders if folder.exists()]


def _check_kind(path: Path, *kinds: Any) -> int:
    """Return the mode of what lies at a path; 0 for nothing. Raise unless it is of a kind."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    if stat.S_ISLNK(mode):
        raise UsageError(
            "{path}: is a symbolic link, and a run does not write through links: remove it, or "
            "choose another {out}",
            "out",
            path=path,
        )
    if not any(is_kind(mode) for is_kind in kinds):
        raise UsageError(
            "{path}: is not what a run leaves there: move it away, or choose another {out}",
            "out",
            path=path,
        )
    return mode


def _check_parts(folder: Path) -> None:
    """Check that a folder in the place of a result holds nothing but parts."""
    for entry in folder.iterdir():
        if not entry.match(PART_PATTERN) or entry.is_symlink():
            raise _make_foreign_error(folder, entry.name)


def _make_foreign_error(folder: Path, name: str) -> UsageError:
    return UsageError(
        "{folder}: holds {name}, which no run leaves there: move it away, or choose another {out}",
        "out",
        folder=folder,
        name=name,
    )


def _read_job(path: Path) -> str | None:
    """Return the job of the run in a folder; None if no readable record names one."""
    for name in (MANIFEST, f"{WORK}/{_COMPLETE}/{MANIFEST}", f"{WORK}/{_RESULTS}/{MANIFEST}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(integrity.read_json(path / name)["job"])
    return None


def check_same_job(path: Path, previous: str, current: str) -> None:
    """Check that a run in a folder is of this job; raise :class:`UsageError` otherwise."""
    if previous != current:
        raise UsageError(
            "{path}: holds a run of {job}: choose another {out}, or pass {overwrite} instead of "
            "{resume}",
            "out",
            "overwrite",
            "resume",
            path=path,
            job=previous,
        )


def check_same_settings(
    path: Path, previous: Mapping[str, Any], current: Mapping[str, Any]
) -> None:
    """Check that a run in a folder was made with the settings and data of this one.

    Raises
    ------
    UsageError
        If it wasn't, with the names of what differs.
    """
    different = sorted(
        key for key in {*current, *previous} if current.get(key) != previous.get(key)
    )
    if different:
        # The keys of a file become part of a format string.
        fields = [re.sub(r"\W", "", _FIELDS.get(key, key)) or "setting" for key in different]
        names = ", ".join(f"{{{field}}}" for field in fields)
        raise UsageError(
            f"{{path}}: was run with another {names}: use the same to resume it, or pass "
            "{overwrite} instead of {resume}",
            "overwrite",
            "resume",
            *fields,
            path=path,
        )


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest of the finished run in a folder; None if there is none.

    Raises
    ------
    DataError
        If it can't be read, or is not a run's manifest.
    """
    try:
        manifest = integrity.read_json(path / MANIFEST)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(
            "{path}: can't be read ({reason}): pass {overwrite} instead of {resume}",
            "overwrite",
            "resume",
            path=path / MANIFEST,
            reason=error,
        ) from error
    if not integrity.verify_checksum(manifest):
        raise DataError(
            "{path}: differs from what a run of this version wrote: pass {overwrite} instead of "
            "{resume}",
            "overwrite",
            "resume",
            path=path / MANIFEST,
        )
    return dict(manifest)


def has_unfinished_run(path: Path) -> bool:
    """Whether the folder holds finished stages of a run that is not complete."""
    return (path / WORK / _STATE).exists()


def default_out() -> Path:
    """Return ``runs/<date-time>``, with a numeric suffix if that exists."""
    base = Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    out, number = base, 2
    while out.exists():
        out, number = base.with_name(f"{base.name}-{number}"), number + 1
    return out


def _lock_file(path: Path, folder: Path) -> IO[str]:
    """Open a file and lock it for this process; the lock ends with the process."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    file = os.fdopen(os.open(path, flags, 0o666), "r+")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass  # Windows has no fcntl; everything else works without the lock.
    except BlockingIOError as error:
        file.close()
        raise UsageError(
            "{folder}: another run is writing to it: wait for it, or choose another {out}",
            "out",
            folder=folder,
        ) from error
    return file


@contextlib.contextmanager
def _name_unwritable(path: Path) -> Iterator[None]:
    """Turn a failure to write into one line that names the folder."""
    try:
        yield
    except OSError as error:
        raise DataError(
            "{path}: can't be written ({reason}): choose another {out}",
            "out",
            path=path,
            reason=error.strerror,
        ) from error


@contextlib.contextmanager
def _block_interrupts() -> Iterator[None]:
    """Block SIGINT and SIGTERM while files are moved."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    signals = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
