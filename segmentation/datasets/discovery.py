"""Which files a ratings place means: one file, the parts in a folder, or those a pattern names."""

from __future__ import annotations

import glob
import re
from typing import Any

from segmentation.datasets.filesystem import exists, filesystem, is_local, lists
from segmentation.datasets.retry import with_retries
from segmentation.errors import DataError

#: Packed text, by its first bytes, with pyarrow's name of the codec.
CODECS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
PARQUET_MAGIC = b"PAR1"
#: What a part in a folder may be called; whatever else lies there is left alone.
_SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".dat", ".dat.gz", ".dat.zst", ".parquet")
#: What parts beside a catalogue are called, and a folder of parts there.
PARTS, FOLDER = "ratings-*", "ratings"
_PATTERN = re.compile(r"[*?\[]")


def ratings_exist(place: str) -> bool:
    """Tell whether a place stands for any file."""
    if not is_pattern(place):
        return exists(place)
    fs, inner = filesystem(place)
    return bool(with_retries(place, lambda: fs.glob(inner)))


def is_pattern(place: str) -> bool:
    """Tell whether a place names files by a pattern, as in ``ratings-*.csv``."""
    fs, _ = filesystem(place)
    # A question mark begins a URL's query; a file may be called what looks like a pattern.
    return bool(_PATTERN.search(place)) and lists(fs) and not exists(place)


def expand(place: str) -> tuple[str, ...]:
    """Return the files that a place stands for, in the order of their names and numbers.

    Raises
    ------
    DataError
        If a folder or pattern holds no part.
    """
    fs, inner = filesystem(place)
    if is_pattern(place):
        found = with_retries(place, lambda: [path for path in fs.glob(inner) if fs.isfile(path)])
        if not found:
            raise DataError(f"{place}: no file is called like that: check the pattern and folder")
    elif lists(fs) and with_retries(place, lambda: fs.isdir(inner)):
        found = [path for path in _files_in(place) if _is_part(path)]
        if not found:
            raise DataError(
                f"{place}: is a folder without a part of ratings: name a file, or a folder with "
                "parts that end in .csv, .csv.gz, .csv.zst, .dat or .parquet"
            )
    else:
        return (place,)
    return _named(fs, found)


def sibling_files(folder: str) -> tuple[str, ...]:
    """Return the parts called ``ratings-*`` that lie in a folder, of any kind, in their order."""
    return _named(filesystem(folder)[0], [path for path in _called_parts(folder) if _is_part(path)])


def ignored_files(folder: str, place: str, taken: tuple[str, ...]) -> tuple[str, ...]:
    """Return what is called as parts are, or lies among them, and is not read.

    Parameters
    ----------
    folder
        Where the catalogue is.
    place
        Where ratings are read from.
    taken
        The files that are read.
    """
    fs, inner = filesystem(place)
    if not lists(fs):
        return ()
    inside = f"{filesystem(folder)[1].rstrip('/')}/{FOLDER}"
    try:
        found = _called_parts(folder)
        if not is_pattern(place) and with_retries(place, lambda: fs.isdir(inner)):
            found += _files_in(place)
        elif with_retries(folder, lambda: fs.isdir(inside)):
            found.append(inside)
    except DataError:
        # Whoever may read a file need not be allowed to list its folder.
        return ()
    return tuple(path for path in _named(fs, found) if path not in taken)


def _called_parts(folder: str) -> list[str]:
    fs, inner = filesystem(folder)
    pattern = f"{glob.escape(inner.rstrip('/'))}/{PARTS}"
    found: list[str] = with_retries(folder, lambda: [p for p in fs.glob(pattern) if fs.isfile(p)])
    return found


def _files_in(place: str) -> list[str]:
    """Return a folder's files but an engine's notes, such as _SUCCESS: those with _ or . first."""
    fs, inner = filesystem(place)
    found = with_retries(place, lambda: fs.find(inner))
    return [path for path in found if not re.search(r"/[_.]", path[len(inner) :])]


def _is_part(path: str) -> bool:
    return path.lower().endswith(_SUFFIXES)


def _named(fs: Any, paths: list[str]) -> tuple[str, ...]:
    """Return paths within a file system as the program names them, in their order."""
    remote = not is_local(fs)
    return tuple(fs.unstrip_protocol(path) if remote else path for path in sorted(paths, key=_rank))


def _rank(path: str) -> list[tuple[int, int, str]]:
    """Order part-2 before part-10."""
    return [
        (1, int(piece), "") if piece.isdecimal() else (0, 0, piece)
        for piece in re.split(r"(\d+)", path)
        if piece
    ]
