"""The generator: rows and seed determine every byte, and the marginals are the published ones."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segmentation.datasets import catalogue, layouts
from segmentation.datasets.synthetic import calibration, kernels, model, writer
from segmentation.errors import DataError
from segmentation.schema import KAGGLE_GENRES

ROWS = 60_000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, client) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    writer.write_dataset(ROWS, 0, folder, client)
    return folder


@pytest.fixture(scope="module")
def full_plan() -> model.Plan:
    return model.make_plan(calibration.ROWS, 0)


def hash_files(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def read_records(folder: Path) -> list[list[str]]:
    text = (folder / "movies_metadata.csv").read_text("utf-8")
    return list(csv.reader(io.StringIO(text, newline="")))


def test_rows_and_seed_determine_every_byte(dataset: Path, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            1,
            threads_per_worker=5,
            processes=False,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as other,
    ):
        writer.write_dataset(ROWS, 0, tmp_path / "again", other)
        writer.write_dataset(ROWS, 1, tmp_path / "other", other)
    assert hash_files(tmp_path / "again") == hash_files(dataset)
    differ = hash_files(tmp_path / "other")
    assert all(differ[name] != value for name, value in hash_files(dataset).items())


def test_rows_users_and_order(dataset: Path) -> None:
    ratings = pd.read_csv(dataset / "ratings.csv")
    assert list(ratings.columns) == ["userId", "movieId", "rating", "timestamp"]
    assert len(ratings) == ROWS
    assert not ratings.duplicated(["userId", "movieId"]).any()
    assert ratings[["userId", "movieId"]].equals(
        ratings[["userId", "movieId"]].sort_values(["userId", "movieId"], ignore_index=True)
    )
    counts = ratings.groupby("userId").size()
    n_users = round(ROWS * calibration.USERS / calibration.ROWS)
    assert counts.index.tolist() == list(range(1, n_users + 1))
    assert counts.min() < 20, "the full set has no floor of 20 ratings"
    assert counts.median() < counts.mean() / 2, "a heavy tail"
    assert ratings["timestamp"].between(calibration.TIMESTAMPS[0], calibration.TIMESTAMPS[-1]).all()
    assert set(ratings["rating"]) == {half / 2 for half in range(1, 11)}


def test_half_stars_in_the_real_shares(dataset: Path) -> None:
    ratings = pd.read_csv(dataset / "ratings.csv")
    counts = ratings["rating"].value_counts().sort_index().to_numpy()
    expected = np.array(calibration.HALF_STARS) * (ROWS / calibration.ROWS)
    assert np.abs(counts - expected).max() <= 1


def test_full_size_meets_the_published_figures(full_plan: model.Plan) -> None:
    assert full_plan.users == 270_896
    assert full_plan.counts.sum() == 26_024_289
    assert full_plan.counts.max() == 18_276
    assert full_plan.counts.min() == 1
    half_stars = writer.count_ratings_per_group(full_plan)
    assert (half_stars >= 0).all()
    assert half_stars.sum(axis=0).tolist() == list(calibration.HALF_STARS)
    np.testing.assert_array_equal(half_stars.sum(axis=1), np.diff(full_plan.first_rows))
    stars = np.arange(1, 11) / 2
    mean = (stars * calibration.HALF_STARS).sum() / calibration.ROWS
    assert mean == pytest.approx(3.528090, abs=1e-6)
    variance = ((stars - mean) ** 2 * calibration.HALF_STARS).sum() / (calibration.ROWS - 1)
    assert np.sqrt(variance) == pytest.approx(1.065443, abs=1e-6)


def test_movies_of_a_user_do_not_depend_on_the_group() -> None:
    small = model.make_plan(30_000, 3)
    tables = small.tables
    key = np.uint64(7)

    def draw(first: int, stop: int) -> np.ndarray:
        movies = np.empty(int(small.counts[first:stop].sum()), np.int32)
        kernels.draw_movies(
            key,
            first,
            small.segments[first:stop],
            small.counts[first:stop],
            tables.alias_share,
            tables.alias_other,
            tables.weights,
            movies,
        )
        return movies

    np.testing.assert_array_equal(draw(0, 40), np.concatenate([draw(0, 13), draw(13, 40)]))


def test_alias_table_samples_its_weights() -> None:
    weights = np.array([0.1, 5.0, 0.0, 2.5, 1.4])
    share, other = kernels.build_alias_table(weights)
    chance = share / len(weights)
    np.add.at(chance, other, (1.0 - share) / len(weights))
    np.testing.assert_allclose(chance, weights / weights.sum())


def test_metadata_has_the_defects_of_the_real_file(dataset: Path) -> None:
    header, *rows = read_records(dataset)
    assert len(header) == 24
    # Three records are torn in two; RECORDS counts both halves.
    assert len(rows) == calibration.RECORDS
    whole = [row for row in rows if len(row) == 24 and row[5].isdigit()]
    torn = [row for row in rows if len(row) != 24]
    tails = [row for row in torn if row[0] != "False"]
    assert len(tails) == 3
    at = header.index("genres")
    assert all("'name'" in row[at] for row in tails), "companies end up under genres"
    ids = Counter(row[5] for row in rows if len(row) > 5 and row[5].isdigit())
    assert sum(n - 1 for n in ids.values()) == calibration.DUPLICATES
    assert any("\n" in row[9] for row in whole)
    assert any('"' in row[9] and "," in row[9] for row in whole)


def test_catalogue_of_the_synthetic_set(dataset: Path) -> None:
    movies = catalogue.load_catalogue(layouts.detect_layout(str(dataset)))
    notes = movies.notes
    assert notes["records"] == 45_466
    assert notes["malformed_repaired"] + notes["malformed_set_aside"] == 3
    assert notes["duplicates"] == 30
    assert notes["without_category"] == 2_442
    assert notes["links"] == 45_843
    assert notes["links_without_tmdb"] == 219
    assert notes["categories_unreadable"] == 0
    titles = {int(m): t for m, t in zip(movies.item_ids, movies.titles, strict=True)}
    assert titles[296] == "Pulp Fiction"
    assert titles[318] == "The Shawshank Redemption"


def test_genres_have_their_published_number_of_titles(dataset: Path) -> None:
    header, *rows = read_records(dataset)
    at = header.index("genres")
    titles: Counter[str] = Counter()
    for row in rows:
        if len(row) == 24 or row[0] == "False":
            titles.update(name for name in KAGGLE_GENRES if f"'name': '{name}'" in row[at])
    assert dict(titles) == {name: count for name, (_, count, *_) in calibration.GENRES.items()}


def test_tmdb_ids_differ_from_movielens_ids(dataset: Path) -> None:
    links = pd.read_csv(dataset / "links.csv")
    assert len(links) == 45_843
    assert links["tmdbId"].isna().sum() == 219
    assert not (links["movieId"] == links["tmdbId"]).any()
    assert links["movieId"].is_unique


def test_a_direct_join_fails_as_in_the_real_data(dataset: Path) -> None:
    ratings = pd.read_csv(dataset / "ratings.csv")
    direct = catalogue.load_catalogue(layouts.detect_layout(str(dataset)), "direct")
    share = ratings["movieId"].isin(direct.item_ids).mean()
    assert 0.35 < share < 0.55
    assert set(catalogue.find_wrong_anchors(direct)) == {296, 318}


def test_planted_segments(dataset: Path) -> None:
    planted = pd.read_parquet(dataset / "planted.parquet")
    ratings = pd.read_csv(dataset / "ratings.csv")
    counts = ratings.groupby("userId").size()
    assert planted["userId"].tolist() == counts.index.tolist()
    assert planted["movies"].tolist() == counts.tolist()
    assert set(planted["persona"]) == {segment.name for segment in calibration.SEGMENTS}
    by_segment = planted.groupby("segment")["movies"].median()
    assert by_segment.is_monotonic_increasing
    names = planted.groupby("segment")["persona"].unique()
    assert [list(n) for n in names] == [[segment.name] for segment in calibration.SEGMENTS]


def test_is_written_recognizes_a_complete_dataset(dataset: Path, tmp_path: Path, client) -> None:
    assert writer.is_written(ROWS, 0, dataset)
    assert not writer.is_written(ROWS, 1, dataset)
    assert not writer.is_written(ROWS + 1, 0, dataset)
    assert not writer.is_written(ROWS, 0, tmp_path)
    assert json.loads((dataset / "synthetic.json").read_text())["synthetic"] is True
    copy = tmp_path / "copy"
    writer.write_dataset(2_000, 0, copy, client)
    with (copy / "ratings.csv").open("ab") as file:
        file.write(b"1,1,1.0,1\n")
    assert not writer.is_written(2_000, 0, copy)
    writer.write_dataset(2_000, 0, copy, client)
    assert writer.is_written(2_000, 0, copy)
    metadata = copy / "movies_metadata.csv"
    metadata.write_bytes(metadata.read_bytes().swapcase())
    assert not writer.is_written(2_000, 0, copy)


def test_data_that_was_not_generated_is_not_replaced(tmp_path: Path, client) -> None:
    (tmp_path / "ratings.csv").write_text("mine")
    with pytest.raises(DataError, match="holds ratings.csv but no synthetic.json, so it may be"):
        writer.write_dataset(2_000, 0, tmp_path, client)
    assert (tmp_path / "ratings.csv").read_text() == "mine"


def test_nothing_is_written_through_a_link(tmp_path: Path, client) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "links.csv.partial").symlink_to(mine)
    with pytest.raises(DataError, match="links.csv.partial: is no regular file: move it away"):
        writer.write_dataset(2_000, 0, tmp_path / "out", client)
    assert mine.read_text() == "mine"


def test_too_little_disk_space_is_an_error_before_writing(tmp_path: Path, client) -> None:
    with pytest.raises(DataError, match=r"take about 2,700,000.0 MB, and only .* MB are free"):
        # Planning so many users takes minutes; this tests the arithmetic only.
        with pytest.MonkeyPatch.context() as patch:
            small = model.make_plan(2_000, 0)
            patch.setattr(writer, "make_plan", lambda rows, seed: small)
            writer.write_dataset(10**11, 0, tmp_path / "big", client)
    assert not (tmp_path / "big" / "ratings.csv").exists()


def test_a_folder_below_a_file_is_an_error_in_one_line(tmp_path: Path, client) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written .*: choose another folder"):
        writer.write_dataset(1_000, 0, tmp_path / "file" / "folder", client)
    assert (tmp_path / "file").read_text() == ""
