"""The synthetic catalogue: ids, genres, and files with the defects of the real ones."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segmentation.datasets.synthetic import calibration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

#: popularity rank → (movieId, tmdbId, title, genres) of the three most rated movies.
_KNOWN = {
    0: (356, 13, "Forrest Gump", ("Comedy", "Drama", "Romance")),
    1: (318, 278, "The Shawshank Redemption", ("Drama", "Crime")),
    2: (296, 680, "Pulp Fiction", ("Thriller", "Crime")),
}
#: TMDB ids that equal the movieIds of two of the above; a direct join confuses them.
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
    """Every movie of ``links.csv`` by falling popularity; arrays have shape (LINKS,).

    ``tmdb_ids`` is 0 where ``links.csv`` has no TMDB id; ``recorded`` is whether
    ``movies_metadata.csv`` has the movie; ``indicator``, of shape (LINKS, n_genres), is whether it
    has the genre; ``titles`` has one title per movie.
    """

    movie_ids: NDArray[np.int64]
    tmdb_ids: NDArray[np.int64]
    recorded: NDArray[np.bool_]
    indicator: NDArray[np.bool_]
    titles: list[str]


def draw_catalogue(seed: int) -> Movies:
    """Draw the catalogue; it depends on the seed only, not on the number of ratings."""
    rng = np.random.default_rng([seed, 1])
    ranks = np.arange(calibration.LINKS)
    # Unpopular movies are the ones without a record, and some of these have no TMDB id.
    obscurity = np.log1p(ranks) + 2.0 * rng.random(calibration.LINKS)
    obscurity[: len(_KNOWN)] = -1.0
    tail = np.argsort(-obscurity, kind="stable")[: calibration.LINKS - calibration.MOVIES]
    recorded = np.ones(calibration.LINKS, bool)
    recorded[tail] = False
    unlinked = rng.choice(tail, calibration.LINKS_WITHOUT_TMDB, replace=False)
    movie_ids = _draw_movie_ids(rng)
    tmdb_ids = _draw_tmdb_ids(rng, movie_ids, recorded)
    tmdb_ids[unlinked] = 0
    indicator = np.zeros((calibration.LINKS, len(calibration.GENRES)), bool)
    indicator[recorded] = _draw_genres(rng, calibration.expected_ratings()[recorded])
    titles = [_make_title(int(rank), int(tmdb)) for rank, tmdb in zip(ranks, tmdb_ids, strict=True)]
    return Movies(movie_ids, tmdb_ids, recorded, indicator, titles)


def _draw_movie_ids(rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw distinct movieIds; low ones tend to go to popular movies."""
    low = rng.permutation(np.arange(1, _LOW_IDS))[: int(0.93 * _LOW_IDS)]
    anchors = np.array([movie for movie, *_ in _KNOWN.values()])
    high = rng.permutation(np.arange(_LOW_IDS, calibration.LARGEST_MOVIE_ID + 1))
    pool = np.union1d(low, anchors)
    pool = np.sort(np.concatenate([pool, high[: calibration.LINKS - len(pool)]]))
    # Movies that entered MovieLens early have low ids and many ratings.
    order = np.argsort(
        np.log1p(np.arange(calibration.LINKS)) + 1.2 * draw_normal(rng, calibration.LINKS)
    )
    ids = np.empty(calibration.LINKS, np.int64)
    ids[order] = pool
    for rank, (movie, *_) in _KNOWN.items():
        at = int(np.flatnonzero(ids == movie)[0])
        ids[[rank, at]] = ids[[at, rank]]
    return ids


