"""The synthetic catalogue: ids, genres, and the raw, messy form of the real files."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segmentation.datasets.synthetic import calibration as real

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

#: popularity rank → (movieId, tmdbId, title, genres); everyone knows these three.
_KNOWN = {
    0: (356, 13, "Forrest Gump", ("Comedy", "Drama", "Romance")),
    1: (318, 278, "The Shawshank Redemption", ("Drama", "Crime")),
    2: (296, 680, "Pulp Fiction", ("Thriller", "Crime")),
}
#: TMDB ids that a direct join mistakes for two of the above.
_MISTAKEN = {296: "Terminator 3: Rise of the Machines", 318: "The Million Dollar Hotel"}

_LOW_IDS = 10_000
#: Share of low TMDB ids in use. It decides what a direct join keeps: some 43 % of the ratings,
#: as in the real data.
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


class Films(NamedTuple):
    """Every linked film by falling popularity; all of shape (LINKS,) unless stated.

    ``tmdb_ids`` is 0 where ``links.csv`` has a gap; ``recorded`` tells which films
    ``movies_metadata.csv`` knows; ``indicator`` is bool of shape (LINKS, 20); ``titles`` go with
    the recorded ones.
    """

    movie_ids: NDArray[np.int64]
    tmdb_ids: NDArray[np.int64]
    recorded: NDArray[np.bool_]
    indicator: NDArray[np.bool_]
    titles: list[str]


def make_films(seed: int) -> Films:
    """Draw the catalogue; it hangs on the seed alone, not on the number of ratings."""
    rng = np.random.default_rng([seed, 1])
    ranks = np.arange(real.LINKS)
    # Gaps lie among the least popular: films without a link, then films without a record.
    leaning = np.log1p(ranks) + 2.0 * rng.random(real.LINKS)
    leaning[: len(_KNOWN)] = -1.0
    tail = np.argsort(-leaning, kind="stable")[: real.LINKS - real.FILMS]
    recorded = np.ones(real.LINKS, bool)
    recorded[tail] = False
    unlinked = rng.choice(tail, real.LINKS_WITHOUT_TMDB, replace=False)
    movie_ids = _movie_ids(rng)
    tmdb_ids = _tmdb_ids(rng, movie_ids, recorded)
    tmdb_ids[unlinked] = 0
    indicator = np.zeros((real.LINKS, len(real.GENRES)), bool)
    indicator[recorded] = _genres(rng, real.expected_ratings()[recorded])
    titles = [_title(int(rank), int(tmdb)) for rank, tmdb in zip(ranks, tmdb_ids, strict=True)]
    return Films(movie_ids, tmdb_ids, recorded, indicator, titles)


def _movie_ids(rng: np.random.Generator) -> NDArray[np.int64]:
    low = rng.permutation(np.arange(1, _LOW_IDS))[: int(0.93 * _LOW_IDS)]
    known = np.array([movie for movie, *_ in _KNOWN.values()])
    high = rng.permutation(np.arange(_LOW_IDS, real.LARGEST_MOVIE_ID + 1))
    pool = np.union1d(low, known)
    pool = np.sort(np.concatenate([pool, high[: real.LINKS - len(pool)]]))
    # Films that entered MovieLens early have low ids and many ratings.
    order = np.argsort(np.log1p(np.arange(real.LINKS)) + 1.2 * _normal(rng, real.LINKS))
    ids = np.empty(real.LINKS, np.int64)
    ids[order] = pool
    for rank, (movie, *_) in _KNOWN.items():
        at = int(np.flatnonzero(ids == movie)[0])
        ids[[rank, at]] = ids[[at, rank]]
    return ids


def _tmdb_ids(
    rng: np.random.Generator, movie_ids: NDArray[np.int64], recorded: NDArray[np.bool_]
) -> NDArray[np.int64]:
    wanted = [tmdb for _, tmdb, *_ in _KNOWN.values()] + list(_MISTAKEN)
    low = rng.permutation(np.arange(2, _LOW_IDS))[: int(_LOW_TMDB_SHARE * _LOW_IDS)]
    high = rng.permutation(np.arange(_LOW_IDS, real.LARGEST_TMDB_ID + 1))
    pool = np.union1d(low, wanted)
    pool = rng.permutation(np.concatenate([pool, high[: real.LINKS - len(pool)]]))
    # Ids in use by records must include the wanted ones: they go to well-rated films.
    for place, tmdb in enumerate(wanted):
        at = int(np.flatnonzero(pool == tmdb)[0])
        pool[[place, at]] = pool[[at, place]]
    clash = np.flatnonzero(pool == movie_ids)
    if len(clash):
        others = clash[clash >= len(wanted)]
        pool[others] = np.roll(pool[others], 1) if len(others) > 1 else pool[others] + 500_000
    assert recorded[: len(wanted)].all()
    return pool


def _genres(rng: np.random.Generator, expected: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Give each genre exactly its number of titles, leaning to popular films as measured."""
    n, names = len(expected), list(real.GENRES)
    chosen = np.zeros((n, len(names)), bool)
    fixed = {rank: genres for rank, (*_, genres) in _KNOWN.items()}
    bare = np.zeros(n, bool)
    bare[rng.choice(np.arange(n // 20, n), real.WITHOUT_GENRE, replace=False)] = True
    log_expected = np.log(expected)
    for g, (name, (_, titles, lean, _)) in enumerate(real.GENRES.items()):
        # Gumbel keys: the largest are a weighted draw without replacement (Vieira 2014).
        keys = lean * log_expected - np.log(-np.log(rng.random(n)))
        keys[bare] = -np.inf
        for rank, genres in fixed.items():
            keys[rank] = np.inf if name in genres else -np.inf
        # Duplicate records are of Drama alone, and the counts are counts of records.
        count = titles - (real.DUPLICATES if name == "Drama" else 0)
        chosen[np.argpartition(-keys, count)[:count], g] = True
    _hand_on(chosen, bare)
    return chosen


def _hand_on(chosen: NDArray[np.bool_], bare: NDArray[np.bool_]) -> None:
    """Let films with several genres hand one on to films of like popularity that got none."""
    counts = chosen.sum(axis=1)
    spare = np.where(counts >= 3, counts - 2, 0)
    spare[: len(_KNOWN)] = 0
    needy = np.flatnonzero((counts == 0) & ~bare)
    donors = np.repeat(np.arange(len(spare)), spare)
    if len(donors) < len(needy):
        raise AssertionError("more films without a genre than genres to spare")
    pairs = donors[np.linspace(0, len(donors) - 1, len(needy)).astype(np.int64)]
    for giver, taker in zip(pairs, needy, strict=True):
        genre = np.flatnonzero(chosen[giver])[taker % int(chosen[giver].sum())]
        chosen[giver, genre] = False
        chosen[taker, genre] = True


def _normal(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return np.asarray((rng.random((4, n)).sum(axis=0) - 2.0) * np.sqrt(3.0))


def _title(rank: int, tmdb: int) -> str:
    if rank in _KNOWN:
        return _KNOWN[rank][2]
    if tmdb in _MISTAKEN:
        return _MISTAKEN[tmdb]
    first, second = _FIRST[rank % 20], _SECOND[rank // 20 % 20]
    part = rank // 400
    return f"The {first} {second}" + (f" {part + 1}" if part else "")


def links_csv(films: Films) -> bytes:
    """Return ``links.csv``, by movieId."""
    order = np.argsort(films.movie_ids)
    lines = ["movieId,imdbId,tmdbId"]
    for at in order:
        tmdb = films.tmdb_ids[at]
        lines.append(f"{films.movie_ids[at]},{_imdb(at)},{tmdb or ''}")
    return ("\n".join(lines) + "\n").encode()


def metadata_csv(films: Films, seed: int) -> bytes:
    """Return ``movies_metadata.csv`` with torn, duplicate and genreless records."""
    rng = np.random.default_rng([seed, 2])
    order = rng.permutation(np.flatnonzero(films.recorded))
    plain = np.zeros(films.indicator.shape[1], bool)
    plain[list(real.GENRES).index("Drama")] = True
    drama_only = np.flatnonzero((films.indicator == plain).all(axis=1))
    twice = set(rng.choice(drama_only[len(_KNOWN) :], real.DUPLICATES, replace=False).tolist())
    ordinary = order[(order >= len(_KNOWN)) & ~np.isin(order, list(twice))]
    torn = set(rng.choice(ordinary, real.MALFORMED, replace=False).tolist())
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    again: list[list[str]] = []
    for at in order:
        rank = int(at)
        row = _record(films, rank)
        if rank in torn:
            # As in the real file: a newline within the overview ended the record.
            head, tail = row[:10], row[9:]
            writer.writerow(head)
            writer.writerow([" - retold from the other side", *_companies(rank, tail)])
        else:
            writer.writerow(row)
        if rank in twice:
            again.append(row)
        elif again and rank % 97 == 0:
            writer.writerow(again.pop())
    writer.writerows(again)
    return out.getvalue().encode()


def _companies(rank: int, tail: list[str]) -> Iterator[str]:
    """Yield the rest of a torn record: production companies come to stand under `genres`."""
    yield from tail[1:3]
    yield str([{"name": _STUDIOS[rank % 5], "id": 10_000 + rank % 5}])
    yield from tail[4:]


def _record(films: Films, rank: int) -> list[str]:
    tmdb = int(films.tmdb_ids[rank])
    title = films.titles[rank]
    genres = [
        {"id": tmdb_genre, "name": name}
        for (name, (tmdb_genre, *_)), has in zip(
            real.GENRES.items(), films.indicator[rank], strict=True
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
        f"tt{_imdb(rank)}",
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


def _imdb(rank: int) -> str:
    return f"{(int(rank) * 48_271) % 9_999_991:07d}"
