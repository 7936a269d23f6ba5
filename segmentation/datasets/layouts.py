"""Which files a folder or URL holds: Kaggle's layout, GroupLens' CSV layout, GroupLens' .dat."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from segmentation.datasets import discovery
from segmentation.datasets import filesystem as access
from segmentation.datasets.filesystem import exists, filesystem, refusal
from segmentation.datasets.retry import one_line
from segmentation.errors import DataError
from segmentation.schema import GROUPLENS_GENRES, KAGGLE_GENRES, SCALE

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How many places of a file its fingerprint looks at, and how many bytes at each.
_PROBES, _PROBE_BYTES = 64, 1 << 16
#: What ratings may be packed as, in the order in which they are looked for.
_PACKED = ("", ".gz", ".zst")


@dataclass(frozen=True)
class Layout:
    """The files of one data set; paths are local or fsspec URLs.

    ``ratings`` is the place as it was found or named, ``parts`` the files that it stands for.
    ``left_out`` are files that may be meant as ratings and are not read.
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
    parts: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def ratings_files(self) -> tuple[str, ...]:
        """The files that hold the ratings, in their order."""
        return self.parts or (self.ratings,)

    @property
    def files(self) -> list[str]:
        """Every file that is read."""
        return [*self.ratings_files, self.movies, *([self.links] if self.links else [])]


def detect_layout(folder: str, ratings: str | None = None) -> Layout:
    """Tell a folder's layout by the catalogue it holds.

    Parameters
    ----------
    folder
        A local folder or an fsspec URL of one.
    ratings
        Other ratings for the same catalogue: a file, a folder of parts or a pattern; a path, or a
        name within ``folder``.

    Raises
    ------
    DataError
        If there is no such folder, or it lacks a file that the layout needs.
    """
    folder = folder.rstrip("/") or "/"
    fs, inner = filesystem(folder)
    local = access.is_local(fs)
    if local and not fs.exists(inner):
        raise DataError(f"{folder}: no such folder: give --data a folder that holds ratings")
    if local and not fs.isdir(inner):
        raise DataError(
            f"{folder}: is a file, and --data takes the folder that holds it "
            "(--ratings takes ratings)"
        )

    def first(*names: str) -> str | None:
        return next((f"{folder}/{n}" for n in names if exists(f"{folder}/{n}")), None)

    stems: tuple[str, ...] = ("ratings",)
    if movies := first("movies_metadata.csv"):
        kind, stems = ".csv", ("ratings", "ratings_small")
        links = first("links.csv", "links_small.csv")
        if links is None:
            raise DataError(
                f"{folder}: holds movies_metadata.csv but neither links.csv nor links_small.csv, "
                "which lead from a rating's movieId to it: add one of them"
                f"{refusal(f'{folder}/links.csv')}"
            )
        name, genres, wanted = "kaggle", KAGGLE_GENRES, "ratings.csv or ratings_small.csv"
    elif movies := first("movies.csv"):
        kind, links = ".csv", None
        name, genres, wanted = "grouplens-csv", GROUPLENS_GENRES, "ratings.csv"
    elif movies := first("movies.dat"):
        kind, links = ".dat", None
        name, genres, wanted = "grouplens-dat", GROUPLENS_GENRES, "ratings.dat"
    else:
        raise DataError(
            f"{folder}: holds none of movies_metadata.csv (Kaggle), movies.csv or movies.dat "
            "(GroupLens): give --data a folder in one of these layouts"
            f"{refusal(f'{folder}/movies_metadata.csv') or refusal(f'{folder}/movies.csv')}"
        )
    if ratings:
        # Who names ratings has chosen them: nothing is left out.
        place = _resolve(ratings, folder)
        return Layout(name, folder, place, movies, links, genres, parts=discovery.expand(place))
    found = _ratings_in(folder, kind, stems)
    if found is None:
        raise DataError(
            f"{folder}: holds no {wanted}: add it, or name another with --ratings"
            f"{refusal(f'{folder}/{wanted.split()[0]}')}"
        )
    place, files = found
    others = discovery.ignored_files(folder, place, files)
    return Layout(name, folder, place, movies, links, genres, parts=files, left_out=others)


def absolute_layout(layout: Layout) -> Layout:
    """Return the same files by paths that don't hang on the working directory; URLs stay."""

    def full(path: str) -> str:
        return path if "://" in path or not path else os.path.abspath(path)

    return replace(
        layout,
        folder=full(layout.folder),
        ratings=full(layout.ratings),
        movies=full(layout.movies),
        links=layout.links and full(layout.links),
        parts=tuple(map(full, layout.parts)),
    )


def _ratings_in(
    folder: str, kind: str, names: tuple[str, ...]
) -> tuple[str, tuple[str, ...]] | None:
    """Return the place of a folder's ratings, and the files there; a file before parts."""
    for name in names:
        for suffix in (*(kind + packed for packed in _PACKED), ".parquet"):
            if exists(place := f"{folder}/{name}{suffix}"):
                return place, discovery.expand(place)
    fs, inner = filesystem(folder)
    if access.lists(fs):
        if files := discovery.sibling_files(folder):
            return f"{folder}/{discovery.PARTS}", files
        if fs.isdir(f"{inner}/{discovery.FOLDER}"):
            place = f"{folder}/{discovery.FOLDER}"
            return place, discovery.expand(place)
    return None


def require_file(path: str) -> int:
    """Return a file's size in bytes.

    Raises
    ------
    DataError
        If it is missing, a directory, or empty.
    """
    try:
        info = access.file_info(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file: check its name and folder") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read ({one_line(error)}): mend that first") from error
    if info["type"] == "directory":
        raise DataError(f"{path}: is a directory where a file should be: name the file itself")
    if not info["size"]:
        if info["size"] is None:
            raise DataError(
                f"{path}: its server doesn't tell how large it is: download it and name the file"
            )
        raise DataError(f"{path}: is empty: put a file with content in its place")
    return int(info["size"])


def fingerprint(paths: Sequence[str]) -> str:
    """Return a digest of the files' sizes and of evenly spaced samples of their content.

    Names and places don't enter, so a copy has its original's fingerprint. 64 probes of 64 KiB
    notice another file, an appended or a truncated one; a change of a few bytes between probes
    of a large file goes unseen, which is the price of not reading 677 MB twice. Many parts share
    the probes, one at least for each.
    """
    digest = hashlib.sha256()
    probes = max(2, _PROBES // max(1, len(paths) - 2))
    for path in paths:
        size = require_file(path)
        digest.update(size.to_bytes(8, "little"))
        last = max(0, size - _PROBE_BYTES)
        places = sorted({last * i // (probes - 1) for i in range(probes)})
        for window in access.read_windows(path, places, _PROBE_BYTES):
            digest.update(window)
    return digest.hexdigest()


def _resolve(ratings: str, folder: str) -> str:
    inside = f"{folder}/{ratings}"
    return (
        inside
        if not discovery.ratings_exist(ratings) and discovery.ratings_exist(inside)
        else ratings
    )
