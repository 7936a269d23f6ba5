"""Generate the catalogue: ids, genres, and files with the defects of the real ones."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segmentation.datasets.synthetic import calibration

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: popularity rank → (movieId, tmdbId, title, genres) of the three most rated movies.
_TOP_MOVIES = {
    0: (356, 13, "Forrest Gump", ("Comedy", "Drama", "Romance")),
    1: (318, 278, "The Shawshank Redemption", ("Drama", "Crime")),
    2: (296, 680, "Pulp Fiction", ("Thriller", "Crime")),
}
#: Titles of the TMDB ids that equal the movieIds of two of the above; a direct join mistakes one
#: movie for the other.
_MISTAKEN = {296: "Terminator 3: Rise of the Machines", 318: "The Million Dollar Hotel"}

_LOW_IDS = 10_000
#: Share of the TMDB ids below ``_LOW_IDS`` in use. It sets what a direct join matches: about 43 %
#: of the ratings, as in the real data.
_LOW_TMDB_SHARE = 0.51

COLUMNS = (
    "adult",
    "belongs_to_collection",
    "budget",
    "genres",
    "homepage",
    "id",
    "imdb_id",
    "original_language",
    "original_title",
    "overview",
    "popularity",
    "poster_path",
    "production_companies",
    "production_countries",
    "release_date",
    "revenue",
    "runtime",
    "spoken_languages",
    "status",
    "tagline",
    "title",
    "video",
    "vote_average",
    "vote_count",
)

_FIRST = (
    "Silent",
    "Broken",
    "Crimson",
    "Distant",
    "Golden",
    "Hidden",
    "Last",
    "Lonely",
    "Midnight",
    "Northern",
    "Paper",
    "Quiet",
    "Restless",
    "Second",
    "Stolen",
    "Summer",
    "Velvet",
    "Wandering",
    "Winter",
    "Yellow",
)
_SECOND = (
    "Harbor",
    "Garden",
    "Letter",
    "Mirror",
    "Orchard",
    "Passenger",
    "Promise",
    "Railway",
    "River",
    "Shadow",
    "Song",
    "Stranger",
    "Tide",
    "Tower",
    "Valley",
    "Visitor",
    "Voyage",
    "Window",
    "Witness",
    "Year",
)
_STUDIOS = ("Harbour Lights", "Ninth Reel", "Paper Moon & Sons", "Tall Pine Pictures", "O'Dea Film")


class Movies(NamedTuple):
    """The movies of ``links.csv``, the most popular first; arrays have shape (LINKS,).

    ``tmdb_ids`` is 0 if ``links.csv`` has no TMDB id; ``has_record`` tells whether
    ``movies_metadata.csv`` has the movie; ``indicator``, of shape (LINKS, n_genres), tells whether
    it has the genre; ``titles`` has one title per movie.
    """

    movie_ids: NDArray[np.int64]
    tmdb_ids: NDArray[np.int64]
    has_record: NDArray[np.bool_]
    indicator: NDArray[np.bool_]
    titles: list[str]


def draw_catalogue(seed: int) -> Movies:
    """Draw the catalogue; it depends on the seed only, not on the number of ratings."""
    rng = np.random.default_rng([seed, 1])
    ranks = np.arange(calibration.LINKS)
    # Mostly unpopular movies lack a record; some of those lack a TMDB id, too.
    obscurity = np.log1p(ranks) + 2.0 * rng.random(calibration.LINKS)
    obscurity[: len(_TOP_MOVIES)] = -1.0
    tail = np.argsort(-obscurity, kind="stable")[: calibration.LINKS - calibration.MOVIES]
    has_record = np.ones(calibration.LINKS, bool)
    has_record[tail] = False
    unlinked = rng.choice(tail, calibration.LINKS_WITHOUT_TMDB, replace=False)
    movie_ids = _draw_movie_ids(rng)
    tmdb_ids = _draw_tmdb_ids(rng, movie_ids, has_record)
    tmdb_ids[unlinked] = 0
    indicator = np.zeros((calibration.LINKS, len(calibration.GENRES)), bool)
    indicator[has_record] = _draw_genres(rng, calibration.expected_ratings()[has_record])
    titles = [_make_title(int(rank), int(tmdb)) for rank, tmdb in zip(ranks, tmdb_ids, strict=True)]
    return Movies(movie_ids, tmdb_ids, has_record, indicator, titles)


def _draw_movie_ids(rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw distinct movieIds; low ones tend to go to popular movies."""
    low = rng.permutation(np.arange(1, _LOW_IDS))[: int(0.93 * _LOW_IDS)]
    top_ids = np.array([movie for movie, *_ in _TOP_MOVIES.values()])
    high = rng.permutation(np.arange(_LOW_IDS, calibration.MAX_MOVIE_ID + 1))
    pool = np.union1d(low, top_ids)
    pool = np.sort(np.concatenate([pool, high[: calibration.LINKS - len(pool)]]))
    # Movies that entered MovieLens early have low ids and many ratings.
    order = np.argsort(
        np.log1p(np.arange(calibration.LINKS)) + 1.2 * draw_normal(rng, calibration.LINKS)
    )
    ids = np.empty(calibration.LINKS, np.int64)
    ids[order] = pool
    for rank, (movie, *_) in _TOP_MOVIES.items():
        index = int(np.flatnonzero(ids == movie)[0])
        ids[[rank, index]] = ids[[index, rank]]
    return ids


