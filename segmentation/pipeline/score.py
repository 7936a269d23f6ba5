"""The job that puts the users of new ratings into the segments of a saved run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.errors import DataError
from segmentation.features import user_blocks
from segmentation.pipeline import movement, stages
from segmentation.pipeline.context import RESUMABLE_FILES, open_run
from segmentation.pipeline.manifest import build_manifest, load_finished
from segmentation.reporting import drift, outputs
from segmentation.schema import USER
from segmentation.storage import atomic, integrity, parquet
from segmentation.storage.run_folder import RunOutputs

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from segmentation.datasets.layouts import Layout
    from segmentation.pipeline.context import RunContext
    from segmentation.pipeline.manifest import RunManifest
    from segmentation.pipeline.model import SavedModel
    from segmentation.pipeline.saved_run import SavedRun
    from segmentation.pipeline.settings import Execution, ScoreSettings
    from segmentation.progress import Progress
    from segmentation.schema import Catalogue, Moves, UserStatistics

UNSCORED = "unscored.parquet"
OUTPUTS = RunOutputs(
    "score",
    (
        *("assignments.parquet", UNSCORED, "drift.json", "report.html", "report.md"),
        *("model/model.json", *RESUMABLE_FILES),
    ),
    required=(
        *("assignments.parquet", "drift.json", "report.html", "report.md", "model/model.json"),
    ),
    resumable=RESUMABLE_FILES,
)
#: A new catalogue may lack this share of the model's categories; with fewer it is another one.
_MAX_MISSING = 0.1


@dataclass(frozen=True)
class ScoreRun:
    """A finished run: its folder, the model's personas, ``drift.json``, and the manifest."""

    folder: Path
    personas: tuple[str, ...]
    drift: dict[str, Any]
    manifest: RunManifest


