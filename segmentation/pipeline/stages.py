"""The wiring of a segmentation run: each stage calls one wing, and holds no logic of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.errors import DataError
from segmentation.features import presets
from segmentation.pipeline import assignments
from segmentation.schema import Axes
from segmentation.storage import parquet
from segmentation.tasks import map_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da
    from numpy.typing import NDArray

    from segmentation.deploy.core import Cluster
    from segmentation.features.user_blocks import UserBlocks
    from segmentation.reporting.profiles import Activity, ProfileSums
    from segmentation.schema import UserStatistics
    from segmentation.storage.run_folder import RunFolder

_AXES = 2
#: Users that the figure's centres and outline come from, and that it draws some of.
SHOWN_USERS = 100_000


def feature_matrix(client: Any, blocks: UserBlocks, preset: str, n_genres: int) -> da.Array:
    """Return the matrix to cluster as a persisted Dask array with known chunks.

    Rows follow the users' ids; float32 of shape (n_users, n_genres).
    """
    import dask.array as da

    tasks = map_tasks(
        client,
        "features",
        presets.compute_features,
        blocks.statistics,
        [preset] * len(blocks.sizes),
    )
    return da.concatenate(
        [
            da.from_delayed(task, shape=(n, n_genres), dtype=np.float32)
            for task, n in zip(tasks, blocks.sizes, strict=True)
        ]
    )


class Clustering(NamedTuple):
    """Centres in their canonical order, and what the manifest says of the fit."""

    centers: NDArray[np.float64]
    record: dict[str, Any]


def fit_k_means(client: Any, X: da.Array, blocks: UserBlocks, k: int, seed: int) -> Clustering:
    """Fit K-Means and number the segments by rising movies per user.

    Raises
    ------
    DataError
        If the audience has fewer distinct users than segments.
    """
    from segmentation.estimators import _k_means
    from segmentation.estimators.exceptions import TooFewDistinctRowsError
    from segmentation.reporting.profiles import order_by_activity

    if X.shape[0] < k:
        users = f"{X.shape[0]} user" + ("s" if X.shape[0] > 1 else "")
        raise DataError(f"{users} for --k {k}: use --k {X.shape[0]} or fewer")
    try:
        found = _k_means.k_means(X, k, random_state=seed)
    except TooFewDistinctRowsError as error:
        limit = error.n_distinct
        raise DataError(f"{limit} distinct users for --k {k}: use --k {limit} or fewer") from error
    activity = _activity(client, X, blocks, found.centers)
    record = {"n_clusters": k, "inertia": found.inertia, "n_iter": found.n_iter}
    return Clustering(found.centers[order_by_activity(activity)], record)


def evaluate_clustering(X: da.Array, centers: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """Return what the manifest says of how good the segments are, and how far they come back."""
    from segmentation.estimators import metrics, stability

    figures = metrics.evaluate_clustering(X, centers)
    silhouette, rows = metrics.silhouette_score(X, centers, seed)
    found = stability.measure_stability(X, centers, seed)
    return {
        **{name: value for name, value in figures.items() if name != "inertia"},
        "silhouette": silhouette,
        "silhouette_rows": rows,
        "stability": {
            "resampled_ari": found.resampled.mean() if len(found.resampled) else None,
            "reseeded_ari": found.reseeded.mean(),
            "jaccard": found.jaccard,
            "users": found.rows,
        },
    }


def fit_pca(X: da.Array) -> tuple[Axes, dict[str, Any]]:
    """Fit incremental PCA; return two axes and what the manifest says of them."""
    from segmentation.estimators import _incremental_pca

    wanted = min(_AXES, *X.shape)
    found = _incremental_pca.fit_incremental_pca(X, wanted)
    components = np.zeros((_AXES, X.shape[1]))
    components[:wanted] = found.components
    ratio = np.zeros(_AXES)
    ratio[:wanted] = found.explained_variance_ratio
    record = {
        "explained_variance_ratio": ratio,
        "angle_to_exact_degrees": found.angle_to_exact_degrees,
    }
    return Axes(found.mean, components, ratio), record


class Surveyed(NamedTuple):
    """What the segments are, from all users, and some of the users for the figure.

    ``points`` are those users on the two axes, (n_shown, 2), and ``labels`` their segments.
    """

    sums: ProfileSums
    distance_p99: NDArray[np.float64]
    points: NDArray[np.float64]
    labels: NDArray[np.int32]


def summarize_segments(
    client: Any, X: da.Array, blocks: UserBlocks, clustering: Clustering, axes: Axes, seed: int
) -> Surveyed:
    """Sum the segments up, a task a block; the driver holds nothing for each user."""
    from segmentation.estimators._blockwise import sample_row_numbers
    from segmentation.reporting import percentiles, profiles

    features = _blocks(client, X)
    centers, k = clustering.centers, len(clustering.centers)
    numbers = sample_row_numbers(blocks.users, SHOWN_USERS, seed)
    ends = np.cumsum(blocks.sizes)
    shown = [
        own - (end - size)
        for own, end, size in zip(
            np.split(numbers, np.searchsorted(numbers, ends[:-1])), ends, blocks.sizes, strict=True
        )
    ]
    found = client.gather(
        map_tasks(
            client, "profile", assignments.survey, blocks.statistics, features, shown, centers, axes
        )
    )
    sums, bins, points, labels = zip(*found, strict=True)
    counted = percentiles.merge_histograms(bins)
    keys = percentiles.bins_needed(counted, k)
    fetched = client.gather(
        map_tasks(client, "distance", assignments.fetch, features, centers, keys)
    )
    far = percentiles.percentile_99(counted, keys, fetched, k)
    return Surveyed(profiles.merge_sums(sums), far, np.concatenate(points), np.concatenate(labels))


def write_assignments(
    cluster: Cluster,
    folder: RunFolder,
    X: da.Array,
    blocks: UserBlocks,
    clustering: Clustering,
    axes: Axes,
    personas: Sequence[str],
    genres: tuple[str, ...],
) -> None:
    """Build a table a block on the workers, a few at a time, and write them in order.

    The statistics of ``blocks`` are let go: nothing after this looks at single users' sums.
    """
    features = _blocks(cluster.client, X)
    given = list(blocks.statistics)

    def let_go(asked: int) -> None:
        given[:asked] = [None] * asked
        blocks.statistics[:asked] = given[:asked]
        cluster.let_go()

    parquet.write_parts(
        cluster.client,
        folder.product("assignments.parquet"),
        assignments.table,
        [given, features, clustering.centers, axes, tuple(personas), genres],
        2 * cluster.threads,
        let_go,
    )


def _activity(
    client: Any, X: da.Array, blocks: UserBlocks, centers: NDArray[np.float64]
) -> Activity:
    from segmentation.reporting import profiles

    tasks = map_tasks(
        client, "activity", _block_activity, blocks.statistics, _blocks(client, X), centers
    )
    return profiles.merge_activity(client.gather(tasks))


def _block_activity(
    block: UserStatistics, features: NDArray[Any], centers: NDArray[np.float64]
) -> Activity:
    from segmentation.estimators._lloyd import assign_block
    from segmentation.reporting.profiles import block_activity

    return block_activity(block, assign_block(features, centers).labels, len(centers))


def _blocks(client: Any, X: da.Array) -> list[Any]:
    return list(client.compute(list(X.to_delayed().ravel())))
