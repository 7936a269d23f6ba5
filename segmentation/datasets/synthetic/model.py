"""Plan a data set: users, their segments and numbers of ratings, and the tables to draw from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segmentation.datasets.synthetic import calibration, kernels
from segmentation.datasets.synthetic.catalogue import Movies, draw_catalogue, draw_normal

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Minimum number of users per group, or all users; the ratings of a group are drawn and fitted to
#: the histogram together. The output depends on it, so it is the same on every machine.
_MIN_GROUP_USERS = 4_096

#: Number of quantiles that represent each segment's ratings per user in the calibration.
_QUANTILES = 12
#: From this popularity rank on, the calibration handles movies in bins of ``_TAIL_STEP``.
_TAIL_START, _TAIL_STEP = 3_000, 64
_ITERATIONS = 60


@dataclass(frozen=True)
class MovieTables:
    """The tables by which workers draw and score ratings; the most popular movies come first.

    ``movie_ids`` has shape (LINKS,). ``offsets`` and ``codes`` hold the genres as compressed rows:
    movie ``i`` has ``codes[offsets[i] : offsets[i + 1]]``. ``weights`` and ``appeal``, of shape
    (n_segments, LINKS), are how likely users of a planted segment rate a movie, and how well they
    like it.
    ``alias_share`` and ``alias_other`` are alias tables that sample from ``weights``.
    """

    movie_ids: NDArray[np.int64]
    offsets: NDArray[np.int32]
    codes: NDArray[np.int32]
    weights: NDArray[np.float64]
    alias_share: NDArray[np.float64]
    alias_other: NDArray[np.int32]
    appeal: NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """The plan of a data set.

    ``segments`` and ``counts``, of shape (n_users,), are each user's planted segment and number of
    ratings. ``first_users`` and ``first_rows``, of shape (n_groups + 1,), are the numbers of users
    and of rows before each group of users.
    """

    rows: int
    seed: int
    movies: Movies
    tables: MovieTables
    segments: NDArray[np.int8]
    counts: NDArray[np.int64]
    first_users: NDArray[np.int64]
    first_rows: NDArray[np.int64]

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.counts)

    @property
    def groups(self) -> int:
        """Number of groups of users."""
        return len(self.first_users) - 1


def make_plan(rows: int, seed: int) -> Plan:
    """Plan a data set of exactly ``rows`` ratings; it depends on ``rows`` and ``seed`` only."""
    movies = draw_catalogue(seed)
    rng = np.random.default_rng([seed, 3])
    users = max(1, round(rows * calibration.USERS / calibration.ROWS))
    shares = np.cumsum([segment.share for segment in calibration.SEGMENTS])
    segments = np.searchsorted(shares[:-1], rng.random(users), side="right").astype(np.int8)
    counts = _draw_counts(rng, segments, rows)
    groups = max(1, users // _MIN_GROUP_USERS)
    first_users = users * np.arange(groups + 1) // groups
    first_rows = np.concatenate([[0], np.cumsum(counts)])[first_users]
    return Plan(
        rows,
        seed,
        movies,
        _draw_movie_tables(movies, rng),
        segments,
        counts,
        first_users,
        first_rows,
    )


def _draw_counts(
    rng: np.random.Generator, segments: NDArray[np.int8], rows: int
) -> NDArray[np.int64]:
    """Draw each user's number of ratings; they add up to ``rows``."""
    from scipy.special import ndtri

    medians = np.array([segment.median for segment in calibration.SEGMENTS])[segments]
    spreads = np.array([segment.spread for segment in calibration.SEGMENTS])[segments]
    draws = medians * np.exp(spreads * ndtri(1.0 - rng.random(len(segments))))
    max_count = calibration.MAX_RATINGS_PER_USER
    counts = np.clip(np.rint(draws * (rows / draws.sum())), 1, max_count).astype(np.int64)
    if rows >= calibration.ROWS:
        counts[np.argmax(counts)] = max_count
    # Rounding and clipping change the sum: spread the difference over users within the bounds.
    while (rest := rows - int(counts.sum())) != 0:
        users = np.flatnonzero(
            (counts > 1) & (counts < max_count) if rest < 0 else counts < max_count - 1
        )
        if len(users) == 0:
            users = np.flatnonzero(counts > 1 if rest < 0 else counts < max_count)
        chosen = users[rng.permutation(len(users))[: abs(rest)]]
        counts[chosen] += np.sign(rest)
    return np.asarray(counts)


