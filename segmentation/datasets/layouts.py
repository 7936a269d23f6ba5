"""Which files a folder or URL holds: Kaggle's layout, GroupLens' CSV layout, GroupLens' .dat."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fsspec

from segmentation.errors import DataError
from segmentation.schema import GROUPLENS_GENRES, KAGGLE_GENRES, SCALE

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How many places of a file its fingerprint looks at, and how many bytes at each.
_PROBES, _PROBE_BYTES = 64, 1 << 16


@dataclass(frozen=True)
class Layout:
    """The files of one data set; paths are local or fsspec URLs.

    ``links`` is None where ratings carry the catalogue's own ids. ``scale`` is the lowest and
    highest rating, stars.
    """

    name: str
    folder: str
    ratings: str
    movies: str
    links: str | None
    genres: tuple[str, ...]
    scale: tuple[float, float] = SCALE

    @property
    def files(self) -> list[str]:
        """Every file that is read."""
        return [self.ratings, self.movies, *([self.links] if self.links else [])]


def filesystem(path: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or URL, and the path within it.

    Raises
    ------
    DataError
        If the URL's protocol is unknown or needs a package that is not installed.
    """
    try:
        fs, inner = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise DataError(
            f"{path}: {_one_line(error)}: give a path, or a URL whose protocol is installed here"
        ) from error
    return fs, str(inner)


def detect(folder: str, ratings: str | None = None) -> Layout:
    """Tell a folder's layout by the catalogue it holds.

    Parameters
    ----------
    folder
        A local folder or an fsspec URL of one.
    ratings
        Another ratings file for the same catalogue: a path, or a name within ``folder``.

    Raises
    ------
    DataError
        If there is no such folder, or it lacks a file that the layout needs.
    """
    folder = folder.rstrip("/") or "/"
    fs, inner = filesystem(folder)
    local = "file" in _protocols(fs)
    if local and not fs.exists(inner):
        raise DataError(f"{folder}: no such folder: give --data a folder that holds ratings")
    if local and not fs.isdir(inner):
        raise DataError(
            f"{folder}: is a file, and --data takes the folder that holds it "
            "(--ratings takes a single ratings file)"
        )

    def first(*names: str) -> str | None:
        return next((f"{folder}/{n}" for n in names if exists(f"{folder}/{n}")), None)

    if movies := first("movies_metadata.csv"):
        found = ratings or first("ratings.csv", "ratings_small.csv")
        links = first("links.csv", "links_small.csv")
        if links is None:
            raise DataError(
                f"{folder}: holds movies_metadata.csv but neither links.csv nor links_small.csv, "
                "which lead from a rating's movieId to it: add one of them"
            )
        name, genres, wanted = "kaggle", KAGGLE_GENRES, "ratings.csv or ratings_small.csv"
    elif movies := first("movies.csv"):
        found, links = ratings or first("ratings.csv"), None
        name, genres, wanted = "grouplens-csv", GROUPLENS_GENRES, "ratings.csv"
    elif movies := first("movies.dat"):
        found, links = ratings or first("ratings.dat"), None
        name, genres, wanted = "grouplens-dat", GROUPLENS_GENRES, "ratings.dat"
    else:
        raise DataError(
            f"{folder}: holds none of movies_metadata.csv (Kaggle), movies.csv or movies.dat "
            "(GroupLens): give --data a folder in one of these layouts"
        )
    if found is None:
        raise DataError(f"{folder}: holds no {wanted}: add it, or name another with --ratings")
    return Layout(name, folder, _resolve(found, folder), movies, links, genres)


def require_file(path: str) -> int:
    """Return a file's size in bytes.

    Raises
    ------
    DataError
        If it is missing, a directory, or empty.
    """
    fs, inner = filesystem(path)
    try:
        info = fs.info(inner)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file: check its name and folder") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read ({_one_line(error)}): mend that first") from error
    if info["type"] == "directory":
        raise DataError(f"{path}: is a directory where a file should be: name the file itself")
    if not info["size"]:
        raise DataError(f"{path}: is empty: put a file with content in its place")
    return int(info["size"])


def fingerprint(paths: Sequence[str]) -> str:
    """Return a digest of the files' sizes and of evenly spaced samples of their content.

    Names and places don't enter, so a copy has its original's fingerprint. 64 probes of 64 KiB
    notice another file, an appended or a truncated one; a change of a few bytes between probes
    of a large file goes unseen, which is the price of not reading 677 MB twice.
    """
    digest = hashlib.sha256()
    for path in paths:
        size = require_file(path)
        fs, inner = filesystem(path)
        digest.update(size.to_bytes(8, "little"))
        with fs.open(inner, "rb") as file:
            last = max(0, size - _PROBE_BYTES)
            for at in sorted({last * i // (_PROBES - 1) for i in range(_PROBES)}):
                file.seek(at)
                digest.update(file.read(_PROBE_BYTES))
    return digest.hexdigest()


def _resolve(ratings: str, folder: str) -> str:
    inside = f"{folder}/{ratings}"
    return inside if not exists(ratings) and exists(inside) else ratings


def exists(path: str) -> bool:
    """Tell whether a path or URL is there."""
    fs, inner = filesystem(path)
    return bool(fs.exists(inner))


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
