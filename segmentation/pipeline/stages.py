"""The stages of a run, each of which does one step by calling another room.

A stage takes the :class:`~segmentation.pipeline.context.RunContext` first and then the results of
earlier stages. Where it can be resumed, it saves its result and takes it up again.
"""

from __future__ import annotations

import contextlib
import importlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.datasets import catalogue as catalogues
from segmentation.datasets import kaggle
from segmentation.errors import DataError
from segmentation.features import aggregate, presets, user_blocks
from segmentation.features.population import make_grid, merge_populations
from segmentation.features.reject_causes import label_column
from segmentation.pipeline import assignments
from segmentation.pipeline.context import RATED_ITEMS, RESUMABLE_FILES, USER_STATISTICS
from segmentation.reporting import k_selection, percentiles, personas, profiles
from segmentation.schema import Axes, KFigures, KSearch
from segmentation.storage import atomic, parquet
from segmentation.tasks import map_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import dask.array as da
    from distributed import Client, Future
    from numpy.typing import NDArray

    from segmentation.features.row_counts import RowCounts
    from segmentation.features.user_blocks import UserBlocks
    from segmentation.pipeline.context import RunContext
    from segmentation.pipeline.model import SavedModel
    from segmentation.pipeline.saved_run import SavedRun
    from segmentation.reporting.personas import Playbook
    from segmentation.reporting.profiles import Activity
    from segmentation.schema import (
        Catalogue,
        Persona,
        Population,
        SegmentProfile,
        UserStatistics,
        Words,
    )

#: Users from whom the figure takes its centres and outline, and some of whom it draws.
FIGURE_USERS = 100_000
#: From this share of unmapped ratings a run warns about its catalogue.
_UNMAPPED_WARNING = 0.05
#: The same for items without a category, and for users without any.
_UNCATEGORIZED_WARNING = 0.1
#: The same for users with a single rating.
_SINGLE_WARNING = 0.5
#: So many ratings whose users, numbers and sums are those of others are taken for the same ratings.
_MIN_RECOGNIZED = 50
#: A segment of fewer users is too small to describe.
SMALL_SEGMENT = 10
#: The estimators and what they import: dask-ml, scikit-learn, SciPy.
_ESTIMATOR_MODULES = ("segmentation.estimators.kmeans", "segmentation.estimators.pca")


class AggregatedUsers(NamedTuple):
    """The result of reading the ratings: statistics per user, and counts of rows and items.

    ``digest`` is that of the ratings that were read, without those of an earlier run.
    """

    blocks: UserBlocks
    rows: dict[str, int]
    n_items: int
    digest: str


class Clustering(NamedTuple):
    """Centres in the order of the segments, and what the manifest records of the fit."""

    centers: NDArray[np.float64]
    record: dict[str, Any]


class Segments(NamedTuple):
    """The segments as they are described, what was counted, and some users for the figure.

    ``points`` are those users on the two axes, of shape (n_shown, 2), and ``labels`` their
    segments.
    """

    profiles: list[SegmentProfile]
    personas: list[Persona]
    distance_p99: NDArray[np.float64]
    population: Population
    points: NDArray[np.float64]
    labels: NDArray[np.int32]

    @property
    def names(self) -> tuple[str, ...]:
        """The persona of each segment."""
        return tuple(persona.name for persona in self.personas)


def load_catalogue(run: RunContext) -> Catalogue:
    """Read the catalogue that the ratings are joined with."""
    with run.progress.stage("catalogue", "catalogue") as stage:
        catalogue = catalogues.load_catalogue(run.layout, run.settings.effective_join)
        words, n_categories = run.layout.words, len(catalogue.categories)
        stage.note = f"{len(catalogue.item_ids):,} {words.items}, {n_categories} {words.categories}"
    return catalogue


