"""Manage a run's folder: lock it, save finished stages, and publish all results at once."""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from segmentation.errors import DataError, UsageError
from segmentation.storage.atomic import (
    jsonable,
    remove,
    remove_file,
    remove_if_empty,
    write_json,
)
from segmentation.storage.parquet import PART_PATTERN, move_parts, remove_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MANIFEST = "run.json"
#: Holds unfinished work: the state of the stages, and results until all of them are complete.
WORK = ".work"
_STATE = "state.json"
_LOCK = "lock"
_RESULTS = "products"


@dataclass(frozen=True)
class RunOutputs:
    """What a job may leave in a run's folder; nothing else there is ever touched.

    Parameters
    ----------
    job
        The job's name, as recorded in the manifest.
    files
        Paths in the folder. One that ends in ``.parquet`` is a folder of parts.
    required
        Those that every finished run has.
    resumable
        Those that a finished stage leaves and a later attempt reads again.
    exclusive
        Folders of parts that are read as a whole, so that no other file may lie in them.
    replaces
        The jobs whose runs ``overwrite`` may replace: data sets never replace results, or results
        data sets.
    """

    job: str
    files: tuple[str, ...]
    required: tuple[str, ...] = ()
    resumable: tuple[str, ...] = ()
    exclusive: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every path that a run writes, the manifest first."""
        return (MANIFEST, *self.files)


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
    resume, overwrite
        Continue from finished stages, or remove what an earlier run left.

    Raises
    ------
    UsageError
        If the folder is a file, is locked, holds files that are not a run's, holds another job's
        run, or holds a run and neither ``resume`` nor ``overwrite`` is set; with ``resume``, if
        the data differs.
    DataError
        If the folder can't be written.
    """

    def __init__(
        self,
        path: str | Path,
        outputs: RunOutputs,
        fingerprint: str,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.outputs = outputs
        self._is_new = not self.path.exists()
        self._work = self.path / WORK
        self._results = self._work / _RESULTS
        if not self._is_new and not self.path.is_dir():
            raise UsageError("{path}: is a file: choose a folder for {out}", "out", path=self.path)
        try:
            self._work.mkdir(parents=True, exist_ok=True)
            self._lock = _lock_file(self._work / _LOCK, self.path)
            try:
                check_available(self.path, outputs, resume=resume, overwrite=overwrite)
            except UsageError:
                self._release()
                raise
            if overwrite:
                self._remove_earlier_run()
            try:
                identity = {"fingerprint": fingerprint, "job": outputs.job}
                self._state = self._load_state(identity, strict=resume)
            except UsageError:
                self._lock.close()
                raise
            if not self._state["stages"]:
                remove(self._results)
        except OSError as error:
            raise DataError(
                "{path}: can't be written ({reason}): choose another {out}",
                "out",
                path=self.path,
                reason=error.strerror,
            ) from error

    def _release(self) -> None:
        """Unlock the folder, and remove what opening it created."""
        self._lock.close()
        if not (self._work / _STATE).exists():
            remove(self._work)
            if self._is_new:
                remove_if_empty(self.path)

    def _load_state(self, identity: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
        try:
            state = json.loads((self._work / _STATE).read_text("utf-8"))
        except (OSError, ValueError):
            state = {"identity": identity, "stages": {}}
        if state.get("identity") != identity:
            if strict:
                check_same_settings(self.path, state.get("identity", {}), identity)
            state = {"identity": identity, "stages": {}}
        return dict(state)

    def stage_result(self, name: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the result of a finished stage; None unless it was finished with this ``key``."""
        stage = self._state["stages"].get(name)
        if stage is None or stage["key"] != jsonable(dict(key)):
            return None
        return dict(stage["result"])

    def finish_stage(self, name: str, key: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Save the result of a stage with the settings it depends on, so that it can be resumed."""
        self._state["stages"][name] = jsonable({"key": dict(key), "result": dict(result)})
        write_json(self._work / _STATE, self._state)

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

    def publish(self, manifest: Mapping[str, Any]) -> None:
        """Move all results into place and write the manifest last, with interrupts blocked.

        The old manifest is removed first: without it, the folder can't be mistaken for a result.
        """
        with _block_interrupts():
            for name in self.outputs.names:
                source, target = self._results / name, self.path / name
                _remove_result(target)
                if source.exists():
                    target.parent.mkdir(exist_ok=True)
                    if source.is_dir():
                        move_parts(source, target)
                    else:
                        os.replace(source, target)
                elif target.parent != self.path:
                    remove_if_empty(target.parent)
            write_json(self.path / MANIFEST, manifest)
            self._lock.close()
            remove(self._work)

    def abandon(self) -> None:
        """Clean up after a failure, and keep only what resuming needs.

        It stays under :data:`WORK`, where nothing can be mistaken for a result.
        """
        if self._state["stages"]:
            self._lock.close()
        else:
            remove_file(self._work / _STATE)
            self._release()

    def _remove_earlier_run(self) -> None:
        # The manifest goes first: without it, the rest can't be mistaken for a result.
        for name in self.outputs.names:
            _remove_result(self.path / name)
        for parent in {Path(name).parent for name in self.outputs.files} - {Path()}:
            remove_if_empty(self.path / parent)
        remove_file(self._work / _STATE)
        remove(self._results)


def check_available(
    path: str | Path, outputs: RunOutputs, *, resume: bool = False, overwrite: bool = False
) -> None:
    """Check that a job may write into a folder.

    Raises
    ------
    UsageError
        If ``path`` is a file; holds a run and it is neither resumed nor overwritten; holds a run
        that this job must not replace; or holds other files where a run would write its own.
    """
    path = Path(path)
    state = _find_run(path, outputs)
    other = _read_job(path)
    if other and other not in (outputs.job, *outputs.replaces):
        raise UsageError(
            "{path}: holds a run of {job}: choose another {out}", "out", path=path, job=other
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


def _find_run(path: Path, outputs: RunOutputs) -> str | None:
    """Return "a finished", "an unfinished" or None; raise where foreign files are in the way."""
    if path.exists() and not path.is_dir():
        raise UsageError("{path}: is a file: choose a folder for {out}", "out", path=path)
    for folder in (path / name for name in outputs.exclusive):
        if folder.is_dir() and any(not file.match(PART_PATTERN) for file in folder.iterdir()):
            raise UsageError(
                "{folder}: holds files other than {pattern}: move them away, or choose another "
                "{out}",
                "out",
                folder=folder,
                pattern=PART_PATTERN,
            )
    if (path / MANIFEST).exists():
        return "a finished"
    if (path / WORK / _STATE).exists():
        return "an unfinished"
    for name in outputs.names:
        if (path / name).exists():
            raise UsageError(
                "{path}: holds {name} but no finished run: move it away, or choose another {out}",
                "out",
                path=path,
                name=name,
            )
    return None


def _read_job(path: Path) -> str | None:
    """Return the job of the finished run in a folder; None if no readable manifest names one."""
    try:
        job = json.loads((path / MANIFEST).read_text("utf-8"))["job"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return job if isinstance(job, str) else None


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
        raise UsageError(
            "{path}: was run with another {names}: use the same to resume it, or pass {overwrite} "
            "instead of {resume}",
            "overwrite",
            "resume",
            path=path,
            names=", ".join(different),
        )


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest of the finished run in a folder; None if there is none.

    Raises
    ------
    DataError
        If it can't be read, or is not a run's manifest.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(
            "{path}: can't be read ({reason}): pass {overwrite}",
            "overwrite",
            path=path / MANIFEST,
            reason=error,
        ) from error
    if not (isinstance(manifest, dict) and {"settings", "data", "rows"} <= set(manifest)):
        raise DataError(
            "{path}: is not the manifest of a run: pass {overwrite}",
            "overwrite",
            path=path / MANIFEST,
        )
    return manifest


def default_out() -> Path:
    """Return ``runs/<date-time>``, with a numeric suffix if that exists."""
    base = Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    out, number = base, 2
    while out.exists():
        out, number = base.with_name(f"{base.name}-{number}"), number + 1
    return out


def _remove_result(path: Path) -> None:
    if path.suffix == ".parquet":
        remove_parts(path)
    else:
        remove_file(path)


def _lock_file(path: Path, folder: Path) -> IO[str]:
    """Open a file and lock it for this process; the lock ends with the process."""
    file = path.open("w")
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


@contextmanager
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
