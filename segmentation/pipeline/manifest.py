"""The manifest of a run, ``run.json``, as a typed record."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

from segmentation.errors import DataError, UsageError
from segmentation.redaction import redact_values
from segmentation.storage import integrity, run_folder
from segmentation.storage.atomic import jsonable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from segmentation.pipeline.context import RunContext

_LIBRARIES = (
    "dask",
    "dask-ml",
    "distributed",
    "kagglehub",
    "matplotlib",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "scipy",
)


@dataclass
class RunManifest:
    """The settings, data, results and costs of a finished run.

    ``kmeans``, ``pca``, ``choose_k``, ``parquet``, ``scored`` and ``drift`` are None where the job
    has no such result; such fields are left out of the file.
    """

    job: str
    settings: dict[str, Any]
    data: dict[str, Any]
    rows: dict[str, int]
    cluster: dict[str, Any]
    versions: dict[str, str]
    users: int | None = None
    items: int | None = None
    warnings: list[str] | None = None
    kmeans: dict[str, Any] | None = None
    pca: dict[str, Any] | None = None
    choose_k: dict[str, Any] | None = None
    parquet: dict[str, Any] | None = None
    scored: dict[str, Any] | None = None
    drift: dict[str, Any] | None = None
    stages: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the record as it is written."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return {"status": "complete", **redact_values(jsonable(values))}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunManifest:
        """Return the record that a file holds; unknown fields are ignored.

        Fields that older versions did not write get a default: every run was one of ``segment``.
        """
        names = set(cls.__dataclass_fields__)
        fields = {name: value for name, value in values.items() if name in names}
        defaults = {"job": "segment", "cluster": {}, "versions": {}}
        return cls(**{**defaults, **fields})


def build_manifest(run: RunContext, rows: Mapping[str, int], **results: Any) -> RunManifest:
    """Return the manifest of a run whose results are computed; its costs are added later.

    Parameters
    ----------
    rows
        How many rows were read, used, unmapped and rejected.
    results
        Further fields of :class:`RunManifest`.
    """
    return RunManifest(
        job=run.outputs.job,
        settings=run.settings.to_json(),
        data=run.describe_data(),
        rows=dict(rows),
        cluster=run.cluster.record(),
        versions=library_versions(),
        **results,
    )


def load_finished(run: RunContext, key: Mapping[str, Any]) -> RunManifest | None:
    """Return the manifest of the finished run in the folder, if a run resumes it; else None.

    Parameters
    ----------
    key
        The settings that the results depend on.

    Raises
    ------
    UsageError
        If the finished run is another job's, has other settings or data, or a result is missing or
        damaged.
    DataError
        If its manifest can't be read.
    """
    if not run.execution.resume:
        return None
    if run_folder.has_unfinished_run(run.out):
        return None
    values = run_folder.read_manifest(run.out)
    if values is None:
        return None
    if not is_manifest(values):
        raise DataError(
            "{path}: is not what a finished run writes: pass {overwrite} instead of {resume}",
            "overwrite",
            "resume",
            path=run.out / run_folder.MANIFEST,
        )
    manifest = RunManifest.from_json(values)
    run_folder.check_same_job(run.out, manifest.job, run.outputs.job)
    before = {**manifest.settings, "fingerprint": manifest.data["fingerprint"]}
    now = jsonable({**key, "fingerprint": run.fingerprint})
    run_folder.check_same_settings(run.out, {name: before.get(name) for name in now}, now)
    changed = run_folder.find_changed(manifest.data.get("versions", {}), run.shown_versions)
    if changed is not None:
        raise run_folder.changed_error(run.out, changed)
    missing = [name for name in run.outputs.required if not (run.out / name).exists()]
    damaged = integrity.find_damage(run.out, values["files"])
    if missing or damaged is not None:
        raise UsageError(
            "{path}: is missing or differs from what was written: pass {overwrite} instead of "
            "{resume}",
            "overwrite",
            "resume",
            path=damaged or run.out / missing[0],
        )
    run.progress.say("  every stage was finished before: nothing is left to do")
    return manifest


def is_manifest(values: Mapping[str, Any]) -> bool:
    """Return whether a record with a valid checksum has the form of a manifest."""
    forms: dict[str, type | tuple[type, ...]] = {
        **dict.fromkeys(("settings", "data", "rows", "cluster", "versions", "files"), dict),
        "stages": list,
        **dict.fromkeys(("seconds", "peak_memory_bytes"), (int, float)),
        "job": str,
    }
    optional: dict[str, type] = {
        **dict.fromkeys(("kmeans", "pca", "choose_k", "parquet", "scored", "drift"), dict),
        **dict.fromkeys(("users", "items"), int),
        "warnings": list,
    }
    rows, choose_k = values.get("rows") or {}, values.get("choose_k")
    return (
        all(isinstance(values.get(name), form) for name, form in forms.items())
        and all(isinstance(values[name], optional[name]) for name in optional if name in values)
        and integrity.are_digests(values["files"])
        and all(
            isinstance(rows.get(name), int) for name in ("read", "used", "unmapped", "rejected")
        )
        and isinstance(values["data"].get("fingerprint"), str)
        and isinstance(values["data"].get("versions", {}), dict)
        and (choose_k is None or isinstance(choose_k.get("reason"), str))
    )


def library_versions() -> dict[str, str]:
    """Return the versions of this package, Python and the libraries that results depend on."""
    versions = {"python": platform.python_version(), "platform": sys.platform}
    for name in ("segmentation", *_LIBRARIES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
