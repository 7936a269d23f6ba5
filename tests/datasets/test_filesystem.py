"""Files on disk, in memory and behind web servers that behave in different ways."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from segmentation.datasets import filesystem, retry
from segmentation.datasets.retry import AccessDeniedError
from segmentation.errors import DataError
from tests.web_server import WebServer, serve

CONTENT = bytes(range(256)) * 40

#: The connections that aiohttp keeps alive end with the process, not with a test.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no test see what fsspec cached for another, nor wait as long as a run would."""
    monkeypatch.setattr(retry, "_PAUSES", (0.01, 0.02, 0.05))
    yield
    fsspec.AbstractFileSystem.clear_instance_cache()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    with serve(WebServer(tmp_path)) as server:
        yield server


@pytest.fixture(params=["disk", "memory", "ranges", "no ranges", "ranges ignored"])
def path(request: pytest.FixtureRequest, web: WebServer) -> Iterator[str]:
    """The same content in every kind of place."""
    if request.param == "disk":
        yield str(web.folder / "a.bin")
    elif request.param == "memory":
        fsspec.filesystem("memory").pipe("/a.bin", CONTENT)
        yield "memory://a.bin"
        fsspec.filesystem("memory").rm("/a.bin")
    else:
        web.ranges = {"ranges": "yes", "no ranges": "no", "ranges ignored": "ignored"}[
            request.param
        ]
        yield f"{web.url}/a.bin"


def test_info_and_content(path: str) -> None:
    assert filesystem.exists(path)
    assert not filesystem.exists(path + ".none")
    info = filesystem.file_info(path)
    assert (info["size"], info["type"]) == (len(CONTENT), "file")
    assert filesystem.read_bytes(path) == CONTENT
    with pytest.raises(FileNotFoundError):
        filesystem.file_info(path + ".none")


def test_forward_reads(path: str) -> None:
    with filesystem.open_file(path) as file:
        content = b""
        while data := file.read(1_000):
            content += data
    assert content == CONTENT


def test_readinto(path: str) -> None:
    buffer = bytearray(len(CONTENT) + 5)
    view, size = memoryview(buffer), 0
    with filesystem.open_file(path) as file:
        while n_read := file.readinto(view[size : size + 3_000]):
            size += n_read
    assert size == len(CONTENT)
    assert buffer[:size] == CONTENT


@pytest.mark.parametrize(
    ("offsets", "length"),
    [
        ([0], 5),
        ([0, 0, 3, 3], 7),
        ([0, 1, 2], 4_000),
        ([5, 5_000, 10_000], 1_000),
        ([10_239, 10_240, 20_000], 3),
        ([], 3),
    ],
)
def test_windows(path: str, offsets: list[int], length: int) -> None:
    windows = list(filesystem.read_windows(path, offsets, length))
    assert windows == [CONTENT[offset : offset + length] for offset in offsets]


def test_seeking(web: WebServer) -> None:
    with filesystem.open_file(f"{web.url}/a.bin") as file:
        assert file.seekable()
        assert file.readable()
        assert file.seek(-6, io.SEEK_END) == len(CONTENT) - 6
        assert file.read(4) == CONTENT[-6:-2]
        assert file.seek(1, io.SEEK_CUR) == file.tell() == len(CONTENT) - 1
        assert file.read() == CONTENT[-1:]
        assert file.read() == file.read(3) == b""
        file.seek(3)
        assert file.read(None) == CONTENT[3:]


def test_one_request_per_read_where_the_size_is_known(web: WebServer) -> None:
    with filesystem.open_file(f"{web.url}/a.bin", len(CONTENT)) as file:
        assert web.requests == []
        file.seek(100)
        assert file.read(50) == CONTENT[100:150]
    assert web.requests == [("GET", "a.bin", "bytes=100-149")]


@pytest.mark.parametrize("ranges", ["no", "ignored"])
def test_a_stream_is_read_once(web: WebServer, ranges: str) -> None:
    web.ranges = ranges
    with filesystem.open_file(f"{web.url}/a.bin") as file:
        assert file.readable()
        assert not file.seekable()


