"""The benchmark of the estimators: from ratings to matrices, races, recovery, and a table."""

from __future__ import annotations

import functools
import os
import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.benchmark import estimator_peers
from segmentation.benchmark.estimator_runner import race
from segmentation.datasets import catalogue as catalogues
from segmentation.deploy.core import open_cluster
from segmentation.errors import DataError
from segmentation.features import aggregate
from segmentation.pipeline import ground_truth, sources, stages
from segmentation.pipeline.context import versions
from segmentation.pipeline.settings import PRESET_NAMES, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from segmentation.benchmark.estimator_runner import Times
    from segmentation.features.user_blocks import UserBlocks
    from segmentation.progress import Progress


def run_estimators(
    settings: Settings,
    sizes: Sequence[int],
    rounds: int,
    names: Sequence[str],
    progress: Progress,
) -> dict[str, Any]:
    """Measure everyone on the user features of some ratings and on multiples of them.

    Parameters
    ----------
    settings
        Name the data and the preset.
    sizes
        How many copies of the features make a matrix.
    rounds
        Fits of each contestant; the median is what counts.
    names
        Contestants.
    """
    matrices, planted, synthetic = _matrices(settings, progress)
    X = matrices[settings.preset]
    distinct = len(np.unique(X, axis=0))
    if distinct < estimator_peers.K:
        raise DataError(
            f"{settings.data}: {distinct} users that differ, and the benchmark makes "
            f"{estimator_peers.K} segments: give it more ratings"
        )
    results = compare(X, sizes, rounds, names, lambda line: progress.say(f"  {line}"))
    recovered = []
    if planted is not None:
        for preset, matrix in matrices.items():
            progress.say(f"  recovery: {preset}")
            recovered.append(recovery(preset, matrix, planted[preset], settings.seed))
    return {
        "data": settings.data,
        "synthetic": synthetic,
        "preset": settings.preset,
        "join": settings.effective_join,
        "seed": settings.seed,
        "rounds": rounds,
        **machine(),
        "results": results,
        "recovery": recovered,
    }


def _matrices(
    settings: Settings, progress: Progress
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.int64]] | None, bool]:
    """Read the ratings; return features by preset, planted segments, and whether all is made up."""
    matrices: dict[str, NDArray[np.float32]] = {}
    planted: dict[str, NDArray[np.int64]] = {}
    with open_cluster("threads") as cluster:
        layout = sources.resolve_data(settings, cluster, progress)
        kept: dict[str, tuple[UserBlocks, int]] = {}
        folder = ground_truth.synthetic_folder(layout)
        for preset in PRESET_NAMES if folder else (settings.preset,):
            # Two presets share the join, and so the statistics.
            join = Settings(preset=preset).effective_join
            if preset == settings.preset:
                join = settings.effective_join
            if join not in kept:
                catalogue = catalogues.load_catalogue(layout, join)
                blocks, _ = aggregate.aggregate_ratings(
                    cluster.client,
                    layout,
                    catalogue,
                    max_rejected=settings.max_rejected,
                    memory=cluster.budget,
                    n_threads=cluster.threads,
                    check_shuffle=functools.partial(
                        cluster.budget.refuse_shuffle, elsewhere=cluster.is_elsewhere
                    ),
                    trim_memory=cluster.let_go,
                    progress=progress,
                )
                kept[join] = blocks, len(catalogue.genres)
            blocks, n_genres = kept[join]
            X = stages.feature_matrix(cluster.client, blocks, preset, n_genres)
            matrix = np.asarray(X.compute())
            users = np.concatenate([block.result().users for block in blocks.statistics])
            known = None if folder is None else ground_truth.GroundTruth.read(folder)
            if known is not None:
                planted[preset] = known.of(users)
            matrices[preset] = matrix
    return matrices, planted or None, folder is not None


