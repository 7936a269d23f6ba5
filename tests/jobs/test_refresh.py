"""New ratings added to a run: the same sums as one run over all, and segments that keep names."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jobs import refresh, score, segment
from segmentation.datasets.synthetic.writer import write_dataset
from segmentation.pipeline.refresh import match_segments


def run(out: Path, *arguments: str) -> Path:
    assert refresh.main(["--out", str(out), "--quiet", *arguments]) == 0
    return out


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def assignments(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "assignments.parquet")


def statistics(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "model" / "user_statistics.parquet")


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, client) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_dataset(20_000, 3, folder, client, lambda done, total: None)
    return folder


@pytest.fixture(scope="module")
def ratings(data: Path) -> pd.DataFrame:
    return pd.read_csv(data / "ratings.csv")


def write(ratings: pd.DataFrame, path: Path) -> str:
    ratings.to_csv(path, index=False)
    return str(path)


@pytest.fixture(scope="module")
def first(data: Path, ratings: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the first nine tenths of the ratings by time."""
    folder = tmp_path_factory.mktemp("first")
    log = write(ratings.nsmallest(18_000, "timestamp").sort_index(), folder / "log.csv")
    out = folder / "runs" / "2026-01"
    arguments = ["--data", str(data), "--ratings", log, "--out", str(out)]
    assert segment.main([*arguments, "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def later(ratings: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    rest = ratings.nlargest(2_000, "timestamp").sort_index()
    return write(rest, tmp_path_factory.mktemp("later") / "log.csv")


@pytest.mark.parametrize("order", ["sorted", "shuffled", "by time"])
def test_a_chain_of_refreshes_equals_one_run(
    data: Path, ratings: pd.DataFrame, tmp_path: Path, order: str
) -> None:
    """Pieces of users that do not overlap, of any rows, and of one time after the other."""
    rows = ratings
    if order == "shuffled":
        rows = ratings.sample(frac=1, random_state=1)
    if order == "by time":
        rows = ratings.sort_values("timestamp", kind="stable")
    pieces = [rows[start : start + 5_001] for start in range(0, len(rows), 5_001)]
    arguments = ["--data", str(data), "--quiet"]
    for i, piece in enumerate(pieces):
        log = write(piece, tmp_path / f"{i}.csv")
        out = ["--ratings", log, "--out", str(tmp_path / "runs" / f"{i}")]
        if i == 0:
            assert segment.main([*arguments, *out]) == 0
        else:
            # Neither the catalogue nor the settings are named again.
            assert refresh.main(["--from", "latest", *out, "--quiet"]) == 0
    whole = tmp_path / "whole"
    assert segment.main([*arguments, "--out", str(whole)]) == 0
    last = tmp_path / "runs" / f"{len(pieces) - 1}"
    pd.testing.assert_frame_equal(statistics(last), statistics(whole))
    one, other = read_json(last / "run.json"), read_json(whole / "run.json")
    for name in ("rows", "users", "items"):
        assert one[name] == other[name]
    assert len(one["data"]["merged"]) == len(pieces)
    # The same users under the same centres: the assignments are those of scoring the whole log.
    scored = tmp_path / "scored"
    model = ["--model", str(last), "--data", str(data), "--out", str(scored)]
    assert score.main([*model, "--quiet"]) == 0
    pd.testing.assert_frame_equal(assignments(scored).drop(columns="is_outlier"), assignments(last))


def test_segments_keep_their_numbers_and_names(first: Path, later: str, tmp_path: Path) -> None:
    before = digests(first)
    out = run(tmp_path / "out", "--from", str(first), "--ratings", later)
    assert digests(first) == before
    old, new = assignments(first), assignments(out)
    both = old.merge(new, on="userId")
    assert len(both) == len(old)
    assert (both["segment_x"] == both["segment_y"]).mean() > 0.85
    records = read_json(out / "segments.json")
    assert [r["persona"] for r in records] == [
        r["persona"] for r in read_json(first / "segments.json")
    ]
    centers = np.array([s["center"] for s in read_json(out / "model" / "model.json")["segments"]])
    categories = read_json(out / "model" / "model.json")["categories"]
    features = new[categories].fillna(0).to_numpy(float)
    distance = np.sqrt(((features[:, None] - centers) ** 2).sum(axis=2))
    assert new["segment"].tolist() == distance.argmin(axis=1).tolist()
    drift = read_json(out / "drift.json")
    flows = np.zeros((5, 5), int)
    np.add.at(flows, (both["segment_x"], both["segment_y"]), 1)
    assert drift["movement"] == {
        "flows": flows.tolist(),
        "entered": len(new) - len(both),
        "left": 0,
    }
    names = {measure["name"] for measure in drift["measures"]}
    assert {"agreement", "moved", "segment_psi"} <= names
    manifest = read_json(out / "run.json")
    assert manifest["job"] == "refresh"
    assert manifest["drift"]["verdict"] == drift["verdict"]
    assert 'href="drift.html"' in (out / "report.html").read_text()
    assert "<svg" in (out / "drift.html").read_text()


def fail(capsys: pytest.CaptureFixture[str], status: int, *arguments: str) -> str:
    assert refresh.main([*arguments, "--quiet"]) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_the_same_ratings_are_not_merged_twice(
    first: Path, later: str, data: Path, tmp_path: Path, capsys
) -> None:
    """Neither the same files, nor the same ratings in another file and order."""
    out = run(tmp_path / "a", "--from", str(first), "--ratings", later)
    again = ["--from", str(out), "--out", str(tmp_path / "b")]
    assert f"the same ratings are in {out} already" in fail(capsys, 3, *again, "--ratings", later)
    shuffled = tmp_path / "shuffled.parquet"
    pd.read_csv(later).sample(frac=1, random_state=1).to_parquet(shuffled, index=False)
    error = fail(capsys, 3, *again, "--ratings", str(shuffled))
    assert f"the same ratings are in {out} already ({later})" in error
    assert not (tmp_path / "b" / "run.json").exists()
    original = read_json(first / "run.json")["data"]["ratings"]
    error = fail(capsys, 3, *again, "--overwrite", "--ratings", original)
    assert "already" in error


def test_wrong_use(first: Path, later: str, tmp_path: Path, capsys) -> None:
    out = ["--out", str(tmp_path / "out"), "--ratings", later]
    assert "--from: name the folder" in fail(capsys, 2, *out)
    error = fail(capsys, 3, *out, "--from", "latest")
    assert "holds no finished run with a model: run segment there first" in error
    error = fail(capsys, 2, "--ratings", later, "--from", str(first), "--out", str(first / "sub"))
    assert "lies in the folder of the earlier run, which stays as it is" in error
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    part = next((copy / "model" / "user_statistics.parquet").iterdir())
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    error = fail(capsys, 3, *out, "--from", str(copy))
    assert "part-00000.parquet: can't be used" in error
    text = pd.read_csv(later)
    text["userId"] = "u" + text["userId"].astype(str)
    log = write(text, tmp_path / "text.csv")
    error = fail(capsys, 3, "--from", str(first), "--out", str(tmp_path / "t"), "--ratings", log)
    assert f"its ids are texts, and those of {first} are not: pass --ids" in error
    error = fail(capsys, 3, *out, "--from", str(first), "--scale", "1:10")
    assert "--from" in error
    assert "fitted to ratings on 0.5:5, and the new ones are on 1:10" in error


def test_a_finished_run_is_left_as_it_is(first: Path, later: str, tmp_path: Path) -> None:
    arguments = ["--from", str(first), "--ratings", later]
    out = run(tmp_path / "out", *arguments)
    before = digests(out)
    run(out, *arguments, "--resume")
    assert digests(out) == before


def test_a_segment_that_has_no_counterpart_is_new() -> None:
    flows = np.array([[100, 0, 0], [0, 30, 70], [0, 40, 10]])
    order, names = match_segments(flows, ("A", "B", "C"))
    assert order == [0, 2, 1]
    assert names == ["A", "B", "C"]
    flows = np.array([[50, 50, 0], [50, 50, 0], [0, 0, 100]])
    _, names = match_segments(flows, ("A", "B", "C"))
    assert names == [None, None, "C"]


def test_a_new_segment_gets_a_new_name(data: Path, ratings: pd.DataFrame, tmp_path: Path) -> None:
    """New users who rate a lot, and highly, are one segment; all others are the other."""
    early = write(ratings, tmp_path / "log.csv")
    first = tmp_path / "first"
    arguments = ["--data", str(data), "--ratings", early, "--k", "2", "--out", str(first)]
    assert segment.main([*arguments, "--quiet"]) == 0
    active = ratings["userId"].value_counts().index[:10]
    crowd = ratings[ratings["userId"].isin(active)]
    copies = []
    for i in range(1, 40):
        copy = crowd.copy()
        copy["userId"] += i * 100_000
        copy["rating"] = 5.0
        copies.append(copy)
    late = write(pd.concat(copies), tmp_path / "late.csv")
    out = run(tmp_path / "out", "--from", str(first), "--ratings", late)
    old, new = assignments(first), assignments(out)
    names = [[r["persona"] for r in read_json(f / "segments.json")] for f in (first, out)]
    both = old.merge(new, on="userId")
    jaccard = [
        ((both["segment_x"] == s) & (both["segment_y"] == s)).sum()
        / ((both["segment_x"] == s) | (both["segment_y"] == s)).sum()
        for s in range(2)
    ]
    assert min(jaccard) < 0.5
    for s in range(2):
        assert (names[1][s] == names[0][s]) == (jaccard[s] >= 0.5)
    assert len(set(names[1])) == 2
    warnings = read_json(out / "run.json")["warnings"]
    assert any("it shares less than half of the earlier users" in text for text in warnings)


def test_few_ratings_that_look_alike_are_merged_with_a_warning(
    first: Path, ratings: pd.DataFrame, tmp_path: Path, capsys
) -> None:
    """Two people who bought the same things on two days are no mistake."""
    rows = ratings[:3]
    days = [rows, rows.assign(timestamp=rows["timestamp"] + 86_400)]
    source = first
    for i, day in enumerate(days):
        log = write(day, tmp_path / f"{i}.csv")
        source = run(tmp_path / f"out{i}", "--from", str(source), "--ratings", log)
    assert "look like those of" in capsys.readouterr().err


def test_decimals_in_another_order_are_the_same_ratings(tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "items.csv").write_text(
        "item,tag\n" + "".join(f"{i},T{i % 4}\n" for i in range(20))
    )

    def log(seed: int) -> pd.DataFrame:
        rows = np.random.default_rng(seed).integers(0, [50, 20, 91], (400, 3))
        frame = pd.DataFrame(rows, columns=["userId", "movieId", "rating"])
        return frame.assign(rating=1 + frame["rating"] / 10)

    options = ["--catalogue", str(tmp_path / "items.csv"), "--item", "item", "--category", "tag"]
    base, more = write(log(1), tmp_path / "a.csv"), log(2)
    first = ["--ratings", base, "--scale", "1:10", "--k", "2", "--out", str(tmp_path / "first")]
    assert segment.main([*options, *first, "--quiet"]) == 0
    out = run(
        tmp_path / "out",
        "--from",
        str(tmp_path / "first"),
        "--ratings",
        write(more, tmp_path / "b.csv"),
    )
    shuffled = write(more.iloc[rng.permutation(400)], tmp_path / "c.csv")
    capsys.readouterr()
    again = ["--from", str(out), "--ratings", shuffled, "--out", str(tmp_path / "again")]
    assert "the same ratings are in" in fail(capsys, 3, *again)


def test_paths_of_the_run_hold_in_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the same relative name elsewhere is not taken for the run's catalogue."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, tags in ((here, "AB"), (there, "BA")):
        folder.mkdir()
        (folder / "items.csv").write_text(f"item,tag\n1,{tags[0]}\n2,{tags[1]}\n")
    (tmp_path / "log.csv").write_text(
        "userId,movieId,rating\n" + "".join(f"{u},{1 + u % 2},{1 + u % 5}.0\n" for u in range(60))
    )
    monkeypatch.chdir(here)
    options = ["--catalogue", "items.csv", "--item", "item", "--category", "tag", "--k", "2"]
    arguments = [*options, "--ratings", "../log.csv", "--out", "../run", "--quiet"]
    assert segment.main(arguments) == 0
    monkeypatch.chdir(there)
    new = ["--model", "../run", "--ratings", "../log.csv", "--out", "../scored", "--quiet"]
    assert score.main(new) == 0
    pd.testing.assert_frame_equal(
        assignments(tmp_path / "scored").drop(columns="is_outlier"), assignments(tmp_path / "run")
    )