def _draw_tmdb_ids(
    rng: np.random.Generator, movie_ids: NDArray[np.int64], has_record: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Draw distinct TMDB ids, which differ from the movieId of the same movie."""
    top_ids = [tmdb for _, tmdb, *_ in _TOP_MOVIES.values()] + list(_MISTAKEN)
    low = rng.permutation(np.arange(2, _LOW_IDS))[: int(_LOW_TMDB_SHARE * _LOW_IDS)]
    high = rng.permutation(np.arange(_LOW_IDS, calibration.MAX_TMDB_ID + 1))
    pool = np.union1d(low, top_ids)
    pool = rng.permutation(np.concatenate([pool, high[: calibration.LINKS - len(pool)]]))
    # These ids go to the most popular movies, which have records.
    for rank, tmdb in enumerate(top_ids):
        index = int(np.flatnonzero(pool == tmdb)[0])
        pool[[rank, index]] = pool[[index, rank]]
    clashes = np.flatnonzero(pool == movie_ids)
    clashes = clashes[clashes >= len(top_ids)]
    if len(clashes):
        pool[clashes] = np.roll(pool[clashes], 1) if len(clashes) > 1 else pool[clashes] + 500_000
    assert has_record[: len(top_ids)].all()
    return pool


def _draw_genres(rng: np.random.Generator, expected: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Draw each genre's exact number of titles, with its measured lean to popular movies."""
    n, names = len(expected), list(calibration.GENRES)
    chosen = np.zeros((n, len(names)), bool)
    genreless = np.zeros(n, bool)
    genreless[rng.choice(np.arange(n // 20, n), calibration.WITHOUT_GENRE, replace=False)] = True
    log_expected = np.log(expected)
    for g, (name, (_, titles, lean, _)) in enumerate(calibration.GENRES.items()):
        # The largest Gumbel keys are a weighted draw without replacement (Vieira 2014).
        keys = lean * log_expected - np.log(-np.log(rng.random(n)))
        keys[genreless] = -np.inf
        for rank, (*_, genres) in _TOP_MOVIES.items():
            keys[rank] = np.inf if name in genres else -np.inf
        # The counts are of records, and the duplicate records are movies with Drama only.
        count = titles - (calibration.DUPLICATES if name == "Drama" else 0)
        chosen[np.argpartition(-keys, count)[:count], g] = True
    _move_genres(chosen, genreless)
    return chosen


def _move_genres(chosen: NDArray[np.bool_], genreless: NDArray[np.bool_]) -> None:
    """Move genres, in place, from movies with three or more to movies without any.

    Both are taken in the order of popularity, except movies that should have no genre.
    """
    counts = chosen.sum(axis=1)
    n_surplus = np.where(counts >= 3, counts - 2, 0)
    n_surplus[: len(_TOP_MOVIES)] = 0
    targets = np.flatnonzero((counts == 0) & ~genreless)
    candidates = np.repeat(np.arange(len(n_surplus)), n_surplus)
    if len(candidates) < len(targets):
        raise AssertionError("more movies without a genre than surplus genres")
    sources = candidates[np.linspace(0, len(candidates) - 1, len(targets)).astype(np.int64)]
    for source, target in zip(sources, targets, strict=True):
        genre = np.flatnonzero(chosen[source])[target % int(chosen[source].sum())]
        chosen[source, genre] = False
        chosen[target, genre] = True


def draw_normal(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Draw ``n`` approximately standard normal numbers (Irwin–Hall, four terms)."""
    return np.asarray((rng.random((4, n)).sum(axis=0) - 2.0) * np.sqrt(3.0))


def _make_title(rank: int, tmdb: int) -> str:
    if rank in _TOP_MOVIES:
        return _TOP_MOVIES[rank][2]
    if tmdb in _MISTAKEN:
        return _MISTAKEN[tmdb]
    first, second = _FIRST[rank % 20], _SECOND[rank // 20 % 20]
    part = rank // 400
    return f"The {first} {second}" + (f" {part + 1}" if part else "")


def format_links(movies: Movies) -> bytes:
    """Return the bytes of ``links.csv``, sorted by movieId."""
    order = np.argsort(movies.movie_ids)
    lines = ["movieId,imdbId,tmdbId"]
    for rank in order:
        tmdb = movies.tmdb_ids[rank]
        lines.append(f"{movies.movie_ids[rank]},{_make_imdb_id(rank)},{tmdb or ''}")
    return ("\n".join(lines) + "\n").encode()


def format_metadata(movies: Movies, seed: int) -> bytes:
    """Return the bytes of ``movies_metadata.csv``, with torn, duplicate and genreless records."""
    rng = np.random.default_rng([seed, 2])
    order = rng.permutation(np.flatnonzero(movies.has_record))
    drama = np.zeros(movies.indicator.shape[1], bool)
    drama[list(calibration.GENRES).index("Drama")] = True
    drama_only = np.flatnonzero((movies.indicator == drama).all(axis=1))
    duplicated = set(
        rng.choice(drama_only[len(_TOP_MOVIES) :], calibration.DUPLICATES, replace=False).tolist()
    )
    ordinary = order[(order >= len(_TOP_MOVIES)) & ~np.isin(order, list(duplicated))]
    torn = set(rng.choice(ordinary, calibration.MALFORMED, replace=False).tolist())
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    duplicates: list[list[str]] = []
    for rank in order.tolist():
        row = _make_record(movies, rank)
        if rank in torn:
            # As in the real file, a line break in the overview ends the record, and the rest of it
            # begins another, whose columns are shifted.
            writer.writerow(row[:10])
            writer.writerow([" - retold from the other side", *row[10:]])
        else:
            writer.writerow(row)
        if rank in duplicated:
            duplicates.append(row)
        elif duplicates and rank % 97 == 0:
            writer.writerow(duplicates.pop())
    writer.writerows(duplicates)
    return out.getvalue().encode()


def _make_record(movies: Movies, rank: int) -> list[str]:
    """Return one row of ``movies_metadata.csv``."""
    tmdb = int(movies.tmdb_ids[rank])
    title = movies.titles[rank]
    genres = [
        {"id": tmdb_genre, "name": name}
        for (name, (tmdb_genre, *_)), has in zip(
            calibration.GENRES.items(), movies.indicator[rank], strict=True
        )
        if has
    ]
    year = 1920 + (rank * 7919) % 98
    overview = (
        f'{title}, a story of "{_SECOND[rank % 20].lower()}" and consequence:'
        f" {_FIRST[rank % 19]}, then {_FIRST[rank % 17].lower()}."
    )
    if rank % 11 == 0:
        overview += "\n\nIts second half, told backwards, takes place in one night."
    studio = _STUDIOS[rank % 5]
    collection = (
        str({"id": 500_000 + rank // 400, "name": f"{title} Collection", "poster_path": None})
        if rank % 10 == 3
        else ""
    )
    return [
        "False",
        collection,
        str((rank * 104_729) % 90_000_000 if rank % 4 == 0 else 0),
        str(genres),
        "",
        str(tmdb),
        f"tt{_make_imdb_id(rank)}",
        "en" if rank % 4 else "fr",
        title,
        overview,
        f"{100 / (rank + 4):.6f}",
        f"/{tmdb:x}.jpg",
        str([{"name": studio, "id": 10_000 + rank % 5}]),
        str([{"iso_3166_1": "CA", "name": "Canada"}] if rank % 3 else []),
        f"{year}-{rank % 12 + 1:02d}-{rank % 28 + 1:02d}",
        "0",
        f"{60 + rank % 90}.0",
        str([{"iso_639_1": "en", "name": "English"}]),
        "Released",
        "" if rank % 2 else "One night, two endings.",
        title,
        "False",
        f"{4 + rank % 50 / 10:.1f}",
        f"{rank % 5000}.0",
    ]


def _make_imdb_id(rank: int) -> str:
    return f"{(int(rank) * 48_271) % 9_999_991:07d}"