def test_failed_range_requests_are_retried(web: WebServer) -> None:
    web.failures = Counter({"a.bin": 3})
    with filesystem.open_file(f"{web.url}/a.bin", len(CONTENT)) as file:
        assert file.read() == CONTENT
    assert web.requests == [("GET", "a.bin", f"bytes=0-{len(CONTENT) - 1}")] * 4


def test_broken_off_range_requests_are_retried(web: WebServer) -> None:
    web.broken_off = Counter({"a.bin": 2})
    with filesystem.open_file(f"{web.url}/a.bin", len(CONTENT)) as file:
        file.seek(7)
        assert file.read(5_000) == CONTENT[7:5_007]
    assert web.requested_ranges("a.bin") == [(7, 5_006)] * 3


def test_a_broken_off_stream_is_an_error(web: WebServer) -> None:
    web.ranges = "no"
    # The answer to the range request that finds out, and then that of the stream.
    web.broken_off = Counter({"a.bin": 2})
    with filesystem.open_file(f"{web.url}/a.bin") as file:
        with pytest.raises(DataError, match=r"reading broke off \(.*; download it and pass"):
            while file.read(1_000):
                pass


def test_a_whole_file_in_place_of_a_range(web: WebServer) -> None:
    """What is longer than the requested range is not part of the file."""
    with filesystem.open_file(f"{web.url}/a.bin") as file:
        web.ranges = "ignored"
        with pytest.raises(DataError, match="a range request with 10,240 bytes in place of 10;"):
            file.read(10)


def test_a_file_that_disappears(web: WebServer) -> None:
    web.gone_after = {"a.bin": 1}
    with filesystem.open_file(f"{web.url}/a.bin", len(CONTENT)) as file:
        assert file.read(10) == CONTENT[:10]
        with pytest.raises(DataError, match="a.bin: no such file; check its name and folder"):
            file.read(10)


def test_a_server_that_does_not_report_sizes(web: WebServer) -> None:
    web.sends_size = False
    with pytest.raises(DataError, match="its server does not report its size; download it and"):
        filesystem.open_file(f"{web.url}/a.bin")


def test_a_file_that_may_not_be_read(web: WebServer) -> None:
    web.statuses = {"a.bin": 403}
    url = f"{web.url}/a.bin"
    assert not filesystem.exists(url)
    error = filesystem.find_access_error(url)
    assert isinstance(error, AccessDeniedError)
    assert str(error).startswith(f"{url}: access denied (403 Forbidden); ")
    with pytest.raises(AccessDeniedError):
        filesystem.read_bytes(url)


def test_files_that_may_be_read_have_no_access_error(web: WebServer) -> None:
    assert filesystem.find_access_error(f"{web.url}/a.bin") is None
    assert filesystem.find_access_error(f"{web.url}/none.bin") is None
    assert filesystem.find_access_error(str(web.folder / "none.bin")) is None


def test_local_files_keep_the_errors_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        filesystem.open_file(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        filesystem.read_bytes(str(tmp_path / "none"))


def test_a_remote_file_that_is_missing() -> None:
    with pytest.raises(DataError, match="memory://nope.csv: no such file"):
        filesystem.open_file("memory://nope.csv")


def test_protocols() -> None:
    local, memory = fsspec.filesystem("file"), fsspec.filesystem("memory")
    assert filesystem.is_local(local)
    assert not filesystem.is_local(memory)
    assert filesystem.has_listing(local)
    assert filesystem.has_listing(memory)
    assert not filesystem.has_listing(filesystem.url_to_fs("https://example.org/a.csv")[0])


def test_unknown_protocols_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="^nosuch://bucket/a.csv: .*; pass a local path, or a URL"):
        filesystem.url_to_fs("nosuch://bucket/a.csv")

    def fail(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(DataError, match=r"^s3://b/a.csv: Install s3fs to access S3; install it"):
        filesystem.url_to_fs("s3://b/a.csv")