def _load_users(run: RunContext, path: Path, result: dict[str, Any]) -> AggregatedUsers:
    """Return the users of a finished stage; raise an error if its record has another form."""
    rows = {name: int(result["rows"][name]) for name in result["rows"]}
    shared = run.cluster.sees_folder(path.parent)
    client = run.cluster.client
    blocks = user_blocks.load_blocks(client, path, result["blocks"], shared=shared)
    return AggregatedUsers(blocks, rows, int(result["items"]), str(result["digest"]))


def aggregate_ratings(
    run: RunContext,
    catalogue: Catalogue,
    *,
    keep_all_users: bool = False,
    earlier: SavedRun | None = None,
) -> AggregatedUsers:
    """Stream the ratings into blocks of user statistics, and save them for a resumed run.

    Parameters
    ----------
    keep_all_users
        Whether users who only rated items that are not in the catalogue are kept.
    earlier
        A run to whose statistics the new ones are added.
    """
    folder, cluster, settings = run.folder, run.cluster, run.settings
    path = folder.result_path(USER_STATISTICS)
    result = run.stage_result("ratings")
    if result is not None:
        try:
            users = _load_users(run, path, result)
        except (ValueError, KeyError, TypeError):
            run.progress.warn(
                f"  warning: {path}: doesn't fit its record, so the ratings stage is computed again"
            )
        else:
            run.progress.say("  ratings: taken from the finished stage")
            return users
    folder.discard("rejected")
    with _imports_in_background():
        blocks, counts = aggregate.aggregate_ratings(
            cluster.client,
            run.layout,
            catalogue,
            deduplicate=settings.deduplicate,
            max_rejected=settings.max_rejected,
            keep_all_users=keep_all_users,
            partition_bytes=settings.partition_bytes,
            memory=cluster.budget,
            n_threads=cluster.threads,
            check_shuffle=cluster.check_shuffle,
            trim_memory=cluster.trim_memory,
            versions=run.task_versions,
            progress=run.progress,
        )
        run.check_input()
        write_rejected_rows(run, counts)
        is_seen = np.unpackbits(counts.seen, count=len(catalogue.item_ids)).astype(np.bool_)
        items = catalogue.item_ids[is_seen]
        digest = user_blocks.digest_users(cluster.client, blocks)
        users = AggregatedUsers(blocks, counts.record(), len(items), digest)
        if earlier is not None:
            users, items = _merge_earlier(run, earlier, users, items)
        user_blocks.save_blocks(
            cluster.client, path, users.blocks, catalogue.categories, 2 * cluster.threads
        )
        parquet.write_column(folder.result_path(RATED_ITEMS), "item", items)
    cluster.trim_memory()
    result = {**users._asdict(), "items": users.n_items, "blocks": users.blocks.sizes}
    run.finish_stage("ratings", result, RESUMABLE_FILES)
    return users


