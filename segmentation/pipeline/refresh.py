"""The job that merges new ratings into a run's statistics and fits its segments again, warm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.pipeline import movement, segment, stages
from segmentation.pipeline.context import RESULT_FILES, RESUMABLE_FILES, open_run
from segmentation.pipeline.figure_process import REQUIRED_MEMORY, FigureRenderer
from segmentation.pipeline.manifest import load_finished
from segmentation.pipeline.score import check_layout, load_model_catalogue
from segmentation.reporting import drift, outputs, personas
from segmentation.storage import atomic, integrity
from segmentation.storage.run_folder import RunOutputs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from segmentation.pipeline.saved_run import SavedRun
    from segmentation.pipeline.segment import SegmentRun
    from segmentation.pipeline.settings import Execution, RefreshSettings
    from segmentation.progress import Progress

_DRIFT_FILES = ("drift.json", "drift.html", "drift.md")
OUTPUTS = RunOutputs(
    "refresh",
    (*RESULT_FILES, *_DRIFT_FILES),
    required=(*segment.OUTPUTS.required, *_DRIFT_FILES),
    resumable=RESUMABLE_FILES,
)
#: A refitted segment that shares less of its users with the earlier one is a new segment: the
#: Jaccard similarity below which a cluster is dissolved (Hennig 2007).
_MIN_SHARED = 0.5


@dataclass(frozen=True)
class RefreshRun:
    """A finished run: its segments, and ``drift.json``."""

    segments: SegmentRun
    drift: dict[str, Any]


def run_refresh(
    saved: SavedRun,
    settings: RefreshSettings,
    out: str | Path,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> RefreshRun:
    """Merge new ratings into a run; leave its segments, fitted again, and the drift.

    Segments keep their numbers and names.

    Parameters
    ----------
    saved
        The run that the ratings are added to; it stays as it is.
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
    playbook = personas.load_playbook(settings.playbook, films=settings.catalogue is None)
    with open_run(OUTPUTS, settings, out, execution, progress) as run:
        finished = load_finished(run, settings.stage_key("run"))
        if finished is not None:
            record = integrity.read_json(run.out / "drift.json")
            return RefreshRun(segment.read_run(run, finished), record)
        check_layout(model, run.layout, saved.folder, "from_run")
        stages.check_not_merged(run, saved)
        with run.open_folder(), FigureRenderer() as renderer:
            catalogue = load_model_catalogue(run, model)
            users = stages.aggregate_ratings(run, catalogue, earlier=saved)
            if run.has_spare_memory(REQUIRED_MEMORY):
                renderer.start()
            warnings = stages.collect_warnings(run, catalogue, users, model.words)
            X = stages.feature_matrix(run, users.blocks, len(catalogue.categories))
            active, X_active = segment.select_active(run, users, X)
            population = stages.count_population(run, users.blocks, X, model)
            clusters, flows = stages.refit_k_means(run, X_active, X, model)
            moves = movement.count_moves(
                saved.list_parts("assignments.parquet"),
                stages.iterate_labels(run, users.blocks, X, clusters.centers),
                len(model.centers),
                len(model.centers),
            )
            order, names = match_segments(moves.flows, model.personas)
            moves = moves._replace(flows=moves.flows[:, order])
            clusters = clusters._replace(centers=clusters.centers[order])
            axes, pca_record = stages.fit_pca(run, X_active)
            fit = segment.Fit(
                catalogue, users, X, active.users, X_active, clusters, axes, pca_record
            )
            segments, quality, segment_warnings = segment.describe(
                run, renderer, fit, playbook, len(names), names, model.personas
            )
            new = [s for s, name in enumerate(names) if name is None]
            odd = personas.find_contradicted(segments.profiles, names, playbook)
            if odd:
                listed = ", ".join(f"{s} ({names[s]})" for s in odd)
                segment_warnings.append(
                    f"segment{'s' if len(odd) > 1 else ''} {listed}: most of its users stayed, so "
                    "it has its name still, which its figures no longer fit"
                )
                run.progress.warn(f"  warning: {segment_warnings[-1]}")
            if new:
                listed = ", ".join(
                    f"{s} ({segments.names[s]}, was {model.personas[s]})" for s in new
                )
                segment_warnings.append(
                    f"new segment{'s' if len(new) > 1 else ''} {listed}: it shares less than half "
                    "of the earlier users with any earlier segment"
                )
                run.progress.warn(f"  warning: {segment_warnings[-1]}")
            measured = drift.measure_drift(
                model.population,
                population,
                model.centers,
                model.grid,
                catalogue.categories,
                moves,
                stages.measure_agreement(flows),
                model.words,
            )
            manifest = segment.collect_manifest(run, fit, quality, [*warnings, *segment_warnings])
            manifest.settings["playbook_sha256"] = segment.digest_playbook(settings)
            manifest.data["refreshed_from"] = saved.lineage
            manifest.data["merged"] = [*saved.merged, segment.describe_ratings(run, users)]
            manifest.data["synthetic"] = manifest.data["synthetic"] or model.synthetic
            manifest.drift = {"verdict": measured.verdict, "reason": measured.reason}
            atomic.write_json(run.folder.result_path("drift.json"), measured.to_json())
            outputs.write_refresh_drift(
                run.folder, manifest.to_json(), measured, segments.names, model.words
            )
            published = segment.publish(run, renderer, fit, segments, manifest)
            return RefreshRun(published, atomic.jsonable(measured.to_json()))


def match_segments(
    flows: NDArray[np.int64], names: tuple[str, ...]
) -> tuple[list[int], list[str | None]]:
    """Match refitted segments with the earlier ones by the users that they share.

    Parameters
    ----------
    flows
        Number of users of the earlier run by earlier and refitted segment, of shape
        (n_segments, n_segments).
    names
        The names of the earlier segments.

    Returns
    -------
    order : list of int
        For each number of an earlier segment, the refitted segment that gets it.
    names : list of str or None
        Its name; None where less than half of the users of both are in both.

    Examples
    --------
    >>> match_segments(np.array([[1, 9], [8, 0]]), ("Quiet", "Loud"))
    ([1, 0], ['Quiet', 'Loud'])
    """
    from scipy.optimize import linear_sum_assignment

    union = flows.sum(axis=1)[:, None] + flows.sum(axis=0)[None, :] - flows
    jaccard = flows / np.maximum(union, 1)
    _, order = linear_sum_assignment(-jaccard)
    return order.tolist(), [
        name if jaccard[s, order[s]] >= _MIN_SHARED else None for s, name in enumerate(names)
    ]
