"""Lists, databases and the model of a run, compared with plain pandas."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import segmentation
from jobs import export, refresh, score, segment
from segmentation.datasets.synthetic.writer import write_dataset
from segmentation.pipeline.export import ExportSettings, _hash


def run(saved: Path, out: Path, *arguments: str) -> Path:
    assert export.main(["--run", str(saved), "--out", str(out), "--quiet", *arguments]) == 0
    return out


def fail(capsys: pytest.CaptureFixture[str], status: int, *arguments: str) -> str:
    assert export.main([*arguments, "--quiet"]) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def assignments(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "assignments.parquet")


def lists(folder: Path) -> dict[int, pd.DataFrame]:
    """The list of each segment."""
    return {
        entry["segment"]: pd.read_csv(folder / entry["file"])
        for entry in read_json(folder / "export.json")["segments"]
        if entry["file"]
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, client) -> tuple[Path, Path]:
    """A run, and what it becomes with the ratings of a later time."""
    folder = tmp_path_factory.mktemp("runs")
    write_dataset(20_000, 5, folder / "data", client, lambda done, total: None)
    ratings = pd.read_csv(folder / "data" / "ratings.csv")
    ratings.nsmallest(16_000, "timestamp").to_csv(folder / "early.csv", index=False)
    ratings.nlargest(4_000, "timestamp").to_csv(folder / "late.csv", index=False)
    first, second = folder / "march", folder / "april"
    data = ["--data", str(folder / "data"), "--ratings", str(folder / "early.csv")]
    assert segment.main([*data, "--out", str(first), "--quiet"]) == 0
    new = ["--from", str(first), "--ratings", str(folder / "late.csv"), "--out", str(second)]
    assert refresh.main([*new, "--quiet"]) == 0
    return first, second


def test_every_user_is_in_the_list_of_the_segment(runs, tmp_path: Path) -> None:
    frame = assignments(runs[0])
    out = run(runs[0], tmp_path / "out")
    limits = [s["distance_p99"] for s in read_json(runs[0] / "model" / "model.json")["segments"]]
    listed = lists(out)
    assert sorted(listed) == [0, 1, 2, 3, 4]
    for s, rows in listed.items():
        expected = frame[frame["segment"] == s]
        assert rows["userId"].tolist() == expected["userId"].tolist()
        np.testing.assert_allclose(rows["margin"], expected["margin"])
        np.testing.assert_allclose(rows["distance"], expected["distance"])
        assert rows["is_outlier"].tolist() == (expected["distance"] > limits[s]).tolist()
    assert {path.name for path in out.iterdir()} == {
        "export.json",
        *(entry["file"] for entry in read_json(out / "export.json")["segments"]),
    }


def test_rules(runs, tmp_path: Path) -> None:
    frame = assignments(runs[0])
    rules = ["--min-margin", "0.2", "--holdout", "0.2", "--sample", "25", "--min-size", "25"]
    out = run(runs[0], tmp_path / "out", *rules, "--salt", "spring")
    record, listed = read_json(out / "export.json"), lists(out)
    holdout = pd.read_csv(out / "holdout.csv")
    assert 0.1 < len(holdout) / len(frame) < 0.3
    others = frame[~frame["userId"].isin(holdout["userId"])]
    left = others[others["margin"] >= 0.2]
    sizes = left.groupby("segment").size()
    assert sorted(listed) == sorted(sizes[sizes >= 25].index)
    for s, rows in listed.items():
        assert len(rows) == 25
        assert set(rows["userId"]) <= set(left["userId"][left["segment"] == s])
    unlisted = record["unlisted"]
    assert unlisted["undecided"] == len(others) - len(left)
    assert unlisted["holdout"] == len(holdout)
    assert unlisted["small_segments"] == sizes[sizes < 25].sum()
    # The segments that are too small are not distinguished in the control group either.
    segments = holdout.merge(frame, on="userId")
    is_small = segments["segment_y"].isin(sizes[sizes < 25].index)
    assert segments["segment_x"].isna().tolist() == is_small.tolist()
    total = sum(entry["listed"] for entry in record["segments"]) + sum(unlisted.values())
    assert total == len(frame)
    # Who knows the salt could undo the digests.
    assert "spring" not in (out / "export.json").read_text()


def test_the_control_group_stays_the_same(runs, tmp_path: Path) -> None:
    holdout = ["--holdout", "0.3", "--salt", "x"]
    first, second = (run(r, tmp_path / r.name, *holdout) for r in runs)
    before, now = (pd.read_csv(out / "holdout.csv") for out in (first, second))
    everyone = set(assignments(runs[1])["userId"]) & set(assignments(runs[0])["userId"])
    assert set(before["userId"]) & everyone == set(now["userId"]) & everyone
    for rows in lists(second).values():
        assert not set(rows["userId"]) & set(now["userId"])
    other = run(runs[0], tmp_path / "other", "--holdout", "0.3", "--salt", "y")
    assert set(pd.read_csv(other / "holdout.csv")["userId"]) != set(before["userId"])


@pytest.mark.parametrize(
    "rules",
    [
        [],
        ["--min-margin", "0.3", "--holdout", "0.1", "--sample", "20"],
        ["--min-size", "45", "--holdout", "0.5"],
    ],
)
def test_changes_turn_the_lists_of_then_into_those_of_now(runs, tmp_path: Path, rules) -> None:
    before = run(runs[0], tmp_path / "before", *rules)
    now = run(runs[1], tmp_path / "now", *rules, "--changes-since", str(runs[0]))
    places = {user: s for s, rows in lists(before).items() for user in rows["userId"]}
    changes = pd.read_csv(now / "changes.csv")
    for user, change, old, new in changes.itertuples(index=False):
        if change == "entered":
            assert user not in places
        else:
            assert places.pop(user) == old
        if change != "left":
            places[user] = int(new)
    assert places == {user: s for s, rows in lists(now).items() for user in rows["userId"]}
    assert read_json(now / "export.json")["changes"] == {
        kind: int((changes["change"] == kind).sum()) for kind in ("entered", "left", "moved")
    }
    assert rules or len(changes)


def test_parquet_and_hashed_ids(runs, tmp_path: Path) -> None:
    options = ["--format", "parquet", "--hash-ids", "sha256", "--salt", "pepper"]
    out = run(runs[0], tmp_path / "out", *options)
    frame = assignments(runs[0])
    for entry in read_json(out / "export.json")["segments"]:
        rows = pd.read_parquet(out / entry["file"])
        ids = frame["userId"][frame["segment"] == entry["segment"]]
        digests = [hashlib.sha256(f"pepper{user}".encode()).hexdigest() for user in ids]
        assert rows["userId"].tolist() == digests


def test_ids_that_are_formulas_and_addresses(tmp_path: Path) -> None:
    """A spreadsheet must not execute an id; a digest is of the normalised one."""
    ids = ['=HYPERLINK("http://x")', "+1", "@a", " Ann@Example.com", "bo@example.com"]
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "items.csv").write_text("item,tag\n1,A\n2,B\n3,A\n")
    lines = [
        f'"{user.replace(chr(34), chr(34) * 2)}",{item},{item}.5' for user in ids for item in (1, 2)
    ]
    (folder / "log.csv").write_text("userId,movieId,rating\n" + "\n".join(lines) + "\n")
    saved = tmp_path / "run"
    options = ["--catalogue", str(folder / "items.csv"), "--item", "item", "--category", "tag"]
    log = ["--ratings", str(folder / "log.csv"), "--k", "1", "--ids", "text"]
    assert segment.main([*options, *log, "--out", str(saved), "--quiet"]) == 0
    rows = lists(run(saved, tmp_path / "csv"))[0]
    assert not any(str(user).startswith(("=", "+", "@")) for user in rows["userId"])
    assert {"'=" + ids[0][1:], "'+1", "'@a"} <= set(rows["userId"])
    hashed = lists(run(saved, tmp_path / "hashed", "--hash-ids", "sha256"))[0]
    assert hashlib.sha256(b"ann@example.com").hexdigest() in set(hashed["userId"])
    for kind in ("sqlite", "duckdb"):
        out = run(saved, tmp_path / kind, "--format", kind)
        connection: Any = (sqlite3 if kind == "sqlite" else duckdb).connect(
            str(out / f"audience.{kind}")
        )
        stored = {user for (user,) in connection.execute("SELECT user_id FROM users").fetchall()}
        connection.close()
        assert ids[0] in stored


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_movement_is_a_query(runs, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "db"
    for saved in (*runs, runs[1]):
        run(saved, out, "--format", kind, "--holdout", "0.1")
    connection: Any = (sqlite3 if kind == "sqlite" else duckdb).connect(
        str(out / f"audience.{kind}")
    )
    rows = connection.execute(
        "SELECT a.segment, b.segment, count(*) FROM users a JOIN users b USING (user_id) "
        "WHERE a.run = 'march' AND b.run = 'april' GROUP BY 1, 2"
    ).fetchall()
    connection.close()
    merged = assignments(runs[0]).merge(assignments(runs[1]), on="userId")
    expected = merged.groupby(["segment_x", "segment_y"]).size()
    assert {(a, b): n for a, b, n in rows} == expected.to_dict()


def test_the_model_elsewhere(runs, tmp_path: Path) -> None:
    """SQL on two databases and scikit-learn give every user the same segment."""
    frame = assignments(runs[1])
    run(runs[1], tmp_path / "model", "--model", "sql")
    query = (tmp_path / "model" / "assign.sql").read_text()
    lite = sqlite3.connect(":memory:")
    frame.drop(columns="persona").to_sql("user_means", lite, index=False)
    duck = duckdb.connect()
    duck.register("user_means", frame)
    for rows in (lite.execute(query).fetchall(), duck.execute(query).fetchall()):
        assert sorted(rows) == list(
            zip(frame["userId"], frame["segment"], frame["persona"].astype(str), strict=True)
        )
    lite.close()
    run(runs[1], tmp_path / "model", "--model", "sklearn")
    for place in (tmp_path / "model" / "model.json", runs[1]):
        model = segmentation.load_model(place)
        pipeline = model.to_sklearn()
        means = frame[list(model.categories)]
        assert pipeline.predict(means).tolist() == frame["segment"].tolist()
        assert list(pipeline.feature_names_in_) == list(model.categories)


def test_a_scored_run_is_exported_too(runs, tmp_path: Path) -> None:
    data = read_json(runs[0] / "run.json")["data"]["ratings"]
    arguments = ["--model", str(runs[1]), "--ratings", data, "--out", str(tmp_path / "scored")]
    assert score.main([*arguments, "--quiet"]) == 0
    listed = lists(run(tmp_path / "scored", tmp_path / "out"))
    assert sum(map(len, listed.values())) == len(assignments(tmp_path / "scored"))


def test_wrong_use(runs, tmp_path: Path, capsys) -> None:
    saved = ["--run", str(runs[0])]
    out = ["--out", str(tmp_path / "out")]
    assert "--run: name a folder" in fail(capsys, 2, *out)
    assert "--out: name a folder" in fail(capsys, 2, *saved)
    assert "--holdout 1: give a share" in fail(capsys, 2, *saved, *out, "--holdout", "1")
    assert "--sample 0: give at least 1" in fail(capsys, 2, *saved, *out, "--sample", "0")
    assert "--min-margin nan: give" in fail(capsys, 2, *saved, *out, "--min-margin", "nan")
    run(runs[0], tmp_path / "out")
    error = fail(capsys, 2, *saved, *out)
    assert "already holds an export: pass --overwrite" in error
    run(runs[0], tmp_path / "out", "--overwrite")
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    error = fail(capsys, 2, *saved, "--out", str(other), "--overwrite")
    assert "holds mine.txt but no export" in error
    assert (other / "mine.txt").read_text() == "mine"
    error = fail(capsys, 2, *saved, "--out", str(runs[0] / "lists"))
    assert "lies in the folder of a run, which stays as it is" in error
    error = fail(capsys, 2, *saved, "--out", str(runs[1] / "model"), "--model", "sklearn")
    assert "lies in the folder of a run" in error
    (tmp_path / "file").write_text("x")
    assert "is a file" in fail(capsys, 2, *saved, "--out", str(tmp_path / "file"))
    error = fail(capsys, 3, *saved, "--out", str(tmp_path / "file" / "x"), "--format", "sqlite")
    assert "can't be written (Not a directory)" in error
    assert "is a URL" in fail(capsys, 2, *saved, "--out", "s3://bucket/lists")
    error = fail(capsys, 2, *saved, *out, "--model", "sql", "--holdout", "0.1")
    assert "--model is written in place of lists: leave --holdout out" in error
    changes = ["--changes-since", str(runs[0]), "--format", "sqlite"]
    assert "changes are a query" in fail(capsys, 2, *saved, "--out", str(tmp_path / "db"), *changes)
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    part = next((copy / "assignments.parquet").iterdir())
    part.write_bytes(part.read_bytes()[:-100])
    error = fail(capsys, 3, "--run", str(copy), "--out", str(tmp_path / "new"))
    assert "part-00000.parquet: can't be used" in error
    assert not (tmp_path / "new").exists()


def test_other_segments_are_not_compared(runs, tmp_path: Path, capsys) -> None:
    data = read_json(runs[0] / "run.json")["data"]["ratings"]
    folder = str(Path(data).parent / "data")
    arguments = ["--data", folder, "--ratings", data, "--k", "2", "--out", str(tmp_path / "two")]
    assert segment.main([*arguments, "--quiet"]) == 0
    error = fail(
        capsys,
        2,
        *("--run", str(runs[0]), "--out", str(tmp_path / "out")),
        *("--changes-since", str(tmp_path / "two")),
    )
    assert "are not those of" in error


def test_taste_needs_more_than_means(runs, tmp_path: Path, capsys) -> None:
    data = read_json(runs[0] / "run.json")["data"]["ratings"]
    folder = str(Path(data).parent / "data")
    saved = tmp_path / "taste"
    arguments = ["--data", folder, "--preset", "taste", "--out", str(saved), "--quiet"]
    assert segment.main(arguments) == 0
    error = fail(capsys, 2, "--run", str(saved), "--out", str(tmp_path / "o"), "--model", "sql")
    assert "--model: the preset taste needs the number of ratings per category" in error


@given(start=st.integers(-(2**40), 2**40), step=st.integers(1, 1_000), salt=st.text(max_size=5))
def test_the_control_group_looks_like_chance(start: int, step: int, salt: str) -> None:
    """Whatever the ids: of 20,000, six standard deviations around a tenth are 255."""
    ids = start + step * np.arange(20_000)
    hashes = _hash(ids, ExportSettings(salt=salt), "holdout")
    assert abs((hashes < np.uint64(2**64 // 10)).sum() - 2_000) < 255
    others = _hash(ids, ExportSettings(salt=salt), "sample")
    both = ((hashes < 2**63) & (others < 2**63)).mean()
    assert abs(both - 0.25) < 0.02


def test_overwriting_touches_the_lists_alone(runs, tmp_path: Path) -> None:
    """Databases and notes in the same folder stay, and so does a folder that a link leads to."""
    real, out = tmp_path / "real", tmp_path / "out"
    real.mkdir()
    out.symlink_to(real)
    run(runs[0], out, "--sample", "3")
    run(runs[0], out, "--format", "sqlite")
    (out / "notes.txt").write_text("mine")
    run(runs[1], out, "--overwrite", "--min-size", "100000")
    assert out.is_symlink()
    assert sorted(path.name for path in real.iterdir()) == [
        *("audience.sqlite", "export.json", "notes.txt"),
    ]


def test_an_interrupted_export_is_replaced(runs, tmp_path: Path, monkeypatch) -> None:
    out = run(runs[0], tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("segmentation.pipeline.export.atomic.remove_file", lambda path: 1 / 0)
        assert export.main(["--run", str(runs[1]), "--out", str(out), "--overwrite"]) == 1
    assert (out / ".export-partial").is_dir()
    run(runs[1], out, "--overwrite")
    assert not (out / ".export-partial").exists()
    assert sum(map(len, lists(out).values())) == len(assignments(runs[1]))


def test_ids_that_differ_in_case_have_no_digests(tmp_path: Path, capsys) -> None:
    (tmp_path / "items.csv").write_text("item,tag\n1,A\n2,B\n")
    users = [f"{name}@example.com" for name in ("ann", "Ann", "bo", "cy")]
    rows = "".join(f"{user},{1 + i % 2},{1 + i}.0\n" for i, user in enumerate(users))
    (tmp_path / "log.csv").write_text("userId,movieId,rating\n" + rows)
    options = ["--catalogue", str(tmp_path / "items.csv"), "--item", "item", "--category", "tag"]
    log = ["--ratings", str(tmp_path / "log.csv"), "--k", "1", "--out", str(tmp_path / "run")]
    assert segment.main([*options, *log, "--quiet"]) == 0
    lists_options = ["--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    capsys.readouterr()
    error = fail(capsys, 3, *lists_options, "--hash-ids", "sha256")
    assert "--hash-ids: 1 users differ from others only in case or in spaces" in error
    run(tmp_path / "run", tmp_path / "out")


def test_parts_that_no_run_wrote_are_not_listed(runs, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    part = next((copy / "assignments.parquet").iterdir())
    shutil.copy(part, part.with_name("part-99999.parquet"))
    listed = lists(run(copy, tmp_path / "out"))
    assert sum(map(len, listed.values())) == len(assignments(runs[0]))
