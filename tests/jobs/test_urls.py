"""Data behind URLs: a good web server, bad ones, and an S3-compatible store."""

from __future__ import annotations

import gzip
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest

from jobs import convert, segment
from segmentation.datasets import retry
from tests.conftest import write_tiny
from tests.jobs.reading import assert_same_users, read
from tests.jobs.test_bad_input import refused
from tests.jobs.test_invariance import assert_same, data, reference, result, run
from tests.web_server import WebServer, serve

__all__ = ["data", "reference"]  # fixtures

#: The connections that aiohttp keeps alive end with the process, not with a test.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch) -> Iterator[None]:
    """Clear what fsspec caches between tests, and shorten the pauses between retries."""
    monkeypatch.setattr(retry, "_PAUSES", (0.01, 0.02, 0.05))
    yield
    fsspec.AbstractFileSystem.clear_instance_cache()


def test_ranges(data: Path, reference, tmp_path: Path) -> None:
    with serve(WebServer(data)) as web:
        options = ["--partition-size", "300kB", "--cluster", "local"]
        actual = run(web.url, tmp_path / "out", *options)
        ranges = web.requested_ranges("ratings.csv")
    assert_same(actual, reference)
    size = (data / "ratings.csv").stat().st_size
    # Each byte was sent about once, in ranges of the partitions' size.
    assert max(stop - start for start, stop in ranges) < 320_000
    assert sum(stop - start for start, stop in ranges) < 1.2 * size + 64 * 65_536
    assert actual[1]["data"]["fingerprint"] == reference[1]["data"]["fingerprint"]


@pytest.mark.parametrize("ranges", ["no", "ignored"])
@pytest.mark.parametrize("packed", [False, True])
def test_no_ranges(
    data: Path, reference, tmp_path: Path, capsys, ranges: str, packed: bool
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    if packed:
        text = (folder / "ratings.csv").read_bytes()
        (folder / "ratings.csv").unlink()
        (folder / "ratings.csv.gz").write_bytes(gzip.compress(text, 1))
    with serve(WebServer(folder, ranges=ranges)) as web:
        options = ["--data", web.url, "--out", str(tmp_path / "out"), "--partition-size", "300kB"]
        assert segment.main(options) == 0
        actual = result(tmp_path / "out")
        name = "ratings.csv.gz" if packed else "ratings.csv"
        wanted = [method for method, requested, _ in web.requests if requested == name]
    assert_same(actual, reference)
    # Besides the probes, the whole file is read twice: for the fingerprint and for the ratings.
    assert wanted.count("GET") <= 8
    message = capsys.readouterr().err
    assert ("does not support range requests" in message) == (not packed)
    assert ("is gzip, which only one task can decompress" in message) == packed
    if not packed:
        assert actual[1]["data"]["fingerprint"] == reference[1]["data"]["fingerprint"]


@pytest.mark.parametrize("what", ["500", "broken off"])
def test_retries(data: Path, reference, client, what: str) -> None:
    """Each file fails twice, at a moment that the test does not choose."""
    with serve(WebServer(data)) as web:
        names = ["ratings.csv", "movies_metadata.csv", "links.csv"]
        trouble = Counter(dict.fromkeys(names, 2))
        if what == "500":
            web.failures = trouble
        else:
            web.broken_off = trouble
        actual = read(client, web.url, "--partition-size", "300kB")
        assert not +trouble
    assert_same_users(actual, reference)


@pytest.mark.parametrize("name", ["ratings.csv", "links.csv", "movies_metadata.csv"])
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            403,
            "403 Forbidden); check the address, the permissions and whether the link has expired",
        ),
        (401, "401 Unauthorized); check the address"),
        (404, None),
        (500, "500 Internal Server Error, 4 attempts); check the address, or try again later"),
        (418, "can't be read (418 I'm a Teapot); check the address"),
    ],
)
def test_refused(tmp_path: Path, capsys, name: str, status: int, message: str | None) -> None:
    with serve(WebServer(write_tiny(tmp_path / "tiny"), statuses={name: status})) as web:
        line = refused(capsys, web.url, tmp_path / "out")
    if message is not None:
        assert f"{web.url}/{name}" in line
        assert message in line
    elif name == "movies_metadata.csv":
        assert "holds none of movies_metadata.csv, movie.csv (Kaggle), movies.csv" in line
    elif name == "links.csv":
        assert "neither links.csv nor links_small.csv" in line
    else:
        assert "holds no ratings.csv or ratings_small.csv; add it" in line


