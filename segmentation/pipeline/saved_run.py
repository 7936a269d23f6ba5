"""Open a finished run for the jobs that go on from it, and take over how its data were read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmentation.errors import DataError, UsageError
from segmentation.pipeline.context import RATED_ITEMS, USER_STATISTICS
from segmentation.pipeline.manifest import RunManifest, is_manifest
from segmentation.pipeline.model import SavedModel, load_model
from segmentation.storage import integrity, run_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MODEL = "model/model.json"
#: What ``refresh`` needs of a run besides its model.
REFRESHED_FILES = (USER_STATISTICS, RATED_ITEMS, "assignments.parquet")
#: In place of a folder: the last of the runs next to the new one.
LATEST = "latest"
#: How a text file is written.
_TEXT_FORM = ("columns", "separator", "decimal", "encoding", "has_header")
#: Settings of the earlier run that hold for new data too, unless the user says otherwise.
_INHERITED = (
    *_TEXT_FORM,
    *("scale", "unrated", "ids", "implicit", "deduplicate", "preset", "join", "seed"),
    *("catalogue", "item", "category", "category_separator", "category_weight"),
)
#: Settings that a model fixes.
_FIXED = ("preset", "join")


@dataclass(frozen=True)
class SavedRun:
    """A finished run: its folder, manifest and model, and the SHA-256 of the two files."""

    folder: Path
    manifest: RunManifest
    model: SavedModel
    model_sha256: str
    manifest_sha256: str
    digests: dict[str, Any]

    @property
    def merged(self) -> list[dict[str, Any]]:
        """The ratings that the run was made of: their source, fingerprint and digest."""
        return list(self.manifest.data["merged"])

    @property
    def lineage(self) -> list[str]:
        """The runs that this one was refreshed from, the first one first, and itself."""
        return [*self.manifest.data.get("refreshed_from", []), self.manifest_sha256]

    def has_segments_of(self, earlier: SavedRun) -> bool:
        """Whether the segments are those of another run, or were refreshed from them."""
        return self.model_sha256 == earlier.model_sha256 or earlier.manifest_sha256 in self.lineage

    def list_parts(self, name: str) -> list[Path]:
        """Return the parts of a data set of the run, in order; other files there don't count."""
        return [self.folder / file for file in sorted(self.digests) if file.startswith(f"{name}/")]

    def check_files(self, field: str, *names: str) -> None:
        """Check that files of the run are there as they were written."""
        check_files(self.folder, self.digests, self.manifest.job, field, *names)

    def check_apart(self, out: str | Path) -> None:
        """Check that ``out`` is not within the folder of the run, which stays as it is.

        Raises
        ------
        UsageError
            If it is.
        """
        if Path(out).resolve().is_relative_to(self.folder.resolve()):
            raise UsageError(
                "{out} {path}: lies in the folder of the earlier run, which stays as it is: choose "
                "another",
                "out",
                path=out,
            )

    def inherit_settings(
        self, options: Mapping[str, Any], more: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return settings for new data: those of ``options``, the others as in this run.

        Parameters
        ----------
        options
            The settings that the user asks for, by field. Without ``data``, ``ratings`` belong to
            the catalogue of this run.
        more
            Further settings that are taken over.

        Raises
        ------
        UsageError
            If neither ``data`` nor ``ratings`` is named, or a setting contradicts the model.
        """
        before = {**self.manifest.settings, **self.manifest.data.get("places", {})}
        if options.get("data") is None and options.get("ratings") is None:
            raise UsageError("{data}: name the folder of the new ratings", "data")
        for field in _FIXED:
            if options.get(field) not in (None, before.get(field)):
                raise UsageError(
                    f"{{{field}}} {{value}}: the model of {{path}} has {{{field}}} {{before}}: "
                    "leave it out, or run segment with the other",
                    field,
                    value=options[field],
                    before=before.get(field),
                    path=self.folder,
                )
        names = [*_INHERITED, *more, *(["data"] if options.get("data") is None else [])]
        if options.get("columns") is not None:
            # Other columns are another file, in a form of its own.
            names = [name for name in names if name not in _TEXT_FORM]
        inherited = {name: before[name] for name in names if before.get(name) is not None}
        for name in ("scale", "unrated"):
            if name in inherited:
                inherited[name] = tuple(inherited[name])
        return {**inherited, **{name: v for name, v in options.items() if v is not None}}


def find_latest(out: str | Path) -> Path:
    """Return the last by name of the finished runs with a model in the folder that holds ``out``.

    Raises
    ------
    DataError
        If there is none.
    """
    parent = Path(out).absolute().parent
    folders = sorted(parent.iterdir(), reverse=True) if parent.is_dir() else []
    for folder in folders:
        is_other = folder.resolve() != Path(out).resolve()
        files = [folder / name for name in (run_folder.MANIFEST, MODEL, USER_STATISTICS)]
        if is_other and all(file.exists() for file in files):
            return folder
    raise DataError(
        "{from_run} latest: {parent} holds no finished run with a model: run segment there first",
        "from_run",
        parent=parent,
    )


def open_saved_run(path: str | Path, field: str, *names: str) -> SavedRun:
    """Open the run in a folder, and check the files of it that are needed.

    Parameters
    ----------
    path
        The run's folder.
    field
        The setting that names it, for messages.
    names
        Further files that must be as they were written, besides the model.

    Raises
    ------
    DataError
        If the folder holds no finished run, or a file is missing or damaged.
    """
    run_folder.check_is_local(path, field)
    folder = Path(path)
    try:
        values = integrity.read_json(folder / run_folder.MANIFEST)
    except FileNotFoundError:
        raise DataError(
            f"{{{field}}} {{path}}: holds no finished run: name the folder of one, which has a "
            "{manifest}",
            field,
            path=folder,
            manifest=run_folder.MANIFEST,
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _damaged_error(field, folder / run_folder.MANIFEST, str(reason)) from error
    if not integrity.verify_checksum(values) or not is_manifest(values):
        raise _damaged_error(
            field, folder / run_folder.MANIFEST, "it differs from what was written"
        )
    digests = values["files"]
    if MODEL not in digests:
        raise DataError(
            f"{{{field}}} {{path}}: is a run of {{job}}, which has no model: name one of segment",
            field,
            path=folder,
            job=values["job"],
        )
    check_files(folder, digests, values["job"], field, MODEL, *names)
    return SavedRun(
        folder,
        RunManifest.from_json(values),
        load_model(folder),
        str(digests[MODEL][1]),
        str(values[integrity.CHECKSUM]),
        digests,
    )


def check_files(
    folder: Path, digests: Mapping[str, Any], job: str, field: str, *names: str
) -> None:
    """Check that files of a run are there as they were written.

    Parameters
    ----------
    digests
        Those of all files, from the manifest.
    field
        The setting that names the run, for messages.
    names
        Files, or folders of parts.

    Raises
    ------
    DataError
        If one is not.
    """
    for name in names:
        needed = {
            file: digest
            for file, digest in digests.items()
            if file == name or file.startswith(f"{name}/")
        }
        if not needed:
            raise DataError(
                f"{{{field}}} {{path}}: is a run of {{job}}, which has no {{name}}: name one of "
                "segment or refresh",
                field,
                path=folder,
                job=job,
                name=name,
            )
        damaged = integrity.find_damage(folder, needed)
        if damaged is not None:
            raise _damaged_error(
                field, damaged, "it is missing, can't be read, or differs from what was written"
            )


def _damaged_error(field: str, path: Path, reason: str) -> DataError:
    return DataError(
        f"{{{field}}} {{path}}: can't be used ({{reason}}): restore it from a copy, or run segment "
        "again",
        field,
        path=path,
        reason=reason,
    )
