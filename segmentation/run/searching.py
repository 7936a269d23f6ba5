"""The stage that chooses k, for `choose-k` and `--k auto`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segmentation.errors import DataError
from segmentation.reporting import k_selection
from segmentation.run.settings import COMPARED_K
from segmentation.schema import KFigures, KSearch

if TYPE_CHECKING:
    from segmentation.run.work import Work


def search(work: Work, X: Any) -> KSearch:
    """Try the range that the settings name, or take up what a finished stage found.

    Raises
    ------
    DataError
        If the audience has fewer distinct users than the range asks for.
    """
    key = work.settings.key("choose_k")
    done = work.folder.stage("choose_k", key)
    if done is not None:
        work.progress.say("  k: taken from the finished stage")
        return restored(done)
    from segmentation.estimators._k_means import TooFewRowsError
    from segmentation.estimators.model_selection import choose_k

    low, high = work.settings.k_range
    with work.progress.stage("choose_k", "choosing k") as stage:
        if X.shape[0] < high:
            raise _too_few(X.shape[0], low, high)
        try:
            found = choose_k(
                X, low, high, work.settings.seed, COMPARED_K,
                lambda done, total: stage.update(done, total, "steps"),
            )  # fmt: skip
        except TooFewRowsError as error:
            raise _too_few(error.distinct, low, high, "distinct ") from error
        stage.note = f"{found.recommended} of {low} to {high}"
    work.folder.finish_stage("choose_k", key, found._asdict())
    return found


def _too_few(users: int, low: int, high: int, kind: str = "") -> DataError:
    told = f"{users} {kind}user" + ("s" if users > 1 else "") + f" for --k-range {low}-{high}"
    if users <= 2:
        return DataError(f"{told}: there is nothing to choose from: use segment with --k {users}")
    return DataError(f"{told}: use --k-range {min(low, users - 1)}-{users}")


def restored(found: dict[str, Any]) -> KSearch:
    """Return a search from what JSON kept of it."""
    figures = tuple(
        KFigures(*values)._replace(jaccard=tuple(values[-1])) for values in found["figures"]
    )
    return KSearch(**{**found, "figures": figures})


def record(found: KSearch) -> dict[str, Any]:
    """Return a search as it stands in the manifest and in ``choose_k.json``."""
    return {
        "recommended": found.recommended,
        "reason": k_selection.reason(found),
        "sound": found.sound,
        "range": [found.low, found.high],
        "elbow": k_selection.elbow(found),
        "silhouette_rows": found.silhouette_rows,
        "stability_rows": found.stability_rows,
        "candidates": [
            {**figures._asdict(), "jaccard": list(figures.jaccard)} for figures in found.figures
        ],
    }
