"""Bad input: what is read anyway, what is rejected, what is refused in one line."""

from __future__ import annotations

import gzip
import json
import os  # noqa: F401 - in a skip condition
from pathlib import Path

import pandas as pd
import pytest

from jobs import segment
from tests.conftest import write_tiny

HEADER = "userId,movieId,rating,timestamp\n"
SOUND = "1,10,4.0,1\n1,20,2.0,2\n2,10,3.0,3\n2,10,5.0,4\n2,30,1.0,5\n3,40,5.0,6\n"


def call(data: Path | str, out: Path, *options: str) -> int:
    return segment.main(["--data", str(data), "--out", str(out), "--k", "2", "--quiet", *options])


def refused(capsys, data: Path | str, out: Path, *options: str) -> str:
    """Run a job that fails; return its one line on stderr, and check that nothing else is left."""
    assert call(data, out, *options) == 3
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("error: ")
    assert not out.exists()
    return line


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("CRLF", (HEADER + SOUND).replace("\n", "\r\n").encode()),
        ("byte-order mark", b"\xef\xbb\xbf" + (HEADER + SOUND).encode()),
        ("no last newline", (HEADER + SOUND).rstrip("\n").encode()),
    ],
)
def test_read_anyway(tmp_path: Path, name: str, content: bytes) -> None:
    folder = write_tiny(tmp_path / "tiny")
    (folder / "ratings.csv").write_bytes(content)
    assert call(folder, tmp_path / "out") == 0, name
    rows = json.loads((tmp_path / "out" / "run.json").read_text())["rows"]
    assert rows == {"read": 6, "used": 5, "unmapped": 1, "rejected": 0}


def test_ids_beyond_32_bits(tmp_path: Path) -> None:
    big = 2**40 + 7
    folder = write_tiny(tmp_path / "tiny", HEADER + SOUND + f"{big},20,3.0,7\n")
    assert call(folder, tmp_path / "out") == 0
    actual = pd.read_parquet(tmp_path / "out" / "assignments.parquet")
    assert actual["userId"].tolist() == [1, 2, big]


def test_rejected_rows_are_counted_and_kept(tmp_path: Path, capsys) -> None:
    bad = ["2,20,NaN,9", "2,20,good,9", "2,20,-1.0,9", "2,20,6.0,9", "2,20,3.0"]
    folder = write_tiny(tmp_path / "tiny", HEADER + SOUND + "\n".join(bad))
    out = tmp_path / "out"
    arguments = ["--data", str(folder), "--out", str(out), "--k", "2", "--max-rejected", "0.9"]
    assert segment.main(arguments) == 0
    rows = json.loads((out / "run.json").read_text())["rows"]
    assert rows == {"read": 11, "used": 5, "unmapped": 1, "rejected": 5}
    rejected = pd.read_csv(out / "rejected" / "ratings.csv", dtype=str, keep_default_na=False)
    assert rejected["line"].tolist() == ["8", "9", "10", "11", "12"]
    assert rejected["text"].tolist() == bad
    assert rejected["reason"].tolist() == [
        "rating is not a number",
        "rating is not a number",
        "rating is outside 0.5 to 5",
        "rating is outside 0.5 to 5",
        "3 fields, expected 4",
    ]
    assert "5 rejected (see " in capsys.readouterr().out


def test_too_many_rejected(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny", HEADER + SOUND + "2,20,seven,9\n")
    line = refused(capsys, folder, tmp_path / "out")
    assert "1 of 7 rows (14.3%) are not ratings, more than --max-rejected 0.01" in line
    assert "the first is line 8: rating is not a number: '2,20,seven,9'" in line
    assert line.endswith("fix the file or raise --max-rejected")


def test_no_such_folder(tmp_path: Path, capsys) -> None:
    line = refused(capsys, tmp_path / "none", tmp_path / "out")
    assert line == (
        f"error: {tmp_path}/none: no such folder; set --data to a folder that holds ratings"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"userId,movieId,stars\n1,10,4.0\n", "line 1: no column rating (it reads "),
        (b"", "is empty; replace it with a complete file"),
        (gzip.compress((HEADER + SOUND).encode(), mtime=0)[:40], "can't be decompressed"),
        (b"PK\x03\x04", "is a zip archive; unpack it and name the result"),
        (b"PAR1" * 9, "can't be read as Parquet"),
        (HEADER.encode(), "holds a header and no ratings"),
        (b"\x00\x01\x02" * 100, "line 1: no column userId and no movieId"),
    ],
)
def test_ratings_that_cannot_be_read(tmp_path, capsys, content: bytes, message: str) -> None:
    folder = write_tiny(tmp_path / "tiny")
    (folder / "ratings.csv").write_bytes(content)
    line = refused(capsys, folder, tmp_path / "out")
    assert message in line
    assert str(folder / "ratings.csv") in line


