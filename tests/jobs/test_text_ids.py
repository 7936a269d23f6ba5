"""String ids and numbers beyond 64 bits: the same results for every kind of file and method."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs import convert, segment
from segmentation.features import aggregate
from segmentation.pipeline import stages
from tests.conftest import write_tiny
from tests.jobs.reading import assert_same_users, read
from tests.jobs.test_bad_input import refused
from tests.jobs.test_invariance import NUMBERS, copy, data, reference, run

__all__ = ["data", "reference"]  # fixtures

HEADER = "userId,movieId,rating,timestamp\n"
#: Strings sort as the numbers that they stand for.
NAMES = {
    "text": lambda number: f"üser x{number:09d}",
    "uuid": lambda number: f"{number:08x}-0000-4000-8000-000000000000",
    "wide": lambda number: str(10**24 + number),
}


def rename_ids(folder: Path, name: str = "text", *, movies: bool = True) -> Path:
    """Replace the ids of users, and of movies in the ratings and links, by strings."""
    frame = pd.read_csv(folder / "ratings.csv")
    frame["userId"] = frame["userId"].map(NAMES[name])
    if movies:
        frame["movieId"] = frame["movieId"].map(lambda number: f"m{number:09d}")
        links = pd.read_csv(folder / "links.csv", dtype=str)
        links["movieId"] = links["movieId"].map(lambda text: f"m{int(text):09d}")
        links.to_csv(folder / "links.csv", index=False)
    (folder / "ratings.csv").unlink(missing_ok=True)
    frame.to_csv(folder / "ratings.csv", index=False)
    return folder


def assert_equal(result: tuple[pd.DataFrame, dict], expected: tuple[pd.DataFrame, dict], name: str):
    """Compare with a run over numbers: in segments too, where both have them."""
    one, other = result[0], expected[0]
    assert one["userId"].tolist() == [NAMES[name](number) for number in other["userId"]]
    assert_same_users((one.assign(userId=other["userId"]), result[1]), expected)
    for column in [column for column in NUMBERS if column in one]:
        np.testing.assert_allclose(one[column], other[column], atol=1e-6)
    if "segment" in one:
        np.testing.assert_array_equal(one["segment"], other["segment"])


@pytest.mark.parametrize("name", list(NAMES))
def test_every_kind_of_id(data: Path, reference, client, tmp_path: Path, name: str) -> None:
    folder = rename_ids(copy_data(data, tmp_path / "data"), name)
    assert_equal(read(client, folder, "--partition-size", "300kB"), reference, name)


def test_a_whole_run_on_worker_processes(data: Path, reference, tmp_path: Path) -> None:
    folder = rename_ids(copy_data(data, tmp_path / "data"))
    options = ["--partition-size", "300kB", "--cluster", "local"]
    assert_equal(run(folder, tmp_path / "out", *options), reference, "text")


def copy_data(data: Path, folder: Path) -> Path:
    copy(data, folder)
    (folder / "ratings.csv").write_bytes((data / "ratings.csv").read_bytes())
    return folder


def test_only_users_have_strings(data: Path, reference, client, tmp_path: Path) -> None:
    """An x in the strings must not make the numbers next to them hexadecimal."""
    folder = rename_ids(copy_data(data, tmp_path / "data"), movies=False)
    assert_equal(read(client, folder), reference, "text")


@pytest.mark.parametrize("deduplicate", [False, True])
def test_shuffled(data: Path, client, tmp_path: Path, monkeypatch, deduplicate: bool) -> None:
    """The same result by merging and by a shuffle, with numbers and with strings as ids."""
    folder = copy_data(data, tmp_path / "data")
    frame = pd.read_csv(folder / "ratings.csv")
    again = frame.sample(500, random_state=1).assign(timestamp=lambda rows: rows.timestamp + 9)
    frame = pd.concat([frame, again]).sample(frac=1, random_state=2)
    frame.to_csv(folder / "ratings.csv", index=False)
    options = [
        "--partition-size",
        "300kB",
        *(["--deduplicate"] * deduplicate),
    ]
    expected = read(client, folder, *options)
    assert expected[1]["rows"].get("superseded", 0) == 500 * deduplicate
    rename_ids(folder)
    assert_equal(read(client, folder, *options), expected, "text")
    monkeypatch.setattr(aggregate, "_SUMS_DIVISOR", 10**9)
    assert_equal(read(client, folder, *options), expected, "text")


def test_converted(data: Path, reference, tmp_path: Path) -> None:
    folder = rename_ids(copy_data(data, tmp_path / "data"))
    arguments = ["--data", str(folder), "--out", str(tmp_path / "copy"), "--quiet"]
    assert convert.main([*arguments, "--partition-size", "300kB"]) == 0
    assert json.loads((tmp_path / "copy" / "run.json").read_text())["parquet"]["sorted_by_user"]
    assert_equal(run(tmp_path / "copy", tmp_path / "out"), reference, "text")


@pytest.mark.parametrize("kind", ["string", "category", "uint64", "decimal", "movies"])
def test_parquet(data: Path, reference, client, tmp_path: Path, kind: str) -> None:
    import decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = copy_data(data, tmp_path / "data")
    frame = pd.read_csv(folder / "ratings.csv")
    (folder / "ratings.csv").unlink()
    name = {"uint64": "large", "decimal": "wide"}.get(kind, "text")
    NAMES["large"] = lambda number: str(2**63 + number)
    ids = frame["userId"].map(NAMES[name])
    if kind == "uint64":
        users = pa.array([int(text) for text in ids], pa.uint64())
    elif kind == "decimal":
        users = pa.array([decimal.Decimal(text) for text in ids], pa.decimal128(30, 0))
    else:
        users = pa.array(ids.tolist(), pa.string())
    if kind == "category":
        users = users.dictionary_encode()
    movies = frame["movieId"].astype(str) if kind == "movies" else frame["movieId"]
    table = pa.table({"userId": users, "movieId": movies, "rating": frame["rating"]})
    pq.write_table(table, folder / "ratings.parquet", row_group_size=7_000)
    assert_equal(read(client, folder, "--ratings", "ratings.parquet"), reference, name)


def test_resumed(data: Path, reference, tmp_path: Path, monkeypatch) -> None:
    folder = rename_ids(copy_data(data, tmp_path / "data"))
    arguments = ["--data", str(folder), "--out", str(tmp_path / "out"), "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(stages, "fit_k_means", lambda *_: 1 / 0)
        assert segment.main(arguments) == 1
    monkeypatch.setattr(aggregate, "aggregate_ratings", lambda *_, **__: 1 / 0)
    assert_equal(run(folder, tmp_path / "out", "--resume"), reference, "text")


def test_bad_strings_are_rejected(tmp_path: Path) -> None:
    rows = [
        "anna,10,4.0,1",
        "anna,20,2.0,2",
        ' "bo,b" ,10,3.0,3',
        " carl ,40,5.0,6",
        "carl,10,1.0,7",
        "zoë,10,1.0,7",
    ]
    bad = [",10,3.0,1", "  ,10,3.0,1", "a" * 257 + ",10,3.0,1", "a\0b,10,3.0,1", "dora,1.5,3.0,1"]
    folder = write_tiny(
        tmp_path / "tiny", HEADER + "\n".join([*rows[:2], '"bo,b",10,3.0,3', *rows[3:], *bad])
    )
    with (folder / "ratings.csv").open("ab") as file:
        file.write(b"\nb\xffd,10,3.0,1\n")
    out = tmp_path / "out"
    arguments = ["--data", str(folder), "--out", str(out), "--k", "2", "--quiet"]
    assert segment.main([*arguments, "--max-rejected", "0.9"]) == 0
    assignments = pd.read_parquet(out / "assignments.parquet")
    assert assignments["userId"].tolist() == ["anna", "bo,b", "carl", "zoë"]
    rejected = pd.read_csv(out / "rejected" / "ratings.csv", keep_default_na=False)
    assert rejected["reason"].tolist() == [
        "userId is empty",
        "userId is empty",
        "userId is longer than 256 bytes",
        "userId contains a NUL byte",
        "movieId is not an integer",
        "userId is not valid UTF-8",
    ]


def test_numbers_with_damage_stay_numbers(tmp_path: Path, capsys) -> None:
    rows = "".join(f"{n},10,3.0,1\n" for n in range(100))
    folder = write_tiny(tmp_path / "tiny", HEADER + rows + "1.5,10,3.0,1\n" * 2)
    line = refused(capsys, folder, tmp_path / "out")
    assert "2 of 102 rows (2.0%) are not ratings" in line
    assert "userId is not an integer" in line


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("anna,10,3.0,1", "userId 'anna' is text"),
        ("0042,10,3.0,1", "userId '0042' has leading zeros"),
        ("7,m10,3.0,1", "movieId 'm10' is text"),
    ],
)
@pytest.mark.parametrize("job", [segment, convert])
def test_a_text_after_the_first_rows_is_not_dropped(
    tmp_path: Path, capsys, row: str, reason: str, job
) -> None:
    rows = "".join(f"{n},10,3.0,1\n" for n in range(10_000))
    folder = write_tiny(tmp_path / "tiny", f"{HEADER}{rows}{row}\n{rows}")
    arguments = ["--data", str(folder), "--out", str(tmp_path / "out"), "--quiet"]
    assert job.main(arguments) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        f"error: {folder}/ratings.csv, line 10,002: {reason}, and the ids before are numbers: pass "
        "--ids text to keep all ids as they are written, or --ids integer to read numbers and "
        "reject the rest"
    )
    assert not (tmp_path / "out" / "run.json").exists()
    arguments.append("--overwrite")
    assert (
        job.main([*arguments, "--ids", "integer", *(["--k", "1"] if job is segment else [])]) == 0
    )
    if job is segment and row.startswith("anna"):
        assert job.main([*arguments, "--ids", "text", "--k", "1"]) == 0
        users = pd.read_parquet(tmp_path / "out" / "assignments.parquet")["userId"]
        assert set(users) == {*map(str, range(10_000)), "anna"}
