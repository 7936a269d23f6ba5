"""Who rates how many films, which films, and how they are judged: all that rows follow from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segmentation.datasets.synthetic import calibration as real
from segmentation.datasets.synthetic import kernels
from segmentation.datasets.synthetic.catalogue import Films, make_films

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Users whose ratings are drawn and fitted to the histogram together. It is part of what the
#: bytes hang on, so it does not follow from the machine.
GROUP_USERS = 4_096

_QUANTILES = 12
_TAIL_FROM, _TAIL_STEP = 3_000, 64
_ROUNDS = 60


@dataclass(frozen=True)
class FilmTables:
    """What a worker needs of the films; arrays run by popularity rank.

    ``weights`` and ``appeal`` have shape (n_segments, LINKS): how likely and how well liked a
    film is in a planted segment. ``alias_share`` and ``alias_other`` sample from ``weights``.
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
    """A data set before it is written.

    ``segments`` (int8) and ``counts`` (int64) have shape (n_users,); ``first_rows`` the number of
    rows before each group of users, of shape (n_groups + 1,).
    """

    rows: int
    seed: int
    films: Films
    tables: FilmTables
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
    """Plan a data set of exactly ``rows`` ratings; it hangs on ``rows`` and ``seed`` alone."""
    films = make_films(seed)
    rng = np.random.default_rng([seed, 3])
    users = max(1, round(rows * real.USERS / real.ROWS))
    shares = np.cumsum([segment.share for segment in real.SEGMENTS])
    segments = np.searchsorted(shares[:-1], rng.random(users), side="right").astype(np.int8)
    counts = _counts(rng, segments, rows)
    groups = max(1, users // GROUP_USERS)
    first_users = users * np.arange(groups + 1) // groups
    first_rows = np.concatenate([[0], np.cumsum(counts)])[first_users]
    return Plan(rows, seed, films, _tables(films, rng), segments, counts, first_users, first_rows)


def _counts(rng: np.random.Generator, segments: NDArray[np.int8], rows: int) -> NDArray[np.int64]:
    from scipy.special import ndtri

    medians = np.array([segment.median for segment in real.SEGMENTS])[segments]
    spreads = np.array([segment.spread for segment in real.SEGMENTS])[segments]
    draws = medians * np.exp(spreads * ndtri(1.0 - rng.random(len(segments))))
    most = real.MOST_RATINGS_OF_A_USER
    counts = np.clip(np.rint(draws * (rows / draws.sum())), 1, most).astype(np.int64)
    if rows >= real.ROWS:
        counts[np.argmax(counts)] = most
    # What rounding and clipping left over is spread over users that can take it.
    while (rest := rows - int(counts.sum())) != 0:
        able = np.flatnonzero((counts > 1) & (counts < most) if rest < 0 else counts < most - 1)
        if len(able) == 0:
            able = np.flatnonzero(counts > 1 if rest < 0 else counts < most)
        chosen = able[rng.permutation(len(able))[: abs(rest)]]
        counts[chosen] += np.sign(rest)
    return np.asarray(counts)


def _tables(films: Films, rng: np.random.Generator) -> FilmTables:
    tilt = np.ones((len(real.SEGMENTS), real.LINKS))
    liking = np.zeros((len(real.SEGMENTS), real.LINKS))
    names = list(real.GENRES)
    breadth = np.maximum(films.indicator.sum(axis=1), 1)
    for s, segment in enumerate(real.SEGMENTS):
        for name, factor in segment.viewing.items():
            has = films.indicator[:, names.index(name)]
            tilt[s] *= np.where(has, factor ** (1.0 / np.sqrt(breadth)), 1.0)
        for name, shift in segment.liking.items():
            liking[s] += np.where(films.indicator[:, names.index(name)], shift, 0.0)
        liking[s] += segment.satisfaction
    weights = _calibrate(tilt)
    offset = np.array([genre[3] for genre in real.GENRES.values()])
    quality = films.indicator @ offset / breadth + 0.40 * _bell(rng, real.LINKS)
    # Films that many rate are rated somewhat higher.
    quality += 0.08 * (np.log(real.expected_ratings()) - np.log(1_000.0)) / 2.0
    flat = np.nonzero(films.indicator)
    tables = [kernels.alias_table(row) for row in weights]
    return FilmTables(
        films.movie_ids,
        np.concatenate([[0], np.cumsum(films.indicator.sum(axis=1))]).astype(np.int32),
        flat[1].astype(np.int32),
        weights,
        np.array([share for share, _ in tables]),
        np.array([other for _, other in tables]),
        quality[None] + liking,
    )


def _calibrate(tilt: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find weights under which films are expected to get their real numbers of ratings.

    A user who draws ``n`` distinct films gets film ``f`` with a chance of about
    ``1 − exp(−t·w_f)``, where ``t`` makes the chances add up to ``n``. Heavy users have seen the
    popular films anyway, so popularity itself would be too flat a weight. ``t`` and ``w`` are
    improved in turn; tail films, whose chances are nearly linear, are handled 64 at a time.
    """
    from scipy.special import ndtri

    expected = real.expected_ratings() / real.USERS
    starts = np.concatenate([np.arange(_TAIL_FROM), np.arange(_TAIL_FROM, real.LINKS, _TAIL_STEP)])
    sizes = np.diff(starts, append=real.LINKS)
    target = np.add.reduceat(expected, starts) / sizes
    lean = np.add.reduceat(tilt, starts, axis=1) / sizes
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    drawn = np.array([s.median * np.exp(s.spread * ndtri(quantiles)) for s in real.SEGMENTS])
    drawn *= np.array([s.share for s in real.SEGMENTS])[:, None] / _QUANTILES
    drawn *= expected.sum() / drawn.sum()
    share = np.array([s.share for s in real.SEGMENTS])[:, None] / _QUANTILES
    wanted = drawn / share
    weight = target.copy()
    pull = wanted / target.sum()
    for _ in range(_ROUNDS):
        heaviness = lean * weight
        missed = np.exp(-pull[:, :, None] * heaviness[:, None, :])
        chance = 1.0 - missed
        films = (chance * sizes).sum(axis=2)
        slope = (missed * heaviness[:, None, :] * sizes).sum(axis=2)
        pull = np.maximum(pull + (wanted - films) / slope, pull / 4)
        weight *= target / (share[:, :, None] * chance).sum(axis=(0, 1))
    base = np.repeat(weight / target, sizes) * expected
    return np.asarray(tilt * base)


def _bell(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return np.asarray((rng.random((4, n)).sum(axis=0) - 2.0) * np.sqrt(3.0))
