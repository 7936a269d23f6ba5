"""The real kagglehub client against a server on loopback that answers like Kaggle."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from segmentation.datasets import kaggle
from segmentation.datasets.layouts import detect_layout
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
    assert detect_layout(str(folder)).name == "kaggle"
    n_requests = len(server.requests)
    assert Path(kaggle.download()) == folder
    assert len(server.requests) == n_requests, "a cached copy needs no network"


def test_a_users_ratings_with_kaggles_catalogue(server: KaggleServer, tmp_path: Path) -> None:
    ratings = write_tiny(tmp_path / "other") / "ratings.csv"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "jobs.segment",
            "--data",
            "kaggle",
            "--ratings",
            str(ratings),
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
    with pytest.raises(
        DataError, match=r"^ratings.csv: the download broke off; run again to resume it$"
    ):
        kaggle.download()
    server.break_after = None
    server.requests.clear()
    folder = Path(kaggle.download())
    assert (folder / "ratings.csv").read_bytes() == content
    resumed = [r for r in server.requests if r.startswith("storage ratings.csv bytes=")]
    assert len(resumed) == 1
    assert int(resumed[0].split("=")[1].rstrip("-")) > 0


def test_a_corrupted_file_is_an_error_and_not_kept(server: KaggleServer, tmp_path: Path) -> None:
    server.wrong_md5 = True
    with pytest.raises(
        DataError, match=r"^movies_metadata.csv: the download is corrupted .*; run again$"
    ):
        kaggle.download()
    assert not list((tmp_path / "cache").rglob("movies_metadata.csv"))


def test_no_such_file(server: KaggleServer) -> None:
    with pytest.raises(
        DataError, match=r"^ratings_big.csv: no such file in rounakbanik/.*; use ratings.csv"
    ):
        kaggle.download("ratings_big.csv")


@pytest.mark.parametrize("status", [401, 403])
def test_denied_access(server: KaggleServer, status: int) -> None:
    server.status = status
    with pytest.raises(DataError, match=rf"denies access \(status {status}\); set KAGGLE_USERNAME"):
        kaggle.download()


def test_a_server_error(server: KaggleServer) -> None:
    server.status = 503
    with pytest.raises(DataError, match="status 503; try again later, or download it from https:"):
        kaggle.download()


def test_no_network(monkeypatch, tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in environment(port, tmp_path).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        DataError, match="csv: Kaggle can't be reached; check the network and HTTPS_PROXY, or"
    ):
        kaggle.download()


def test_cache_that_cannot_be_written(server: KaggleServer, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        DataError, match=r"can't be written to .* \(.*\); set KAGGLEHUB_CACHE to another"
    ):
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
        with pytest.raises(
            DataError, match=r"^ratings.csv: no space left in .*set KAGGLEHUB_CACHE to a folder"
        ):
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
    # The server's file is not the one of 26 million rows.
    assert "ratings.csv: has 6 rows, and Kaggle's 26,024,289: delete it and run" in done.stderr
    again = subprocess.run(
        [sys.executable, "-m", "jobs.segment", "--data", "kaggle", "--ratings", "none.csv"],
        env={**os.environ},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert again.returncode == 3
    assert again.stderr.strip().splitlines()[-1].startswith("error: none.csv: no such file in ")
    assert not (tmp_path / "runs").exists()