def _draw_movie_tables(movies: Movies, rng: np.random.Generator) -> MovieTables:
    """Draw the movies' quality; derive weights and appeal per planted segment and movie."""
    tilt = np.ones((len(calibration.SEGMENTS), calibration.LINKS))
    liking = np.zeros((len(calibration.SEGMENTS), calibration.LINKS))
    names = list(calibration.GENRES)
    breadth = np.maximum(movies.indicator.sum(axis=1), 1)
    for s, segment in enumerate(calibration.SEGMENTS):
        for name, factor in segment.viewing.items():
            has_genre = movies.indicator[:, names.index(name)]
            tilt[s] *= np.where(has_genre, factor ** (1.0 / np.sqrt(breadth)), 1.0)
        for name, shift in segment.liking.items():
            liking[s] += np.where(movies.indicator[:, names.index(name)], shift, 0.0)
        liking[s] += segment.satisfaction
    weights = _calibrate_weights(tilt)
    offset = np.array([genre[3] for genre in calibration.GENRES.values()])
    quality = movies.indicator @ offset / breadth + 0.40 * draw_normal(rng, calibration.LINKS)
    # Popular movies get higher ratings.
    quality += 0.08 * (np.log(calibration.expected_ratings()) - np.log(1_000.0)) / 2.0
    _, codes = np.nonzero(movies.indicator)
    tables = [kernels.build_alias_table(row) for row in weights]
    return MovieTables(
        movies.movie_ids,
        np.concatenate([[0], np.cumsum(movies.indicator.sum(axis=1))]).astype(np.int32),
        codes.astype(np.int32),
        weights,
        np.array([share for share, _ in tables]),
        np.array([other for _, other in tables]),
        quality[None] + liking,
    )


def _calibrate_weights(tilt: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find weights that give each movie its real number of ratings in expectation.

    A user who draws ``n`` distinct movies draws movie ``i`` with a probability of about
    ``1 − exp(−t·w_i)``, where ``t`` makes the probabilities add up to ``n``. Heavy users draw the
    popular movies almost surely, so weights proportional to popularity would be too flat. Each
    iteration updates ``t``, then ``w``. The tail, whose probabilities are nearly linear in ``w``,
    is handled in bins of 64 movies.

    Parameters
    ----------
    tilt
        Factor on each movie's weight in each segment, of shape (n_segments, LINKS).

    Returns
    -------
    ndarray of shape (n_segments, LINKS)
    """
    from scipy.special import ndtri

    expected = calibration.expected_ratings() / calibration.USERS
    starts = np.concatenate(
        [np.arange(_TAIL_START), np.arange(_TAIL_START, calibration.LINKS, _TAIL_STEP)]
    )
    sizes = np.diff(starts, append=calibration.LINKS)
    target = np.add.reduceat(expected, starts) / sizes
    lean = np.add.reduceat(tilt, starts, axis=1) / sizes
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    drawn = np.array([s.median * np.exp(s.spread * ndtri(quantiles)) for s in calibration.SEGMENTS])
    drawn *= np.array([s.share for s in calibration.SEGMENTS])[:, None] / _QUANTILES
    drawn *= expected.sum() / drawn.sum()
    share = np.array([s.share for s in calibration.SEGMENTS])[:, None] / _QUANTILES
    n_movies = drawn / share
    weight = target.copy()
    pull = n_movies / target.sum()
    for _ in range(_ITERATIONS):
        heaviness = lean * weight
        missed = np.exp(-pull[:, :, None] * heaviness[:, None, :])
        chance = 1.0 - missed
        expected_n = (chance * sizes).sum(axis=2)
        slope = (missed * heaviness[:, None, :] * sizes).sum(axis=2)
        pull = np.maximum(pull + (n_movies - expected_n) / slope, pull / 4)
        weight *= target / (share[:, :, None] * chance).sum(axis=(0, 1))
    base = np.repeat(weight / target, sizes) * expected
    return np.asarray(tilt * base)
