"""The catalogue: the genres of each movie, keyed by the id that ratings use.

Kaggle's ``movies_metadata.csv`` is keyed by TMDB ids, while a rating's ``movieId`` is a MovieLens
id; ``links.csv`` maps MovieLens ids to TMDB ids. The original notebook compared the two ids
directly, which drops most ratings and assigns nearly all others to the wrong movie. That join
remains available, with a warning.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.datasets import csv_records, identifiers
from segmentation.datasets.filesystem import read_bytes
from segmentation.datasets.layouts import Layout, require_file
from segmentation.errors import DataError
from segmentation.schema import Catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

#: Two movies of every MovieLens data set. If their ids map to other movies, the join is wrong.
ANCHORS = {296: "Pulp Fiction", 318: "Shawshank Redemption"}

_NO_GENRES = "(no genres listed)"
#: MovieLens 1M spells one genre differently from later data sets.
_SYNONYMS = {"Children's": "Children"}
_MAX_ID = 2**63 - 1
#: Any integer of this many digits fits in 64 bits.
_SAFE_DIGITS = 18
#: The form of nearly all genre lists; matching it is ten times as fast as `ast.literal_eval`.
_PLAIN_NAME = re.compile(r"\{'id': (?:0|[1-9][0-9]{0,17}), 'name': '([^'\\\r\n]*)'\}")
_PLAIN_GENRES = re.compile(rf"\[(?:{_PLAIN_NAME.pattern}(?:, (?=\{{)|(?=\])))*\]")
#: Keys of :attr:`Catalogue.notes` for Kaggle's layout (the links file adds more) and for
#: GroupLens'.
_METADATA_NOTES = (
    "records",
    "malformed_repaired",
    "malformed_set_aside",
    "duplicates",
    "without_genre",
    "genres_unreadable",
    "unknown_genres",
)
_GROUPLENS_NOTES = (
    "records",
    "malformed_set_aside",
    "duplicates",
    "without_genre",
    "unknown_genres",
)
#: Key of :attr:`Catalogue.notes` → warning if the counter is not zero.
_WARNINGS = {
    "genres_unreadable": "catalogue records have unreadable genres",
    "unknown_genres": "genre entries of the catalogue are not genres of its layout",
    "malformed_set_aside": "malformed catalogue records were skipped",
    "links_malformed": "malformed records of the links file were skipped",
}


@dataclass(slots=True)
class _Movie:
    title: str
    codes: tuple[int, ...]


def load_catalogue(layout: Layout, join: str = "links") -> Catalogue:
    r"""Read the catalogue of a layout.

    Parameters
    ----------
    layout
        The files of the data set.
    join
        How ratings map to the catalogue: ``links`` goes through the links file, ``direct`` uses
        ``movieId`` as a TMDB id. Layouts other than Kaggle's ignore it.

    Raises
    ------
    DataError
        If a file is missing, malformed or without movies, if no movie of the links file is in the
        catalogue, or if well-known ids map to the wrong movies through the links file.

    Examples
    --------
    >>> import fsspec
    >>> from segmentation.datasets import detect_layout
    >>> fs = fsspec.filesystem("memory")
    >>> fs.pipe({"/ml/movies.csv": b"movieId,title,genres\n1,Heat,Crime|Drama\n"})
    >>> fs.pipe({"/ml/ratings.csv": b"userId,movieId,rating\n1,1,5.0\n"})
    >>> catalogue = load_catalogue(detect_layout("memory://ml"))
    >>> [catalogue.genres[code] for code in catalogue.codes]
    ['Crime', 'Drama']
    """
    if layout.name != "kaggle":
        return _read_grouplens(layout)
    movies, notes = _read_metadata(layout.movies, layout.genres)
    if join == "direct":
        return _build_catalogue(movies, layout, notes)
    if layout.links is None:
        raise DataError(
            "{path}: holds no links file; add one, or set {join} to direct",
            "join",
            path=layout.folder,
        )
    links = _read_links(layout.links, notes)
    notes["links_without_record"] = sum(tmdb not in movies for tmdb in links.values())
    linked = {movie: movies[tmdb] for movie, tmdb in links.items() if tmdb in movies}
    if not linked:
        raise DataError(
            f"{layout.links}: none of its tmdbId values is an id in {layout.movies}; use the "
            "links file of this catalogue"
        )
    catalogue = _build_catalogue(linked, layout, notes)
    if wrong := find_wrong_anchors(catalogue):
        movie, title = next(iter(wrong.items()))
        raise DataError(
            "{path}: movieId {movie} maps to {title!r}, but in MovieLens it is {expected!r}; use "
            "the links file that came with these ratings, or set {join} to direct if movieId is "
            "an id of this catalogue",
            "join",
            path=layout.links,
            movie=movie,
            title=title,
            expected=ANCHORS[movie],
        )
    return catalogue


def find_wrong_anchors(catalogue: Catalogue) -> dict[int, str]:
    """Return the ids of :data:`ANCHORS` that map to another movie, each with that movie's title.

    MovieLens' 296 is Pulp Fiction and 318 is The Shawshank Redemption. As TMDB ids they are
    Terminator 3 and The Million Dollar Hotel.
    """
    if catalogue.has_text_ids:
        return {}
    titles = {movie: catalogue.title_of(movie) for movie in ANCHORS}
    return {
        movie: title
        for movie, title in titles.items()
        if title is not None and ANCHORS[movie].lower() not in title.lower()
    }


def direct_join_warning(catalogue: Catalogue) -> str:
    """Return a warning, in one line, of what the direct join does to the data."""
    examples = "; ".join(
        f"movieId {movie} ({ANCHORS[movie]}) counts as {title!r}"
        for movie, title in find_wrong_anchors(catalogue).items()
    )
    return (
        "the direct join uses MovieLens ids as TMDB ids: it drops the ratings of most movies and "
        "assigns nearly all others to the wrong movie"
        + (f" ({examples})" if examples else "")
        + "; join through the links file unless you want to reproduce the original"
    )


def catalogue_warnings(catalogue: Catalogue) -> list[str]:
    """Return one warning per kind of damage in a catalogue."""
    notes = catalogue.notes
    return [f"{notes[name]:,} {text}" for name, text in _WARNINGS.items() if notes.get(name)]


def _read_metadata(path: str, genres: tuple[str, ...]) -> tuple[dict[int, _Movie], dict[str, int]]:
    """Read Kaggle's ``movies_metadata.csv``; return movies by TMDB id, and counters of damage."""
    records = csv_records.read_columns(path, ("id", "genres", "title"))
    id_index, genres_index, title_index, overview_index = _find_columns(
        path, next(records, []), ("id", "genres", "title", "overview")
    )
    notes = dict.fromkeys(_METADATA_NOTES, 0)
    movies: dict[int, _Movie] = {}
    parsed_genres: dict[str, tuple[tuple[int, ...], int, int]] = {}
    previous: _Movie | None = None
    for record in filter(None, records):
        notes["records"] += 1
        movie_id = _parse_id(record[id_index]) if len(record) > id_index else None
        if movie_id is None:
            # A stray line break split the previous record; this is its second half, from the
            # middle of the overview on. Only the title is usable: production companies are where
            # the genres should be.
            index = title_index - overview_index
            if previous is not None and not previous.title and len(record) > index:
                previous.title = record[index].strip()
                notes["malformed_repaired"] += 1
            else:
                notes["malformed_set_aside"] += 1
            previous = None
            continue
        text = record[genres_index] if len(record) > genres_index else ""
        if text not in parsed_genres:
            parsed_genres[text] = _parse_genres(text, genres)
        codes, n_unreadable, n_unknown = parsed_genres[text]
        notes["genres_unreadable"] += n_unreadable
        notes["unknown_genres"] += n_unknown
        title = record[title_index].strip() if len(record) > title_index else ""
        previous = _Movie(title, codes)
        if movie_id in movies:
            # Duplicates have the same genres; keep the first.
            notes["duplicates"] += 1
            continue
        notes["without_genre"] += not codes
        movies[movie_id] = previous
    if not movies:
        raise DataError(f"{path}: holds no movies; download it again")
    return movies, notes


