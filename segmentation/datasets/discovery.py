"""Find the files that hold ratings.

A location is a path or a URL. It names a file, a folder of files (parts), or a glob pattern.
"""

from __future__ import annotations

import glob
import re
from typing import TYPE_CHECKING

from segmentation.datasets.filesystem import exists, has_listing, is_local, url_to_fs
from segmentation.datasets.retry import with_retries
from segmentation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import fsspec

#: In the catalogue's folder: the pattern of part names, and the name of a folder of parts.
PARTS_PATTERN, PARTS_FOLDER = "ratings-*", "ratings"
#: Suffixes of the parts in a folder; other files there are ignored.
_TEXT_SUFFIXES = (".csv", ".dat", ".data", ".tsv", ".part")
_SUFFIXES = (
    *(suffix + codec for suffix in _TEXT_SUFFIXES for codec in ("", ".gz", ".zst")),
    ".parquet",
)
_WILDCARD = re.compile(r"[*?\[]")


def has_files(location: str) -> bool:
    """Return whether a location exists, or a pattern matches any path."""
    if not is_pattern(location):
        return exists(location)
    fs, inner = url_to_fs(location)
    return bool(with_retries(location, lambda: fs.glob(inner)))


def is_pattern(location: str) -> bool:
    """Return whether a location is a glob pattern, such as ``ratings-*.csv``."""
    fs, _ = url_to_fs(location)
    # A question mark may start a URL's query, and a file name may contain wildcards.
    return bool(_WILDCARD.search(location)) and has_listing(fs) and not exists(location)


def list_files(location: str) -> tuple[str, ...]:
    """Return the files of a location in natural order: ``part-2`` comes before ``part-10``.

    Raises
    ------
    DataError
        If a folder holds no part, if no file matches a pattern, or if a remote listing fails.

    Examples
    --------
    >>> import fsspec
    >>> fs = fsspec.filesystem("memory")
    >>> fs.pipe({"/log/10.csv": b"", "/log/2.csv": b"", "/log/_SUCCESS": b""})
    >>> list_files("memory://log")
    ('memory:///log/2.csv', 'memory:///log/10.csv')
    """
    fs, inner = url_to_fs(location)
    if is_pattern(location):
        paths = with_retries(location, lambda: [p for p in fs.glob(inner) if not fs.isdir(p)])
        if not paths:
            raise DataError(
                f"{location}: no file matches this pattern; check the pattern and the folder"
            )
    elif has_listing(fs) and with_retries(location, lambda: fs.isdir(inner)):
        paths = [path for path in _find_files(location) if _is_part(path)]
        if not paths:
            raise DataError(
                f"{location}: this folder holds no ratings; name a file, or a folder of files "
                f"that end in {', '.join(_TEXT_SUFFIXES)} (perhaps with .gz or .zst) or .parquet"
            )
    else:
        return (location,)
    return _sort_paths(fs, paths, location)


def sibling_files(folder: str) -> tuple[str, ...]:
    """Return the parts named ``ratings-*`` in a catalogue's folder, in natural order."""
    fs, _ = url_to_fs(folder)
    return _sort_paths(fs, filter(_is_part, _find_siblings(folder)), folder)


def ignored_files(folder: str | None, location: str, files: tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths that look like ratings but are not read.

    Parameters
    ----------
    folder
        The folder of the catalogue; None if the user names the ratings.
    location
        The location of the ratings.
    files
        The files that are read.
    """
    fs, inner = url_to_fs(location)
    if not has_listing(fs):
        return ()
    try:
        paths = [] if folder is None else _find_siblings(folder)
        if not is_pattern(location) and with_retries(location, lambda: fs.isdir(inner)):
            paths += _find_files(location)
        elif folder is not None:
            parts_folder = f"{url_to_fs(folder)[1].rstrip('/')}/{PARTS_FOLDER}"
            if with_retries(folder, lambda: fs.isdir(parts_folder)):
                paths.append(parts_folder)
    except DataError:
        # Permission to read a file does not imply permission to list its folder.
        return ()
    return tuple(path for path in _sort_paths(fs, paths, location) if path not in files)


def _find_siblings(folder: str) -> list[str]:
    fs, inner = url_to_fs(folder)
    pattern = f"{glob.escape(inner.rstrip('/'))}/{PARTS_PATTERN}"
    return with_retries(folder, lambda: [path for path in fs.glob(pattern) if not fs.isdir(path)])


def _find_files(folder: str) -> list[str]:
    """Return the files below a folder, except hidden ones such as ``_SUCCESS``."""
    fs, inner = url_to_fs(folder)
    paths = with_retries(folder, lambda: fs.find(inner))
    return [path for path in paths if not re.search(r"/[_.]", path[len(inner) :])]


def _is_part(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    # Hadoop names parts without a suffix.
    return name.endswith(_SUFFIXES) or re.fullmatch(r"part-[rm]?-?[0-9]+", name) is not None


def _sort_paths(
    fs: fsspec.AbstractFileSystem, paths: Iterable[str], location: str
) -> tuple[str, ...]:
    """Sort the paths of a file system in natural order; return local paths, or URLs."""
    ordered = sorted(paths, key=_make_natural_key)
    if is_local(fs):
        return tuple(ordered)
    _, chain, outer = location.partition("::")
    return tuple(fs.unstrip_protocol(path) + chain + outer for path in ordered)


def _make_natural_key(path: str) -> list[tuple[int, int, str]]:
    return [
        (1, int(piece), "") if piece.isdecimal() else (0, 0, piece)
        for piece in re.split(r"(\d+)", path)
        if piece
    ]