def _draw_tmdb_ids(
    rng: np.random.Generator, movie_ids: NDArray[np.int64], recorded: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Draw distinct TMDB ids, none of them equal to its movie's movieId."""
    fixed = [tmdb for _, tmdb, *_ in _KNOWN.values()] + list(_MISTAKEN)
    low = rng.permutation(np.arange(2, _LOW_IDS))[: int(_LOW_TMDB_SHARE * _LOW_IDS)]
    high = rng.permutation(np.arange(_LOW_IDS, calibration.LARGEST_TMDB_ID + 1))
    pool = np.union1d(low, fixed)
    pool = rng.permutation(np.concatenate([pool, high[: calibration.LINKS - len(pool)]]))
    # The fixed ids go to the most popular movies, which have records.
    for place, tmdb in enumerate(fixed):
        at = int(np.flatnonzero(pool == tmdb)[0])
        pool[[place, at]] = pool[[at, place]]
    clash = np.flatnonzero(pool == movie_ids)
    if len(clash):
        others = clash[clash >= len(fixed)]
        pool[others] = np.roll(pool[others], 1) if len(others) > 1 else pool[others] + 500_000
    assert recorded[: len(fixed)].all()
    return pool


def _draw_genres(rng: np.random.Generator, expected: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Give each genre its exact number of titles, leaning towards popular movies as measured."""
    n, names = len(expected), list(calibration.GENRES)
    chosen = np.zeros((n, len(names)), bool)
    fixed = {rank: genres for rank, (*_, genres) in _KNOWN.items()}
    genreless = np.zeros(n, bool)
    genreless[rng.choice(np.arange(n // 20, n), calibration.WITHOUT_GENRE, replace=False)] = True
    log_expected = np.log(expected)
    for g, (name, (_, titles, lean, _)) in enumerate(calibration.GENRES.items()):
        # The largest Gumbel keys are a weighted draw without replacement (Vieira 2014).
        keys = lean * log_expected - np.log(-np.log(rng.random(n)))
        keys[genreless] = -np.inf
        for rank, genres in fixed.items():
            keys[rank] = np.inf if name in genres else -np.inf
        # The counts are of records, and the duplicate records are movies with Drama only.
        count = titles - (calibration.DUPLICATES if name == "Drama" else 0)
        chosen[np.argpartition(-keys, count)[:count], g] = True
    _share_genres(chosen, genreless)
    return chosen


def _share_genres(chosen: NDArray[np.bool_], genreless: NDArray[np.bool_]) -> None:
    """Move a genre from movies with at least three to movies of similar popularity with none."""
    counts = chosen.sum(axis=1)
    spare = np.where(counts >= 3, counts - 2, 0)
    spare[: len(_KNOWN)] = 0
    needy = np.flatnonzero((counts == 0) & ~genreless)
    donors = np.repeat(np.arange(len(spare)), spare)
    if len(donors) < len(needy):
        raise AssertionError("more movies without a genre than genres to spare")
    pairs = donors[np.linspace(0, len(donors) - 1, len(needy)).astype(np.int64)]
    for giver, taker in zip(pairs, needy, strict=True):
        genre = np.flatnonzero(chosen[giver])[taker % int(chosen[giver].sum())]
        chosen[giver, genre] = False
        chosen[taker, genre] = True


def draw_normal(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Draw ``n`` approximately standard normal numbers (Irwin–Hall, four terms)."""
    return np.asarray((rng.random((4, n)).sum(axis=0) - 2.0) * np.sqrt(3.0))


def _make_title(rank: int, tmdb: int) -> str:
    if rank in _KNOWN:
        return _KNOWN[rank][2]
    if tmdb in _MISTAKEN:
        return _MISTAKEN[tmdb]
    first, second = _FIRST[rank % 20], _SECOND[rank // 20 % 20]
    part = rank // 400
    return f"The {first} {second}" + (f" {part + 1}" if part else "")


def format_links(movies: Movies) -> bytes:
    """Return the bytes of ``links.csv``, sorted by movieId."""
    order = np.argsort(movies.movie_ids)
    lines = ["movieId,imdbId,tmdbId"]
    for at in order:
        tmdb = movies.tmdb_ids[at]
        lines.append(f"{movies.movie_ids[at]},{_make_imdb_id(at)},{tmdb or ''}")
    return ("\n".join(lines) + "\n").encode()


def format_metadata(movies: Movies, seed: int) -> bytes:
    """Return the bytes of ``movies_metadata.csv``, with torn, duplicate and genreless records."""
    rng = np.random.default_rng([seed, 2])
    order = rng.permutation(np.flatnonzero(movies.recorded))
    drama = np.zeros(movies.indicator.shape[1], bool)
    drama[list(calibration.GENRES).index("Drama")] = True
    drama_only = np.flatnonzero((movies.indicator == drama).all(axis=1))
    duplicated = set(
        rng.choice(drama_only[len(_KNOWN) :], calibration.DUPLICATES, replace=False).tolist()
    )
    ordinary = order[(order >= len(_KNOWN)) & ~np.isin(order, list(duplicated))]
    torn = set(rng.choice(ordinary, calibration.MALFORMED, replace=False).tolist())
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    duplicates: list[list[str]] = []
    for at in order:
        rank = int(at)
        row = _make_record(movies, rank)
        if rank in torn:
            # As in the real file, a line break in the overview ends the record.
            head, tail = row[:10], row[9:]
            writer.writerow(head)
            writer.writerow([" - retold from the other side", *_shift_columns(rank, tail)])
        else:
            writer.writerow(row)
        if rank in duplicated:
            duplicates.append(row)
        elif duplicates and rank % 97 == 0:
            writer.writerow(duplicates.pop())
    writer.writerows(duplicates)
    return out.getvalue().encode()


def _shift_columns(rank: int, tail: list[str]) -> Iterator[str]:
    """Yield the rest of a torn record; its production companies end up under ``genres``."""
    yield from tail[1:3]
    yield str([{"name": _STUDIOS[rank % 5], "id": 10_000 + rank % 5}])
    yield from tail[4:]


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
