"""Peers of the whole job: the same job, written as users of other libraries would write it.

``python -m segmentation.benchmark.job_peers NAME DATA RATINGS OUT`` runs one in a cold process:
ratings → mean rating per user and genre → K-Means (k = 5) → PCA onto two axes → a table of users
in ``OUT``. The floor only reads the ratings. All others read the catalogue with the same code, and
all but Dask and Spark fit with scikit-learn. Each library is imported where it is used, so that a
process imports only what it needs.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

#: Number of clusters that every peer fits.
K = 5
#: Threads that every peer may use.
THREADS = 2
ASSIGNMENTS = "assignments.parquet"
_COLUMNS = ["userId", "movieId", "rating"]
_DTYPES = {"userId": "int32", "movieId": "int32", "rating": "float32"}
_SPARK_OPTIONS = {
    "spark.driver.memory": "8g",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def read_movie_genres(folder: Path) -> pd.DataFrame:
    """Return one row per movie and genre, with the columns ``movieId`` and ``genre``."""
    import pandas as pd

    if (folder / "movies.csv").exists():
        movies = pd.read_csv(folder / "movies.csv", usecols=["movieId", "genres"])
        movies["genre"] = movies["genres"].str.split("|")
        movies = movies[movies["genres"] != "(no genres listed)"]
    else:
        records = pd.read_csv(folder / "movies_metadata.csv", usecols=["id", "genres"], dtype=str)
        records["tmdbId"] = pd.to_numeric(records["id"], errors="coerce")
        records = records.dropna().drop_duplicates("tmdbId")
        records["genre"] = [
            [genre["name"] for genre in ast.literal_eval(text)] for text in records["genres"]
        ]
        candidates = (folder / "links.csv", folder / "links_small.csv")
        links = next(path for path in candidates if path.exists())
        movies = pd.read_csv(links).dropna().merge(records, on="tmdbId")
    pairs = movies[["movieId", "genre"]].explode("genre").dropna()
    return pairs.astype({"movieId": "int32", "genre": "category"})


def run_pandas(folder: Path, ratings: Path, out: Path) -> None:
    """Read all rows, merge and group with pandas, then fit with scikit-learn."""
    import pandas as pd

    rows = pd.read_csv(ratings, usecols=_COLUMNS, dtype=_DTYPES)
    merged = rows.merge(read_movie_genres(folder), on="movieId")
    means = merged.groupby(["userId", "genre"], observed=True)["rating"].mean()
    _fit_scikit_learn(means.unstack(fill_value=0), out)


def run_polars(folder: Path, ratings: Path, out: Path) -> None:
    """Scan, join and group with Polars' streaming engine, then fit with scikit-learn."""
    import polars as pl

    pairs = pl.from_pandas(read_movie_genres(folder)).lazy()
    means = (
        pl.scan_csv(ratings, schema_overrides={"userId": pl.Int32, "movieId": pl.Int32})
        .select(_COLUMNS)
        .join(pairs, on="movieId")
        .group_by("userId", "genre")
        .agg(pl.col("rating").mean())
        .collect(engine="streaming")
        .pivot(on="genre", index="userId", values="rating")
        .fill_null(0.0)
        .sort("userId")
    )
    _fit_scikit_learn(means.to_pandas().set_index("userId"), out)


def run_duckdb(folder: Path, ratings: Path, out: Path) -> None:
    """Join and pivot with DuckDB's SQL, then fit with scikit-learn."""
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"SET threads = {THREADS}")
    connection.register("pairs", read_movie_genres(folder).astype({"genre": str}))
    means = connection.execute(
        f"""
        PIVOT (SELECT userId, genre, rating FROM read_csv('{ratings}') JOIN pairs USING (movieId))
        ON genre USING avg(rating) GROUP BY userId ORDER BY userId
        """
    ).df()
    _fit_scikit_learn(means.fillna(0.0).set_index("userId"), out)


