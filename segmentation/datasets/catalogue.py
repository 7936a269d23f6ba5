"""The catalogue: which movie has which genres, keyed by the id that ratings carry.

``movies_metadata.csv`` holds quoted text with commas and newlines, so it is read whole with a
quote-aware reader. Its ``id`` is a TMDB id while a rating's ``movieId`` is a MovieLens id:
``links.csv`` leads from one to the other. The direct join of the two, which the original notebook
made, loses most ratings and puts nearly all of the rest on the wrong film; it stays available,
with a warning that says so.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.datasets import csv_records, identifiers
from segmentation.datasets.filesystem import read_bytes
from segmentation.datasets.layouts import Layout, require_file
from segmentation.errors import DataError
from segmentation.schema import Catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Two films that everybody rated. Where their ids lead to others, the join is wrong.
ANCHORS = {296: "Pulp Fiction", 318: "Shawshank Redemption"}

_NO_GENRES = "(no genres listed)"
#: MovieLens 1M names one genre in another way than the later sets.
_SYNONYMS = {"Children's": "Children"}
_LARGEST_ID = 2**63 - 1
#: Numbers of so many digits are within 64 bits.
_SURE_DIGITS = 18
#: The form of nearly all genre lists, which is read ten times as fast as Python's whole grammar.
_PLAIN_NAME = re.compile(r"\{'id': (?:0|[1-9][0-9]{0,17}), 'name': '([^'\\\r\n]*)'\}")
_PLAIN_GENRES = re.compile(rf"\[(?:{_PLAIN_NAME.pattern}(?:, (?=\{{)|(?=\])))*\]")


def load_catalogue(layout: Layout, join: str = "links") -> Catalogue:
    """Read a layout's catalogue.

    Parameters
    ----------
    layout
        The files.
    join
        ``links`` or ``direct``; only Kaggle's layout has the choice.

    Raises
    ------
    DataError
        If a file is missing, lacks a column, or leads well-known ids to the wrong films.
    """
    if layout.name != "kaggle":
        return _read_grouplens(layout)
    movies, notes = _read_metadata(layout.movies, layout.genres)
    if join == "direct":
        return _assemble({tmdb: tmdb for tmdb in movies}, movies, layout.genres, notes)
    if layout.links is None:
        raise DataError(f"{layout.folder}: holds no links file: add one, or use --join direct")
    links = _read_links(layout.links, notes)
    notes["links_without_record"] = sum(tmdb not in movies for tmdb in links.values())
    linked = {movie: tmdb for movie, tmdb in links.items() if tmdb in movies}
    if not linked:
        raise DataError(
            f"{layout.links}: no tmdbId in it is an id of {layout.movies}: "
            "the two files belong to different catalogues"
        )
    catalogue = _assemble(linked, movies, layout.genres, notes)
    wrong = wrong_anchors(catalogue)
    if wrong:
        movie, title = next(iter(wrong.items()))
        raise DataError(
            f"{layout.links}: leads movieId {movie} to {title!r}, which is {ANCHORS[movie]!r} in "
            "MovieLens: the ids are mixed up; take the links file that came with these ratings "
            "(or, if movieId is this catalogue's own id, --join direct)"
        )
    return catalogue


def wrong_anchors(catalogue: Catalogue) -> dict[int, str]:
    """Return the well-known ids that lead to another film, with the title they lead to.

    MovieLens' 296 is Pulp Fiction and 318 The Shawshank Redemption. Taken for TMDB ids they are
    Terminator 3 and The Million Dollar Hotel.
    """
    if catalogue.has_text_ids:
        return {}
    found = {movie: catalogue.title_of(movie) for movie in ANCHORS}
    return {
        movie: title
        for movie, title in found.items()
        if title is not None and ANCHORS[movie].lower() not in title.lower()
    }


def direct_join_warning(catalogue: Catalogue) -> str:
    """Say in a line what the direct join does to the data."""
    wrong = wrong_anchors(catalogue)
    examples = "; ".join(
        f"movieId {movie} ({ANCHORS[movie]}) now counts as {title!r}"
        for movie, title in wrong.items()
    )
    return (
        "the direct join takes MovieLens ids for TMDB ids: ratings of most films are dropped and "
        "nearly all others land on another film"
        + (f" ({examples})" if examples else "")
        + "; use --join links unless you mean to reproduce the original"
    )


def _columns(path: str, header: Sequence[str], *names: str) -> list[int]:
    missing = [name for name in names if name not in header]
    if missing:
        raise DataError(
            f"{path}: line 1 names no column {' and no '.join(missing)}: "
            f"it needs {', '.join(names)} (a download cut short or another file?)"
        )
    return [list(header).index(name) for name in names]


def _whole(text: str) -> int | None:
    """Return the id that a field holds, None where it holds something else."""
    if len(text) <= 18 and text.isascii() and text.isdigit():
        return int(text)
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 20) or int(text) > _LARGEST_ID:
        return None
    return int(text)


def _reader(texts: Sequence[str]) -> Callable[[str], int | bytes | None]:
    """Return what reads the ids of a catalogue: whole numbers or, if most are none, texts."""
    if all(text.isdigit() and len(text) <= _SURE_DIGITS for text in texts):
        return _whole
    return _text_id if identifiers.are_texts([text.encode() for text in texts]) else _whole


def _text_id(text: str) -> bytes | None:
    found = identifiers.text(text.encode())
    return None if isinstance(found, str) else found


class _Movie:
    __slots__ = ("codes", "title")

    def __init__(self, title: str, codes: tuple[int, ...]) -> None:
        self.title = title
        self.codes = codes


def _read_metadata(path: str, genres: tuple[str, ...]) -> tuple[dict[int, _Movie], dict[str, int]]:
    rows = csv_records.read(path, ("id", "genres", "title"))
    header = next(rows)
    id_at, genres_at, title_at, overview_at = _columns(
        path, header, "id", "genres", "title", "overview"
    )
    notes = dict.fromkeys(
        (
            "records",
            "malformed_repaired",
            "malformed_set_aside",
            "duplicates",
            "without_genre",
            "genres_unreadable",
            "unknown_genres",
        ),
        0,
    )
    movies: dict[int, _Movie] = {}
    known: dict[str, tuple[tuple[int, ...], int, int]] = {}
    broken: _Movie | None = None
    for row in rows:
        if not row:
            continue
        notes["records"] += 1
        movie_id = _whole(row[id_at]) if len(row) > id_at else None
        if movie_id is None:
            # A record that a stray newline tore in two: this is the rest of the one before, from
            # within its overview on. Its `genres` column holds production companies.
            at = title_at - overview_at
            if broken is not None and not broken.title and len(row) > at:
                broken.title = row[at].strip()
                notes["malformed_repaired"] += 1
            else:
                notes["malformed_set_aside"] += 1
            broken = None
            continue
        text = row[genres_at]
        if text not in known:
            known[text] = _genre_codes(text, genres)
        codes, unreadable, unknown = known[text]
        notes["genres_unreadable"] += unreadable
        notes["unknown_genres"] += unknown
        title = row[title_at].strip() if len(row) > title_at else ""
        movie = _Movie(title, codes)
        broken = movie
        if movie_id in movies:
            # Duplicates carry the same genres; the first record stands.
            notes["duplicates"] += 1
            continue
        notes["without_genre"] += not movie.codes
        movies[movie_id] = movie
    if not movies:
        raise DataError(f"{path}: holds no movie: a download cut short?")
    return movies, notes


def _genre_codes(text: str, genres: tuple[str, ...]) -> tuple[tuple[int, ...], int, int]:
    """Return a record's genres, and how many of its entries are unreadable or unknown."""
    if not text.strip():
        return (), 0, 0
    try:
        if _PLAIN_GENRES.fullmatch(text):
            names = _PLAIN_NAME.findall(text)
        else:
            names = [entry["name"] for entry in ast.literal_eval(text)]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        return (), 1, 0
    codes = {genres.index(name) for name in names if name in genres}
    return tuple(sorted(codes)), 0, sum(name not in genres for name in names)


