"""Detect the layout of a data set: which files it consists of.

The name of the catalogue identifies the layout: The Movies Dataset of Kaggle
(``movies_metadata.csv``), the CSV files of GroupLens (``movies.csv``, or ``movie.csv`` as Kaggle
has them), their older ``.dat`` files (``movies.dat``) or MovieLens 100K (``u.item``). A catalogue
that the user names is a layout of its own.
"""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from segmentation.datasets.discovery import (
    PARTS_FOLDER,
    PARTS_PATTERN,
    has_files,
    ignored_files,
    list_files,
    sibling_files,
)
from segmentation.datasets.filesystem import (
    exists,
    file_info,
    find_access_error,
    has_listing,
    is_local,
    join_path,
    read_version,
    read_windows,
    url_to_fs,
)
from segmentation.datasets.reading import CatalogueOptions, ReadingOptions
from segmentation.datasets.retry import describe_error
from segmentation.errors import DataError
from segmentation.schema import COUNT_SCALE, GROUPLENS_GENRES, KAGGLE_GENRES, SCALE, Words

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Number of probes that the ratings files share in a fingerprint, and bytes per probe.
_N_PROBES, _PROBE_BYTES = 64, 1 << 16
#: Suffixes of a compressed ratings file, in the order of preference.
_COMPRESSION_SUFFIXES = ("", ".gz", ".zst")


class _Definition(NamedTuple):
    """A layout's file names; alternatives are in the order of preference.

    The entries of ``ratings`` lack the ``suffix``. Files with a ``separator`` have no header.
    """

    name: str
    items: str
    links: tuple[str, ...]
    ratings: tuple[str, ...]
    suffix: str
    categories: tuple[str, ...]
    separator: bytes | None = None


_DEFINITIONS = (
    _Definition(
        "kaggle",
        "movies_metadata.csv",
        ("links.csv", "links_small.csv"),
        ("ratings", "ratings_small"),
        ".csv",
        KAGGLE_GENRES,
    ),
    _Definition("grouplens-csv", "movies.csv", (), ("ratings",), ".csv", GROUPLENS_GENRES),
    _Definition("grouplens-csv", "movie.csv", (), ("rating",), ".csv", GROUPLENS_GENRES),
    _Definition("grouplens-dat", "movies.dat", (), ("ratings",), ".dat", GROUPLENS_GENRES),
    _Definition("movielens-100k", "u.item", (), ("u",), ".data", GROUPLENS_GENRES, b"\t"),
)
#: The layout of a catalogue that the user names, and the one whose ratings it looks for.
_CUSTOM, _CUSTOM_RATINGS = "own", _DEFINITIONS[1]


