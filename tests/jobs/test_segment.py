"""The main job, end to end: real data compared with plain pandas and scikit-learn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.cluster

from jobs import segment
from segmentation.schema import GROUPLENS_GENRES, KAGGLE_GENRES
from tests import oracles
from tests.conftest import write_tiny

PERSONAS = {
    "Quiet Viewers",
    "New Explorers",
    "Expanding Enthusiasts",
    "Loyalists",
    "Premium Loyalists",
}
FIXED = [
    "userId",
    "segment",
    "persona",
    "distance",
    "runner_up",
    "margin",
    "pc1",
    "pc2",
    "items",
    "mean_rating",
]


class Run:
    """A finished run's folder, read back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / "run.json").read_text())
        self.assignments = pd.read_parquet(folder / "assignments.parquet")
        self.segments: list[dict[str, Any]] = json.loads((folder / "segments.json").read_text())

    def means(self, genres: tuple[str, ...]) -> pd.DataFrame:
        return self.assignments.set_index("userId")[list(genres)].astype(float)


def run(data: Path | str, out: Path, *options: str) -> Run:
    assert segment.main(["--data", str(data), "--out", str(out), "--quiet", *options]) == 0
    return Run(out)


@pytest.fixture(scope="module")
def real(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(real_data / "kaggle-small", tmp_path_factory.mktemp("real") / "out")


@pytest.fixture(scope="module")
def original(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("original") / "out"
    return run(real_data / "kaggle-small", out, "--preset", "original")


@pytest.mark.real_data
class TestRealData:
    def test_rows_users_and_movies(self, real: Run) -> None:
        assert real.manifest["rows"] == {
            "read": 100_004,
            "used": 99_810,
            "unmapped": 194,
            "rejected": 0,
        }
        assert (real.manifest["users"], real.manifest["items"]) == (671, 9_025)
        assert not (real.folder / "rejected").exists()

    def test_genre_means_equal_pandas(self, real: Run, real_data: Path) -> None:
        ratings = pd.read_csv(real_data / "kaggle-small" / "ratings_small.csv")
        movies = oracles.kaggle_movies(real_data / "kaggle-small", "links")
        expected = oracles.user_genre_means(ratings, movies)
        actual = real.means(KAGGLE_GENRES)
        assert actual.index.tolist() == expected.index.tolist()
        assert sorted(expected.columns) == sorted(KAGGLE_GENRES)
        np.testing.assert_allclose(actual, expected[list(KAGGLE_GENRES)], atol=1e-6)
        used = ratings[ratings["movieId"].isin(movies)].groupby("userId")["rating"]
        np.testing.assert_array_equal(real.assignments["items"], used.size())
        np.testing.assert_allclose(real.assignments["mean_rating"], used.mean())

    def test_five_personas_each_once(self, real: Run) -> None:
        assert {s["persona"] for s in real.segments} == PERSONAS
        assert [s["segment"] for s in real.segments] == [0, 1, 2, 3, 4]
        movies = [s["items_per_user"] for s in real.segments]
        assert movies == sorted(movies)

    def test_inertia_against_the_best_of_many_starts(self, real: Run) -> None:
        X = real.means(KAGGLE_GENRES).fillna(0.0).to_numpy()
        best = sklearn.cluster.KMeans(5, n_init=50, random_state=1).fit(X)
        assert real.manifest["kmeans"]["inertia"] <= best.inertia_ * 1.005

    def test_segments_follow_from_the_assignments(self, real: Run) -> None:
        frame = real.assignments
        for record in real.segments:
            own = frame[frame["segment"] == record["segment"]]
            assert (own["persona"].astype(str) == record["persona"]).all()
            assert record["users"] == len(own)
            assert record["share"] == pytest.approx(len(own) / len(frame))
            assert record["items_per_user"] == pytest.approx(own["items"].mean())
            assert record["mean_rating"] == pytest.approx(own["mean_rating"].mean())
            means = own[list(KAGGLE_GENRES)].astype(float)
            for genre in KAGGLE_GENRES:
                values = record["categories"][genre]
                assert values["mean"] == pytest.approx(means[genre].fillna(0).mean(), abs=1e-6)
                assert values["coverage"] == pytest.approx(means[genre].notna().mean())
                rated = means[genre].mean()
                assert values["mean_rated"] == (
                    pytest.approx(rated, abs=1e-6) if np.isfinite(rated) else None
                )
            high = {g for g, v in record["categories"].items() if v["mean"] >= 3}
            assert set(record["high_rated"]) == high

    def test_stability_of_each_segment(self, real: Run) -> None:
        actual = real.manifest["kmeans"]["stability"]
        assert [s["stability"] for s in real.segments] == actual["jaccard"]
        assert all(0.2 < value <= 1 for value in actual["jaccard"])
        assert 0.2 < actual["resampled_ari"] <= 1
        assert actual["users"] == 671

    def test_distances_margins_and_points(self, real: Run) -> None:
        frame = real.assignments
        X = real.means(KAGGLE_GENRES).fillna(0.0).to_numpy()
        centers = np.array([X[frame["segment"] == s].mean(axis=0) for s in range(5)])
        far = np.sqrt(((X[:, None] - centers[None]) ** 2).sum(axis=2))
        nearest = np.sort(far, axis=1)
        np.testing.assert_array_equal(frame["segment"], far.argmin(axis=1))
        np.testing.assert_allclose(frame["distance"], nearest[:, 0], atol=1e-5)
        np.testing.assert_allclose(frame["margin"], nearest[:, 1] - nearest[:, 0], atol=1e-5)
        np.testing.assert_array_equal(frame["runner_up"], far.argsort(axis=1)[:, 1])
        centred = X - X.mean(axis=0)
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        for column, axis in zip(("pc1", "pc2"), axes, strict=False):
            output, exact = frame[column].to_numpy(), centred @ axis
            sign = np.sign(output @ exact)
            np.testing.assert_allclose(output, sign * exact, atol=1e-4)

    def test_original_preset(self, original: Run, real_data: Path) -> None:
        manifest = original.manifest
        assert manifest["rows"]["used"] == 44_989
        assert manifest["items"] == 2_830
        assert manifest["settings"]["join"] == "direct"
        movies = [s["items_per_user"] for s in original.segments]
        high = [len(s["high_rated"]) for s in original.segments]
        # Several optima lie within 0.05 % of one another; all of them have this staircase.
        assert movies == pytest.approx([12.7, 28.9, 30.2, 82.6, 149.0], rel=0.05)
        assert high == [3, 11, 11, 17, 19]
        X = original.means(KAGGLE_GENRES).fillna(0.0).to_numpy()
        best = sklearn.cluster.KMeans(5, n_init=50, random_state=1).fit(X)
        assert manifest["kmeans"]["inertia"] <= best.inertia_ * 1.005
        assert [s["persona"] for s in original.segments] == [
            "Quiet Viewers",
            "New Explorers",
            "Expanding Enthusiasts",
            "Loyalists",
            "Premium Loyalists",
        ]

    def test_a_warning_about_the_direct_join(self, original: Run) -> None:
        (warning,) = original.manifest["warnings"]
        assert "uses MovieLens ids as TMDB ids" in warning
        assert "movieId 296 (Pulp Fiction) counts as 'Terminator 3" in warning
        assert warning.split(";")[0] in (original.folder / "report.md").read_text()

    @pytest.mark.parametrize("kind", ["csv", "dat"])
    def test_grouplens_layouts(self, real_data: Path, tmp_path: Path, kind: str) -> None:
        source = real_data / "ml-latest-small"
        folder = as_dat(source, tmp_path / "dat") if kind == "dat" else source
        actual = run(folder, tmp_path / "out")
        expected = oracles.user_genre_means(
            pd.read_csv(source / "ratings.csv"), oracles.grouplens_movies(source)
        )
        assert set(expected.columns) == set(GROUPLENS_GENRES)
        np.testing.assert_allclose(
            actual.means(GROUPLENS_GENRES), expected[list(GROUPLENS_GENRES)], atol=1e-6
        )
        assert actual.manifest["data"]["layout"] == f"grouplens-{kind}"
        assert actual.manifest["rows"]["used"] == 100_836

    def test_taste_preset_by_pandas(self, real: Run, real_data: Path, tmp_path: Path) -> None:
        actual = run(real_data / "kaggle-small", tmp_path / "out", "--preset", "taste")
        ratings = pd.read_csv(real_data / "kaggle-small" / "ratings_small.csv")
        movies = oracles.kaggle_movies(real_data / "kaggle-small", "links")
        used = ratings[ratings["movieId"].isin(movies)]
        exploded = used.assign(genre=used["movieId"].map(movies)).explode("genre").dropna()
        counts = exploded.pivot_table(
            index="userId", columns="genre", values="rating", aggfunc="size"
        )
        own = used.groupby("userId")["rating"].mean()
        means = real.means(KAGGLE_GENRES)
        X = (means.sub(own, axis=0) * (counts / (counts + 5))).fillna(0.0).to_numpy()
        total = ((X - X.mean(axis=0)) ** 2).sum()
        labels = actual.assignments["segment"].to_numpy()
        within = sum(((X[labels == s] - X[labels == s].mean(axis=0)) ** 2).sum() for s in range(5))
        assert actual.manifest["kmeans"]["inertia"] == pytest.approx(within, rel=1e-4)
        assert within < total


def as_dat(source: Path, folder: Path) -> Path:
    """Write GroupLens' .dat layout from its CSV layout."""
    folder.mkdir()
    ratings = pd.read_csv(source / "ratings.csv")
    lines = [f"{u}::{m}::{r:g}::{t}\n" for u, m, r, t in ratings.itertuples(index=False, name=None)]
    (folder / "ratings.dat").write_text("".join(lines))
    movies = pd.read_csv(source / "movies.csv")
    text = "".join(f"{m}::{t}::{g}\n" for m, t, g in movies.itertuples(index=False, name=None))
    (folder / "movies.dat").write_bytes(text.encode("latin-1", "replace"))
    return folder


def test_the_contract_of_a_runs_folder(tmp_path: Path) -> None:
    actual = run(write_tiny(tmp_path / "tiny"), tmp_path / "out", "--k", "2")
    assert sorted(p.name for p in actual.folder.iterdir()) == [
        "assignments.parquet",
        "figures",
        "model",
        "report.html",
        "report.md",
        "run.json",
        "segments.csv",
        "segments.json",
    ]
    assert sorted(p.name for p in (actual.folder / "figures").iterdir()) == [
        "genres.png",
        "pca.png",
        "sizes.png",
    ]
    assert list(actual.assignments.columns) == [*FIXED, *KAGGLE_GENRES]
    manifest = actual.manifest
    assert manifest["status"] == "complete"
    wanted = {
        "data": {"source", "synthetic", "fingerprint"},
        "rows": {"read", "used", "unmapped", "rejected"},
        "kmeans": {"n_clusters", "inertia", "n_iter", "silhouette", "davies_bouldin"},
        "pca": {"explained_variance_ratio", "angle_to_exact_degrees"},
        "cluster": {"kind"},
        "versions": {"python", "dask", "dask-ml", "scikit-learn", "segmentation"},
    }
    for name, keys in wanted.items():
        assert keys <= set(manifest[name]), name
    assert manifest["data"]["synthetic"] is False
    assert {"name", "seconds", "tasks", "bytes"} == set(manifest["stages"][0])
    assert manifest["seconds"] > 0
    assert manifest["peak_memory_bytes"] > 10_000_000
    record = actual.segments[0]
    assert {
        "segment",
        "persona",
        "users",
        "share",
        "items_per_user",
        "mean_rating",
        "high_rated",
        "stability",
        "categories",
        "summary",
        "product_strategy",
        "marketing_actions",
    } <= set(record)
    assert set(record["categories"]["Drama"]) == {"mean", "mean_rated", "coverage", "lift"}
    table = pd.read_csv(actual.folder / "segments.csv")
    assert table["persona"].tolist() == [s["persona"] for s in actual.segments]
    assert table["mean:Drama"].tolist() == pytest.approx(
        [s["categories"]["Drama"]["mean"] for s in actual.segments]
    )


def test_four_rows_by_hand(tmp_path: Path) -> None:
    """Users 1 and 2 of the tiny set; user 3 rated only a movie without a link."""
    actual = run(write_tiny(tmp_path / "tiny"), tmp_path / "out", "--k", "2")
    assert actual.manifest["rows"] == {"read": 6, "used": 5, "unmapped": 1, "rejected": 0}
    rows = actual.assignments.set_index("userId")
    assert rows.index.tolist() == [1, 2]
    assert rows.loc[1, ["Drama", "Crime", "Comedy"]].tolist() == [4.0, 4.0, 2.0]
    # A second rating of a movie counts like any other; a movie without genres counts as a movie.
    assert rows.loc[2, ["Drama", "Crime"]].tolist() == [4.0, 4.0]
    assert pd.isna(rows.loc[2, "Comedy"])
    assert rows["items"].tolist() == [2, 3]
    assert rows["mean_rating"].tolist() == [3.0, 3.0]
    assert actual.manifest["kmeans"]["inertia"] == 0.0
    assert actual.manifest["items"] == 3


def test_synthetic_data_says_so_everywhere(tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert segment.main(["--data", "synthetic:20000", "--out", str(out)]) == 0
    output = capsys.readouterr()
    assert "Synthetic data" in output.out
    assert f"report: {out}/report.html" in output.out
    assert Run(out).manifest["data"]["synthetic"] is True
    for name in ("report.html", "report.md"):
        assert "Synthetic data" in (out / name).read_text()
    # A copy of the folder under another name says so too.
    generated = next(cache().glob("synthetic-*-20000-seed0"))
    shutil.copytree(generated, tmp_path / "renamed")
    for number, name in enumerate((str(tmp_path / "renamed"), (tmp_path / "renamed").as_uri())):
        assert run(name, tmp_path / f"{number}").manifest["data"]["synthetic"] is True
    # Other ratings joined with its catalogue are not synthetic; its own ratings always are.
    own = tmp_path / "own"
    own.mkdir()
    shutil.copyfile(generated / "ratings.csv", own / "ratings.csv")
    actual = run(str(generated), tmp_path / "own-out", "--ratings", str(own / "ratings.csv"))
    assert actual.manifest["data"]["synthetic"] is False
    assert "planted_ari" not in actual.manifest["kmeans"]
    shutil.copyfile(generated / "ratings.csv", tmp_path / "renamed" / "sorted.csv")
    actual = run(str(tmp_path / "renamed"), tmp_path / "in-out", "--ratings", "sorted.csv")
    assert actual.manifest["data"]["synthetic"] is True


def cache() -> Path:
    return Path(os.environ["XDG_CACHE_HOME"]) / "segmentation"


def test_planted_segments_can_be_recovered(tmp_path: Path) -> None:
    """Far better than chance; the benchmark measures how near it is to the ceiling."""
    from sklearn.metrics import adjusted_rand_score

    actual = run("synthetic:200000", tmp_path / "out")
    generated = cache() / "synthetic-v1-200000-seed0"
    planted = pd.read_parquet(generated / "planted.parquet").set_index("userId")["segment"]
    labels = actual.assignments.set_index("userId")["segment"]
    assert adjusted_rand_score(planted.loc[labels.index], labels) > 0.15
    assert {s["persona"] for s in actual.segments} == PERSONAS


def test_the_stages_import_nothing_heavy() -> None:
    """The estimators and what they import are loaded while the workers read."""
    heavy = {"dask.array", "dask_ml", "pandas", "scipy.stats", "sklearn"}
    code = f"import segmentation.pipeline.segment, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_run_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    code = (
        "import sys; from jobs import segment; "
        f"status = segment.main(['--data', 'synthetic:20000', '--out', {str(tmp_path / 'out')!r}, "
        "'--quiet']); "
        "print(status, sorted({'bokeh', 'kagglehub', 'matplotlib'} & set(sys.modules)),"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "0 []"
