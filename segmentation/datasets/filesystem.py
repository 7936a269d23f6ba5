"""Files on disks and behind URLs: found, opened, and read by ranges or from their beginning."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import fsspec

from segmentation.datasets.retry import RefusedError, known, one_line, with_retries
from segmentation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A server that is silent for so many seconds has failed.
_SILENCE = 60
_LOAD_DOWN = "download it and name the file"


def filesystem(path: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or URL, and the path within it.

    Raises
    ------
    DataError
        If the URL's protocol is unknown or needs a package that is not installed.
    """
    options: dict[str, Any] = {}
    try:
        if path.startswith(("http://", "https://")):
            import aiohttp

            silence = aiohttp.ClientTimeout(None, sock_connect=_SILENCE, sock_read=_SILENCE)
            # Of what is packed on the way, nobody could ask for a range.
            options = {
                "headers": {"Accept-Encoding": "identity"},
                "client_kwargs": {"timeout": silence},
            }
        fs, inner = fsspec.core.url_to_fs(path, **options)
    except ImportError as error:
        raise DataError(
            f"{path}: {one_line(error)}: install it (pip install 'segmentation[remote]' brings "
            "what https:// and s3:// need), or give a path"
        ) from error
    except ValueError as error:
        raise DataError(
            f"{path}: {one_line(error)}: give a path, or a URL whose protocol is installed here"
        ) from error
    return fs, str(inner)


def protocols(fs: Any) -> tuple[str, ...]:
    """Return the names of a file system's protocol."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def is_local(fs: Any) -> bool:
    """Tell whether a file system is this machine's own."""
    return "file" in protocols(fs)


def lists(fs: Any) -> bool:
    """Tell whether a file system can list a folder at little cost; a web server can't."""
    return not {"http", "https"} & set(protocols(fs))


def file_info(path: str) -> dict[str, Any]:
    """Return what a file system knows of a path: its ``size`` and ``type`` at least.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    DataError
        If it can't be told.
    """
    fs, inner = filesystem(path)
    if is_local(fs):
        return dict(fs.info(inner))
    found: dict[str, Any] = with_retries(path, lambda: fs.info(inner))
    return found


def exists(path: str) -> bool:
    """Tell whether a path or URL is there, and ours to read."""
    fs, inner = filesystem(path)
    if is_local(fs):
        return bool(fs.exists(inner))
    try:
        file_info(path)
    except (FileNotFoundError, RefusedError):
        return False
    return True


def refusal(path: str) -> str:
    """Return why a place can't be read, to be put behind what was not found; empty if it can."""
    if is_local(filesystem(path)[0]):
        return ""
    try:
        file_info(path)
    except FileNotFoundError:
        return ""
    except RefusedError as error:
        return f" ({error})"
    return ""


def open_file(path: str, size: int | None = None) -> Any:
    """Open a file for reading; one behind a URL is read by ranges where its server gives them.

    ``size`` spares the question for it where it is known, and that its server gives ranges too.

    Raises
    ------
    DataError
        If it can't be read; if its server doesn't tell its size.
    """
    fs, inner = filesystem(path)
    if is_local(fs):
        return fs.open(inner, "rb")
    if size is not None:
        return _Ranges(path, fs, inner, size)
    size = _size(path)
    return _Ranges(path, fs, inner, size) if _gives_ranges(path, fs, inner, size) else _Stream(path)


def read_bytes(path: str) -> bytes:
    """Return the content of a file.

    Raises
    ------
    DataError
        If it can't be read.
    """
    fs, inner = filesystem(path)
    if is_local(fs):
        with fs.open(inner, "rb") as file:
            return bytes(file.read())
    return bytes(known(path, lambda: fs.cat_file(inner)))


def read_windows(path: str, places: list[int], length: int) -> Iterator[bytes]:
    """Yield ``length`` bytes, or what there is, at each of some rising places of a file."""
    with open_file(path) as file:
        if file.seekable():
            for at in places:
                file.seek(at)
                yield file.read(length)
            return
        held, begin = b"", 0
        for at in places:
            while begin + len(held) < at + length:
                more = file.read(1 << 20)
                if not more:
                    break
                held += more
                gone = min(max(0, at - begin), len(held))
                held, begin = held[gone:], begin + gone
            held, begin = held[at - begin :], at
            yield held[:length]


def _size(path: str) -> int:
    size = known(path, lambda: file_info(path))["size"]
    if size is None:
        raise DataError(f"{path}: its server doesn't tell how large it is: {_LOAD_DOWN}")
    return int(size)


def _gives_ranges(path: str, fs: Any, inner: str, size: int) -> bool:
    """Tell whether a server keeps to the range that it is asked for."""
    if lists(fs):
        return True
    if size < 2:
        return False

    def second_byte() -> bool:
        with fs.open(inner, "rb", size=size, block_size=1) as file:
            try:
                file.seek(1)
                return len(file.read(1)) == 1
            except ValueError:
                # fsspec's way to say that the whole file came instead; it reads no more of it.
                return False

    return bool(known(path, second_byte))


class _Ranges(io.RawIOBase):
    """A file behind a URL, each read a request for as many bytes."""

    def __init__(self, path: str, fs: Any, inner: str, size: int) -> None:
        self._path, self._fs, self._inner, self._size = path, fs, inner, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._fetch(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._fetch(self._size)

    def _fetch(self, length: int) -> bytes:
        start, stop = self._at, min(self._at + length, self._size)
        if start >= stop:
            return b""
        data: bytes = known(self._path, lambda: self._range(start, stop))
        self._at = stop
        return data

    def _range(self, start: int, stop: int) -> bytes:
        data = bytes(self._fs.cat_file(self._inner, start=start, end=stop))
        if len(data) > stop - start:
            raise DataError(
                f"{self._path}: its server gives no ranges where it gave some before: {_LOAD_DOWN}"
            )
        if len(data) < stop - start:
            raise ConnectionError(f"{len(data):,} of {stop - start:,} bytes came")
        return data


class _Stream(io.RawIOBase):
    """A file behind a URL whose server gives no ranges: read from its beginning, once."""

    def __init__(self, path: str) -> None:
        self._path = path
        fs, inner = filesystem(path)
        self._file = known(path, lambda: fs.open(inner, "rb", block_size=0))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self._file.read(len(view))
        except Exception as error:
            raise DataError(
                f"{self._path}: breaks off ({one_line(error)}), and its server gives no ranges to "
                f"go on from there: {_LOAD_DOWN}"
            ) from error
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