def _parse_genres(text: str, genres: tuple[str, ...]) -> tuple[tuple[int, ...], int, int]:
    """Return genre codes, 1 if the field is unreadable else 0, and the number of unknown names."""
    if not text.strip():
        return (), 0, 0
    try:
        if _PLAIN_GENRES.fullmatch(text):
            names = _PLAIN_NAME.findall(text)
        else:
            names = [entry["name"] for entry in ast.literal_eval(text)]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        return (), 1, 0
    codes, n_unknown = _encode_genres(names, genres)
    return codes, 0, n_unknown


def _encode_genres(names: Sequence[str], genres: tuple[str, ...]) -> tuple[tuple[int, ...], int]:
    """Return the sorted codes of genre names, and the number of unknown names."""
    codes = {genres.index(name) for name in names if name in genres}
    return tuple(sorted(codes)), sum(name not in genres for name in names)


def _read_links(path: str, notes: dict[str, int]) -> dict[int | bytes, int]:
    """Read the map from MovieLens ids to TMDB ids; add counters of damage to ``notes``."""
    records = csv_records.read_records(path)
    header = [name.strip() for name in next(records, [])]
    movie_index, tmdb_index = _find_columns(path, header, ("movieId", "tmdbId"))
    notes.update(links=0, links_without_tmdb=0, links_malformed=0)
    pairs: list[tuple[str, str]] = []
    for record in filter(None, records):
        notes["links"] += 1
        if "\n" in "".join(record):
            raise DataError(
                f"{path}, record {notes['links'] + 1}: a quoted field spans lines; close its quote"
            )
        pairs.append((_get_id_field(record, movie_index), _get_id_field(record, tmdb_index)))
    parse_movie_id = _choose_id_parser([movie for movie, _ in pairs])
    links: dict[int | bytes, int] = {}
    for movie, tmdb in pairs:
        movie_id, tmdb_id = parse_movie_id(movie), _parse_id(tmdb)
        if movie_id is None or movie_id in links or (tmdb and tmdb_id is None):
            notes["links_malformed"] += 1
        elif tmdb_id is None:
            notes["links_without_tmdb"] += 1
        else:
            links[movie_id] = tmdb_id
    return links


