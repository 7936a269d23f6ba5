"""``--deduplicate``: only the latest rating counts, whatever the order and form of the files."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs import segment, synthesize
from segmentation.features.deduplicate import REASON
from tests.conftest import write_tiny
from tests.jobs.test_invariance import assert_same, copy

HEADER = "userId,movieId,rating,timestamp\n"
OPTIONS = ["--quiet", "--deduplicate", "--max-rejected", "0.5"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "synthetic"
    assert synthesize.main(["--rows", "20000", "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def lines(clean: Path) -> list[str]:
    """Every tenth rating twice more, with earlier timestamps: about 4,000 rows in addition."""
    rng = random.Random(0)
    rows = []
    for line in (clean / "ratings.csv").read_text().splitlines()[1:]:
        rows.append(line)
        if rng.random() < 0.1:
            user, movie, _, timestamp = line.split(",")
            for earlier in (1, 5_000):
                rows.append(f"{user},{movie},{rng.randint(1, 10) / 2},{int(timestamp) - earlier}")
    return rows


@pytest.fixture(scope="module")
def reference(clean: Path, tmp_path_factory) -> tuple[pd.DataFrame, dict]:
    """The run on the latest ratings alone, without the option."""
    return run(clean, tmp_path_factory.mktemp("reference") / "out", "--quiet")


def run(data: Path, out: Path, *options: str) -> tuple[pd.DataFrame, dict]:
    assert segment.main(["--data", str(data), "--out", str(out), *options]) == 0
    return pd.read_parquet(out / "assignments.parquet"), json.loads((out / "run.json").read_text())


def without_rejected(result: tuple[pd.DataFrame, dict], n: int) -> tuple[pd.DataFrame, dict]:
    """Return a result as if its ``n`` superseded rows had not been in the file."""
    rows = result[1]["rows"]
    assert rows["superseded"] == n
    return result[0], {
        **result[1],
        "rows": {name: rows[name] for name in rows if name != "superseded"},
    }


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
@pytest.mark.parametrize("kind", ["csv", "parts", "parquet"])
def test_only_the_latest_counts(
    clean: Path, lines: list[str], reference, tmp_path: Path, order: str, kind: str, capsys
) -> None:
    lines = list(lines)
    if order == "shuffled":
        random.Random(1).shuffle(lines)
    folder = copy(clean, tmp_path / "data")
    if kind == "parts":
        (folder / "ratings").mkdir()
        for i in range(3):
            part = lines[len(lines) * i // 3 : len(lines) * (i + 1) // 3]
            (folder / "ratings" / f"{i}.csv").write_text(HEADER + "\n".join(part))
    else:
        (folder / "ratings.csv").write_text(HEADER + "\n".join(lines) + "\n")
    if kind == "parquet":
        pd.read_csv(folder / "ratings.csv").to_parquet(
            folder / "ratings.parquet", row_group_size=2_000
        )
        (folder / "ratings.csv").unlink()
    out = tmp_path / "out"
    options = [o for o in OPTIONS if o != "--quiet"]
    result = run(folder, out, *options, "--partition-size", "60kB")
    assert ("they are shuffled first" in capsys.readouterr().err) == (order == "shuffled")
    rejected = pd.read_csv(out / "rejected" / "ratings.csv")
    assert set(rejected["reason"]) == {REASON}
    assert_same(without_rejected(result, len(rejected)), reference)
    # Every superseded rating of a movie in the catalogue, with its line.
    rows = pd.DataFrame([line.split(",") for line in lines], columns=HEADER.strip().split(","))
    by_time = rows.astype({"timestamp": int}).sort_values("timestamp", kind="stable")
    superseded = by_time[by_time.duplicated(["userId", "movieId"], keep="last")]
    assert len(rejected) in range(len(superseded) - 30, len(superseded) + 1)
    for row in rejected.sample(50, random_state=0).itertuples():
        part = int(Path(row.file).stem) if kind == "parts" else 0
        at = (
            row.line
            - (1 if kind == "parquet" else 2)
            + (len(lines) * part // 3 if kind == "parts" else 0)
        )
        user, movie, stars, timestamp = lines[at].split(",")
        assert row.text == f"{user},{movie},{float(stars):g},{timestamp}"


def test_four_rows_by_hand(tmp_path: Path) -> None:
    folder = write_tiny(
        tmp_path / "tiny",
        HEADER + "1,10,4.0,5\n1,20,2.0,1\n2,10,1.0,3\n1,10,1.5,4\n2,30,5.0,\n2,30,3.0,9\n",
    )
    out = tmp_path / "out"
    assignments, manifest = run(folder, out, *OPTIONS, "--k", "2")
    rows = assignments.set_index("userId")
    assert rows["items"].to_dict() == {1: 2, 2: 2}
    assert rows["mean_rating"].to_dict() == {1: 3.0, 2: 2.0}
    assert manifest["rows"] == {
        "read": 4,
        "used": 4,
        "unmapped": 0,
        "rejected": 0,
        "superseded": 2,
    }
    assert (out / "rejected" / "ratings.csv").read_text().splitlines()[1:] == [
        f'{folder}/ratings.csv,5,{REASON},"1,10,1.5,4"',
        f'{folder}/ratings.csv,6,{REASON},"2,30,5"',
    ]


def test_superseded_rows_are_no_damage(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny", HEADER + "1,10,4.0,1\n1,10,2.0,2\n2,20,1.0,1\n")
    arguments = ["--data", str(folder), "--out", str(tmp_path / "out"), "--k", "2", "--quiet"]
    assert segment.main([*arguments, "--deduplicate"]) == 0
    assert "0 rejected, 1 superseded (see " in capsys.readouterr().out


@pytest.mark.parametrize("form", ["1.0", "double", "ns", "date", "us in parts"])
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_timestamps_of_other_forms(
    clean: Path, lines: list[str], tmp_path: Path, form: str, order: str
) -> None:
    rows = [line.split(",") for line in lines]
    frame = pd.DataFrame(rows, columns=HEADER.strip().split(",")).astype(
        {"userId": int, "movieId": int, "rating": float, "timestamp": int}
    )
    if form == "date":
        # One day per rating of a movie by a user, so that days decide which is the latest.
        frame["timestamp"] = frame.groupby(["userId", "movieId"])["timestamp"].rank() * 86_400
        frame["timestamp"] = frame["timestamp"].astype(int)
    if order == "shuffled":
        frame = frame.sample(frac=1, random_state=0, ignore_index=True)
    folder = tmp_path / "data"
    folder.mkdir()
    for path in clean.iterdir():
        if path.name != "ratings.csv":
            (folder / path.name).write_bytes(path.read_bytes())
    whole = frame.copy()
    if form == "1.0":
        frame.astype({"timestamp": float}).to_csv(folder / "ratings.csv", index=False)
        assert ".0\n" in (folder / "ratings.csv").read_text()
    elif form == "double":
        frame.astype({"timestamp": float}).to_parquet(folder / "ratings.parquet")
    elif form == "ns":
        # All within less than a second.
        frame["timestamp"] = pd.to_datetime(frame["timestamp"] % 900_000, unit="us").astype(
            "datetime64[ns]"
        )
        whole["timestamp"] = frame["timestamp"].astype("int64")
        frame.to_parquet(folder / "ratings.parquet")
    elif form == "date":
        frame["timestamp"] = pd.to_datetime(frame["timestamp"], unit="s").dt.date
        frame.to_parquet(folder / "ratings.parquet")
    else:
        frame["timestamp"] = pd.to_datetime(frame["timestamp"], unit="s").astype("datetime64[us]")
        (folder / "ratings.parquet").mkdir()
        frame[::2].to_parquet(folder / "ratings.parquet" / "a.parquet")
        frame[1::2].to_parquet(folder / "ratings.parquet" / "b.parquet")
    latest = whole.sort_values(["timestamp", "rating"], kind="stable").drop_duplicates(
        ["userId", "movieId"], keep="last"
    )
    links = pd.read_csv(clean / "links.csv")
    tmdb_ids = pd.to_numeric(
        pd.read_csv(clean / "movies_metadata.csv", usecols=["id"], dtype=str)["id"], errors="coerce"
    )
    in_catalogue = links[links["tmdbId"].isin(tmdb_ids)]["movieId"]
    latest = latest[latest["movieId"].isin(in_catalogue)]
    expected = latest.groupby("userId")["rating"].agg(["size", "sum"])
    users = run(folder, tmp_path / "out", *OPTIONS)[0].set_index("userId")
    pd.testing.assert_series_equal(
        users["items"], expected["size"], check_names=False, check_dtype=False
    )
    np.testing.assert_allclose(users["mean_rating"], expected["sum"] / expected["size"], rtol=1e-6)


def test_timestamps_that_are_not_comparable(tmp_path: Path, capsys) -> None:
    text = HEADER + "1,10,4.0,30/7/2000\n1,10,2.0,30/7/2001\n2,20,1.0,30/7/2001\n"
    folder = write_tiny(tmp_path / "tiny", text)
    arguments = ["--data", str(folder), "--k", "2", "--quiet", "--deduplicate"]
    assert segment.main([*arguments, "--out", str(tmp_path / "out")]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "3 of 3 ratings have no timestamp that is a whole number or a point in time" in line
    assert line.endswith("write seconds since 1970 there, or leave --deduplicate out")
    (folder / "ratings.csv").write_text(text.replace("30/7/2000", "5").replace("30/7/2001", "6"))
    pd.DataFrame(
        {"userId": [1], "movieId": [20], "rating": [3.0], "timestamp": pd.to_datetime(["2001"])}
    ).to_parquet(folder / "ratings-2.parquet")
    (folder / "ratings.csv").rename(folder / "ratings-1.csv")
    assert segment.main([*arguments, "--out", str(tmp_path / "out")]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "ratings-2.parquet: column timestamp holds datetimes, but numbers in " in line


def test_without_timestamps(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny", "userId,movieId,rating\n1,10,4.0\n2,20,3.0\n")
    arguments = ["--data", str(folder), "--k", "2", "--quiet", "--deduplicate"]
    assert segment.main([*arguments, "--out", str(tmp_path / "out")]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: {folder}/ratings.csv: has no column timestamp, which --deduplicate needs to "
        "find the latest rating: add it, "
        "name it with --columns time=NAME, or leave --deduplicate out"
    )


def test_resume_with_the_option_is_refused(clean: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    run(clean, out, "--quiet")
    arguments = ["--data", str(clean), "--out", str(out), "--quiet", "--resume", "--deduplicate"]
    assert segment.main(arguments) == 2
    assert "was run with another --deduplicate" in capsys.readouterr().err