def _read_links(path: str, notes: dict[str, int]) -> dict[Any, int]:
    rows = csv_records.rows(path)
    header = [name.strip() for name in next(rows, [])]
    movie_at, tmdb_at = _columns(path, header, "movieId", "tmdbId")
    found: list[tuple[str, str]] = []
    links: dict[Any, int] = {}
    notes.update(links=0, links_without_tmdb=0, links_malformed=0)
    for row in rows:
        if not row:
            continue
        notes["links"] += 1
        if "\n" in "".join(row):
            raise DataError(
                f"{path}: record {notes['links'] + 1}: a quote is never closed: mend the file"
            )
        # pandas writes an integer column with gaps as floats.
        movie = row[movie_at].strip().removesuffix(".0") if movie_at < len(row) else ""
        tmdb = row[tmdb_at].strip().removesuffix(".0") if tmdb_at < len(row) else ""
        found.append((movie, tmdb))
    read = _reader([movie for movie, _ in found])
    for movie, tmdb in found:
        movie_id, tmdb_id = read(movie), _whole(tmdb)
        if movie_id is None or movie_id in links or (tmdb and tmdb_id is None):
            notes["links_malformed"] += 1
        elif tmdb_id is None:
            notes["links_without_tmdb"] += 1
        else:
            links[movie_id] = tmdb_id
    return links