def _get_id_field(record: list[str], index: int) -> str:
    """Return a stripped field of a record; an empty string if the record is too short."""
    # pandas writes integers as floats if the column has missing values.
    return record[index].strip().removesuffix(".0") if index < len(record) else ""


def _read_grouplens(layout: Layout) -> Catalogue:
    notes = dict.fromkeys(_GROUPLENS_NOTES, 0)
    movies: dict[int | bytes, _Movie] = {}
    records = list(_iterate_grouplens(layout))
    parse_movie_id = _choose_id_parser([record[0] for record in records if len(record) == 3])
    for record in records:
        notes["records"] += 1
        movie_id = parse_movie_id(record[0]) if len(record) == 3 else None
        if movie_id is None:
            notes["malformed_set_aside"] += 1
            continue
        if movie_id in movies:
            notes["duplicates"] += 1
            continue
        names = [_SYNONYMS.get(name, name) for name in record[2].strip().split("|")]
        codes, n_unknown = _encode_genres(
            [name for name in names if name and name != _NO_GENRES], layout.genres
        )
        notes["unknown_genres"] += n_unknown
        notes["without_genre"] += not codes
        movies[movie_id] = _Movie(record[1].strip(), codes)
    if not movies:
        raise DataError(f"{layout.movies}: holds no movies; download it again")
    return _build_catalogue(movies, layout, notes)


def _iterate_grouplens(layout: Layout) -> Iterator[list[str]]:
    """Yield the id, title and genres of each movie; a malformed record has another length."""
    path = layout.movies
    if layout.name == "grouplens-dat":
        require_file(path)
        # Latin-1 decodes any byte, but to characters at which `str.splitlines` would split.
        lines = read_bytes(path).decode("latin-1").split("\n")
        yield from (line.rstrip("\r").split("::") for line in lines if line.rstrip("\r"))
        return
    records = csv_records.read_records(path)
    header = [name.strip() for name in next(records, [])]
    indices = _find_columns(path, header, ("movieId", "title", "genres"))
    for record in filter(None, records):
        yield [record[i] for i in indices] if len(record) == len(header) else record[:1]


def _find_columns(path: str, header: Sequence[str], names: Sequence[str]) -> list[int]:
    missing = [name for name in names if name not in header]
    if missing:
        raise DataError(
            f"{path}, line 1: no column {' and no '.join(missing)}; the header must name "
            f"{', '.join(names)}"
        )
    return [list(header).index(name) for name in names]


def _choose_id_parser(fields: Sequence[str]) -> Callable[[str], int | bytes | None]:
    """Return the parser of a catalogue's ids, see :func:`identifiers.is_string_column`."""
    if all(field.isdigit() and len(field) <= _SAFE_DIGITS for field in fields):
        return _parse_id
    is_string = identifiers.is_string_column([field.encode() for field in fields])
    return _parse_string_id if is_string else _parse_id


def _parse_id(field: str) -> int | None:
    """Return a field as a non-negative 64-bit integer; None if it is not one."""
    if len(field) <= _SAFE_DIGITS and field.isascii() and field.isdigit():
        return int(field)
    field = field.strip()
    if not (field.isascii() and field.isdigit() and len(field) <= 20) or int(field) > _MAX_ID:
        return None
    return int(field)


def _parse_string_id(field: str) -> bytes | None:
    value = identifiers.parse_string(field.encode())
    return None if isinstance(value, str) else value


def _build_catalogue(
    movies: Mapping[Any, _Movie], layout: Layout, notes: dict[str, int]
) -> Catalogue:
    """Build the catalogue from movies by ``movieId``."""
    movie_ids = sorted(movies)
    ordered = [movies[movie] for movie in movie_ids]
    offsets = np.zeros(len(ordered) + 1, np.int32)
    np.cumsum([len(movie.codes) for movie in ordered], out=offsets[1:])
    codes = np.array([code for movie in ordered for code in movie.codes], np.int32)
    if not len(codes):
        raise DataError(f"{layout.movies}: no movie has a readable genre; fix the genres column")
    return Catalogue(
        np.array(movie_ids, np.int64 if isinstance(movie_ids[0], int) else np.bytes_),
        layout.genres,
        offsets,
        codes,
        tuple(movie.title for movie in ordered),
        notes,
    )
