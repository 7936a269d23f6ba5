"""The whole job as users of other libraries would write it, each in a cold process of its own.

Run as ``python -m segmentation.benchmark.job_peers NAME DATA RATINGS OUT``: ratings → each user's
mean rating per genre → K-Means (k = 5) → PCA onto two axes → a table of users in ``OUT``. They
share how the catalogue is read and, but for Dask and Spark, the fit by scikit-learn; libraries
are imported where they are used, since a process pays for what it imports.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

K = 5
THREADS = 2
_COLUMNS = ["userId", "movieId", "rating"]
_TYPES = {"userId": "int32", "movieId": "int32", "rating": "float32"}


def genres_of(folder: Path) -> pd.DataFrame:
    """Return a row for each genre of each movie: ``movieId`` and ``genre``."""
    import pandas as pd

    if (folder / "movies.csv").exists():
        movies = pd.read_csv(folder / "movies.csv", usecols=["movieId", "genres"])
        movies["genre"] = movies["genres"].str.split("|")
        movies = movies[movies["genres"] != "(no genres listed)"]
    else:
        found = pd.read_csv(folder / "movies_metadata.csv", usecols=["id", "genres"], dtype=str)
        found["tmdbId"] = pd.to_numeric(found["id"], errors="coerce")
        found = found.dropna().drop_duplicates("tmdbId")
        found["genre"] = [[g["name"] for g in ast.literal_eval(text)] for text in found["genres"]]
        links = next(p for p in (folder / "links.csv", folder / "links_small.csv") if p.exists())
        movies = pd.read_csv(links).dropna().merge(found, on="tmdbId")
    pairs = movies[["movieId", "genre"]].explode("genre").dropna()
    return pairs.astype({"movieId": "int32", "genre": "category"})


def with_pandas(folder: Path, ratings: Path, out: Path) -> None:
    """Read everything, merge, group."""
    import pandas as pd

    rows = pd.read_csv(ratings, usecols=_COLUMNS, dtype=_TYPES)
    merged = rows.merge(genres_of(folder), on="movieId")
    means = merged.groupby(["userId", "genre"], observed=True)["rating"].mean()
    _by_scikit_learn(means.unstack(fill_value=0), out)


def with_polars(folder: Path, ratings: Path, out: Path) -> None:
    """Scan lazily, join, group, collect by the streaming engine."""
    import polars as pl

    pairs = pl.from_pandas(genres_of(folder)).lazy()
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
    _by_scikit_learn(means.to_pandas().set_index("userId"), out)


def with_duckdb(folder: Path, ratings: Path, out: Path) -> None:
    """Join and pivot in SQL."""
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"SET threads = {THREADS}")
    connection.register("pairs", genres_of(folder).astype({"genre": str}))
    means = connection.execute(
        f"""
        PIVOT (SELECT userId, genre, rating FROM read_csv('{ratings}') JOIN pairs USING (movieId))
        ON genre USING avg(rating) GROUP BY userId ORDER BY userId
        """
    ).df()
    _by_scikit_learn(means.fillna(0.0).set_index("userId"), out)


def with_dask(folder: Path, ratings: Path, out: Path) -> None:
    """``dask.dataframe`` merge and groupby, then dask-ml's estimators as they come."""
    import dask.array as da
    import dask.dataframe as dd
    import numpy as np
    from dask_ml.cluster import KMeans
    from dask_ml.decomposition import IncrementalPCA
    from distributed import Client, LocalCluster, wait

    with (
        LocalCluster(
            1, threads_per_worker=THREADS, processes=False, dashboard_address=None
        ) as cluster,
        Client(cluster),
    ):
        rows = dd.read_csv(ratings, usecols=_COLUMNS, dtype=_TYPES)
        merged = rows.merge(genres_of(folder).astype({"genre": str}), on="movieId")
        means = merged.groupby(["userId", "genre"])["rating"].mean().compute()
        table = means.unstack(fill_value=0.0).sort_index()
        X = da.from_array(
            table.to_numpy(np.float32), chunks=(-(-len(table) // THREADS), table.shape[1])
        ).persist()
        wait(X)
        labels = KMeans(K, random_state=0).fit(X).labels_.compute()
        # Its default batch of 5 rows a feature takes minutes here; a batch a block is its best.
        axes = IncrementalPCA(2, batch_size=X.chunksize[0]).fit(X)
        _write(table, labels, np.asarray(axes.transform(X)), out)


def with_spark(folder: Path, ratings: Path, out: Path) -> None:
    """Spark SQL and MLlib, ``local[2]``, as it would be on a cluster."""
    from pyspark.ml.clustering import KMeans
    from pyspark.ml.feature import PCA, VectorAssembler
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as f

    session = (
        SparkSession.builder.master(f"local[{THREADS}]")
        .config("spark.driver.memory", "8g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", 4 * THREADS)
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    pairs = genres_of(folder).astype({"genre": str})
    genres = sorted(pairs["genre"].unique())
    means = (
        session.read.csv(
            str(ratings),
            header=True,
            schema="userId int, movieId int, rating float, timestamp long",
        )
        .join(f.broadcast(session.createDataFrame(pairs)), "movieId")
        .groupBy("userId")
        .pivot("genre", genres)
        .agg(f.mean("rating"))
        .fillna(0.0)
    )
    users = VectorAssembler(inputCols=genres, outputCol="features").transform(means).cache()
    model = KMeans(k=K, seed=0).fit(users)
    axes = PCA(k=2, inputCol="features", outputCol="axes").fit(users)
    placed = axes.transform(model.transform(users)).withColumnRenamed("prediction", "segment")
    points = vector_to_array("axes")
    placed.select(
        "userId", "segment", points[0].alias("pc1"), points[1].alias("pc2"), *genres
    ).write.parquet(str(out / "assignments.parquet"))
    session.stop()


def floor(folder: Path, ratings: Path, out: Path) -> None:
    """Pyarrow reading the three columns, and nothing else: the floor."""
    from pyarrow import csv

    options = csv.ConvertOptions(include_columns=_COLUMNS)
    with csv.open_csv(ratings, convert_options=options) as reader:
        rows = sum(batch.num_rows for batch in reader)
    (out / "rows").write_text(str(rows), "utf-8")


def _by_scikit_learn(means: pd.DataFrame, out: Path) -> None:
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.decomposition import IncrementalPCA

    X = means.to_numpy(np.float32)
    labels = KMeans(K, random_state=0).fit_predict(X)
    points = IncrementalPCA(2, batch_size=100_000).fit_transform(X)
    _write(means, labels, points, out)


def _write(means: pd.DataFrame, labels: Any, points: Any, out: Path) -> None:
    means.columns = [str(name) for name in means.columns]
    means.assign(segment=labels, pc1=points[:, 0], pc2=points[:, 1]).to_parquet(
        out / "assignments.parquet"
    )


#: name → (what it is, the module that it needs, what runs)
RIVALS: dict[str, tuple[str, str, Callable[[Path, Path, Path], None]]] = {
    "polars": ("Polars (streaming) + scikit-learn", "polars", with_polars),
    "duckdb": ("DuckDB + scikit-learn", "duckdb", with_duckdb),
    "pandas": ("pandas + scikit-learn", "pandas", with_pandas),
    "dask": ("dask.dataframe + dask-ml as it comes", "dask_ml", with_dask),
    "spark": ("Spark SQL + MLlib", "pyspark", with_spark),
    "floor": ("pyarrow reading three columns, no more", "pyarrow", floor),
}


def main(argv: list[str]) -> None:
    """Run one of them."""
    name, folder, ratings, out = argv
    RIVALS[name][2](Path(folder), Path(ratings), Path(out))


if __name__ == "__main__":
    main(sys.argv[1:])
