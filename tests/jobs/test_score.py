"""Users of new ratings in the segments of an earlier run, compared with that run and with NumPy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jobs import choose_k, score, segment
from tests import oracles


def run(out: Path, *arguments: str) -> Path:
    assert score.main(["--out", str(out), "--quiet", *arguments]) == 0
    return out


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def assignments(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "assignments.parquet")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of synthetic ratings in five segments."""
    out = tmp_path_factory.mktemp("saved") / "run"
    assert segment.main(["--data", "synthetic:30000", "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def data(saved: Path, tmp_path: Path) -> Path:
    """A copy of that run's data."""
    folder = Path(read_json(saved / "run.json")["data"]["ratings"]).parent
    shutil.copytree(folder, tmp_path / "data")
    return tmp_path / "data"


def test_training_users_get_the_segments_of_their_run(saved: Path, tmp_path: Path) -> None:
    out = run(tmp_path / "out", "--model", str(saved), "--data", "synthetic:30000")
    scored = assignments(out)
    pd.testing.assert_frame_equal(scored.drop(columns="is_outlier"), assignments(saved))
    assert 0.005 < scored.is_outlier.mean() < 0.03
    drift = read_json(out / "drift.json")
    assert drift["verdict"] == "stable"
    assert np.trace(drift["movement"]["flows"]) == len(scored)
    assert {path.name for path in out.iterdir()} == {
        *("assignments.parquet", "drift.json", "model", "report.html", "report.md", "run.json"),
    }


@pytest.mark.real_data
@pytest.mark.parametrize("preset", ["engagement", "taste"])
def test_held_out_users_by_numpy(real_data: Path, tmp_path: Path, preset: str) -> None:
    source = real_data / "kaggle-small"
    ratings = pd.read_csv(source / "ratings_small.csv")
    is_held = ratings["userId"] % 2 == 0
    ratings[~is_held].to_csv(tmp_path / "fit.csv", index=False)
    held = ratings[is_held].sample(frac=1, random_state=3)
    held.to_csv(tmp_path / "new.csv", index=False)
    arguments = ["--data", str(source), "--preset", preset, "--out", str(tmp_path / "fit")]
    assert segment.main([*arguments, "--ratings", str(tmp_path / "fit.csv"), "--quiet"]) == 0
    # Neither the data nor the preset are named: they are those of the run.
    new = ["--model", str(tmp_path / "fit"), "--ratings", str(tmp_path / "new.csv")]
    scored = assignments(run(tmp_path / "out", *new))
    model = read_json(tmp_path / "fit" / "model" / "model.json")
    movies = oracles.kaggle_movies(source, "links")
    used = held[held["movieId"].isin(movies)]
    means = oracles.user_genre_means(held, movies).reindex(columns=model["categories"])
    if preset == "taste":
        exploded = used.assign(genre=used["movieId"].map(movies)).explode("genre").dropna()
        counts = exploded.pivot_table(
            index="userId", columns="genre", values="rating", aggfunc="count", fill_value=0
        )
        n = counts.reindex(index=means.index, columns=means.columns, fill_value=0)
        means = means.sub(used.groupby("userId")["rating"].mean(), axis=0) * (n / (n + 5))
    features = means.fillna(0).to_numpy()
    centers = np.array([entry["center"] for entry in model["segments"]])
    distance = np.sqrt(((features[:, None] - centers) ** 2).sum(axis=2))
    assert scored["userId"].tolist() == means.index.tolist()
    assert scored["segment"].tolist() == distance.argmin(axis=1).tolist()
    np.testing.assert_allclose(scored["distance"], distance.min(axis=1), atol=1e-5)
    p99 = np.array([entry["distance_p99"] for entry in model["segments"]])
    is_far = distance.min(axis=1) > p99[distance.argmin(axis=1)]
    assert scored["is_outlier"].tolist() == is_far.tolist()
    items = used.groupby("userId").size()
    assert scored["items"].tolist() == items.tolist()


@pytest.mark.parametrize("form", ["plain", "general", "parquet", "latest", "text"])
def test_users_without_a_segment_are_listed(
    saved: Path, data: Path, tmp_path: Path, form: str
) -> None:
    """In every reader: the compiled one, the general one, Parquet, deduplication and text ids."""
    ratings = pd.read_csv(data / "ratings.csv")
    known = int(ratings["movieId"].iloc[0])
    first = ratings[ratings["userId"] == ratings["userId"].iloc[0]]
    rows = [(900_001, 9_999_999), (900_001, 9_999_998), (900_002, known), (900_003, 9_999_999)]
    extra = pd.DataFrame(
        [(user, item, 4.0, 1_500_000_000 + i) for i, (user, item) in enumerate(rows)],
        columns=ratings.columns,
    )
    new = pd.concat([extra[:1], first, extra[1:]])
    options = ["--min-ratings", "2"]
    path = tmp_path / "new.csv"
    if form == "text":
        new["userId"] = "u" + new["userId"].astype(str)
    if form == "general":
        new["rating"] = new["rating"].map("{:.3f}".format)
    if form == "parquet":
        path = tmp_path / "new.parquet"
        new.to_parquet(path, index=False)
    else:
        new.to_csv(path, index=False)
    if form == "latest":
        options.append("--deduplicate")
    out = run(
        tmp_path / "out",
        "--model",
        str(saved),
        "--data",
        str(data),
        "--ratings",
        str(path),
        *options,
    )
    unscored = pd.read_parquet(out / "unscored.parquet")
    prefix = "u" if form == "text" else ""
    assert unscored["userId"].astype(str).tolist() == [
        f"{prefix}{user}" for user in (900_001, 900_002, 900_003)
    ]
    assert unscored["items"].tolist() == [0, 1, 0]
    assert unscored["reason"].tolist() == [
        *("no known item", "fewer than 2 ratings", "no known item")
    ]
    assert len(assignments(out)) == 1
    manifest = read_json(out / "run.json")
    assert manifest["scored"]["unscored"] == {"no_known_item": 2, "few_ratings": 1}
    assert manifest["rows"]["unmapped"] == 3
    movement = read_json(out / "drift.json")["movement"]
    assert (movement is None) == (form == "text")


def write_items(folder: Path, rows: list[tuple[int, str]], users: int = 40) -> Path:
    folder.mkdir()
    items = "".join(f"{item},{tags}\n" for item, tags in rows)
    (folder / "items.csv").write_text("item,tags\n" + items)
    rng = np.random.default_rng(0)
    lines = [
        f"{user},{item},{rng.integers(1, 11)}"
        for user in range(users)
        for item in rng.choice([item for item, _ in rows], 3, replace=False)
    ]
    (folder / "log.csv").write_text("userId,movieId,rating\n" + "\n".join(lines) + "\n")
    return folder


ITEMS = [(1, "Rock|Pop"), (2, "rock"), (3, "Jazz"), (4, "Pop|segment"), (5, "Jazz|Rock")]


def own_options(folder: Path) -> list[str]:
    return ["--catalogue", str(folder / "items.csv"), "--ratings", str(folder / "log.csv")]


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """A run of one's own data on a scale of 1 to 10."""
    folder = write_items(tmp_path / "before", ITEMS)
    arguments = [*own_options(folder), "--item", "item", "--category", "tags", "--scale", "1:10"]
    out = tmp_path / "run"
    assert segment.main([*arguments, "--k", "3", "--out", str(out), "--quiet"]) == 0
    return out


def test_own_data_are_read_as_before(books: Path, tmp_path: Path) -> None:
    """Only the files are named; the catalogue has another order and spelling, and a new tag."""
    rows = [(5, "JAZZ|Rock"), (4, "Segment|Pop"), (3, "Jazz|New"), (2, "Rock"), (1, "Pop|rock")]
    later = write_items(tmp_path / "later", rows)
    shutil.copy(tmp_path / "before" / "log.csv", later / "log.csv")
    out = run(tmp_path / "out", "--model", str(books), *own_options(later))
    scored = assignments(out).drop(columns="is_outlier")
    pd.testing.assert_frame_equal(scored, assignments(books))
    notes = read_json(out / "run.json")["data"]["catalogue"]
    assert (notes["categories_unknown"], notes["categories_missing"]) == (1, 0)


def fail(capsys: pytest.CaptureFixture[str], status: int, *arguments: str) -> str:
    assert score.main([*arguments, "--quiet"]) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_data_that_the_model_does_not_fit(books: Path, tmp_path: Path, capsys) -> None:
    before, out = tmp_path / "before", ["--model", str(books), "--out", str(tmp_path / "out")]
    error = fail(capsys, 3, *out, *own_options(before), "--scale", "0:20")
    assert "fitted to ratings on 1:10, and the new ones are on 0:20: pass --scale 1:10" in error
    columns = ["--columns", "user=userId,item=movieId"]
    error = fail(capsys, 2, *out, *own_options(before), "--implicit", *columns)
    assert "--scale is for ratings" in error
    error = fail(capsys, 2, *out, *own_options(before), "--preset", "taste")
    assert "--preset taste: the model of" in error
    assert "has --preset engagement" in error
    other = write_items(tmp_path / "other", [(i, f"Tag{i}|Rock") for i in range(1, 6)])
    error = fail(capsys, 3, *out, *own_options(other))
    assert "has no item of 3 of the model's 4 categories (Jazz, Pop, segment (category))" in error
    assert not (tmp_path / "out").exists()


def test_ratings_and_plays(books: Path, tmp_path: Path, capsys) -> None:
    plays = tmp_path / "plays"
    arguments = [*own_options(tmp_path / "before"), "--item", "item", "--category", "tags"]
    counts = ["--implicit", "--columns", "user=userId,item=movieId,rating=rating"]
    assert segment.main([*arguments, *counts, "--k", "2", "--out", str(plays), "--quiet"]) == 0
    later = write_items(tmp_path / "later", ITEMS)
    out = ["--out", str(tmp_path / "out"), *own_options(later)]
    run(tmp_path / "out", "--model", str(plays), *own_options(later))
    rows = ["--columns", "user=userId,item=movieId"]
    error = fail(capsys, 3, *out, "--overwrite", "--model", str(plays), *rows)
    assert "was fitted to counts, and the new data hold rows that count one each" in error


def test_runs_that_have_no_usable_model(saved: Path, tmp_path: Path, capsys) -> None:
    out = ["--out", str(tmp_path / "out"), "--data", "synthetic:30000"]
    assert "--model: name the folder of the run" in fail(capsys, 2, *out)
    assert "holds no finished run" in fail(capsys, 3, *out, "--model", str(tmp_path / "none"))
    error = fail(capsys, 2, "--out", str(tmp_path / "out"), "--model", str(saved))
    assert "--data: name the folder of the new ratings" in error

    def damaged(change) -> str:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(saved, copy)
        change(copy)
        return fail(capsys, 3, *out, "--model", str(copy))

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    assert "it is missing, can't be read, or differs" in damaged(
        lambda d: shutil.rmtree(d / "model")
    )
    assert "it is missing, can't be read, or differs" in damaged(
        lambda d: flip(d / "model" / "model.json")
    )
    assert "holds no finished run" in damaged(lambda d: (d / "run.json").unlink())

    def change_users(folder: Path) -> None:
        text = (folder / "run.json").read_text()
        (folder / "run.json").write_text(text.replace('"users": 312', '"users": 313', 1))

    assert "run.json: can't be used (it differs from what was written)" in damaged(change_users)
    search = tmp_path / "search"
    arguments = ["--data", "synthetic:30000", "--k-range", "2-3", "--out", str(search), "--quiet"]
    assert choose_k.main(arguments) == 0
    error = fail(capsys, 3, *out, "--model", str(search))
    assert "is a run of choose-k, which has no model: name one of segment" in error
    # Its own folder is no place for the results.
    error = fail(capsys, 2, "--data", "synthetic:30000", "--model", str(saved), "--out", str(saved))
    assert "lies in the folder of the earlier run, which stays as it is" in error


def test_drift_ends_with_status_5_after_everything_is_written(
    saved: Path, data: Path, tmp_path: Path, capsys
) -> None:
    ratings = pd.read_csv(data / "ratings.csv")
    ratings[::8].to_csv(data / "ratings.csv", index=False)
    arguments = ["--model", str(saved), "--data", str(data), "--out", str(tmp_path / "out")]
    assert score.main([*arguments, "--fail-on", "refit", "--quiet"]) == 5
    assert "refit: The " in capsys.readouterr().out
    assert read_json(tmp_path / "out" / "run.json")["drift"]["verdict"] == "refit"
    # A finished run is left as it is, and ends with the same status.
    before = (tmp_path / "out" / "run.json").stat().st_mtime_ns
    assert score.main([*arguments, "--fail-on", "watch", "--resume", "--quiet"]) == 5
    assert score.main([*arguments, "--resume", "--quiet"]) == 0
    assert (tmp_path / "out" / "run.json").stat().st_mtime_ns == before
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The segments should be made again" in page
    assert "<svg" in page


def test_another_model_is_not_resumed(saved: Path, data: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "other"
    assert segment.main(["--data", str(data), "--k", "3", "--out", str(other), "--quiet"]) == 0
    arguments = ["--data", str(data), "--out", str(tmp_path / "out")]
    assert score.main([*arguments, "--model", str(saved), "--quiet"]) == 0
    error = fail(capsys, 2, *arguments, "--model", str(other), "--resume")
    assert "was run with another --model" in error


def test_min_ratings_of_the_run_shape_what_is_compared(data: Path, tmp_path: Path) -> None:
    """The same users with the same option are no drift."""
    few = ["--data", str(data), "--min-ratings", "30", "--quiet"]
    assert segment.main([*few, "--out", str(tmp_path / "run")]) == 0
    model = ["--model", str(tmp_path / "run")]
    for i, options in enumerate((few[:-1], few[:2])):
        drift = read_json(run(tmp_path / f"out{i}", *model, *options) / "drift.json")
        assert drift["verdict"] == "stable"
        assert drift["users"]["before"] == drift["users"]["now"]
    unscored = pd.read_parquet(tmp_path / "out0" / "unscored.parquet")
    assert set(unscored["reason"]) == {"fewer than 30 ratings"}


def test_damaged_assignments_are_not_compared(saved: Path, tmp_path: Path, capsys) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    next((copy / "assignments.parquet").iterdir()).unlink()
    out = run(tmp_path / "out", "--model", str(copy), "--data", "synthetic:30000")
    assert "movement is not counted" in capsys.readouterr().err
    assert read_json(out / "drift.json")["movement"] is None


def test_columns_that_are_named_are_those_of_another_file(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item,tag\n1,A\n2,B\n3,A\n")
    rows = "".join(f"{user},{1 + user % 3},{1 + user % 5}\n" for user in range(60))
    (tmp_path / "log.csv").write_text(rows)
    (tmp_path / "new.csv").write_text("who,what,stars\n" + rows)
    options = ["--catalogue", str(tmp_path / "items.csv"), "--item", "item", "--category", "tag"]
    headerless = ["--ratings", str(tmp_path / "log.csv"), "--no-header"]
    columns = ["--columns", "user=1,item=2,rating=3", "--k", "2"]
    saved = ["--out", str(tmp_path / "run"), "--quiet"]
    assert segment.main([*options, *headerless, *columns, *saved]) == 0
    new = ["--ratings", str(tmp_path / "new.csv"), "--columns", "user=who,item=what,rating=stars"]
    out = run(tmp_path / "out", "--model", str(tmp_path / "run"), *new)
    pd.testing.assert_frame_equal(
        assignments(out).drop(columns="is_outlier"), assignments(tmp_path / "run")
    )
