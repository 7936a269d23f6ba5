"""A file that changes while it is read ends the run, and is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from jobs import convert, segment
from segmentation.datasets import partitions
from tests.conftest import write_tiny
from tests.web_server import WebServer, serve

ROWS = "".join(f"{user},{10 + 10 * (user % 2)},{user % 9 / 2 + 0.5},1\n" for user in range(3, 900))


def replace_with_equal_size(path: Path) -> None:
    text = path.read_bytes().replace(b"4.0", b"1.0").replace(b"4.5", b"1.5")
    path.with_name("new").write_bytes(text)
    os.replace(path.with_name("new"), path)


def overwrite_in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(40)
        file.write(b"9")


def grow(path: Path) -> None:
    with path.open("a") as file:
        file.write("1,10,5.0,1\n")


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 2)


CHANGES = [replace_with_equal_size, overwrite_in_place, grow, shorten, Path.unlink]


@pytest.fixture(params=["csv", "gzip", "parquet"])
def data(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = write_tiny(tmp_path / "data")
    with (folder / "ratings.csv").open("a") as file:
        file.write(ROWS)
    if request.param != "csv":
        frame = pd.read_csv(folder / "ratings.csv")
        (folder / "ratings.csv").unlink()
        if request.param == "gzip":
            frame.to_csv(folder / "ratings.csv.gz", index=False)
        else:
            frame.to_parquet(folder / "ratings.parquet")
    return folder


def change_after(monkeypatch: pytest.MonkeyPatch, n_reads: int, change: Callable[[], None]) -> None:
    """Change the input when a number of fragments was read."""
    read_chunks = partitions.read_chunks
    count = 0

    def read(*arguments, **options):
        nonlocal count
        count += 1
        is_now = count == n_reads
        for chunk in read_chunks(*arguments, **options):
            # Bytes, as the buffer that the chunk is a view of is reused.
            yield bytes(chunk) if isinstance(chunk, memoryview) else chunk
            if is_now:
                is_now = False
                change()

    monkeypatch.setattr(partitions, "read_chunks", read)


@pytest.mark.parametrize("job", [segment, convert])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_while_tasks_read(
    data: Path, tmp_path: Path, monkeypatch, capsys, job, change: Callable[[Path], None]
) -> None:
    (path,) = data.glob("ratings*")
    change_after(monkeypatch, 1, lambda: change(path))
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--quiet"]
    assert job.main([*arguments, "--partition-size", "1KiB"]) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {path}: ")
    assert not (tmp_path / "out" / "run.json").exists()
    assert "nothing writes to it, and run again" in error or change is Path.unlink


@pytest.mark.parametrize("name", ["movies_metadata.csv", "links.csv"])
def test_a_change_of_the_catalogue(tmp_path: Path, monkeypatch, capsys, name: str) -> None:
    data = write_tiny(tmp_path / "data")
    change_after(monkeypatch, 1, lambda: grow(data / name))
    assert segment.main(["--data", str(data), "--out", str(tmp_path / "out"), "--k", "2"]) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {data / name}: changed while it was read; make sure that")


def test_a_change_behind_a_url(tmp_path: Path, monkeypatch, capsys) -> None:
    data = write_tiny(tmp_path / "data")
    with serve(WebServer(data)) as web:
        change_after(monkeypatch, 1, lambda: grow(data / "ratings.csv"))
        assert segment.main(["--data", web.url, "--out", str(tmp_path / "out"), "--k", "2"]) == 3
    assert "ratings.csv: changed while it was read" in capsys.readouterr().err


def test_what_is_only_read_or_copied_has_not_changed(tmp_path: Path, monkeypatch) -> None:
    data = write_tiny(tmp_path / "data")
    change_after(monkeypatch, 1, lambda: shutil.copytree(data, tmp_path / "copy"))
    assert segment.main(["--data", str(data), "--out", str(tmp_path / "out"), "--k", "2"]) == 0


def test_a_change_between_a_run_and_its_resumption(tmp_path: Path, capsys) -> None:
    """Larger than what the fingerprint's probes cover, and changed between them."""
    data, out = write_tiny(tmp_path / "data"), tmp_path / "out"
    rows = [f"{user},{10 + 10 * (user % 2)},4.5,1\n" for user in range(100_000, 400_000)]
    (data / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "".join(rows))
    arguments = ["--data", str(data), "--out", str(out), "--k", "2"]
    assert segment.main(arguments) == 0
    before = (out / "segments.json").read_bytes()
    text = bytearray((data / "ratings.csv").read_bytes())
    place = text.find(b"4.5", 70_000)
    text[place : place + 3] = b"1.0"
    (data / "ratings.csv").write_bytes(text)
    capsys.readouterr()
    assert segment.main([*arguments, "--resume"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {data / 'ratings.csv'}: changed after the run in {out} had")
    assert (out / "segments.json").read_bytes() == before
    assert segment.main([*arguments, "--overwrite"]) == 0
