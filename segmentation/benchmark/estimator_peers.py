"""Peers of the estimators: each library's K-Means or PCA, in a process that fits on request.

``python -m segmentation.benchmark.estimator_peers NAME MATRIX`` loads a matrix from a ``.npy``
file, reports that it is ready, and then fits once per line of JSON on its standard input. Each
response is a line of JSON with the seconds of the fit, the cluster centers (null for PCA) and the
peak memory so far. Fits share only the matrix and what the library itself caches.
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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.benchmark.job_peers import THREADS, K, start_spark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import dask.array as da
    from numpy.typing import NDArray

    #: Fits with a seed and returns the centers, of shape (K, n_features); None for PCA.
    Fit = Callable[[int], NDArray[np.float64] | None]
    #: Prepares a matrix for a library, and yields the function that fits it.
    OpenPeer = Callable[[NDArray[np.float32]], contextlib.AbstractContextManager[Fit]]


@contextlib.contextmanager
def _persist(X: NDArray[np.float32]) -> Iterator[da.Array]:
    """Yield the matrix persisted on a cluster in this process, with one block per thread."""
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster, wait

    logging.getLogger("distributed").setLevel(logging.ERROR)
    with (
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "10GB"}),
        LocalCluster(
            1,
            threads_per_worker=THREADS,
            processes=False,
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
        ) as cluster,
        Client(cluster),
    ):
        array = da.from_array(X, chunks=(-(-len(X) // THREADS), X.shape[1])).persist()
        wait(array)
        yield array


@contextlib.contextmanager
def open_segmentation(X: NDArray[np.float32]) -> Iterator[Fit]:
    """Yield a fit of :class:`segmentation.KMeans` on a distributed scheduler."""
    from segmentation import KMeans

    with _persist(X) as array:
        yield lambda seed: np.asarray(KMeans(K, random_state=seed).fit(array).cluster_centers_)


@contextlib.contextmanager
def open_dask_ml(X: NDArray[np.float32]) -> Iterator[Fit]:
    """Yield a fit of :class:`dask_ml.cluster.KMeans`, with defaults, on a distributed scheduler."""
    from dask_ml.cluster import KMeans

    with _persist(X) as array:
        yield lambda seed: np.asarray(KMeans(K, random_state=seed).fit(array).cluster_centers_)


def open_scikit_learn(n_init: int) -> OpenPeer:
    """Return a context manager for :class:`sklearn.cluster.KMeans` with ``n_init`` starts."""

    @contextlib.contextmanager
    def open_peer(X: NDArray[np.float32]) -> Iterator[Fit]:
        from sklearn.cluster import KMeans

        yield lambda seed: np.asarray(
            KMeans(K, n_init=n_init, random_state=seed).fit(X).cluster_centers_
        )

    return open_peer


@contextlib.contextmanager
def open_faiss(X: NDArray[np.float32]) -> Iterator[Fit]:
    """Yield a fit of ``faiss.Kmeans`` to all rows, with its default of 25 iterations."""
    import faiss

    faiss.omp_set_num_threads(THREADS)

    def fit(seed: int) -> NDArray[np.float64]:
        # By default, faiss fits a sample of 256 rows per center.
        model = faiss.Kmeans(X.shape[1], K, seed=seed + 1, max_points_per_centroid=len(X))
        model.train(X)
        return np.asarray(model.centroids, np.float64)

    yield fit


@contextlib.contextmanager
def open_spark(X: NDArray[np.float32]) -> Iterator[Fit]:
    """Yield a fit of Spark MLlib's KMeans, with its defaults, to a cached data frame."""
    import tempfile

    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.ml.clustering import KMeans
    from pyspark.ml.feature import VectorAssembler

    session = start_spark()
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
def open_segmentation_pca(X: NDArray[np.float32]) -> Iterator[Fit]:
    """Yield a fit of :class:`segmentation.IncrementalPCA` on a distributed scheduler."""
    from segmentation import IncrementalPCA

    with _persist(X) as array:

        def fit(seed: int) -> None:
            IncrementalPCA(2).fit(array)

        yield fit


@contextlib.contextmanager
def open_sum(X: NDArray[np.float32]) -> Iterator[Fit]:
    """Yield a sum over the matrix on a distributed scheduler: the floor for PCA."""
    with _persist(X) as array:

        def fit(seed: int) -> None:
            array.sum().compute()

        yield fit


@contextlib.contextmanager
def open_scikit_learn_pca(X: NDArray[np.float32]) -> Iterator[Fit]:
    """Yield a fit of :class:`sklearn.decomposition.IncrementalPCA`, one batch per Dask block."""
    from sklearn.decomposition import IncrementalPCA

    def fit(seed: int) -> None:
        IncrementalPCA(2, batch_size=-(-len(X) // THREADS)).fit(X)

    yield fit


class EstimatorPeer(NamedTuple):
    """A peer: its title in tables, the module that it needs, and how to open it."""

    title: str
    module: str
    open: OpenPeer


KMEANS = {
    "ours": EstimatorPeer("segmentation.KMeans", "segmentation", open_segmentation),
    "sklearn-1": EstimatorPeer("scikit-learn, n_init=1", "sklearn", open_scikit_learn(1)),
    "sklearn-10": EstimatorPeer("scikit-learn, n_init=10", "sklearn", open_scikit_learn(10)),
    "faiss": EstimatorPeer("faiss, 25 iterations", "faiss", open_faiss),
    "spark": EstimatorPeer("Spark MLlib", "pyspark", open_spark),
    "dask-ml": EstimatorPeer("dask-ml, defaults", "dask_ml", open_dask_ml),
}
PCA = {
    "pca": EstimatorPeer("segmentation.IncrementalPCA", "segmentation", open_segmentation_pca),
    "read": EstimatorPeer("one sum of the matrix", "dask", open_sum),
    "sklearn-pca": EstimatorPeer(
        "scikit-learn IncrementalPCA, one batch per block", "sklearn", open_scikit_learn_pca
    ),
}
PEERS = {**KMEANS, **PCA}
#: Keys of this package's own estimators, which the others are compared with.
OURS = ("ours", "pca")


def find_missing_module(name: str) -> str | None:
    """Return the module that a peer needs if it isn't installed, else None."""
    module = PEERS[name].module
    return None if importlib.util.find_spec(module) else module


def main(argv: list[str]) -> None:
    """Fit once per request, until standard input ends."""
    from segmentation.deploy.memory import PeakMemory

    name, path = argv
    # Output of a library or its child processes must not mix with the responses.
    responses = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")

    def send(**response: Any) -> None:
        print(json.dumps(response), file=responses, flush=True)

    with PeakMemory() as memory:
        X = np.load(path, allow_pickle=False)
        with PEERS[name].open(X) as fit:
            send(ready=True)
            for line in sys.stdin:
                seed = json.loads(line)["seed"]
                started = time.perf_counter()
                centers = fit(seed)
                seconds = time.perf_counter() - started
                send(
                    seconds=seconds,
                    centers=None if centers is None else centers.tolist(),
                    peak_memory_bytes=memory.bytes,
                )


if __name__ == "__main__":
    main(sys.argv[1:])
