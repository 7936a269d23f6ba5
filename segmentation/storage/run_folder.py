"""A run's folder: finished stages, atomic writes, and a manifest that comes last."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from segmentation.errors import DataError, UsageError
from segmentation.storage.atomic import (
    IN_PARTS,
    PART,
    jsonable,
    move,
    remove,
    remove_file,
    remove_if_empty,
    remove_parts,
    remove_product,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MANIFEST = "run.json"
#: The job that leaves data instead of results.
CONVERT = "convert"
#: Unfinished work: stages that are done, and results that are not all there yet.
WORK = ".work"
_STATE = "state.json"
_LOCK = "lock"
#: Every file that a run may leave in its folder; nothing else there is ever touched.
PRODUCTS = (
    MANIFEST,
    "assignments.parquet",
    "segments.json",
    "segments.csv",
    "report.html",
    "report.md",
    "figures/pca.png",
    "figures/genres.png",
    "figures/sizes.png",
    "figures/choose_k.png",
    "choose_k.json",
    "choose_k.csv",
    "model/model.json",
    "model/user_statistics.parquet",
    "rejected/ratings.csv",
)
#: What `convert` leaves beside its parts: the catalogue under its own names, and what tells that
#: data is synthetic.
COPIES = (
    MANIFEST,
    "rejected/ratings.csv",
    "movies_metadata.csv",
    "links.csv",
    "links_small.csv",
    "movies.csv",
    "movies.dat",
    "synthetic.json",
    "planted.parquet",
)
#: The folder of parts that `convert` leaves.
PARTS = "ratings.parquet"
#: Those of them that a finished stage left, and a later attempt takes up.
KEPT = ("model/user_statistics.parquet", "rejected/ratings.csv")
_OF_SEGMENT = PRODUCTS[: PRODUCTS.index("rejected/ratings.csv")]
#: job → those of them that every finished run of it has.
EXPECTED = {
    "segment": tuple(name for name in _OF_SEGMENT if "choose_k" not in name),
    "choose-k": (MANIFEST, "figures/choose_k.png", "choose_k.json", "choose_k.csv"),
    CONVERT: (MANIFEST, PARTS),
}


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
        self._job = str(identity.get("job", ""))
        self._products = products_of(self._job)
        self._made = not self.path.exists()
        self._work = self.path / WORK
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path}: is a file: choose a folder for --out")
        try:
            self._work.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self._work / _LOCK, self.path)
            self._refuse(resume=resume, overwrite=overwrite)
            if overwrite:
                self._clear()
            try:
                self._state = self._load_state(identity, strict=resume)
            except UsageError:
                self._lock.close()
                raise
            if not self._state["stages"]:
                remove(self._work / "products")
        except OSError as error:
            raise DataError(
                f"{self.path}: can't be written ({error.strerror}): choose another --out"
            ) from error

    def _refuse(self, *, resume: bool, overwrite: bool) -> None:
        try:
            found = find_run(self.path, self._job)
            refuse_other_kind(self.path, self._job)
            if found and not (resume or overwrite):
                refuse_existing(self.path, found)
        except UsageError:
            self._release()
            raise

    def _release(self) -> None:
        """Let go of the folder, and remove what only opening it has left."""
        self._lock.close()
        if not (self._work / _STATE).exists():
            remove(self._work)
            if self._made and self.path.is_dir() and not any(self.path.iterdir()):
                self.path.rmdir()

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
        remove(self._work / "products" / name)

    def product(self, name: str) -> Path:
        """Return where a result is written until the run is complete."""
        path = self._work / "products" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, manifest: Mapping[str, Any]) -> None:
        """Move all results into place and write the manifest last, uninterrupted."""
        products = self._work / "products"
        with _uninterrupted():
            for name in self._products:
                target = self.path / name
                remove_product(target)
                if (products / name).exists():
                    target.parent.mkdir(exist_ok=True)
                    move(products / name, target)
                elif target.parent != self.path:
                    remove_if_empty(target.parent)
            if (products / PARTS).exists():
                remove_parts(self.path / PARTS)
                move(products / PARTS, self.path / PARTS)
            write_json(self.path / MANIFEST, manifest)
            self._lock.close()
            remove(self._work)

    def abandon(self) -> None:
        """Leave nothing behind if no stage was finished; else keep what ``--resume`` needs.

        What stages have written stays under :data:`WORK`, where nothing reads as a result.
        """
        if self._state["stages"]:
            self._lock.close()
        else:
            remove_file(self._work / _STATE)
            self._release()

    def _clear(self) -> None:
        # The manifest goes first: without it the rest no longer reads as a result.
        for name in self._products:
            remove_product(self.path / name)
        if self._job == CONVERT:
            remove_parts(self.path / PARTS)
        for folder in ("figures", "model", "rejected"):
            remove_if_empty(self.path / folder)
        remove_file(self._work / _STATE)
        remove(self._work / "products")


def products_of(job: str) -> tuple[str, ...]:
    """Return every file that a run of a job may leave."""
    return COPIES if job == CONVERT else PRODUCTS


def refuse_other_kind(path: Path, job: str) -> None:
    """Refuse to write results into a folder of copied ratings, or copies among results.

    Raises
    ------
    UsageError
        Also where an earlier run might be overwritten: data is more than a result.
    """
    try:
        found = json.loads((path / MANIFEST).read_text("utf-8"))
        other = str(found.get("job", ""))
    except (OSError, ValueError, AttributeError):
        return
    if other and (other == CONVERT) != (job == CONVERT):
        raise UsageError(f"{path}: holds a run of {other}: choose another --out")


def find_run(path: str | Path, job: str = "") -> str | None:
    """Say what a folder holds of an earlier run: a finished one, an unfinished one, or None.

    Raises
    ------
    UsageError
        If ``path`` is a file, or holds somebody else's file where a run would write its own.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file: choose a folder for --out")
    for folder in (path / name for name in products_of(job) if Path(name).name in IN_PARTS):
        if folder.is_dir() and any(not file.match(PART) for file in folder.iterdir()):
            raise UsageError(
                f"{folder}: holds files that are not of a run: move them away, or choose another "
                "--out"
            )
    if (path / MANIFEST).exists():
        return "a finished run"
    if (path / WORK / _STATE).exists():
        return "an unfinished run"
    names = [*products_of(job), *([PARTS] if job == CONVERT else [])]
    taken = next((name for name in names if (path / name).exists()), None)
    if taken:
        raise UsageError(
            f"{path}: holds {taken}, which is not of a run that ended well: move it away, or "
            "choose another --out"
        )
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
    if not (isinstance(found, dict) and {"settings", "data", "rows"} <= set(found)):
        raise DataError(f"{path / MANIFEST}: is not a run's manifest: use --overwrite")
    return found


def _locked(path: Path, folder: Path) -> Any:
    """Open a file that one process at a time can hold; it is let go when the process ends."""
    file = path.open("w")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass  # not to be had on this system; the rest works all the same
    except OSError as error:
        file.close()
        raise UsageError(
            f"{folder}: another run is at work in it: wait for it, or choose another --out"
        ) from error
    return file


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C waiting for the moment that it takes to move files."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    held = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
