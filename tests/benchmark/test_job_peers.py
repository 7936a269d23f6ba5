"""Peers of the whole job: genre means, clusters and axes, against sums in plain Python."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segmentation.benchmark import job_peers
from tests.conftest import write_tiny

N_USERS = 40
GENRES = {10: ("Drama", "Crime"), 20: ("Comedy",), 30: (), 40: ()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny catalogue with 160 ratings by 40 users."""
    rng = np.random.default_rng(0)
    lines = ["userId,movieId,rating,timestamp"]
    for user in range(1, N_USERS + 1):
        lines += [f"{user},{movie},{rng.integers(1, 11) / 2},1" for movie in GENRES]
    return write_tiny(tmp_path_factory.mktemp("peers") / "tiny", "\n".join(lines) + "\n")


def category_means(ratings: Path) -> dict[str, list[float]]:
    sums: dict[tuple[str, int], list[float]] = {}
    with ratings.open() as file:
        for row in csv.DictReader(file):
            for genre in GENRES[int(row["movieId"])]:
                sums.setdefault((genre, int(row["userId"])), []).append(float(row["rating"]))
    return {
        genre: [float(np.mean(sums[genre, user])) for user in range(1, N_USERS + 1)]
        for genre in ("Comedy", "Crime", "Drama")
    }


@pytest.mark.parametrize("name", ["pandas", "dask", "polars", "duckdb"])
def test_assignments(name: str, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip(job_peers.PEERS[name].module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        job_peers.PEERS[name].run(folder, folder / "ratings.csv", tmp_path)
    table = pd.read_parquet(tmp_path / job_peers.ASSIGNMENTS).sort_index()
    assert table.index.tolist() == list(range(1, N_USERS + 1))
    assert set(table["segment"]) == set(range(job_peers.K))
    means = category_means(folder / "ratings.csv")
    assert set(table.columns) == {"segment", "pc1", "pc2", *means}
    for genre, values in means.items():
        np.testing.assert_allclose(table[genre], values, atol=1e-6)
    # Crime and Drama are equal, so two axes hold all of the variance.
    centred = table[list(means)] - table[list(means)].mean()
    variance = (centred**2).to_numpy().sum()
    assert (table[["pc1", "pc2"]] ** 2).to_numpy().sum() == pytest.approx(variance, rel=1e-4)


def test_the_floor_only_counts_rows(folder: Path, tmp_path: Path) -> None:
    job_peers.main(["floor", str(folder), str(folder / "ratings.csv"), str(tmp_path)])
    assert (tmp_path / "rows").read_text() == str(4 * N_USERS)
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_genres_in_kaggles_layout(folder: Path) -> None:
    pairs = job_peers.read_movie_genres(folder)
    rows = sorted(zip(pairs["movieId"], pairs["genre"].astype(str), strict=True))
    assert rows == [(10, "Crime"), (10, "Drama"), (20, "Comedy")]


def test_genres_in_grouplens_layout(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text(
        'movieId,title,genres\n7,"A, b",Crime|Drama\n8,C,(no genres listed)\n9,D,War\n'
    )
    pairs = job_peers.read_movie_genres(tmp_path)
    rows = sorted(zip(pairs["movieId"], pairs["genre"].astype(str), strict=True))
    assert rows == [(7, "Crime"), (7, "Drama"), (9, "War")]