@dataclass(frozen=True)
class Layout:
    """The files of one data set; paths are local paths or fsspec URLs.

    Parameters
    ----------
    name
        ``kaggle``, ``grouplens-csv``, ``grouplens-dat``, ``movielens-100k`` or ``own``.
    folder
        The folder or URL that holds the catalogue.
    ratings
        The location of the ratings: a file, a folder of parts or a glob pattern.
    items
        The catalogue.
    links
        The file that maps a rating's ``movieId`` to the catalogue's id; None if they are the same.
    categories
        Category names of the layout, whose spelling and order the catalogue's own take over.
    scale
        The lowest and the highest rating, in stars.
    parts
        The files at ``ratings``, in order; if empty, ``ratings`` itself is the only one.
    ignored_files
        Paths that look like ratings but are not read.
    empty_files
        Parts without any bytes, which are not read.
    separator
        The separator of ratings files that have no header by their layout; None for other files.
    reading
        What the user says about the ratings.
    catalogue
        What the user says about a catalogue of their own.
    is_closed
        Whether ``categories`` are those of a model, and others are left out.
    """

    name: str
    folder: str
    ratings: str
    items: str
    links: str | None
    categories: tuple[str, ...]
    scale: tuple[float, float] = SCALE
    parts: tuple[str, ...] = ()
    ignored_files: tuple[str, ...] = ()
    empty_files: tuple[str, ...] = ()
    separator: bytes | None = None
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    catalogue: CatalogueOptions | None = None
    is_closed: bool = False

    @property
    def ratings_files(self) -> tuple[str, ...]:
        """The files that hold the ratings, in order."""
        return self.parts or (self.ratings,)

    @property
    def effective_scale(self) -> tuple[float, float]:
        """The lowest and the highest rating; with ``implicit``, points of counts, or 0 and 1."""
        if self.reading.has_counts:
            return COUNT_SCALE
        return (0.0, 1.0) if self.reading.implicit else self.recorded_scale

    @property
    def recorded_scale(self) -> tuple[float, float]:
        """The lowest and the highest rating or count that the files may hold."""
        if self.reading.has_counts:
            return math.ulp(0.0), math.inf
        return self.reading.scale or self.scale

    @property
    def words(self) -> Words:
        """What texts for people call items and categories."""
        unit, ratings = "stars" if self.effective_scale[1] <= SCALE[1] else "points", "ratings"
        if self.reading.implicit:
            unit, ratings = "points" if self.reading.has_counts else "", "interactions"
        if self.catalogue is not None:
            return Words(ratings=ratings, unit=unit)
        return Words("movie", "movies", "genre", "genres", ratings, unit)

    @property
    def files(self) -> list[str]:
        """Every file that is read."""
        return [*self.ratings_files, self.items, *([self.links] if self.links else [])]


def detect_layout(
    folder: str,
    ratings: str | None = None,
    *,
    reading: ReadingOptions | None = None,
    catalogue: CatalogueOptions | None = None,
) -> Layout:
    """Return the layout of a folder, recognized by its catalogue.

    Parameters
    ----------
    folder
        A local folder or the fsspec URL of one, or a zip archive that holds one; with
        ``catalogue``, a ratings file as well.
    ratings
        The location of other ratings for the same catalogue: a path, a URL, or a path relative to
        ``folder``.
    reading
        What the user says about the ratings; None for nothing.
    catalogue
        The catalogue, if it is not one of a known layout.

    Raises
    ------
    DataError
        If the folder does not exist, or lacks a file that the layout needs.

    Examples
    --------
    >>> import fsspec
    >>> fs = fsspec.filesystem("memory")
    >>> fs.pipe({"/ml/movies.csv": b"", "/ml/ratings.csv": b"1"})
    >>> detect_layout("memory://ml").name
    'grouplens-csv'
    """
    reading = reading or ReadingOptions()
    folder = _find_in_archive(folder.rstrip("/") or "/")
    if catalogue is not None:
        return _custom_layout(folder, ratings, reading, catalogue)
    _check_folder(folder)
    definition = _find_definition(folder)
    items, links = join_path(folder, definition.items), _find_links(folder, definition)
    if ratings:
        location = _resolve_path(ratings, folder)
        files = list_files(location)
    else:
        location, files = _find_ratings(folder, definition)
    # If the user names the ratings, other files next to the catalogue need no warning.
    ignored = ignored_files(None if ratings else folder, location, files)
    parts, empty = _split_empty(files)
    return Layout(
        definition.name,
        folder,
        location,
        items,
        links,
        definition.categories,
        parts=parts,
        ignored_files=ignored,
        empty_files=empty,
        separator=definition.separator if location.endswith(definition.suffix) else None,
        reading=reading,
    )


def _custom_layout(
    folder: str, ratings: str | None, reading: ReadingOptions, catalogue: CatalogueOptions
) -> Layout:
    """Return the layout of a catalogue that the user names."""
    if ratings is None and has_files(folder) and not _is_folder(folder):
        folder, location = _parent(folder), folder
    elif ratings is None:
        _check_folder(folder)
        location, _ = _find_ratings(folder, _CUSTOM_RATINGS)
    else:
        location = _resolve_path(ratings, folder)
    parts, empty = _split_empty(list_files(location))
    return Layout(
        _CUSTOM,
        folder,
        location,
        _resolve_path(catalogue.path, folder),
        None,
        (),
        parts=parts,
        empty_files=empty,
        reading=reading,
        catalogue=catalogue,
    )