def test_a_directory_where_a_file_should_be(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny")
    (folder / "links.csv").unlink()
    (folder / "links.csv").mkdir()
    assert "is a folder, not a file; name a file" in refused(capsys, folder, tmp_path / "o")
    (folder / "ratings.csv").unlink()
    (folder / "ratings.csv").mkdir()
    assert "ratings.csv: this folder holds no ratings" in refused(capsys, folder, tmp_path / "o")


def test_a_file_where_a_folder_should_be(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny")
    line = refused(capsys, folder / "ratings.csv", tmp_path / "out")
    assert "is a file, not a folder; set --data to the folder that holds it" in line


def test_a_catalogue_that_matches_no_rating(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny", HEADER + "1,77,4.0,1\n2,78,3.0,2\n")
    line = refused(capsys, folder, tmp_path / "out")
    assert "none of its 2 ratings is of an item in" in line


@pytest.mark.parametrize("missing", ["movies_metadata.csv", "links.csv", "ratings.csv"])
def test_a_missing_file_is_named(tmp_path: Path, capsys, missing: str) -> None:
    folder = write_tiny(tmp_path / "tiny")
    (folder / missing).unlink()
    assert missing in refused(capsys, folder, tmp_path / "out")


def test_fewer_users_than_segments(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny")
    assert call(folder, tmp_path / "out", "--k", "7") == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "error: 2 users for --k 7: pass --k 2 or lower"
    # The ratings are not read again for another k.
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".work"]
    assert (
        segment.main(
            ["--data", str(folder), "--out", str(tmp_path / "out"), "--k", "2", "--resume"]
        )
        == 0
    )
    assert "ratings: taken from the finished stage" in capsys.readouterr().err


def test_a_failed_run_leaves_another_folders_content_alone(tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert call(tmp_path / "none", out) == 2
    assert "holds notes.txt but no run: choose another --out" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["notes.txt"]


def test_the_first_bad_line_is_named_however_early_the_run_stops(tmp_path: Path, capsys) -> None:
    rows = [f"{user},10,4.0,1\n" for user in range(1, 30_000)]
    rows[20_000:] = ["junk\n"] * 9_999
    folder = write_tiny(tmp_path / "tiny", HEADER + "".join(rows))
    for _ in range(3):
        line = refused(capsys, folder, tmp_path / "out", "--partition-size", "20kB")
        assert "the first is line 20002: 1 field, expected 4: 'junk'" in line


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ratings.csv", b"userId,movieId,rating\r1,10,4.0\r", "its lines end in CR alone"),
        ("ratings.csv", b"userId,rating,movieId,rating\n1,1,10,4\n", "names column rating twice"),
        (
            "links.csv",
            b'movieId,imdbId,tmdbId\n10,"1,100\n20,2,200\n',
            "a quoted field spans lines",
        ),
        (
            "links.csv",
            b"movieId,imdbId,tmdbId\n10,1," + b"9" * 5000 + b"\n",
            "none of its tmdbId values",
        ),
    ],
)
def test_damaged_files_are_refused(tmp_path, capsys, name: str, content: bytes, message: str):
    folder = write_tiny(tmp_path / "tiny")
    (folder / name).write_bytes(content)
    assert message in refused(capsys, folder, tmp_path / "out")


def test_a_catalogue_without_readable_genres(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny")
    text = (folder / "movies_metadata.csv").read_text()
    (folder / "movies_metadata.csv").write_text(text.replace("[{'id'", "[{id"))
    line = refused(capsys, folder, tmp_path / "out")
    assert "the categories of 2 of 3 items can't be read, such as \"[{id" in line


def test_quiet_runs_warn_about_a_damaged_catalogue(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny")
    text = (folder / "movies_metadata.csv").read_text()
    (folder / "movies_metadata.csv").write_text(text.replace("[{'id': 35", "[{id: 35"))
    assert call(folder, tmp_path / "out", "--k", "1") == 0
    output = capsys.readouterr().err
    assert "1 catalogue records have unreadable categories" in output
    assert "16.7% of the ratings are of movies that the catalogue lacks" in output
    warnings = json.loads((tmp_path / "out" / "run.json").read_text())["warnings"]
    assert [w.split()[0] for w in warnings] == ["2", "16.7%", "1", "fewer"]


def test_file_content_does_not_control_the_terminal(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny", "\x1b[2Juser,\x07movie\n1,2\n")
    line = refused(capsys, folder, tmp_path / "out")
    assert "\\x1b[2Juser" in line
    assert line.isprintable()


@pytest.mark.skipif("os.getuid() == 0", reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path, capsys) -> None:
    folder = write_tiny(tmp_path / "tiny")
    (folder / "ratings.csv").chmod(0)
    assert "Permission denied" in refused(capsys, folder, tmp_path / "out")
