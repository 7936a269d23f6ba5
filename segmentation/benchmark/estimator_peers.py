"""What is timed, each in a process of its own that answers one request a line.

Run as ``python -m segmentation.benchmark.estimator_peers NAME MATRIX``. It loads the matrix, says
that it is ready, and then fits once for every seed that it reads, each time answering with the
seconds that the fit took and where its centres lie. A contestant keeps nothing from one fit to
the next but what its library keeps by itself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Fit = Callable[[int], NDArray[np.float64] | None]

#: Threads that each of them has.
THREADS = 2
K = 5


@contextlib.contextmanager
def _on_dask(X: NDArray[np.float32]) -> Iterator[Any]:
    """Persist the matrix in a block a thread on a scheduler in this process."""
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster, wait

    logging.getLogger("distributed").setLevel(logging.ERROR)
    dask.config.set({"distributed.admin.large-graph-warning-threshold": "10GB"})
    with (
        LocalCluster(
            1, threads_per_worker=THREADS, processes=False, dashboard_address=None, memory_limit=0
        ) as cluster,
        Client(cluster),
    ):
        held = da.from_array(X, chunks=(-(-len(X) // THREADS), X.shape[1])).persist()
        wait(held)
        yield held


@contextlib.contextmanager
def ours(X: NDArray[np.float32]) -> Iterator[Fit]:
    """:class:`segmentation.KMeans` through `distributed`."""
    from segmentation import KMeans

    with _on_dask(X) as held:
        yield lambda seed: np.asarray(KMeans(K, random_state=seed).fit(held).cluster_centers_)


@contextlib.contextmanager
def dask_ml(X: NDArray[np.float32]) -> Iterator[Fit]:
    """:class:`dask_ml.cluster.KMeans` with its own defaults, through `distributed`."""
    from dask_ml.cluster import KMeans

    with _on_dask(X) as held:
        yield lambda seed: np.asarray(KMeans(K, random_state=seed).fit(held).cluster_centers_)


def _scikit_learn(n_init: int) -> Any:
    @contextlib.contextmanager
    def contestant(X: NDArray[np.float32]) -> Iterator[Fit]:
        from sklearn.cluster import KMeans

        yield lambda seed: np.asarray(
            KMeans(K, n_init=n_init, random_state=seed).fit(X).cluster_centers_
        )

    return contestant


@contextlib.contextmanager
def faiss(X: NDArray[np.float32]) -> Iterator[Fit]:
    """``faiss.Kmeans`` on all rows, its 25 iterations, one start."""
    import faiss as library

    library.omp_set_num_threads(THREADS)

    def fit(seed: int) -> NDArray[np.float64]:
        # Unless told otherwise it takes a sample of 256 rows a centre.
        model = library.Kmeans(X.shape[1], K, seed=seed + 1, max_points_per_centroid=len(X))
        model.train(X)
        return np.asarray(model.centroids, np.float64)

    yield fit


@contextlib.contextmanager
def spark(X: NDArray[np.float32]) -> Iterator[Fit]:
    """Spark MLlib's KMeans with its own defaults on a cached frame, ``local[2]``."""
    import tempfile

    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.ml.clustering import KMeans
    from pyspark.ml.feature import VectorAssembler
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master(f"local[{THREADS}]")
        .config("spark.driver.memory", "8g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    with tempfile.TemporaryDirectory() as folder:
        names = [f"g{column}" for column in range(X.shape[1])]
        path = f"{folder}/matrix.parquet"
        table = pa.table(dict(zip(names, X.T, strict=True)))
        pq.write_table(table, path, row_group_size=-(-len(X) // THREADS))
        frame = VectorAssembler(inputCols=names, outputCol="features").transform(
            session.read.parquet(path)
        )
        frame = frame.select("features").cache()
        frame.count()
        yield lambda seed: np.array(
            KMeans(k=K, seed=seed).fit(frame).clusterCenters(), dtype=np.float64
        )
        session.stop()


@contextlib.contextmanager
def our_pca(X: NDArray[np.float32]) -> Iterator[Fit]:
    """:class:`segmentation.IncrementalPCA` through `distributed`."""
    from segmentation import IncrementalPCA

    with _on_dask(X) as held:

        def fit(seed: int) -> None:
            IncrementalPCA(2).fit(held)

        yield fit


@contextlib.contextmanager
def one_read(X: NDArray[np.float32]) -> Iterator[Fit]:
    """Sum up the same array on the same scheduler: the floor for PCA."""
    with _on_dask(X) as held:

        def fit(seed: int) -> None:
            held.sum().compute()

        yield fit


@contextlib.contextmanager
def scikit_learn_pca(X: NDArray[np.float32]) -> Iterator[Fit]:
    """scikit-learn's IncrementalPCA with a batch a block."""
    from sklearn.decomposition import IncrementalPCA

    def fit(seed: int) -> None:
        IncrementalPCA(2, batch_size=-(-len(X) // THREADS)).fit(X)

    yield fit


#: name → (what it is, the module that it needs, how it is made)
KMEANS: dict[str, tuple[str, str, Any]] = {
    "ours": ("segmentation.KMeans", "segmentation", ours),
    "sklearn-1": ("scikit-learn, n_init=1", "sklearn", _scikit_learn(1)),
    "sklearn-10": ("scikit-learn, n_init=10", "sklearn", _scikit_learn(10)),
    "faiss": ("faiss, 25 iterations", "faiss", faiss),
    "spark": ("Spark MLlib", "pyspark", spark),
    "dask-ml": ("dask-ml as it comes", "dask_ml", dask_ml),
}
PCA: dict[str, tuple[str, str, Any]] = {
    "pca": ("segmentation.IncrementalPCA", "segmentation", our_pca),
    "read": ("one sum of the matrix", "dask", one_read),
    "sklearn-pca": ("scikit-learn IncrementalPCA, a batch a block", "sklearn", scikit_learn_pca),
}
ALL = {**KMEANS, **PCA}
#: What the others are compared with.
OURS = ("ours", "pca")


def missing(name: str) -> str | None:
    """Return the module that a contestant needs and that isn't installed, or None."""
    module = ALL[name][1]
    return None if importlib.util.find_spec(module) else module


def main(argv: list[str]) -> None:
    """Answer requests until there are no more."""
    from segmentation.deploy.memory import PeakMemory

    name, matrix = argv
    # Whatever a library, or a process that it starts, prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")

    def say(**answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    with PeakMemory() as memory:
        X = np.load(matrix, allow_pickle=False)
        with ALL[name][2](X) as fit:
            say(ready=True)
            for line in sys.stdin:
                request = json.loads(line)
                began = time.perf_counter()
                centers = fit(request["seed"])
                seconds = time.perf_counter() - began
                found = None if centers is None else centers.tolist()
                say(seconds=seconds, centers=found, peak_memory_bytes=memory.bytes)


if __name__ == "__main__":
    main(sys.argv[1:])
