"""Figures of the real data set that the synthetic one reproduces.

Counts come from ``ratings.csv``, ``links.csv`` and ``movies_metadata.csv`` in version 7 of
``rounakbanik/the-movies-dataset``. Each genre's share of the ratings, which sets how strongly its
titles lean towards popular movies, was measured on the 100,004 real ratings of
``ratings_small.csv``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from segmentation.schema import KAGGLE_GENRES

ROWS = 26_024_289
USERS = 270_896
MAX_RATINGS_PER_USER = 18_276

#: Numbers of ratings with 0.5, 1, …, 5 stars at full size; they add up to ROWS.
HALF_STARS = (
    404_897,
    843_310,
    403_607,
    1_762_440,
    1_255_358,
    5_256_722,
    3_116_213,
    6_998_802,
    2_170_441,
    3_812_499,
)

LINKS = 45_843
LINKS_WITHOUT_TMDB = 219
RECORDS = 45_466
MALFORMED = 3
DUPLICATES = 30
WITHOUT_GENRE = 2_442
#: Distinct movies. RECORDS counts both halves of a torn record, and duplicates.
MOVIES = RECORDS - MALFORMED - DUPLICATES
MAX_MOVIE_ID = 176_275
MAX_TMDB_ID = 469_172

#: Ratings of the three most rated movies: Forrest Gump, Shawshank Redemption, Pulp Fiction.
TOP_RATINGS = (91_921, 91_082, 87_901)
#: The other movies follow a stretched exponential of their rank. Its power and its scale, in
#: ranks, were chosen so that ratings add up to ROWS and 45,115 movies have at least one.
POPULARITY_TOP, POPULARITY_POWER, POPULARITY_RANKS = 87_000.0, 0.3652, 68.37

#: Minimum, quartiles and maximum of the timestamps, in seconds since 1970.
TIMESTAMPS = (789_652_009, 990_754_500, 1_151_716_000, 1_357_578_000, 1_501_829_870)

#: genre → (TMDB id, number of titles, lean, offset of its mean rating). The lean is the exponent of
#: popularity in the weight of a title; it gives the genre its measured share of the ratings.
GENRES: dict[str, tuple[int, int, float, float]] = {
    "Action": (28, 6_596, 0.12, -0.12),
    "Adventure": (12, 3_496, 0.26, -0.07),
    "Animation": (16, 1_935, 0.07, 0.09),
    "Comedy": (35, 13_182, 0.07, -0.12),
    "Crime": (80, 4_307, 0.12, 0.08),
    "Documentary": (99, 3_932, -0.37, 0.29),
    "Drama": (18, 20_265, 0.03, 0.13),
    "Family": (10751, 2_770, 0.15, -0.07),
    "Fantasy": (14, 2_313, 0.19, -0.09),
    "Foreign": (10769, 1_622, -0.61, 0.26),
    "History": (36, 1_398, 0.09, 0.31),
    "Horror": (27, 4_673, -0.12, -0.29),
    "Music": (10402, 1_598, 0.01, 0.03),
    "Mystery": (9648, 2_467, 0.12, 0.05),
    "Romance": (10749, 6_735, 0.05, -0.02),
    "Science Fiction": (878, 3_049, 0.17, -0.12),
    "TV Movie": (10770, 767, -0.72, -0.16),
    "Thriller": (53, 7_624, 0.10, -0.03),
    "War": (10752, 1_323, 0.07, 0.25),
    "Western": (37, 1_042, -0.09, 0.02),
}


@dataclass(frozen=True)
class PlantedSegment:
    """A planted segment: how many movies its users rate, which genres they watch and like.

    Parameters
    ----------
    name
        The persona.
    share
        Share of the users.
    median, spread
        Ratings per user are lognormal with this median and standard deviation of the logarithm,
        before they are scaled to the number of rows.
    satisfaction
        Shift of all the segment's scores.
    viewing
        Genre → factor on the weight with which a user of the segment draws one of its movies.
    liking
        Genre → shift of the scores of its movies. Scores become stars by rank.
    """

    name: str
    share: float
    median: float
    spread: float
    satisfaction: float
    viewing: dict[str, float] = field(default_factory=dict)
    liking: dict[str, float] = field(default_factory=dict)


SEGMENTS = (
    PlantedSegment(
        "Quiet Viewers",
        0.26,
        9.3,
        0.65,
        -0.55,
        {"Action": 1.3, "Comedy": 1.2},
        {"Drama": -0.2, "Romance": -0.2},
    ),
    PlantedSegment(
        "New Explorers",
        0.26,
        21.8,
        0.55,
        -0.05,
        {"Drama": 1.5, "Thriller": 1.5, "Comedy": 1.3, "Animation": 0.6, "Western": 0.5},
        {"Drama": 0.3, "Thriller": 0.3, "Comedy": 0.2, "Horror": -0.3},
    ),
    PlantedSegment(
        "Expanding Enthusiasts",
        0.22,
        43.5,
        0.55,
        0.10,
        {"Romance": 1.5, "Drama": 1.3, "Action": 1.2, "War": 0.7},
        {"Romance": 0.3, "Drama": 0.2, "Horror": -0.2},
    ),
    PlantedSegment(
        "Loyalists",
        0.18,
        145.0,
        0.55,
        0.10,
        {"TV Movie": 0.4, "Foreign": 0.4, "Western": 0.5, "Animation": 0.5},
        {"Animation": -0.4, "Western": -0.3, "Crime": 0.2},
    ),
    PlantedSegment(
        "Premium Loyalists",
        0.08,
        393.0,
        0.85,
        0.15,
        {"Foreign": 2.0, "Documentary": 2.0, "Western": 1.5, "TV Movie": 2.0},
        {"Documentary": 0.2, "Foreign": 0.2},
    ),
)


def expected_ratings() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the expected number of ratings of each linked movie at full size.

    The array has shape (LINKS,) and is in descending order.
    """
    ranks = np.arange(LINKS)
    expected = POPULARITY_TOP * np.exp(-((ranks / POPULARITY_RANKS) ** POPULARITY_POWER))
    expected[: len(TOP_RATINGS)] = TOP_RATINGS
    return expected


assert tuple(GENRES) == KAGGLE_GENRES