def run_dask(folder: Path, ratings: Path, out: Path) -> None:
    """Merge and group with ``dask.dataframe``, then fit dask-ml's estimators."""
    import dask.array as da
    import dask.dataframe as dd
    import numpy as np
    from dask_ml.cluster import KMeans
    from dask_ml.decomposition import IncrementalPCA
    from distributed import Client, LocalCluster, wait

    with (
        LocalCluster(
            1, threads_per_worker=THREADS, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster),
    ):
        rows = dd.read_csv(ratings, usecols=_COLUMNS, dtype=_DTYPES)
        merged = rows.merge(read_movie_genres(folder).astype({"genre": str}), on="movieId")
        means = merged.groupby(["userId", "genre"])["rating"].mean().compute()
        table = means.unstack(fill_value=0.0).sort_index()
        X = da.from_array(
            table.to_numpy(np.float32), chunks=(-(-len(table) // THREADS), table.shape[1])
        ).persist()
        wait(X)
        labels = KMeans(K, random_state=0).fit(X).labels_.compute()
        # The default batches, of 5 rows per feature, take minutes; one batch per block is fastest.
        pca = IncrementalPCA(2, batch_size=X.chunksize[0]).fit(X)
        _write_assignments(table, labels, np.asarray(pca.transform(X)), out)


def run_spark(folder: Path, ratings: Path, out: Path) -> None:
    """Join and pivot with Spark SQL, then fit MLlib's estimators."""
    from pyspark.ml.clustering import KMeans
    from pyspark.ml.feature import PCA, VectorAssembler
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions

    session = start_spark({"spark.sql.shuffle.partitions": str(4 * THREADS)})
    pairs = read_movie_genres(folder).astype({"genre": str})
    genres = sorted(pairs["genre"].unique())
    means = (
        session.read.csv(
            str(ratings),
            header=True,
            schema="userId int, movieId int, rating float, timestamp long",
        )
        .join(functions.broadcast(session.createDataFrame(pairs)), "movieId")
        .groupBy("userId")
        .pivot("genre", genres)
        .agg(functions.mean("rating"))
        .fillna(0.0)
    )
    users = VectorAssembler(inputCols=genres, outputCol="features").transform(means).cache()
    model = KMeans(k=K, seed=0).fit(users)
    pca = PCA(k=2, inputCol="features", outputCol="axes").fit(users)
    table = pca.transform(model.transform(users)).withColumnRenamed("prediction", "segment")
    points = vector_to_array("axes")
    table.select(
        "userId", "segment", points[0].alias("pc1"), points[1].alias("pc2"), *genres
    ).write.parquet(str(out / ASSIGNMENTS))
    session.stop()


def start_spark(options: dict[str, str] | None = None) -> SparkSession:
    """Start a Spark session that has :data:`THREADS` threads and listens on loopback only."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(f"local[{THREADS}]")
    for name, value in {**_SPARK_OPTIONS, **(options or {})}.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def read_columns(folder: Path, ratings: Path, out: Path) -> None:
    """Read the three columns with pyarrow and count the rows: the floor for every job."""
    import pyarrow.csv as pa_csv

    options = pa_csv.ConvertOptions(include_columns=_COLUMNS)
    with pa_csv.open_csv(ratings, convert_options=options) as reader:
        rows = sum(batch.num_rows for batch in reader)
    (out / "rows").write_text(str(rows), "utf-8")


def _fit_scikit_learn(means: pd.DataFrame, out: Path) -> None:
    """Fit K-Means and PCA to means of shape (n_users, n_genres), and write the assignments."""
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.decomposition import IncrementalPCA

    X = means.to_numpy(np.float32)
    labels = KMeans(K, random_state=0).fit_predict(X)
    points = IncrementalPCA(2, batch_size=100_000).fit_transform(X)
    _write_assignments(means, labels, points, out)


def _write_assignments(
    means: pd.DataFrame, labels: NDArray[Any], points: NDArray[Any], out: Path
) -> None:
    means.columns = [str(name) for name in means.columns]
    table = means.assign(segment=labels, pc1=points[:, 0], pc2=points[:, 1])
    table.to_parquet(out / ASSIGNMENTS)


class JobPeer(NamedTuple):
    """A peer: its title in tables, the module that it needs, and the function that runs it.

    The function takes the folder of the catalogue, the ratings as CSV, and the folder to write to.
    """

    title: str
    module: str
    run: Callable[[Path, Path, Path], None]


#: The peer that only reads the ratings.
FLOOR = "floor"
PEERS = {
    "polars": JobPeer("Polars (streaming) + scikit-learn", "polars", run_polars),
    "duckdb": JobPeer("DuckDB + scikit-learn", "duckdb", run_duckdb),
    "pandas": JobPeer("pandas + scikit-learn", "pandas", run_pandas),
    "dask": JobPeer("dask.dataframe + dask-ml, defaults", "dask_ml", run_dask),
    "spark": JobPeer("Spark SQL + MLlib", "pyspark", run_spark),
    FLOOR: JobPeer("pyarrow, reading three columns only", "pyarrow", read_columns),
}


def main(argv: list[str]) -> None:
    """Run the peer that the arguments name."""
    name, folder, ratings, out = argv
    PEERS[name].run(Path(folder), Path(ratings), Path(out))


if __name__ == "__main__":
    main(sys.argv[1:])