def _split_empty(files: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the files that hold anything, if there is any, and those of 0 bytes."""
    if len(files) == 1:
        return files, ()
    empty = tuple(path for path in files if file_info(path)["size"] == 0)
    return tuple(path for path in files if path not in empty) or files, empty


def _find_in_archive(folder: str) -> str:
    """Return the folder in a local zip archive that holds a catalogue; another folder as it is."""
    if not folder.lower().endswith(".zip") or "://" in folder or not os.path.isfile(folder):
        return folder
    try:
        with zipfile.ZipFile(folder) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{folder}: can't be read as a zip archive ({describe_error(error)}); download it again"
        ) from error
    catalogues = {definition.items for definition in _DEFINITIONS}
    matches = [name for name in names if name.rpartition("/")[2] in catalogues]
    inner = min(matches, key=lambda name: name.count("/"), default="").rpartition("/")[0]
    return f"zip://{inner}::{os.path.abspath(folder)}"


def absolute_layout(layout: Layout) -> Layout:
    """Return a layout with absolute paths; URLs stay unchanged."""

    def make_absolute(path: str) -> str:
        return path if "://" in path or not path else os.path.abspath(path)

    return replace(
        layout,
        folder=make_absolute(layout.folder),
        ratings=make_absolute(layout.ratings),
        items=make_absolute(layout.items),
        links=layout.links and make_absolute(layout.links),
        parts=tuple(map(make_absolute, layout.parts)),
        ignored_files=tuple(map(make_absolute, layout.ignored_files)),
        empty_files=tuple(map(make_absolute, layout.empty_files)),
    )


def require_file(path: str) -> int:
    """Return a file's size in bytes.

    Raises
    ------
    DataError
        If it is missing, unreadable, a folder or empty, or if its server does not report its size.
    """
    try:
        info = file_info(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check its name and folder") from None
    except OSError as error:
        raise DataError(
            f"{path}: can't be read ({describe_error(error)}); make it readable"
        ) from error
    if info["type"] == "directory":
        raise DataError(f"{path}: is a folder, not a file; name a file")
    if info["type"] != "file":
        raise DataError(
            f"{path}: is a pipe or a device, which can't be read twice; write its content to a file"
        )
    if info["size"] is None:
        raise DataError(
            f"{path}: its server does not report its size; download it and pass the local file"
        )
    if not info["size"]:
        raise DataError(f"{path}: is empty; replace it with a complete file")
    return int(info["size"])


def fingerprint(paths: Sequence[str]) -> str:
    """Return a digest of the sizes of a data set's files and of evenly spaced probes in each.

    File names are not part of it, so a copy has the same fingerprint as its original. A probe
    reads 64 KiB. Each file gets 64 probes, divided by the number of files less two, and at least
    two. A different, longer or truncated file changes the fingerprint; a change of a few bytes
    between the probes of a large file does not. In return, the ratings are not read in full only
    for this.
    """
    digest = hashlib.sha256()
    n_probes = max(2, _N_PROBES // max(1, len(paths) - 2))
    for path in paths:
        size = require_file(path)
        digest.update(size.to_bytes(8, "little"))
        last = max(0, size - _PROBE_BYTES)
        offsets = sorted({last * i // (n_probes - 1) for i in range(n_probes)})
        for window in read_windows(path, offsets, _PROBE_BYTES):
            digest.update(window)
    return digest.hexdigest()


def read_versions(paths: Sequence[str]) -> dict[str, str]:
    """Return the version of each file, to find out later whether it changed.

    Raises
    ------
    DataError
        If a file is missing, or can't be used.
    """
    versions = {}
    for path in paths:
        try:
            versions[path] = read_version(path)
        except OSError:
            # It says what is wrong.
            require_file(path)
            raise
    return versions


def _check_folder(folder: str) -> None:
    fs, inner = url_to_fs(folder)
    if not is_local(fs):
        return
    if not fs.exists(inner):
        raise DataError(
            "{path}: no such folder; set {data} to a folder that holds ratings",
            "data",
            path=folder,
        )
    if not fs.isdir(inner):
        raise DataError(
            "{path}: is a file, not a folder; set {data} to the folder that holds it, or "
            "{ratings} to a ratings file",
            "data",
            "ratings",
            path=folder,
        )


def _is_folder(path: str) -> bool:
    fs, inner = url_to_fs(path)
    return has_listing(fs) and bool(fs.isdir(inner))


def _parent(path: str) -> str:
    return os.path.dirname(path) or "."


def _find_definition(folder: str) -> _Definition:
    for definition in _DEFINITIONS:
        if exists(join_path(folder, definition.items)):
            return definition
    if (deeper := _find_deeper(folder)) is not None:
        raise DataError(
            "{path}: the files are one folder deeper: set {data} to {deeper}",
            "data",
            path=folder,
            deeper=deeper,
        )
    raise DataError(
        "{path}: holds none of movies_metadata.csv, movie.csv (Kaggle), movies.csv, movies.dat or "
        "u.item (GroupLens){reason}; set {data} to a folder in one of these layouts, or name your "
        "own table of items with {catalogue}",
        "data",
        "catalogue",
        path=folder,
        reason=_format_access_reason(
            join_path(folder, "movies_metadata.csv"), join_path(folder, "movies.csv")
        ),
    )


def _find_deeper(folder: str) -> str | None:
    """Return the only folder within a local one that holds a catalogue; None without one."""
    if not is_local(url_to_fs(folder)[0]):
        return None
    try:
        inner = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return None
    names = [definition.items for definition in _DEFINITIONS]
    matches = [path for path in inner if any(os.path.exists(f"{path}/{name}") for name in names)]
    return matches[0] if len(matches) == 1 else None


def _find_links(folder: str, definition: _Definition) -> str | None:
    if not definition.links:
        return None
    for name in definition.links:
        if exists(path := join_path(folder, name)):
            return path
    names = " nor ".join(definition.links)
    raise DataError(
        f"{folder}: holds {definition.items} but neither {names}"
        f"{_format_access_reason(join_path(folder, definition.links[0]))}; add one of them: it "
        "maps a rating's movieId to the catalogue"
    )


def _find_ratings(folder: str, definition: _Definition) -> tuple[str, tuple[str, ...]]:
    """Return the location of a folder's ratings, and their files; prefer one file to parts."""
    suffixes = [definition.suffix + suffix for suffix in _COMPRESSION_SUFFIXES]
    for stem in definition.ratings:
        for suffix in (*suffixes, ".parquet"):
            if exists(location := join_path(folder, f"{stem}{suffix}")):
                return location, list_files(location)
    fs, _ = url_to_fs(folder)
    if has_listing(fs):
        if files := sibling_files(folder):
            return join_path(folder, PARTS_PATTERN), files
        location = join_path(folder, PARTS_FOLDER)
        if fs.isdir(url_to_fs(location)[1]):
            return location, list_files(location)
    names = [stem + definition.suffix for stem in definition.ratings]
    raise DataError(
        "{path}: holds no {names}{reason}; add it, or set {ratings} to another file",
        "ratings",
        path=folder,
        names=" or ".join(names),
        reason=_format_access_reason(join_path(folder, names[0])),
    )


def _resolve_path(path: str, folder: str) -> str:
    """Resolve a path against the working directory, else against the folder; return a URL as is."""
    if "://" in path or has_files(path):
        return path
    within = join_path(folder, path)
    return within if has_files(within) else path


def _format_access_reason(*paths: str) -> str:
    """Return in parentheses why access to one of the paths is denied; "" if it is not."""
    errors = (find_access_error(path) for path in paths)
    return next((f" ({error})" for error in errors if error), "")
