"""Read local and remote files: their metadata, their content, and byte ranges of it.

Every file system comes from fsspec. Remote reads are retried, except those of a server without
range requests; if they fail, they raise a one-line :class:`DataError`. Local files raise the
exceptions of the operating system.
"""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import fsspec

from segmentation.datasets.retry import AccessDeniedError, describe_error, with_retries
from segmentation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Seconds to wait for a connection or for more data from a web server.
_TIMEOUT = 60
#: Fields of fsspec's metadata that tell versions of a file apart; each file system has its own.
_VERSION_FIELDS = ("size", "ETag", "etag", "version_id", "generation", "LastModified", "mtime")
_DOWNLOAD_HINT = "download it and pass the local file"


def url_to_fs(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the fsspec file system of a path or URL, and the path within it.

    Raises
    ------
    DataError
        If the URL's protocol is unknown or needs a package that is not installed.

    Examples
    --------
    >>> fs, inner = url_to_fs("memory://lake/ratings.csv")
    >>> inner
    '/lake/ratings.csv'
    """
    options: dict[str, Any] = {}
    try:
        if path.startswith(("http://", "https://")):
            import aiohttp

            timeout = aiohttp.ClientTimeout(None, sock_connect=_TIMEOUT, sock_read=_TIMEOUT)
            # Byte ranges of a compressed response are not byte ranges of the file.
            options = {
                "headers": {"Accept-Encoding": "identity"},
                "client_kwargs": {"timeout": timeout},
            }
        fs, inner = fsspec.core.url_to_fs(path, **options)
    except ImportError as error:
        raise DataError(
            f"{path}: {describe_error(error)}; install it (pip install 'segmentation[remote]' "
            "brings what https:// and s3:// need), or pass a local path"
        ) from error
    except ValueError as error:
        raise DataError(
            f"{path}: {describe_error(error)}; pass a local path, or a URL whose protocol is "
            "installed"
        ) from error
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(
            f"{path}: can't be read as an archive ({describe_error(error)}); download it again"
        ) from error
    return fs, str(inner)


def join_path(folder: str, name: str) -> str:
    """Return the path of a name in a folder, which may be one inside an archive.

    Examples
    --------
    >>> join_path("ml", "ratings.csv"), join_path("zip://ml::/a.zip", "ratings.csv")
    ('ml/ratings.csv', 'zip://ml/ratings.csv::/a.zip')
    """
    inner, chain, outer = folder.partition("::")
    inner = inner if inner.endswith("://") else inner.rstrip("/") + "/"
    return f"{inner}{name}{chain}{outer}"


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    """Return whether a file system is the local one."""
    return "file" in _get_protocols(fs)


def has_listing(fs: fsspec.AbstractFileSystem) -> bool:
    """Return whether a file system can list a folder; a web server can't."""
    return not {"http", "https"} & set(_get_protocols(fs))


def _is_archive(fs: fsspec.AbstractFileSystem) -> bool:
    return bool({"zip", "tar", "libarchive"} & set(_get_protocols(fs)))


def _get_protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def file_info(path: str) -> dict[str, Any]:
    """Return the metadata of a path: at least ``size`` (bytes, or None) and ``type``.

    Raises
    ------
    FileNotFoundError
        If the path does not exist.
    DataError
        If a remote file system denies access or fails.
    """
    fs, inner = url_to_fs(path)
    if is_local(fs):
        return dict(fs.info(inner))
    return dict(with_retries(path, lambda: fs.info(inner)))


def read_version(path: str) -> str:
    """Return a text that changes whenever a file is replaced or written to.

    For a local file that is its size, modification time and inode; for a remote one its size, and
    the entity tag, version or modification time that the server reports, if any.

    Raises
    ------
    FileNotFoundError
        If the path does not exist.
    DataError
        If a remote file system denies access or fails.
    """
    # A member of an archive changes with the archive.
    path = path.rpartition("::")[2]
    fs, inner = url_to_fs(path)
    if is_local(fs):
        status = os.stat(inner)
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
    fs.invalidate_cache()
    info = file_info(path)
    return " ".join(str(info[name]) for name in _VERSION_FIELDS if info.get(name) is not None)


def check_version(path: str, version: str) -> None:
    """Raise :class:`DataError` if a file has another version than :func:`read_version` returned."""
    try:
        is_same = read_version(path) == version
    except FileNotFoundError:
        is_same = False
    if not is_same:
        raise DataError(
            f"{path}: changed while it was read; make sure that nothing writes to it, and run again"
        )


def exists(path: str) -> bool:
    """Return whether a path exists; for a URL, whether it also may be read."""
    fs, inner = url_to_fs(path)
    if is_local(fs):
        return bool(fs.exists(inner))
    try:
        file_info(path)
    except (FileNotFoundError, AccessDeniedError):
        return False
    return True


def find_access_error(path: str) -> AccessDeniedError | None:
    """Return why a remote path may not be read; None if it may, or does not exist."""
    if is_local(url_to_fs(path)[0]):
        return None
    try:
        file_info(path)
    except FileNotFoundError:
        return None
    except AccessDeniedError as error:
        return error
    return None


def open_file(path: str, size: int | None = None) -> io.BufferedIOBase:
    """Open a file for reading.

    A remote file is read by byte ranges if its server supports them. Otherwise the file can only be
    read once, from its beginning, and ``seekable()`` is false.

    Parameters
    ----------
    path
        A local path or a URL.
    size
        The file's size in bytes. Pass it only if the server is known to support range requests: it
        saves the two requests that find this out. Ignored for local files.

    Raises
    ------
    DataError
        If a remote file can't be read, or its server does not report its size.

    Examples
    --------
    >>> fsspec.filesystem("memory").pipe("/a.csv", b"userId,movieId")
    >>> with open_file("memory://a.csv") as file:
    ...     file.read(6)
    b'userId'
    """
    fs, inner = url_to_fs(path)
    if is_local(fs):
        file: io.BufferedIOBase = fs.open(inner, "rb")
        return file
    if size is not None:
        return _RangeFile(path, fs, inner, size)
    size = _get_remote_size(path, fs, inner)
    if _supports_ranges(path, fs, inner, size):
        return _RangeFile(path, fs, inner, size)
    return _StreamFile(path, fs, inner)


def read_bytes(path: str) -> bytes:
    """Return the content of a file.

    Raises
    ------
    DataError
        If a remote file can't be read.

    Examples
    --------
    >>> fsspec.filesystem("memory").pipe("/a.csv", b"userId,movieId")
    >>> read_bytes("memory://a.csv")
    b'userId,movieId'
    """
    fs, inner = url_to_fs(path)
    if is_local(fs):
        with fs.open(inner, "rb") as file:
            return bytes(file.read())
    return bytes(with_retries(path, lambda: fs.cat_file(inner), must_exist=True))


def read_windows(path: str, offsets: Sequence[int], length: int) -> Iterator[bytes]:
    """Yield up to ``length`` bytes from each of several offsets of a file.

    Parameters
    ----------
    path
        A local path or a URL.
    offsets
        Offsets in bytes, in ascending order.
    length
        Bytes per window; a window that reaches the end of the file is shorter.

    Examples
    --------
    >>> fsspec.filesystem("memory").pipe("/a.csv", b"userId,movieId")
    >>> list(read_windows("memory://a.csv", [0, 7], 5))
    [b'userI', b'movie']
    """
    with open_file(path) as file:
        if file.seekable():
            for offset in offsets:
                file.seek(offset)
                yield file.read(length)
        else:
            yield from _read_stream_windows(file, offsets, length)


def _read_stream_windows(
    file: io.BufferedIOBase, offsets: Sequence[int], length: int
) -> Iterator[bytes]:
    """Yield windows, which may overlap, of a file that can only be read forward."""
    buffer, start = b"", 0
    for offset in offsets:
        while start + len(buffer) < offset + length:
            data = file.read(1 << 20)
            if not data:
                break
            buffer += data
            n_passed = min(max(0, offset - start), len(buffer))
            buffer, start = buffer[n_passed:], start + n_passed
        buffer, start = buffer[offset - start :], offset
        yield buffer[:length]


def _get_remote_size(path: str, fs: fsspec.AbstractFileSystem, inner: str) -> int:
    size = with_retries(path, lambda: fs.info(inner), must_exist=True)["size"]
    if size is None:
        raise DataError(f"{path}: its server does not report its size; {_DOWNLOAD_HINT}")
    return int(size)


def _supports_ranges(path: str, fs: fsspec.AbstractFileSystem, inner: str, size: int) -> bool:
    """Return whether a server answers a range request with the requested range."""
    if _is_archive(fs):
        # To seek in a compressed member, all before it would be decompressed again.
        return False
    if has_listing(fs):
        return True
    if size < 2:
        return False

    def read_second_byte() -> bool:
        with fs.open(inner, "rb", size=size, cache_type="none") as file:
            try:
                file.seek(1)
                return len(file.read(1)) == 1
            except ValueError:
                # fsspec raises it if the server sends the whole file instead.
                return False

    return with_retries(path, read_second_byte, must_exist=True)


class _RangeFile(io.BufferedIOBase):
    """A remote file that reads by range requests, one per read, with retries.

    fsspec's own file objects are as fast over HTTP, but those of S3 request the object's size
    whenever they are opened, even if it is passed: one more request per partition.
    """

    def __init__(self, path: str, fs: fsspec.AbstractFileSystem, inner: str, size: int) -> None:
        self._path, self._fs, self._inner, self._size = path, fs, inner, size
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size}[whence]
        self._offset = base + offset
        return self._offset

    def read(self, size: int | None = -1) -> bytes:
        start = self._offset
        stop = self._size if size is None or size < 0 else min(start + size, self._size)
        if start >= stop:
            return b""
        data = with_retries(self._path, lambda: self._read_range(start, stop), must_exist=True)
        self._offset = stop
        return data

    def _read_range(self, start: int, stop: int) -> bytes:
        data = bytes(self._fs.cat_file(self._inner, start=start, end=stop))
        if len(data) > stop - start:
            raise DataError(
                f"{self._path}: its server answered a range request with {len(data):,} bytes in "
                f"place of {stop - start:,}; {_DOWNLOAD_HINT}"
            )
        if len(data) < stop - start:
            raise ConnectionError(f"{len(data):,} of {stop - start:,} bytes arrived")
        return data


class _StreamFile(io.BufferedIOBase):
    """A remote file without range requests: it can be read once, from its beginning."""

    def __init__(self, path: str, fs: fsspec.AbstractFileSystem, inner: str) -> None:
        # An archive's file system closes the archive when it is freed.
        self._path, self._fs = path, fs
        self._file = with_retries(path, lambda: fs.open(inner, "rb", block_size=0), must_exist=True)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        try:
            return bytes(self._file.read(-1 if size is None else size))
        except Exception as error:
            raise DataError(
                f"{self._path}: reading broke off ({describe_error(error)}), and it can't be "
                f"resumed without range requests; {_DOWNLOAD_HINT}"
            ) from error

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