def _merge_earlier(
    run: RunContext, earlier: SavedRun, new: AggregatedUsers, items: NDArray[Any]
) -> tuple[AggregatedUsers, NDArray[Any]]:
    """Add new statistics to those of an earlier run; return all users and all rated items.

    Raises
    ------
    DataError
        If the same ratings were merged before, or ids are texts in the one and numbers in the
        other.
    """
    client, path = run.cluster.client, earlier.folder / USER_STATISTICS
    for merged in earlier.merged:
        if merged["digest"] == new.digest:
            if new.rows["used"] >= _MIN_RECOGNIZED:
                raise _merged_before_error(run, earlier, merged)
            run.progress.warn(
                f"  warning: {run.layout.ratings}: its {new.rows['used']:,} "
                f"{run.layout.words.ratings} look like those of {merged['source']}, which are in "
                f"{earlier.folder} already; if they are the same, they count twice now"
            )
    with run.progress.stage("merge", "merge") as stage:
        rated = parquet.read_column(earlier.folder / RATED_ITEMS)
        sizes = [parquet.count_rows(part) for part in earlier.list_parts(USER_STATISTICS)]
        shared = run.cluster.sees_folder(path.parent)
        blocks = user_blocks.load_blocks(client, path, sizes, shared=shared)
        kinds = client.gather(
            map_tasks(client, "kind", _id_kind, [blocks.statistics[0], new.blocks.statistics[0]])
        )
        if kinds[0] != kinds[1] or (len(rated) and rated.dtype.kind != items.dtype.kind):
            raise DataError(
                "{path}: its ids are {now}, and those of {before} are not: pass {ids} to read them "
                "alike",
                "ids",
                path=run.layout.ratings,
                now="texts" if "S" in (kinds[1], items.dtype.kind) else "numbers",
                before=earlier.folder,
            )
        merged_blocks = user_blocks.merge_blocks(
            client,
            blocks,
            new.blocks,
            run.cluster.threads,
            aggregate.limit_block_users(run.cluster.budget, len(earlier.model.categories)),
        )
        names = {**earlier.manifest.rows, **new.rows}
        rows = {name: earlier.manifest.rows.get(name, 0) + new.rows.get(name, 0) for name in names}
        all_items = np.union1d(rated, items)
        n_new = merged_blocks.users - sum(sizes)
        stage.note = f"{merged_blocks.users:,} users, {n_new:,} of them new"
    return AggregatedUsers(merged_blocks, rows, len(all_items), new.digest), all_items


def _id_kind(block: UserStatistics) -> str:
    return block.users.dtype.kind


def _merged_before_error(
    run: RunContext, earlier: SavedRun, merged: Mapping[str, Any]
) -> DataError:
    return DataError(
        "{path}: the same ratings are in {before} already ({source}): name others as {data} or "
        "{ratings}",
        "data",
        "ratings",
        path=run.layout.ratings,
        before=earlier.folder,
        source=merged["source"],
    )


def check_not_merged(run: RunContext, earlier: SavedRun) -> None:
    """Check, before reading anything, that these files were not merged into an earlier run.

    Raises
    ------
    DataError
        If they were.
    """
    for merged in earlier.merged:
        if merged["fingerprint"] == run.fingerprint:
            raise _merged_before_error(run, earlier, merged)