def table(record: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    told = "synthetic ratings" if record["synthetic"] else "ratings"
    lines = [
        f"Features ({record['preset']}) of {told}: {record['data']}. {record['threads']} threads, "
        f"{record['machine']}, {record['cores']} cores, {_versions(record['versions'])}. "
        + (
            f"Medians of {record['rounds']} fits with other seeds, in turns, "
            if record["rounds"] > 1
            else "One fit each, "
        )
        + "after one to warm up.",
    ]
    for result in record["results"]:
        copies = "" if result["copies"] == 1 else f" ({result['copies']} copies, jittered)"
        lines += ["", f"### {result['rows']:,} × {result['features']}{copies}"]
        if result["kmeans"]:
            least = min(
                (value for row in result["kmeans"] for value in row["inertia"]),
                default=float("nan"),
            )
            lines += [
                "",
                "| K-Means, k = 5 | seconds | of ours | inertia above the least | at worst "
                "| peak MB |",
                "|---|--:|--:|--:|--:|--:|",
                *_rows(result["kmeans"], least),
            ]
        if result["pca"]:
            lines += ["", "| PCA, two axes | seconds | of ours | peak MB |", "|---|--:|--:|--:|"]
            lines += _rows(result["pca"], None)
    if record["recovery"]:
        lines += [
            "",
            "### Planted segments found again (adjusted Rand index)",
            "",
            "| preset | users | ours | scikit-learn, best of 20 starts |",
            "|---|--:|--:|--:|",
            *(
                f"| {row['preset']} | {row['rows']:,} | {row['ours']:.4f} | {row['ceiling']:.4f} |"
                for row in record["recovery"]
            ),
        ]
    return "\n".join(lines) + "\n"


def _rows(rows: Sequence[dict[str, Any]], least: float | None) -> list[str]:
    own = next((row["median_seconds"] for row in rows if row["name"] in estimator_peers.OURS), None)
    lines = []
    for row in rows:
        median = row["median_seconds"]
        if median is None:
            lines.append(f"| {row['title']} | {row['failure'] or 'no fit'} |")
            continue
        told = " (one fit)" if len(row["seconds"]) == 1 else ""
        if row["failure"]:
            told = f" ({len(row['seconds'])} fits, then: {row['failure']})"
        cells = [row["title"] + told]
        cells += [f"{median:.3f}", "–" if not own else f"{median / own:.2f} ×"]
        if least is not None:
            over = [100 * (value / least - 1) for value in row["inertia"]] if least else []
            cells += [f"+{np.median(over):.3f} %", f"+{max(over):.3f} %"] if over else ["–", "–"]
        cells.append(f"{row['peak_memory_bytes'] / 1e6:,.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _versions(versions: dict[str, str]) -> str:
    names = ("python", "dask", "dask-ml", "scikit-learn", "faiss-cpu", "pyspark")
    return ", ".join(f"{name} {versions[name]}" for name in names)


#: Rows whose distances are computed at a time.
_ROWS = 65_536
_STARTS = 20


def enlarged(X: NDArray[np.float32], times: int, seed: int) -> NDArray[np.float32]:
    """Return ``times`` as many rows: copies, each value moved by a little noise of its own."""
    if times == 1:
        return X
    rng = np.random.default_rng(seed)
    out = np.empty((times * len(X), X.shape[1]), np.float32)
    for copy in range(times):
        noise = rng.normal(0.0, 0.05, X.shape).astype(np.float32)
        np.add(X, noise, out=out[copy * len(X) : (copy + 1) * len(X)])
    return out


def inertia(X: NDArray[np.float32], centers: NDArray[np.float64]) -> float:
    """Return the sum of squared distances to the nearest centre, by NumPy alone, in float64."""
    total = 0.0
    for start in range(0, len(X), _ROWS):
        rows = X[start : start + _ROWS].astype(np.float64)
        total += float(
            np.min([((rows - center) ** 2).sum(axis=1) for center in centers], axis=0).sum()
        )
    return total


def compare(
    X: NDArray[np.float32],
    sizes: Sequence[int],
    rounds: int,
    names: Sequence[str],
    told: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Time K-Means and PCA of everyone on the matrix and on multiples of it."""
    results = []
    for times in sizes:
        with tempfile.TemporaryDirectory() as folder:
            matrix = Path(folder) / "matrix.npy"
            larger = enlarged(X, times, seed=times)
            with matrix.open("wb") as file:
                np.lib.format.write_array(file, larger, allow_pickle=False)
            shape = f"{larger.shape[0]:,} × {larger.shape[1]}"
            groups = {}
            for group, all_names in (
                ("kmeans", estimator_peers.KMEANS),
                ("pca", estimator_peers.PCA),
            ):
                told(f"{group} on {shape}")
                own = [name for name in all_names if name in names]
                groups[group] = [
                    _record(found, larger) for found in race(own, matrix, rounds, told)
                ]
        results.append(
            {"rows": larger.shape[0], "features": larger.shape[1], "copies": times, **groups}
        )
    return results


def _record(found: Times, X: NDArray[np.float32]) -> dict[str, Any]:
    ends = [np.array(centers) for centers in found.centers if centers is not None]
    return {
        "name": found.name,
        "title": found.title,
        "seconds": found.seconds,
        "median_seconds": found.median,
        "inertia": [inertia(X, centers) for centers in ends],
        "peak_memory_bytes": found.peak_memory_bytes,
        "failure": found.failure,
    }


def recovery(
    preset: str, X: NDArray[np.float32], planted: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    """Return how far our clusters, and those of scikit-learn's best of 20 starts, are the planted.

    Parameters
    ----------
    X, planted
        The matrix that is clustered, and the planted segment of each of its rows.
    """
    import dask.array as da
    from sklearn.cluster import KMeans as Theirs
    from sklearn.metrics import adjusted_rand_score

    from segmentation.estimators.kmeans import KMeans

    k = estimator_peers.K
    X, planted = X[planted >= 0], planted[planted >= 0]
    model = KMeans(k, random_state=seed).fit(da.from_array(X, chunks=(-(-len(X) // 2), -1)))
    peer = Theirs(k, n_init=_STARTS, random_state=seed).fit(X)
    return {
        "preset": preset,
        "rows": len(X),
        "ours": float(adjusted_rand_score(planted, model.labels_.compute())),
        "ceiling": float(adjusted_rand_score(planted, peer.labels_)),
        "ceiling_starts": _STARTS,
    }


def machine() -> dict[str, Any]:
    """Return what figures hang on."""
    peers = {}
    for name in ("duckdb", "faiss-cpu", "polars", "pyspark"):
        from importlib import metadata

        try:
            peers[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            peers[name] = "not installed"
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": estimator_peers.THREADS,
        "versions": {**versions(), **peers},
    }
