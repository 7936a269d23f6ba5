"""Time K-Means and PCA next to their peers on user features; report times and quality."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.benchmark import estimator_peers, results
from segmentation.benchmark.estimator_runner import time_estimators
from segmentation.benchmark.job_peers import K
from segmentation.benchmark.results import Results, format_row
from segmentation.datasets import catalogue as catalogues
from segmentation.deploy.core import open_cluster
from segmentation.errors import DataError
from segmentation.features import aggregate, presets
from segmentation.pipeline import ground_truth, sources
from segmentation.pipeline.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from segmentation.benchmark.estimator_runner import EstimatorTimes
    from segmentation.deploy.core import Cluster
    from segmentation.features.user_blocks import UserBlocks
    from segmentation.progress import Progress

_MAX_COPIES = 1_000
#: Standard deviation of the noise that makes copies of a row differ.
_JITTER = 0.05
#: Rows per step of the inertia, to bound its memory.
_CHUNK_ROWS = 65_536
#: Initializations of the scikit-learn fit that segment recovery is compared with.
_N_INIT = 20
#: Packages whose versions the table names.
_SHOWN_VERSIONS = ("python", "dask", "dask-ml", "scikit-learn", "faiss-cpu", "pyspark")


class Audience(NamedTuple):
    """The users that the estimators are timed on.

    ``matrices`` maps each preset to its features, of shape (n_users, n_genres). ``planted`` maps
    each preset to the planted segments of the same rows, -1 for a user without one; it is empty
    unless the data is synthetic.
    """

    matrices: dict[str, NDArray[np.float32]]
    planted: dict[str, NDArray[np.int64]]
    is_synthetic: bool


def benchmark_estimators(
    settings: Settings,
    out: str | Path,
    progress: Progress,
    *,
    copies: Sequence[int] = (1, 10),
    rounds: int = 5,
    peers: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Results:
    """Time every peer on the user features of a data set, and write the results.

    On synthetic data, also measure how well K-Means recovers the planted segments.

    Parameters
    ----------
    settings
        Settings of the data, the features, and the seed.
    out
        Folder of the results.
    copies
        Rows of the matrices, as multiples of the number of users.
    rounds
        Fits per peer; the median counts.
    peers
        Keys of :data:`estimator_peers.PEERS`; None for all.
    overwrite
        Replace an earlier benchmark in ``out``.

    Raises
    ------
    UsageError
        If a value is out of range, a peer is unknown, or ``out`` can't be used.
    DataError
        If the ratings can't be used, or fewer than :data:`K` users have distinct features.
    """
    results.check_rounds(rounds)
    copies = results.check_numbers("copies", copies, 1, _MAX_COPIES)
    names = results.check_peers(peers, tuple(estimator_peers.PEERS))
    with results.open_folder(Path(out), overwrite=overwrite):
        audience = read_audience(settings, progress)
        X = audience.matrices[settings.preset]
        n_distinct = len(np.unique(X, axis=0))
        if n_distinct < K:
            raise DataError(
                f"{settings.data}: {n_distinct} distinct users, and the benchmark fits {K} "
                "segments: use more ratings"
            )
        record = {
            "data": settings.data,
            "synthetic": audience.is_synthetic,
            "preset": settings.preset,
            "join": settings.effective_join,
            "seed": settings.seed,
            "rounds": rounds,
            **results.describe_machine(),
            "results": compare_peers(X, copies, rounds, names, progress),
            "recovery": [
                measure_recovery(preset, audience, settings.seed, progress)
                for preset in audience.planted
            ],
        }
        return results.write_results(Path(out), format_table(record), record)


def read_audience(settings: Settings, progress: Progress) -> Audience:
    """Compute the features: for all presets if planted segments are known, else for one."""
    matrices: dict[str, NDArray[np.float32]] = {}
    planted: dict[str, NDArray[np.int64]] = {}
    statistics: dict[str, tuple[UserBlocks, int]] = {}
    with open_cluster("threads") as cluster:
        layout = sources.resolve_data(settings, cluster, progress)
        folder = ground_truth.synthetic_folder(layout)
        truth = None if folder is None else ground_truth.GroundTruth.read(folder)
        for preset in presets.PRESETS if truth is not None else (settings.preset,):
            join = Settings(preset=preset).effective_join
            if preset == settings.preset:
                join = settings.effective_join
            # Presets with the same join share the statistics.
            if join not in statistics:
                catalogue = catalogues.load_catalogue(layout, join)
                blocks, _ = aggregate.aggregate_ratings(
                    cluster.client,
                    layout,
                    catalogue,
                    max_rejected=settings.max_rejected,
                    memory=cluster.budget,
                    n_threads=cluster.threads,
                    check_shuffle=cluster.check_shuffle,
                    trim_memory=cluster.trim_memory,
                    progress=progress,
                )
                statistics[join] = blocks, len(catalogue.categories)
            blocks, n_genres = statistics[join]
            matrices[preset] = _compute_features(cluster, blocks, preset, n_genres)
            if truth is not None:
                users = np.concatenate([block.result().users for block in blocks.statistics])
                planted[preset] = truth.segments_of(users)
    return Audience(matrices, planted, folder is not None)


def _compute_features(
    cluster: Cluster, blocks: UserBlocks, preset: str, n_genres: int
) -> NDArray[np.float32]:
    X = presets.feature_matrix(cluster.client, blocks, preset, n_genres)
    return np.asarray(X.compute())


def compare_peers(
    X: NDArray[np.float32],
    copies: Sequence[int],
    rounds: int,
    names: Sequence[str],
    progress: Progress,
) -> list[dict[str, Any]]:
    """Time the peers on enlarged copies of a matrix of shape (n_users, n_features)."""

    def report(line: str) -> None:
        progress.say(f"  {line}")

    comparisons = []
    for n_copies in copies:
        larger = enlarge_matrix(X, n_copies, seed=n_copies)
        n_rows, n_features = larger.shape
        comparison: dict[str, Any] = {"rows": n_rows, "features": n_features, "copies": n_copies}
        with tempfile.TemporaryDirectory() as folder:
            matrix = Path(folder) / "matrix.npy"
            with matrix.open("wb") as file:
                np.lib.format.write_array(file, larger, allow_pickle=False)
            for group, peers in (("kmeans", estimator_peers.KMEANS), ("pca", estimator_peers.PCA)):
                report(f"{group} on {n_rows:,} × {n_features}")
                members = [name for name in peers if name in names]
                times = time_estimators(members, matrix, rounds, report)
                comparison[group] = [_make_record(entry, larger) for entry in times]
        comparisons.append(comparison)
    return comparisons


def _make_record(times: EstimatorTimes, X: NDArray[np.float32]) -> dict[str, Any]:
    """Return the record of a peer for ``benchmark.json``, with the inertia of each fit."""
    return {
        "name": times.name,
        "title": times.title,
        "seconds": times.seconds,
        "median_seconds": times.median,
        "inertia": [
            compute_inertia(X, np.array(rows)) for rows in times.centers if rows is not None
        ],
        "peak_memory_bytes": times.peak_memory_bytes,
        "failure": times.failure,
    }


def enlarge_matrix(X: NDArray[np.float32], n_copies: int, seed: int) -> NDArray[np.float32]:
    """Return copies of all rows, each with independent noise; ``X`` itself for one copy."""
    if n_copies == 1:
        return X
    rng = np.random.default_rng(seed)
    out = np.empty((n_copies * len(X), X.shape[1]), np.float32)
    for copy in range(n_copies):
        noise = rng.normal(0.0, _JITTER, X.shape).astype(np.float32)
        np.add(X, noise, out=out[copy * len(X) : (copy + 1) * len(X)])
    return out


def compute_inertia(X: NDArray[np.float32], centers: NDArray[np.float64]) -> float:
    """Return the sum of squared distances to the nearest center, in float64.

    It uses NumPy alone, and so favors none of the peers.
    """
    total = 0.0
    for start in range(0, len(X), _CHUNK_ROWS):
        rows = X[start : start + _CHUNK_ROWS].astype(np.float64)
        distances = [((rows - center) ** 2).sum(axis=1) for center in centers]
        total += float(np.min(distances, axis=0).sum())
    return total


def measure_recovery(
    preset: str, audience: Audience, seed: int, progress: Progress
) -> dict[str, Any]:
    """Measure how well K-Means recovers the planted segments, as adjusted Rand indices.

    The segments overlap, so no clustering recovers them all. The best of 20 initializations of
    scikit-learn's K-Means on the same matrix therefore serves as a reference.
    """
    import dask.array as da
    import sklearn.cluster
    from sklearn.metrics import adjusted_rand_score

    from segmentation import KMeans

    progress.say(f"  recovery: {preset}")
    planted = audience.planted[preset]
    X = audience.matrices[preset][planted >= 0]
    planted = planted[planted >= 0]
    ours = KMeans(K, random_state=seed).fit(da.from_array(X, chunks=(-(-len(X) // 2), -1)))
    peer = sklearn.cluster.KMeans(K, n_init=_N_INIT, random_state=seed).fit(X)
    return {
        "preset": preset,
        "rows": len(X),
        "ours": float(adjusted_rand_score(planted, ours.labels_.compute())),
        "ceiling": float(adjusted_rand_score(planted, peer.labels_)),
        "ceiling_starts": _N_INIT,
    }


def format_table(record: dict[str, Any]) -> str:
    """Format a record as Markdown."""
    data = "synthetic ratings" if record["synthetic"] else "ratings"
    rounds = record["rounds"]
    fits = f"Medians of {rounds} interleaved fits with different seeds" if rounds > 1 else "One fit"
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in _SHOWN_VERSIONS)
    lines = [
        f"User features ({record['preset']}) of {data}: {record['data']}. {record['threads']} "
        f"threads, {record['machine']}, {record['cores']} cores, {versions}. {fits}, after a "
        "warm-up fit.",
    ]
    for comparison in record["results"]:
        lines += _format_comparison(comparison)
    if record["recovery"]:
        lines += [
            "",
            "### Recovery of the planted segments (adjusted Rand index)",
            "",
            f"| preset | users | ours | scikit-learn, n_init={_N_INIT} |",
            "|---|--:|--:|--:|",
        ]
        for row in record["recovery"]:
            scores = [f"{row['ours']:.4f}", f"{row['ceiling']:.4f}"]
            lines.append(format_row([row["preset"], f"{row['rows']:,}", *scores]))
    return "\n".join(lines) + "\n"


def _format_comparison(comparison: dict[str, Any]) -> list[str]:
    """Format the tables of one matrix."""
    copies = "" if comparison["copies"] == 1 else f" ({comparison['copies']} copies, jittered)"
    lines = ["", f"### {comparison['rows']:,} × {comparison['features']}{copies}"]
    if comparison["kmeans"]:
        inertias = [value for row in comparison["kmeans"] for value in row["inertia"]]
        lines += [
            "",
            f"| K-Means, k = {K} | seconds | ratio to ours | median inertia above least "
            "| highest | peak MB |",
            "|---|--:|--:|--:|--:|--:|",
            *format_rows(comparison["kmeans"], min(inertias, default=0.0)),
        ]
    if comparison["pca"]:
        lines += ["", "| PCA, two axes | seconds | ratio to ours | peak MB |", "|---|--:|--:|--:|"]
        lines += format_rows(comparison["pca"], None)
    return lines


def format_rows(rows: Sequence[dict[str, Any]], lowest_inertia: float | None) -> list[str]:
    """Format one row per peer; ``lowest_inertia`` is that of all peers' fits, None for PCA."""
    seconds = {row["name"]: row["median_seconds"] for row in rows}
    ours = next((seconds[name] for name in seconds if name in estimator_peers.OURS), None)
    return [_format_peer(row, ours, lowest_inertia) for row in rows]


def _format_peer(row: dict[str, Any], ours: float | None, lowest_inertia: float | None) -> str:
    median, n_fits = row["median_seconds"], len(row["seconds"])
    if median is None:
        return format_row([row["title"], row["failure"] or "no fit"])
    note = " (one fit)" if n_fits == 1 else ""
    if row["failure"]:
        note = f" ({n_fits} fits, then: {row['failure']})"
    cells = [row["title"] + note, f"{median:.3f}", f"{median / ours:.2f} ×" if ours else "–"]
    if lowest_inertia is not None:
        # Nothing can be relative to a lowest inertia of 0.
        inertias = row["inertia"] if lowest_inertia else []
        excess = [100 * (inertia / lowest_inertia - 1) for inertia in inertias]
        cells += [f"+{np.median(excess):.3f} %", f"+{max(excess):.3f} %"] if excess else ["–", "–"]
    return format_row([*cells, f"{row['peak_memory_bytes'] / 1e6:,.0f}"])