def run_score(
    saved: SavedRun,
    settings: ScoreSettings,
    out: str | Path,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> ScoreRun:
    """Assign the users of new ratings to the segments of a run; leave lists and the drift.

    Parameters
    ----------
    saved
        The run whose model is used.
    out
        The folder of the results.
    execution
        Where and how to run; None for this process.
    progress
        Receives the stages; None reports nothing.

    Raises
    ------
    SegmentationError
        One of its subclasses, with a message for the user.
    """
    saved.check_apart(out)
    model = saved.model
    with open_run(OUTPUTS, settings, out, execution, progress) as run:
        finished = load_finished(run, settings.stage_key("score"))
        if finished is not None:
            record = integrity.read_json(run.out / "drift.json")
            return ScoreRun(run.out, model.personas, record, finished)
        check_layout(model, run.layout, saved.folder, "model")
        with run.open_folder():
            catalogue = load_model_catalogue(run, model)
            users = stages.aggregate_ratings(run, catalogue, keep_all_users=True)
            least = settings.min_ratings
            client = run.cluster.client
            blocks = user_blocks.select_users(client, users.blocks, max(1, least))
            unscored = user_blocks.select_users(client, users.blocks, 0, max(1, least))
            if not blocks.users:
                raise DataError(
                    "{min_ratings} {least}: none of {n_users:,} users has so many ratings of known "
                    "{items}: lower it, or name the catalogue of these ratings",
                    "min_ratings",
                    least=max(1, least),
                    n_users=users.blocks.users,
                    items=model.words.items,
                )
            users = users._replace(blocks=blocks)
            warnings = stages.collect_warnings(
                run, catalogue, users, model.words, shape_segments=False
            )
            X = stages.feature_matrix(run, blocks, len(catalogue.categories))
            population = stages.count_population(run, blocks, X, model)
            stages.write_assignments(
                run,
                X,
                users,
                model.centers,
                model.axes,
                model.personas,
                catalogue.categories,
                model.distance_p99,
            )
            reasons = _write_unscored(run, unscored, least)
            measured = drift.measure_drift(
                model.population,
                population,
                model.centers,
                model.grid,
                catalogue.categories,
                _count_moves(run, saved),
                words=model.words,
            )
            manifest = build_manifest(
                run,
                users.rows,
                users=blocks.users,
                items=users.n_items,
                warnings=warnings,
                scored={
                    "model": str(saved.folder),
                    "model_sha256": saved.model_sha256,
                    "unscored": reasons,
                    "outliers": int(population.outliers.sum()),
                },
                drift={"verdict": measured.verdict, "reason": measured.reason},
            )
            for field in ("k", "k_range", "playbook", "seed"):
                del manifest.settings[field]
            manifest.data["catalogue"] = catalogue.notes
            _write_results(run, manifest, measured, model)
            return ScoreRun(run.out, model.personas, atomic.jsonable(measured.to_json()), manifest)


def check_layout(model: SavedModel, layout: Layout, folder: Path, field: str) -> None:
    """Check that ratings mean in new data what they meant in those of the model.

    ``field`` is the setting that names its folder, for messages.

    Raises
    ------
    DataError
        If they don't.
    """
    kind = layout.reading.kind
    if kind != model.ratings:
        texts = {"ratings": "ratings", "counts": "counts", "rows": "rows that count one each"}
        raise DataError(
            f"{{{field}}} {{path}}: was fitted to {{before}}, and the new data hold {{now}}: read "
            "them alike, with or without {implicit}",
            field,
            "implicit",
            path=folder,
            before=texts[model.ratings],
            now=texts[kind],
        )
    if layout.effective_scale != model.scale:
        before, now = (f"{low:g}:{high:g}" for low, high in (model.scale, layout.effective_scale))
        raise DataError(
            f"{{{field}}} {{path}}: was fitted to ratings on {{before}}, and the new ones are on "
            "{now}: pass {scale} {before} if that is their scale, or convert them",
            field,
            "scale",
            path=folder,
            before=before,
            now=now,
        )


def load_model_catalogue(run: RunContext, model: SavedModel) -> Catalogue:
    """Read the catalogue of new data; its categories become those of the model.

    Raises
    ------
    DataError
        If it lacks too many of them.
    """
    known = set(run.layout.categories)
    run.layout = replace(run.layout, categories=model.categories, is_closed=True)
    catalogue = stages.load_catalogue(run)
    used = set(np.unique(catalogue.codes).tolist())
    missing = [
        name for g, name in enumerate(model.categories) if g not in used and name not in known
    ]
    catalogue.notes["categories_missing"] = len(missing)
    if not missing:
        return catalogue
    words, path = model.words, run.layout.items
    listed = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
    if len(missing) > _MAX_MISSING * len(model.categories):
        raise DataError(
            f"{path}: has no {words.item} of {len(missing):,} of the model's "
            f"{len(model.categories):,} {words.categories} ({listed}): name the catalogue that the "
            "model was fitted with, or one with the same " + words.categories
        )
    run.progress.warn(
        f"  warning: {path}: has no {words.item} of {len(missing):,} of the model's "
        f"{words.categories} ({listed})"
    )
    return catalogue


def _write_unscored(
    run: RunContext, unscored: user_blocks.UserBlocks, least: int
) -> dict[str, int]:
    """Write the users without a segment, if any, and why; return their numbers by reason."""
    if not unscored.users:
        return {}
    client = run.cluster.client
    parquet.write_parts(
        client,
        run.folder.result_path(UNSCORED),
        unscored_table,
        [unscored.statistics, least],
        2 * run.cluster.threads,
    )
    n_without = user_blocks.select_users(client, unscored, 0, 1).users
    return {"no_known_item": n_without, "few_ratings": unscored.users - n_without}


def unscored_table(statistics: UserStatistics, least: int) -> pa.Table:
    """Return one block's users without a segment as a table with the reason."""
    import pyarrow as pa

    has_item = statistics.items > 0
    reasons = parquet.arrow_strings(["no known item", f"fewer than {least} ratings"])
    return pa.table(
        {
            USER: parquet.arrow_array(statistics.users),
            "items": parquet.arrow_array(statistics.items.astype(np.int64)),
            "reason": pa.DictionaryArray.from_arrays(
                parquet.arrow_array(has_item.astype(np.int32)), reasons
            ),
        }
    )


def _count_moves(run: RunContext, saved: SavedRun) -> Moves | None:
    """Count the moves of the users that both runs have; None without the earlier assignments."""
    name, k = "assignments.parquet", len(saved.model.centers)
    now = movement.read_assignments(parquet.list_parts(run.folder.result_path(name)))
    try:
        saved.check_files("model", name)
        return movement.count_moves(saved.list_parts(name), now, k, k)
    except DataError as error:
        run.progress.warn(f"  warning: movement is not counted: {error}")
        return None


def _write_results(
    run: RunContext, manifest: RunManifest, measured: drift.Drift, model: SavedModel
) -> None:
    folder = run.folder
    with run.progress.stage("report", "drift and report"):
        atomic.write_json(folder.result_path("drift.json"), measured.to_json())
        # The statistics were saved for a resumed run. They are not those of the model's users.
        folder.discard("model")
        model.save(folder.result_path("model"))
        run.record_costs(manifest)
        outputs.write_drift_reports(
            folder, manifest.to_json(), measured, model.personas, model.words
        )
    run.record_costs(manifest)
    folder.publish(manifest.to_json())
