"""The generator: the bytes hang on rows and seed alone, and the figures are the published ones."""

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
from segmentation.datasets.synthetic import calibration as real
from segmentation.datasets.synthetic import kernels, model, writer
from segmentation.errors import DataError
from segmentation.schema import KAGGLE_GENRES

ROWS = 60_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, client) -> Path:
    folder = tmp_path_factory.mktemp("made")
    writer.write_dataset(ROWS, 0, folder, client)
    return folder


@pytest.fixture(scope="module")
def full_plan() -> model.Plan:
    return model.make_plan(real.ROWS, 0)


def digest(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def records(folder: Path) -> list[list[str]]:
    text = (folder / "movies_metadata.csv").read_text("utf-8")
    return list(csv.reader(io.StringIO(text, newline="")))


def test_every_byte_follows_from_rows_and_seed(made: Path, tmp_path: Path) -> None:
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
    assert digest(tmp_path / "again") == digest(made)
    differ = digest(tmp_path / "other")
    assert all(differ[name] != value for name, value in digest(made).items())


def test_rows_users_and_order(made: Path) -> None:
    ratings = pd.read_csv(made / "ratings.csv")
    assert list(ratings.columns) == ["userId", "movieId", "rating", "timestamp"]
    assert len(ratings) == ROWS
    assert not ratings.duplicated(["userId", "movieId"]).any()
    assert ratings[["userId", "movieId"]].equals(
        ratings[["userId", "movieId"]].sort_values(["userId", "movieId"], ignore_index=True)
    )
    counts = ratings.groupby("userId").size()
    assert counts.index.tolist() == list(range(1, round(ROWS * real.USERS / real.ROWS) + 1))
    assert counts.min() < 20, "the full set has no floor of 20 ratings"
    assert counts.median() < counts.mean() / 2, "a heavy tail"
    assert ratings["timestamp"].between(real.TIMESTAMPS[0], real.TIMESTAMPS[-1]).all()
    assert set(ratings["rating"]) == {half / 2 for half in range(1, 11)}


def test_half_stars_in_the_real_shares(made: Path) -> None:
    ratings = pd.read_csv(made / "ratings.csv")
    found = ratings["rating"].value_counts().sort_index().to_numpy()
    wanted = np.array(real.HALF_STARS) * (ROWS / real.ROWS)
    assert np.abs(found - wanted).max() <= 1


def test_full_size_meets_the_published_figures(full_plan: model.Plan) -> None:
    assert full_plan.users == 270_896
    assert full_plan.counts.sum() == 26_024_289
    assert full_plan.counts.max() == 18_276
    assert full_plan.counts.min() == 1
    quotas = writer.quotas(full_plan)
    assert (quotas >= 0).all()
    assert quotas.sum(axis=0).tolist() == list(real.HALF_STARS)
    # A group's histogram must have room for exactly its rows.
    np.testing.assert_array_equal(quotas.sum(axis=1), np.diff(full_plan.first_rows))
    stars = np.arange(1, 11) / 2
    mean = (stars * real.HALF_STARS).sum() / real.ROWS
    assert mean == pytest.approx(3.528090, abs=1e-6)
    variance = ((stars - mean) ** 2 * real.HALF_STARS).sum() / (real.ROWS - 1)
    assert np.sqrt(variance) == pytest.approx(1.065443, abs=1e-6)


def test_groups_agree_whoever_makes_them(full_plan: model.Plan) -> None:
    """A user's films hang on (seed, user), not on the group the user is drawn in."""
    small = model.make_plan(30_000, 3)
    t = small.tables
    key = np.uint64(7)

    def draw(first: int, stop: int) -> np.ndarray:
        films = np.empty(int(small.counts[first:stop].sum()), np.int32)
        kernels.draw_films(
            key,
            first,
            small.segments[first:stop],
            small.counts[first:stop],
            t.alias_share,
            t.alias_other,
            t.weights,
            films,
        )
        return films

    np.testing.assert_array_equal(draw(0, 40), np.concatenate([draw(0, 13), draw(13, 40)]))


def test_alias_tables_hold_their_weights() -> None:
    weights = np.array([0.1, 5.0, 0.0, 2.5, 1.4])
    share, other = kernels.alias_table(weights)
    chance = share / len(weights)
    np.add.at(chance, other, (1.0 - share) / len(weights))
    np.testing.assert_allclose(chance, weights / weights.sum())


def test_metadata_in_its_raw_messy_form(made: Path) -> None:
    header, *rows = records(made)
    assert len(header) == 24
    # Three records are torn in two, which makes three records more of the wrong width.
    assert len(rows) == real.RECORDS
    whole = [row for row in rows if len(row) == 24 and row[5].isdigit()]
    torn = [row for row in rows if len(row) != 24]
    tails = [row for row in torn if row[0] != "False"]
    assert len(tails) == 3
    at = header.index("genres")
    assert all("'name'" in row[at] for row in tails), "companies stand under genres"
    ids = Counter(row[5] for row in rows if len(row) > 5 and row[5].isdigit())
    assert sum(n - 1 for n in ids.values()) == real.DUPLICATES
    assert any("\n" in row[9] for row in whole)
    assert any('"' in row[9] and "," in row[9] for row in whole)


def test_catalogue_of_the_synthetic_set(made: Path) -> None:
    found = catalogue.load_catalogue(layouts.detect_layout(str(made)))
    notes = found.notes
    assert notes["records"] == 45_466
    assert notes["malformed_repaired"] + notes["malformed_set_aside"] == 3
    assert notes["duplicates"] == 30
    assert notes["without_genre"] == 2_442
    assert notes["links"] == 45_843
    assert notes["links_without_tmdb"] == 219
    assert notes["unknown_genres"] == 0
    titles = {int(m): t for m, t in zip(found.movie_ids, found.titles, strict=True)}
    assert titles[296] == "Pulp Fiction"
    assert titles[318] == "The Shawshank Redemption"


def test_genres_have_their_published_number_of_titles(made: Path) -> None:
    header, *rows = records(made)
    at = header.index("genres")
    found: Counter[str] = Counter()
    for row in rows:
        if len(row) == 24 or row[0] == "False":
            found.update(name for name in KAGGLE_GENRES if f"'name': '{name}'" in row[at])
    assert dict(found) == {name: titles for name, (_, titles, *_) in real.GENRES.items()}


def test_tmdb_ids_differ_from_movielens_ids(made: Path) -> None:
    links = pd.read_csv(made / "links.csv")
    assert len(links) == 45_843
    assert links["tmdbId"].isna().sum() == 219
    assert not (links["movieId"] == links["tmdbId"]).any()
    assert links["movieId"].is_unique


def test_a_direct_join_goes_as_wrong_as_in_the_real_data(made: Path) -> None:
    ratings = pd.read_csv(made / "ratings.csv")
    direct = catalogue.load_catalogue(layouts.detect_layout(str(made)), "direct")
    kept = ratings["movieId"].isin(direct.movie_ids).mean()
    assert 0.35 < kept < 0.55
    assert set(catalogue.find_wrong_anchors(direct)) == {296, 318}


def test_planted_segments(made: Path) -> None:
    planted = pd.read_parquet(made / "planted.parquet")
    ratings = pd.read_csv(made / "ratings.csv")
    counts = ratings.groupby("userId").size()
    assert planted["userId"].tolist() == counts.index.tolist()
    assert planted["movies"].tolist() == counts.tolist()
    assert set(planted["persona"]) == {segment.name for segment in real.SEGMENTS}
    by_segment = planted.groupby("segment")["movies"].median()
    assert by_segment.is_monotonic_increasing
    names = planted.groupby("segment")["persona"].unique()
    assert [list(n) for n in names] == [[segment.name] for segment in real.SEGMENTS]


def test_marker_tells_a_finished_set(made: Path, tmp_path: Path, client) -> None:
    assert writer.is_written(ROWS, 0, made)
    assert not writer.is_written(ROWS, 1, made)
    assert not writer.is_written(ROWS + 1, 0, made)
    assert not writer.is_written(ROWS, 0, tmp_path)
    assert json.loads((made / "synthetic.json").read_text())["synthetic"] is True
    copy = tmp_path / "copy"
    writer.write_dataset(2_000, 0, copy, client)
    with (copy / "ratings.csv").open("ab") as file:
        file.write(b"1,1,1.0,1\n")
    assert not writer.is_written(2_000, 0, copy)


def test_no_room_is_told_before_anything_is_written(tmp_path: Path, client) -> None:
    with pytest.raises(DataError, match=r"ratings take about 2,700,000.0 MB and .* MB are free"):
        # The plan alone of so many users would take minutes; only the arithmetic is tried.
        with pytest.MonkeyPatch.context() as patch:
            small = model.make_plan(2_000, 0)
            patch.setattr(writer, "make_plan", lambda rows, seed: small)
            writer.write_dataset(10**11, 0, tmp_path / "big", client)
    assert not (tmp_path / "big" / "ratings.csv").exists()
