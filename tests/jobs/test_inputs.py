"""The same ratings in every form: one file or many, compressed, Parquet, behind a URL."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import segment
from segmentation.features import aggregate
from tests.conftest import write_tiny
from tests.jobs.reading import assert_same_users, read
from tests.jobs.test_invariance import copy, data, reference, run

__all__ = ["data", "reference"]  # fixtures

HEADER = "userId,movieId,rating,timestamp\n"


def lines_of(folder: Path) -> list[str]:
    return (folder / "ratings.csv").read_text().splitlines(keepends=True)[1:]


def without_ratings(data: Path, folder: Path) -> Path:
    return copy(data, folder)


def write_parts(folder: Path, lines: list[str], n: int, name: str = "part-{}.csv") -> None:
    folder.mkdir(exist_ok=True)
    for i in range(n):
        text = HEADER + "".join(lines[len(lines) * i // n : len(lines) * (i + 1) // n])
        path = folder / name.format(i)
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(text.encode()))
        elif name.endswith(".zst"):
            path.write_bytes(pa.compress(text.encode(), codec="zstd", asbytes=True))
        else:
            path.write_text(text)


@pytest.mark.parametrize(
    ("name", "n", "option"),
    [
        ("ratings.csv.gz", 1, None),
        ("ratings.csv.zst", 1, None),
        ("ratings-{}.csv", 12, None),
        ("ratings-{}.csv.gz", 3, None),
        ("ratings/part-{}.csv", 3, None),
        ("ratings/part-{}.csv.zst", 3, None),
        ("log-{}.csv", 4, "log-*.csv"),
        ("logs/{}.csv", 4, "logs"),
    ],
)
def test_text_in_any_form(
    data: Path, reference, client, tmp_path: Path, name: str, n: int, option: str | None
) -> None:
    folder = without_ratings(data, tmp_path / "data")
    inner, _, last = name.rpartition("/")
    write_parts(folder / inner, lines_of(data), n, last)
    (folder / inner / "_SUCCESS").write_text("")
    options = ["--ratings", option] if option else []
    assert_same_users(read(client, folder, "--partition-size", "300kB", *options), reference)


@pytest.mark.parametrize("kind", ["file", "parts", "small groups", "other types"])
def test_parquet(data: Path, reference, client, tmp_path: Path, kind: str) -> None:
    folder = without_ratings(data, tmp_path / "data")
    frame = pd.read_csv(data / "ratings.csv")
    if kind == "other types":
        frame = frame.astype({"userId": "uint64", "movieId": "int32", "rating": "float32"})
        frame["more"] = [{"a": [1]}] * len(frame)
    if kind == "parts":
        (folder / "ratings.parquet").mkdir()
        for i, part in enumerate(np.array_split(np.arange(len(frame)), 3)):
            frame.iloc[part].to_parquet(folder / "ratings.parquet" / f"part.{i}.parquet")
    else:
        size = 700 if kind == "small groups" else None
        frame.to_parquet(folder / "ratings.parquet", row_group_size=size)
    assert_same_users(read(client, folder, "--partition-size", "37kB"), reference)


def test_rejected_rows_of_parquet(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "tiny")
    (folder / "ratings.csv").unlink()
    table = pa.table(
        {
            "rating": pa.array([4.0, None, float("nan"), 9.0, 3.0, 2.0, 5.0]),
            "userId": pa.array([1, 1, 1, 1, None, None, 2], pa.uint64()),
            "movieId": pa.array([10, 10, 10, 10, 10, 10, 20]),
        }
    )
    pq.write_table(table, folder / "ratings.parquet", row_group_size=2)
    out = tmp_path / "out"
    arguments = ["--data", str(folder), "--k", "2", "--max-rejected", "0.9", "--out", str(out)]
    assert segment.main([*arguments, "--quiet"]) == 0
    rows = json.loads((out / "run.json").read_text())["rows"]
    assert rows == {"read": 7, "used": 2, "unmapped": 0, "rejected": 5}
    rejected = pd.read_csv(out / "rejected" / "ratings.csv")
    assert rejected["line"].tolist() == [2, 3, 4, 5, 6]
    assert rejected["reason"].tolist() == [
        "rating is not a number",
        "rating is not a number",
        "rating is outside 0.5 to 5",
        "userId is not a 64-bit integer",
        "userId is not a 64-bit integer",
    ]


def test_lines_are_counted_file_by_file(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "tiny")
    lines = lines_of(folder)
    (folder / "ratings.csv").unlink()
    write_parts(folder / "ratings", lines[:3], 1, "a.csv")
    write_parts(folder / "ratings", [*lines[3:], "bad\n"], 1, "b.csv.gz")
    write_parts(folder / "ratings", ["bad,too\n"], 1, "c.csv")
    out = tmp_path / "out"
    arguments = ["--data", str(folder), "--k", "2", "--max-rejected", "0.9", "--out", str(out)]
    assert segment.main([*arguments, "--quiet"]) == 0
    rejected = pd.read_csv(out / "rejected" / "ratings.csv")
    assert rejected["line"].tolist() == [5, 2]
    assert [Path(name).name for name in rejected["file"]] == ["b.csv.gz", "c.csv"]


def refused(capsys, folder: Path, out: Path, *options: str) -> str:
    arguments = ["--data", str(folder), "--out", str(out), "--k", "2", "--quiet", *options]
    assert segment.main(arguments) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert not out.exists()
    return line


def refuse_changed_part(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> tuple[Path, str]:
    """Change the second of three parts after all were probed; return its path and the message."""
    folder = write_tiny(tmp_path / "tiny")
    lines = lines_of(folder)
    (folder / "ratings.csv").unlink()
    write_parts(folder / "ratings", lines, 3)
    probe, part = aggregate.probe_files, folder / "ratings" / "part-1.csv"

    def then_changed(layout, **more):
        files = probe(layout, **more)
        change(part)
        return files

    monkeypatch.setattr(aggregate, "probe_files", then_changed)
    arguments = ["--data", str(folder), "--out", str(tmp_path / "out"), "--k", "2", "--quiet"]
    assert segment.main(arguments) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert not (tmp_path / "out" / "run.json").exists()
    return part, line


def test_a_part_that_disappears_during_the_run(tmp_path: Path, capsys, monkeypatch) -> None:
    part, line = refuse_changed_part(tmp_path, capsys, monkeypatch, Path.unlink)
    assert line.startswith(f"error: {part}: changed while it was read")


@pytest.mark.parametrize("size", [0, 40])
def test_a_file_that_is_cut_while_it_is_read(
    tmp_path: Path, capsys, monkeypatch, size: int
) -> None:
    part, line = refuse_changed_part(
        tmp_path, capsys, monkeypatch, lambda path: path.write_bytes(path.read_bytes()[:size])
    )
    assert line.startswith(f"error: {part}: changed while it was read")
    assert line.endswith("make sure that nothing writes to it, and run again")


def test_parts_of_several_kinds_belong_together(
    data: Path, reference, client, tmp_path: Path
) -> None:
    # The name of the folder looks like a pattern.
    folder = without_ratings(data, tmp_path / "data [1]*")
    lines = lines_of(data)
    cuts = [0, len(lines) // 3, len(lines) // 2, len(lines)]
    for i, name in enumerate(["ratings-1.csv", "ratings-2.csv.gz", "ratings-3.CSV"]):
        write_parts(folder, lines[cuts[i] : cuts[i + 1]], 1, name)
    assert_same_users(read(client, folder), reference)
    (folder / "ratings-3.CSV").unlink()
    pd.read_csv(data / "ratings.csv")[cuts[2] :].to_parquet(folder / "ratings-3.parquet")
    assert_same_users(read(client, folder), reference)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("ratings.csv", "ratings-2.csv"),
        ("ratings-1.csv", "ratings-2.csv.bz2"),
        ("ratings/1.csv", "ratings/2.csv.xz"),
        ("ratings_small.csv", "ratings"),
    ],
)
def test_a_warning_names_what_looks_like_ratings_and_is_not_read(
    tmp_path: Path, capsys, name: str, other: str
) -> None:
    folder = write_tiny(tmp_path / "tiny")
    text = (folder / "ratings.csv").read_text()
    (folder / "ratings.csv").unlink()
    for path in (folder / name, folder / other):
        path.parent.mkdir(exist_ok=True)
        if path.name == "ratings":
            path.mkdir()
        else:
            path.write_text(text)
    (folder / "rates-3.csv").write_text(text)
    arguments = ["--data", str(folder), "--k", "2", "--quiet"]
    assert segment.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert f"warning: {folder}/{other}: not read, since " in capsys.readouterr().err
    warnings = json.loads((tmp_path / "out" / "run.json").read_text())["warnings"]
    assert any(f"{other}: not read, since " in warning for warning in warnings)
    # Ratings that are named were chosen: no warning.
    assert segment.main([*arguments, "--out", str(tmp_path / "2"), "--ratings", name]) == 0
    assert ": not read, since " not in capsys.readouterr().err


def test_lines_longer_than_the_read_ahead(data: Path, reference, client, tmp_path: Path) -> None:
    """Buffers grow while other threads reuse the ones that were released."""
    folder = without_ratings(data, tmp_path / "data")
    frame = pd.read_csv(data / "ratings.csv")
    long = np.arange(len(frame)) % 40 == 0
    frame["review"] = np.where(long, "z" * 9_000, "z")
    frame.to_csv(folder / "ratings.csv", index=False)
    for _ in range(3):
        assert_same_users(read(client, folder, "--partition-size", "50kB"), reference)


@pytest.mark.parametrize("statistics", [True, False])
def test_ids_beyond_int64_in_parquet(tmp_path: Path, statistics: bool) -> None:
    folder = write_tiny(tmp_path / "tiny")
    frame = pd.read_csv(folder / "ratings.csv").astype({"userId": "uint64"})
    frame["userId"] += 2**63
    (folder / "ratings.csv").unlink()
    frame.to_parquet(folder / "ratings.parquet", write_statistics=statistics)
    actual = run(folder, tmp_path / "out", "--k", "2")
    assert set(actual[0]["userId"]) <= {str(user) for user in frame["userId"]}


def test_a_part_with_another_schema(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny")
    frame = pd.read_csv(folder / "ratings.csv")
    (folder / "ratings.csv").unlink()
    (folder / "ratings").mkdir()
    frame.to_parquet(folder / "ratings" / "0.parquet")
    for change, message in (
        (
            frame.rename(columns={"rating": "stars"}),
            "no column rating (it reads 'userId, movieId, stars, timestamp'); if these are",
        ),
        (frame.astype({"userId": str}), "column userId is of type"),
        (frame.astype({"rating": str}), "column rating is of type"),
    ):
        change.to_parquet(folder / "ratings" / "1.parquet")
        line = refused(capsys, folder, tmp_path / "out")
        assert line.startswith(f"error: {folder}/ratings/1.parquet: {message}")


def test_a_damaged_part(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny")
    lines = lines_of(folder)
    write_parts(folder / "ratings", lines * 5_000, 2, "{}.csv.gz")
    packed = folder / "ratings" / "1.csv.gz"
    packed.write_bytes(packed.read_bytes()[:-200])
    (folder / "ratings.csv").unlink()
    line = refused(capsys, folder, tmp_path / "out")
    assert line.startswith(f"error: {packed}: can't be decompressed")
    frame = pd.read_csv(folder / "ratings" / "0.csv.gz")
    shutil.rmtree(folder / "ratings")
    frame.to_parquet(folder / "ratings.parquet")
    whole = (folder / "ratings.parquet").read_bytes()
    (folder / "ratings.parquet").write_bytes(whole[:100] + b"\xff" * 2_000 + whole[2_100:])
    line = refused(capsys, folder, tmp_path / "out")
    assert line.startswith(f"error: {folder}/ratings.parquet: can't be read")


def test_a_pattern_without_matches(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny")
    line = refused(capsys, folder, tmp_path / "out", "--ratings", "log-*.csv")
    assert "log-*.csv: no file matches this pattern" in line
    (folder / "empty").mkdir()
    line = refused(capsys, folder, tmp_path / "out", "--ratings", "empty")
    assert "empty: this folder holds no ratings" in line


def test_parts_by_url(data: Path, reference, client, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    folder = without_ratings(data, tmp_path / "data")
    write_parts(folder / "ratings", lines_of(data), 3)
    memory.put(str(folder), "/parts", recursive=True)
    try:
        assert_same_users(read(client, "memory://parts"), reference)
    finally:
        memory.rm("/parts", recursive=True)


def test_a_note_says_what_compressed_files_cost(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny")
    text = (folder / "ratings.csv").read_bytes()
    (folder / "ratings.csv").unlink()
    (folder / "ratings.csv.gz").write_bytes(gzip.compress(text))
    assert segment.main(["--data", str(folder), "--k", "2", "--out", str(tmp_path / "out")]) == 0
    message = capsys.readouterr().err
    assert f"note: {folder}/ratings.csv.gz is gzip, which only one task can decompress" in message
