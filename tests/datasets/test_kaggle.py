"""The real kagglehub client against a loopback server that answers as Kaggle does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from segmentation.datasets import kaggle, layouts
from segmentation.errors import DataError
from tests.conftest import write_tiny
from tests.kaggle_server import KaggleServer, environment, kaggle_server

pytestmark = [
    # kagglehub leaves its session to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def server(monkeypatch, tmp_path):
    with kaggle_server(monkeypatch, tmp_path / "cache") as state:
        state.serve_folder(write_tiny(tmp_path / "source"))
        state.files["credits.csv"] = b"not needed"
        yield state


def test_only_the_needed_files_and_only_once(server: KaggleServer, tmp_path: Path) -> None:
    folder = Path(kaggle.download())
    assert sorted(p.name for p in folder.iterdir()) == [
        "links.csv",
        "movies_metadata.csv",
        "ratings.csv",
    ]
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "source" / path.name).read_bytes()
    assert layouts.detect_layout(str(folder)).name == "kaggle"
    asked = len(server.requests)
    assert Path(kaggle.download()) == folder
    assert len(server.requests) == asked, "a cached copy needs no network"


def test_own_ratings_with_kaggles_catalogue(server: KaggleServer, tmp_path: Path) -> None:
    own = write_tiny(tmp_path / "own") / "ratings.csv"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "jobs.segment",
            "--data",
            "kaggle",
            "--ratings",
            str(own),
            "--k",
            "2",
            "--out",
            str(tmp_path / "out"),
            "--quiet",
        ],
        env={**os.environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not any("ratings" in request for request in server.requests)


def test_zipped_files_are_unpacked(server: KaggleServer, tmp_path: Path) -> None:
    server.serve_zipped("ratings.csv")
    folder = Path(kaggle.download())
    source = (tmp_path / "source" / "ratings.csv").read_bytes()
    assert (folder / "ratings.csv").read_bytes() == source


def test_a_download_that_broke_off_is_resumed(server: KaggleServer, tmp_path: Path) -> None:
    content = b"userId,movieId,rating,timestamp\n" + b"1,10,4.0,1\n" * 300_000
    server.files["ratings.csv"] = content
    server.break_after = 2_500_000
    kaggle_files = {name: server.files[name] for name in kaggle.CATALOGUE_FILES}
    assert all(len(data) < server.break_after for data in kaggle_files.values())
    with pytest.raises(DataError, match=r"the download of ratings.csv broke off: run it again"):
        kaggle.download()
    server.break_after = None
    server.requests.clear()
    folder = Path(kaggle.download())
    assert (folder / "ratings.csv").read_bytes() == content
    resumed = [r for r in server.requests if r.startswith("storage ratings.csv bytes=")]
    assert len(resumed) == 1
    assert int(resumed[0].split("=")[1].rstrip("-")) > 0


def test_a_damaged_file_is_told_and_not_kept(server: KaggleServer, tmp_path: Path) -> None:
    server.wrong_md5 = True
    with pytest.raises(DataError, match=r"movies_metadata.csv arrived damaged .* run it again"):
        kaggle.download()
    assert not list((tmp_path / "cache").rglob("movies_metadata.csv"))


def test_no_such_file(server: KaggleServer) -> None:
    with pytest.raises(DataError, match=r"no file ratings_big.csv .* use ratings.csv or"):
        kaggle.download("ratings_big.csv")


@pytest.mark.parametrize("status", [401, 403])
def test_refused(server: KaggleServer, status: int) -> None:
    server.status = status
    with pytest.raises(DataError, match=rf"refuses .* \(status {status}\): set KAGGLE_USERNAME"):
        kaggle.download()


def test_server_trouble(server: KaggleServer) -> None:
    server.status = 503
    with pytest.raises(DataError, match="status 503: try again later, or download it by hand"):
        kaggle.download()


def test_no_network(monkeypatch, tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in environment(port, tmp_path).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match="Kaggle can't be reached for .*: check the network"):
        kaggle.download()


def test_cache_that_cannot_be_written(server: KaggleServer, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="can't be written to .* point KAGGLEHUB_CACHE elsewhere"):
        kaggle.download()


def test_no_space(server: KaggleServer, monkeypatch, tmp_path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(full)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system needs root to be mounted")
    try:
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(full))
        server.files["ratings.csv"] = b"userId,movieId,rating\n" + b"1,10,4.0\n" * 300_000
        with pytest.raises(DataError, match=r"no space left for ratings.csv .*KAGGLEHUB_CACHE"):
            kaggle.download()
    finally:
        subprocess.run(["umount", str(full)], check=True)


def test_the_whole_job_from_kaggle(server: KaggleServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "jobs.segment", "--data", "kaggle", "--k", "2", "--out", str(out)],
        env={**os.environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (out / "report.html").exists()
    assert "Kaggle" in done.stderr
    again = subprocess.run(
        [sys.executable, "-m", "jobs.segment", "--data", "kaggle", "--ratings", "none.csv"],
        env={**os.environ},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert again.returncode == 3
    assert again.stderr.strip().splitlines()[-1].startswith("error: Kaggle has no file none.csv")
    assert not (tmp_path / "runs").exists()