def _read_grouplens(layout: Layout) -> Catalogue:
    notes = dict.fromkeys(
        ("records", "malformed_set_aside", "duplicates", "without_genre", "unknown_genres"), 0
    )
    movies: dict[Any, _Movie] = {}
    rows = list(_grouplens_rows(layout))
    read = _reader([row[0] for row in rows if len(row) == 3])
    for row in rows:
        notes["records"] += 1
        movie_id = read(row[0]) if len(row) == 3 else None
        if movie_id is None:
            notes["malformed_set_aside"] += 1
            continue
        if movie_id in movies:
            notes["duplicates"] += 1
            continue
        names = [_SYNONYMS.get(name, name) for name in row[2].strip().split("|")]
        names = [name for name in names if name and name != _NO_GENRES]
        notes["unknown_genres"] += sum(name not in layout.genres for name in names)
        codes = {layout.genres.index(name) for name in names if name in layout.genres}
        notes["without_genre"] += not codes
        movies[movie_id] = _Movie(row[1].strip(), tuple(sorted(codes)))
    if not movies:
        raise DataError(f"{layout.movies}: holds no movie: a download cut short?")
    return _assemble({movie: movie for movie in movies}, movies, layout.genres, notes)


def _grouplens_rows(layout: Layout) -> Iterator[list[str]]:
    if layout.name == "grouplens-dat":
        require_file(layout.movies)
        # Latin-1, so every byte is a character: titles may hold ones that split lines in str.
        lines = read_bytes(layout.movies).decode("latin-1").split("\n")
        yield from (line.rstrip("\r").split("::") for line in lines if line.rstrip("\r"))
        return
    rows = csv_records.rows(layout.movies)
    header = [name.strip() for name in next(rows, [])]
    wanted = _columns(layout.movies, header, "movieId", "title", "genres")
    for row in rows:
        if row:
            yield [row[at] for at in wanted] if len(row) == len(header) else row[:1]


def catalogue_warnings(catalogue: Catalogue) -> list[str]:
    """Say in a line each what a damaged catalogue has lost."""
    told = {
        "genres_unreadable": "records of the catalogue have genres that can't be read",
        "unknown_genres": "genre entries of the catalogue are none of its layout's",
        "malformed_set_aside": "records of the catalogue are malformed and were set aside",
        "links_malformed": "lines of the links file are malformed and were set aside",
    }
    notes = catalogue.notes
    return [f"{notes[name]:,} {what}" for name, what in told.items() if notes.get(name)]


def _assemble(
    found: dict[Any, Any],
    movies: dict[Any, _Movie],
    genres: tuple[str, ...],
    notes: dict[str, int],
) -> Catalogue:
    ordered = sorted(found)
    chosen = [movies[found[movie]] for movie in ordered]
    offsets = np.zeros(len(chosen) + 1, np.int32)
    np.cumsum([len(movie.codes) for movie in chosen], out=offsets[1:])
    codes = np.array([code for movie in chosen for code in movie.codes], np.int32)
    if not len(codes):
        raise DataError("no film of the catalogue has a genre that can be read: mend its genres")
    return Catalogue(
        np.array(ordered, np.int64 if isinstance(ordered[0], int) else np.bytes_),
        genres,
        offsets,
        codes,
        tuple(movie.title for movie in chosen),
        notes,
    )
