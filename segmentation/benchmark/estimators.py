"""K-Means and PCA beside their peers on one matrix; how well planted segments are found."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.benchmark import contestants
from segmentation.benchmark.race import race
from segmentation.pipeline.context import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from segmentation.benchmark.race import Times

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
            for group, all_names in (("kmeans", contestants.KMEANS), ("pca", contestants.PCA)):
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

    k = contestants.K
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
        "threads": contestants.THREADS,
        "versions": {**versions(), **peers},
    }