def test_gone_while_it_is_read(data: Path, tmp_path: Path, capsys) -> None:
    with serve(WebServer(data, gone_after={"ratings.csv": 75})) as web:
        line = refused(capsys, web.url, tmp_path / "out", "--partition-size", "100kB")
    assert f"{web.url}/ratings.csv: no such file; check its name and folder" in line


def test_nobody_listens(tmp_path: Path, capsys) -> None:
    line = refused(capsys, "http://127.0.0.1:9", tmp_path / "out")
    assert "127.0.0.1:9" in line
    assert "4 attempts); check the address, or try again later" in line


def test_no_size(tmp_path: Path, capsys) -> None:
    with serve(WebServer(write_tiny(tmp_path / "tiny"), sends_size=False)) as web:
        line = refused(capsys, web.url, tmp_path / "out")
    assert "its server does not report its size; download it and pass the local file" in line


def test_parquet_by_ranges(data: Path, reference, client, tmp_path: Path, capsys) -> None:
    copied = tmp_path / "copy"
    assert convert.main(["--data", str(data), "--out", str(copied), "--quiet"]) == 0
    (part,) = copied.rglob("part-*.parquet")
    content = part.read_bytes()
    shutil.rmtree(part.parent)
    (copied / "ratings.parquet").write_bytes(content)
    with serve(WebServer(copied)) as web:
        assert_same_users(read(client, web.url), reference)
        web.ranges = "ignored"
        fsspec.AbstractFileSystem.clear_instance_cache()
        capsys.readouterr()
        line = refused(capsys, web.url, tmp_path / "other")
    assert "Parquet needs range requests, which its server does not support; download it" in line


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """An S3-compatible server on loopback, with its keys in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    known = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in known}
    os.environ.update(known)
    yield known["AWS_ENDPOINT_URL"]
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    server.stop()


def test_s3(data: Path, reference, tmp_path: Path, store: str) -> None:
    fs = fsspec.filesystem("s3")
    fs.mkdir("audience")
    fs.put(f"{data}/", "audience/movielens", recursive=True)
    options = ["--partition-size", "300kB", "--cluster", "local"]
    assert_same(run("s3://audience/movielens", tmp_path / "out", *options), reference)


def test_parts_in_s3(data: Path, reference, client, store: str) -> None:
    fs = fsspec.filesystem("s3")
    fs.mkdir("parts")
    for name in ("links.csv", "movies_metadata.csv"):
        fs.put(str(data / name), f"parts/{name}")
    frame = pd.read_csv(data / "ratings.csv")
    for i in range(3):
        fs.pipe(f"parts/ratings-{i}.csv", frame[i::3].to_csv(index=False).encode())
    assert_same_users(read(client, "s3://parts", "--partition-size", "300kB"), reference)


def test_s3_without_a_bucket(tmp_path: Path, capsys, store: str) -> None:
    line = refused(capsys, "s3://nowhere/data", tmp_path / "out")
    assert "s3://nowhere/data/movies_metadata.csv: can't be read" in line
    assert "The specified bucket does not exist); check the address" in line


def test_a_protocol_without_its_package(tmp_path: Path, capsys) -> None:
    line = refused(capsys, "gs://bucket/data", tmp_path / "out")
    assert "install" in line
    assert segment.main(["--data", "nothing://x", "--out", str(tmp_path / "o"), "--quiet"]) == 3