@contextmanager
def _imports_in_background() -> Iterator[None]:
    """Import the estimators on a thread while the workers read, which leave the GIL free.

    Numba imports ``sparse``, its extension, where a worker first calls compiled code. dask-ml
    imports it too, and two threads that begin at its two ends would wait for each other.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("sparse")
    with ThreadPoolExecutor(1, "imports") as thread:
        imports = [thread.submit(importlib.import_module, name) for name in _ESTIMATOR_MODULES]
        yield
        for future in imports:
            future.result()


def write_rejected_rows(run: RunContext, counts: RowCounts) -> None:
    """Write the rejected rows, if any, with their place and reason."""
    reading = run.layout.reading
    rows = [row._replace(reason=label_column(row.reason, reading)) for row in counts.listed]
    if rows:
        path = run.folder.result_path("rejected/ratings.csv")
        atomic.write_csv(path, ("file", "line", "reason", "text"), rows)
    if counts.unlisted:
        run.progress.warn(
            f"  warning: rejected/ratings.csv lists {len(counts.rejected):,} of "
            f"{counts.n_rejected:,} rejected rows"
        )


def collect_warnings(
    run: RunContext,
    catalogue: Catalogue,
    users: AggregatedUsers,
    words: Words,
    *,
    shape_segments: bool = True,
) -> list[str]:
    """Report what is odd about the data on the terminal, and return it for the manifest.

    ``shape_segments`` says whether segments will be made from these users.

    Raises
    ------
    DataError
        If text ids may be numbers that are written in two ways.
    """
    layout, rows = run.layout, users.rows
    warnings = []
    survey = user_blocks.survey_users(run.cluster.client, users.blocks)
    if run.settings.ids == "auto":
        _check_text_ids(layout.ratings, survey)
    single = survey.single / users.blocks.users
    if shape_segments and single > _SINGLE_WARNING and run.settings.min_ratings == 1:
        warnings.append(
            f"{single:.0%} of the users have a single rating, which says little about them: "
            "with --min-ratings 2 they are assigned to segments, and don't shape them"
        )
    n_items, without = len(catalogue.item_ids), catalogue.notes["without_category"]
    uncategorized = survey.uncategorized / users.blocks.users
    if max(without / n_items, uncategorized) > _UNCATEGORIZED_WARNING:
        empty = (
            f", and {uncategorized:.0%} of the users have nothing in any: their profiles are empty"
        )
        warnings.append(
            f"{without:,} of {n_items:,} {words.items} have no {words.category} that counts"
            + (empty if uncategorized >= 0.005 else "")
        )
    if layout.name == "kaggle" and run.settings.effective_join == "direct":
        warnings.append(catalogues.direct_join_warning(catalogue))
    else:
        share = rows["unmapped"] / max(rows["used"] + rows["unmapped"], 1)
        if share > _UNMAPPED_WARNING:
            warnings.append(
                f"{share:.1%} of the {words.ratings} are of {words.items} that the catalogue "
                f"lacks: check that it is complete and belongs to these {words.ratings}"
            )
    if run.settings.data == "kaggle" and layout.ratings.startswith(layout.folder):
        other_size = kaggle.check_rows(layout.ratings, rows["read"])
        warnings += [other_size] if other_size else []
    warnings += catalogues.catalogue_warnings(catalogue)
    if layout.ignored_files:
        n_more = len(layout.ignored_files) - 1
        others = f" and {n_more:,} more" if n_more else ""
        warnings.append(
            f"{layout.ignored_files[0]}{others}: not read, since {layout.ratings} is; to read "
            "several files, name them all as the ratings, as in 'ratings*'"
        )
    for warning in warnings:
        run.progress.warn(f"  warning: {warning}")
    return warnings


def _check_text_ids(path: str, survey: user_blocks.UserSurvey) -> None:
    if survey.whole and survey.decimal:
        raise DataError(
            "{path}: its users are texts, and some numbers among them end in .0 and others don't, "
            "such as {decimal!r} and {whole!r}: write them one way, or pass {ids} text to keep all "
            "as they are",
            "ids",
            path=path,
            whole=survey.whole,
            decimal=survey.decimal,
        )


def feature_matrix(run: RunContext, blocks: UserBlocks, n_categories: int) -> da.Array:
    """Return the features of users, of shape (n_users, n_categories)."""
    return presets.feature_matrix(run.cluster.client, blocks, run.settings.preset, n_categories)


def check_segments(run: RunContext, segments: Segments, k: int) -> list[str]:
    """Report what is odd about the segments on the terminal, and return it for the manifest.

    ``k`` is the number of segments that was asked for.
    """
    warnings = []
    n_segments = len(segments.profiles)
    if n_segments < k:
        warnings.append(
            f"{n_segments} segment{'s' if n_segments > 1 else ''} in place of {k}: no more users "
            "differ from each other in their categories"
        )
    small = [profile for profile in segments.profiles if profile.users < SMALL_SEGMENT]
    if small:
        listed = ", ".join(f"{profile.segment} ({profile.users:,})" for profile in small)
        plural = "s" if len(small) > 1 else ""
        warnings.append(
            f"fewer than {SMALL_SEGMENT} users in segment{plural} {listed}: the figures are those "
            "of single people, and may be chance"
        )
    for warning in warnings:
        run.progress.warn(f"  warning: {warning}")
    return warnings


def select_active(run: RunContext, users: AggregatedUsers) -> UserBlocks:
    """Return the users that shape the segments: those with enough ratings.

    Raises
    ------
    DataError
        If nobody has.
    """
    least = run.settings.min_ratings
    active = user_blocks.select_active(run.cluster.client, users.blocks, least)
    n_users, n_few = users.blocks.users, users.blocks.users - active.users
    if not active.users:
        raise DataError(
            "{min_ratings} {least}: none of {n_users:,} users has so many ratings: lower it",
            "min_ratings",
            least=least,
            n_users=n_users,
        )
    if n_few:
        run.progress.say(
            f"  users: {n_few:,} of {n_users:,} have fewer than {least} ratings: they are assigned "
            "to segments, and don't shape them"
        )
    return active


def choose_k(run: RunContext, X: da.Array) -> KSearch:
    """Search the range of k for the number of segments to recommend.

    Raises
    ------
    DataError
        If the audience has fewer distinct users than the range asks for.
    """
    result = run.stage_result("choose_k")
    if result is not None:
        run.progress.say("  k: taken from the finished stage")
        return _search_from_json(result)
    from segmentation.estimators import model_selection
    from segmentation.estimators.exceptions import TooFewDistinctRowsError
    from segmentation.pipeline.settings import COMPARED_K

    low, high = run.settings.k_range
    with run.progress.stage("choose_k", "choosing k") as stage:
        if X.shape[0] < high:
            raise _too_few_users_to_search(f"{X.shape[0]} user", X.shape[0], low, high)
        try:
            search = model_selection.choose_k(
                X,
                low,
                high,
                run.settings.seed,
                COMPARED_K,
                lambda done, total: stage.update(done, total, "steps"),
            )
        except TooFewDistinctRowsError as error:
            n_users = error.n_distinct
            message = f"{n_users} distinct user"
            raise _too_few_users_to_search(message, n_users, low, high) from error
        stage.note = f"{search.recommended} of {low} to {high}"
    run.finish_stage("choose_k", search._asdict())
    return search


def _search_from_json(values: Mapping[str, Any]) -> KSearch:
    figures = (KFigures(*row) for row in values["figures"])
    figures = (row._replace(jaccard=tuple(row.jaccard)) for row in figures)
    return KSearch(**{**values, "figures": tuple(figures)})


def _too_few_users_to_search(what: str, n_users: int, low: int, high: int) -> DataError:
    values = {"what": what + "s" * (n_users != 1), "n_users": n_users, "low": low, "high": high}
    if n_users <= 2:
        return DataError(
            "{what} for {k_range} {low}-{high}: there is nothing to choose from: run segment with "
            "{k} {n_users}",
            "k_range",
            "k",
            **values,
        )
    return DataError(
        "{what} for {k_range} {low}-{high}: pass {k_range} {lowest}-{n_users}",
        "k_range",
        lowest=min(low, n_users - 1),
        **values,
    )


def fit_k_means(
    run: RunContext, X_active: da.Array, X: da.Array, users: AggregatedUsers, k: int
) -> Clustering:
    """Fit K-Means, and number the segments by rising items per user.

    Where fewer profiles of users are distinct, there are as many segments as these.

    Parameters
    ----------
    X_active
        The features of the users that shape the segments.
    X
        Those of all users.

    Raises
    ------
    DataError
        If the audience has fewer users than segments.
    """
    result = run.stage_result("kmeans")
    if result is not None:
        run.progress.say("  K-Means: taken from the finished stage")
        return Clustering(np.array(result["centers"]), result["record"])
    from segmentation.estimators.exceptions import TooFewDistinctRowsError
    from segmentation.estimators.kmeans import KMeans

    with run.progress.stage("kmeans", "K-Means") as stage:
        if X_active.shape[0] < k:
            raise DataError(
                "{what} for {k} {value}: pass {k} {n_users} or lower",
                "k",
                what="1 user" if X_active.shape[0] == 1 else f"{X_active.shape[0]} users",
                value=k,
                n_users=X_active.shape[0],
            )
        n_clusters, model = k, None
        while model is None:
            try:
                model = KMeans(n_clusters, random_state=run.settings.seed).fit(X_active)
            except TooFewDistinctRowsError as error:
                n_clusters = error.n_distinct
        activity = _measure_activity(run.cluster.client, X, users.blocks, model.cluster_centers_)
        model.reorder(profiles.order_by_activity(activity))
        stage.note = f"k = {n_clusters}, {model.n_iter_} pass{'es' if model.n_iter_ > 1 else ''}"
    record = {"n_clusters": n_clusters, "inertia": model.inertia_, "n_iter": model.n_iter_}
    clusters = Clustering(model.cluster_centers_, record)
    run.finish_stage("kmeans", clusters._asdict())
    run.cluster.trim_memory()
    return clusters


def refit_k_means(
    run: RunContext, X_active: da.Array, X: da.Array, model: SavedModel
) -> tuple[Clustering, NDArray[np.int64]]:
    """Fit K-Means from the centres of an earlier run, in the order of these.

    Returns
    -------
    clusters : Clustering
    flows : ndarray of shape (n_segments, n_segments), int64
        Number of users by the segment that they are in under the earlier centres, and the refitted.
    """
    from segmentation.estimators.kmeans import KMeans

    with run.progress.stage("kmeans", "K-Means") as stage:
        k = len(model.centers)
        fitted = KMeans(k, init=model.centers, n_init=1, random_state=run.settings.seed)
        fitted.fit(X_active)
        client = run.cluster.client
        tasks = map_tasks(
            client,
            "flows",
            assignments.count_flows,
            _blocks(client, X),
            model.centers,
            fitted.cluster_centers_,
        )
        flows = np.sum(client.gather(tasks), axis=0)
        plural = "es" if fitted.n_iter_ > 1 else ""
        stage.note = f"k = {k}, {fitted.n_iter_} pass{plural} from the earlier centres"
    record = {"n_clusters": k, "inertia": fitted.inertia_, "n_iter": fitted.n_iter_}
    return Clustering(fitted.cluster_centers_, record), flows


def iterate_labels(
    run: RunContext, blocks: UserBlocks, X: da.Array, centers: NDArray[np.float64]
) -> Iterator[tuple[NDArray[Any], NDArray[np.int32]]]:
    """Yield the users of each block and their segments, holding a few blocks at a time."""
    client = run.cluster.client
    features, size = _blocks(client, X), 2 * run.cluster.threads
    for start in range(0, len(features), size):
        tasks = map_tasks(
            client,
            "labels",
            assignments.label_users,
            blocks.statistics[start : start + size],
            features[start : start + size],
            centers,
        )
        yield from client.gather(tasks)


def measure_agreement(flows: NDArray[np.int64]) -> float:
    """Return the adjusted Rand index of two assignments from the users that share each pair."""
    from segmentation.estimators.stability import adjusted_rand_score

    before, now = np.nonzero(flows)
    return adjusted_rand_score(before, now, flows[before, now].astype(np.float64))


def _measure_activity(
    client: Client, X: da.Array, blocks: UserBlocks, centers: NDArray[np.float64]
) -> Activity:
    tasks = map_tasks(
        client, "activity", _measure_block_activity, blocks.statistics, _blocks(client, X), centers
    )
    return profiles.merge_activity(client.gather(tasks))


def _measure_block_activity(
    block: UserStatistics, features: NDArray[np.float32], centers: NDArray[np.float64]
) -> Activity:
    from segmentation.estimators._lloyd import assign_block

    return profiles.block_activity(block, assign_block(features, centers).labels, len(centers))


def fit_pca(run: RunContext, X: da.Array) -> tuple[Axes, dict[str, Any]]:
    """Fit incremental PCA for the picture; return two axes, and what the manifest records.

    Where the matrix has fewer than two rows or columns the missing axes are zeros.
    """
    result = run.stage_result("pca")
    if result is not None:
        return Axes(*(np.array(values) for values in result["axes"])), result["record"]
    from segmentation.estimators.pca import IncrementalPCA

    with run.progress.stage("pca", "PCA") as stage:
        n_components = min(2, *X.shape)
        model = IncrementalPCA(n_components=n_components).fit(X)
        missing = 2 - n_components
        axes = Axes(
            model.mean_,
            np.pad(model.components_, ((0, missing), (0, 0))),
            np.pad(model.explained_variance_ratio_, (0, missing)),
        )
        stage.note = f"{axes.explained_variance_ratio.sum():.0%} of the variance on two axes"
    record = {
        "explained_variance_ratio": axes.explained_variance_ratio,
        "angle_to_exact_degrees": model.angle_to_exact_degrees_,
    }
    run.finish_stage("pca", {"axes": list(axes), "record": record})
    return axes, record


def describe_segments(
    run: RunContext,
    X: da.Array,
    users: AggregatedUsers,
    clusters: Clustering,
    axes: Axes,
    categories: tuple[str, ...],
    playbook: Playbook,
    names: Sequence[str | None] | None = None,
    retired: Sequence[str] = (),
) -> Segments:
    """Profile and name the segments, one task per block and pass.

    ``names`` are those that segments have already, None for a new one, which gets none of the names
    in ``retired``.
    """
    client, blocks = run.cluster.client, users.blocks
    with run.progress.stage("profiles", "profiles"):
        features = _blocks(client, X)
        shown = _sample_per_block(blocks, run.settings.seed)
        tasks = map_tasks(
            client,
            "profile",
            assignments.summarize_block,
            blocks.statistics,
            features,
            shown,
            clusters.centers,
            axes,
            make_grid(run.settings.preset, run.layout.effective_scale),
            run.settings.min_ratings,
        )
        sums, counts, histograms, points, labels, populations = zip(
            *client.gather(tasks), strict=True
        )
        distance_p99 = _distance_percentiles(client, features, clusters.centers, histograms)
        medians = profiles.median_ratings(
            profiles.merge_rating_counts(counts), len(clusters.centers)
        )
        segment_profiles = profiles.build_profiles(
            profiles.merge_sums(sums),
            medians,
            distance_p99,
            run.layout.effective_scale,
            playbook.choose_words(run.layout.words),
        )
        segment_personas = personas.assign_personas(
            segment_profiles, categories, playbook, names, retired
        )
    run.cluster.trim_memory()
    return Segments(
        segment_profiles,
        segment_personas,
        distance_p99,
        merge_populations(populations),
        np.concatenate(points),
        np.concatenate(labels),
    )


def _sample_per_block(blocks: UserBlocks, seed: int) -> list[NDArray[np.int64]]:
    """Draw the users that the figure shows; return each block's rows among them."""
    from segmentation.estimators._blockwise import sample_row_numbers

    numbers = sample_row_numbers(blocks.users, FIGURE_USERS, seed)
    stops = np.cumsum(blocks.sizes)
    per_block = np.split(numbers, np.searchsorted(numbers, stops[:-1]))
    return [
        rows - (stop - size)
        for rows, stop, size in zip(per_block, stops, blocks.sizes, strict=True)
    ]


def _distance_percentiles(
    client: Client,
    features: list[Future],
    centers: NDArray[np.float64],
    histograms: Sequence[percentiles.Histogram],
) -> NDArray[np.float64]:
    """Return the 99th percentile of each segment's distances, exactly, in a second pass."""
    histogram = percentiles.merge_histograms(histograms)
    keys = percentiles.bins_needed(histogram, len(centers))
    tasks = map_tasks(client, "distance", assignments.distances_in_bins, features, centers, keys)
    return percentiles.percentile_99(histogram, keys, client.gather(tasks), len(centers))


def count_population(
    run: RunContext, blocks: UserBlocks, X: da.Array, model: SavedModel
) -> Population:
    """Count users and features by the segments of a saved model.

    Users with fewer ratings than those that shaped the segments are left out, as they were then.
    """
    client = run.cluster.client
    tasks = map_tasks(
        client,
        "population",
        assignments.count_block,
        blocks.statistics,
        _blocks(client, X),
        model.centers,
        model.distance_p99,
        model.grid,
        model.min_ratings,
    )
    return merge_populations(client.gather(tasks))


def write_assignments(
    run: RunContext,
    X: da.Array,
    users: AggregatedUsers,
    centers: NDArray[np.float64],
    axes: Axes,
    names: tuple[str, ...],
    categories: tuple[str, ...],
    distance_p99: NDArray[np.float64] | None = None,
) -> None:
    """Write one row per user, built block by block on the workers.

    The user statistics are released on the way: no later stage needs them.

    Parameters
    ----------
    names
        The persona of each segment.
    distance_p99
        The distance beyond which a user is an outlier; None to leave out who is one.
    """
    cluster, blocks = run.cluster, users.blocks

    def release(n_submitted: int) -> None:
        blocks.statistics[:n_submitted] = [None] * n_submitted
        cluster.trim_memory()

    with run.progress.stage("assignments", "assignments") as stage:
        parquet.write_parts(
            cluster.client,
            run.folder.result_path("assignments.parquet"),
            assignments.build_table,
            [
                blocks.statistics,
                _blocks(cluster.client, X),
                centers,
                axes,
                names,
                categories,
                distance_p99,
            ],
            2 * cluster.threads,
            release,
        )
        stage.note = f"{blocks.users:,} users"


def evaluate_clustering(run: RunContext, X: da.Array, clusters: Clustering) -> dict[str, Any]:
    """Measure how good the segments are, and whether they come back on resampled users."""
    result = run.stage_result("quality")
    if result is not None:
        return result
    from segmentation.estimators import metrics, stability

    centers, seed = clusters.centers, run.settings.seed
    with run.progress.stage("quality", "quality and stability"):
        scores = metrics.evaluate_clustering(X, centers)
        silhouette, silhouette_rows = metrics.silhouette_score(X, centers, seed)
        repeated = stability.measure_stability(X, centers, seed)
    del scores["inertia"]  # The fit has reported it.
    quality = atomic.jsonable(
        {
            **scores,
            "silhouette": silhouette,
            "silhouette_rows": silhouette_rows,
            "stability": {
                "resampled_ari": repeated.resampled.mean() if len(repeated.resampled) else None,
                "reseeded_ari": repeated.reseeded.mean(),
                "jaccard": repeated.jaccard,
                "users": repeated.rows,
            },
        }
    )
    run.finish_stage("quality", quality)
    run.cluster.trim_memory()
    return dict(quality)


def add_stability(segments: Segments, quality: Mapping[str, Any]) -> Segments:
    """Return the segments with the stability that was measured for each; NaN for none."""
    jaccard = quality["stability"]["jaccard"]
    return segments._replace(
        profiles=[
            replace(profile, stability=float("nan") if value is None else value)
            for profile, value in zip(segments.profiles, jaccard, strict=True)
        ]
    )


def search_record(search: KSearch) -> dict[str, Any]:
    """Return a search for k as the manifest and ``choose_k.json`` record it."""
    return {
        "recommended": search.recommended,
        "reason": k_selection.explain_choice(search),
        "sound": search.sound,
        "range": [search.low, search.high],
        "elbow": k_selection.find_elbow(search),
        "silhouette_rows": search.silhouette_rows,
        "stability_rows": search.stability_rows,
        "candidates": [
            {**figures._asdict(), "jaccard": list(figures.jaccard)} for figures in search.figures
        ],
    }


def search_from_record(record: Mapping[str, Any]) -> KSearch:
    """Return the search that :func:`search_record` recorded."""
    low, high = record["range"]
    names = ("recommended", "sound", "silhouette_rows", "stability_rows")
    return _search_from_json(
        {
            "figures": [list(candidate.values()) for candidate in record["candidates"]],
            "low": low,
            "high": high,
            **{name: record[name] for name in names},
        }
    )


def _blocks(client: Client, X: da.Array) -> list[Future]:
    """Return the blocks of a matrix as futures."""
    return list(client.compute(list(X.to_delayed().ravel())))
