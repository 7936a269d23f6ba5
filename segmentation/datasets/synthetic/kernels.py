"""Compiled loops of the generator; the random numbers of a user depend on seed and user only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_compiled = njit(nogil=True, cache=True)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_TO_UNIT = 1.0 / (1 << 53)

#: For users with at least this many movies, all movies are ranked by random keys; for the others,
#: movies are drawn until enough are distinct.
HEAVY_USER = 1_500


@_compiled  # type: ignore[untyped-decorator]
def _mix(state: np.uint64) -> np.uint64:
    """Scramble a counter: the output function of SplitMix64 (Steele, Lea & Flood 2014)."""
    z = state
    z = (z ^ (z >> _S30)) * _MIX1
    z = (z ^ (z >> _S27)) * _MIX2
    return z ^ (z >> _S31)


@_compiled  # type: ignore[untyped-decorator]
def _to_unit(bits: np.uint64) -> float:
    """Turn 64 random bits into a number in [0, 1)."""
    return float(bits >> _S11) * _TO_UNIT


@_compiled  # type: ignore[untyped-decorator]
def _normal(state: np.uint64) -> float:
    """Return an approximately standard normal number (Irwin–Hall, four terms).

    It uses no transcendental function, so it is the same on every machine.
    """
    total = 0.0
    for i in range(4):
        total += _to_unit(_mix(state + np.uint64(i + 1) * _GOLDEN))
    return (total - 2.0) * 1.7320508075688772


@_compiled  # type: ignore[untyped-decorator]
def draw_movies(
    seed: np.uint64,
    first_user: int,
    segments: NDArray[np.int8],
    counts: NDArray[np.int64],
    alias_share: NDArray[np.float64],
    alias_other: NDArray[np.int32],
    weights: NDArray[np.float64],
    movies: NDArray[np.int32],
) -> None:
    """Draw each user's movies without replacement, in proportion to their weights.

    For light users, movies are drawn with replacement and repeats are skipped. Heavy users get the
    movies with the smallest keys ``exponential / weight`` (Efraimidis and Spirakis 2006). Both
    methods have the same distribution.

    Parameters
    ----------
    first_user
        Index of the group's first user in the data set.
    segments, counts
        Planted segment and number of movies of each user, both of shape (n_users,).
    alias_share, alias_other, weights
        Alias tables (Walker 1977) and the weights that they sample from, each of shape
        (n_segments, n_movies).
    movies
        Output of shape (sum(counts),): indices of movies, user by user.
    """
    n_movies = weights.shape[1]
    taken = np.full(n_movies, -1, np.int64)
    keys = np.empty(n_movies)
    start = 0
    for u in range(len(counts)):
        state = _mix(seed + np.uint64(first_user + u + 1) * _GOLDEN)
        segment = segments[u]
        count = counts[u]
        if count >= HEAVY_USER:
            for movie in range(n_movies):
                state += _GOLDEN
                keys[movie] = -np.log(1.0 - _to_unit(_mix(state))) / weights[segment, movie]
            chosen = np.argsort(keys)[:count]
            for i in range(count):
                movies[start + i] = chosen[i]
        else:
            n_drawn = 0
            while n_drawn < count:
                state += _GOLDEN
                position = _to_unit(_mix(state)) * n_movies
                movie = int(position)
                if position - movie >= alias_share[segment, movie]:
                    movie = alias_other[segment, movie]
                if taken[movie] != u:
                    taken[movie] = u
                    movies[start + n_drawn] = movie
                    n_drawn += 1
        start += count


@_compiled  # type: ignore[untyped-decorator]
def score_ratings(
    seed: np.uint64,
    first_user: int,
    segments: NDArray[np.int8],
    counts: NDArray[np.int64],
    movies: NDArray[np.int32],
    appeal: NDArray[np.float64],
    offsets: NDArray[np.int32],
    codes: NDArray[np.int32],
    n_genres: int,
    scores: NDArray[np.float64],
) -> None:
    """Score each rating: the movie's appeal, the user's leniency and taste, and noise.

    Parameters
    ----------
    first_user, segments, counts, movies
        As in :func:`draw_movies`.
    appeal
        How well each segment likes each movie, of shape (n_segments, n_movies).
    offsets, codes
        Genres of each movie as compressed rows: movie ``i`` has
        ``codes[offsets[i] : offsets[i + 1]]``.
    n_genres
        Number of genres.
    scores
        Output of shape (sum(counts),).
    """
    start = 0
    taste = np.empty(n_genres)
    for u in range(len(counts)):
        state = _mix((seed ^ _MIX1) + np.uint64(first_user + u + 1) * _GOLDEN)
        leniency = 0.40 * _normal(state)
        for g in range(n_genres):
            state += _MIX2
            taste[g] = 0.25 * _normal(state)
        for i in range(start, start + counts[u]):
            state += _MIX2
            movie = movies[i]
            score = appeal[segments[u], movie] + leniency + 0.75 * _normal(state)
            for j in range(offsets[movie], offsets[movie + 1]):
                score += taste[codes[j]]
            scores[i] = score
        start += counts[u]


@_compiled  # type: ignore[untyped-decorator]
def draw_timestamps(
    seed: np.uint64,
    first_user: int,
    counts: NDArray[np.int64],
    quartiles: NDArray[np.int64],
    stamps: NDArray[np.int64],
) -> None:
    """Draw timestamps: a start per user, distributed by ``quartiles``, and ratings after it.

    ``quartiles`` are the bounds of equally likely intervals. ``stamps`` is the output, of shape
    (sum(counts),). Both are in seconds since 1970.
    """
    start = 0
    parts = len(quartiles) - 1
    last = quartiles[parts]
    for u in range(len(counts)):
        state = _mix((seed ^ _MIX2) + np.uint64(first_user + u + 1) * _GOLDEN)
        position = _to_unit(_mix(state)) * parts
        part = int(position)
        low, high = quartiles[part], quartiles[part + 1]
        first = low + int((position - part) * (high - low))
        for i in range(start, start + counts[u]):
            state += _GOLDEN
            delay = _to_unit(_mix(state))
            # 30 seconds per movie; users with many ratings take longer, in several sessions.
            spread = counts[u] * 30.0 * (1.0 + counts[u] / 50.0)
            stamps[i] = min(last, first + int(delay * delay * spread))
        start += counts[u]


@_compiled  # type: ignore[untyped-decorator]
def _write_integer(out: NDArray[np.uint8], start: int, value: int) -> int:
    """Write ``value`` in decimal digits from ``out[start]`` on; return the end."""
    length = 1
    rest = value // 10
    while rest > 0:
        rest //= 10
        length += 1
    for i in range(length - 1, -1, -1):
        out[start + i] = 48 + value % 10
        value //= 10
    return start + length


@_compiled  # type: ignore[untyped-decorator]
def format_rows(
    first_user: int,
    counts: NDArray[np.int64],
    movie_ids: NDArray[np.int64],
    half_stars: NDArray[np.int8],
    stamps: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> int:
    """Format ratings as ``userId,movieId,rating,timestamp`` lines; return the number of bytes.

    Parameters
    ----------
    first_user, counts
        As in :func:`draw_movies`; ids start at ``first_user + 1``.
    movie_ids, half_stars, stamps
        The ratings, each array of shape (sum(counts),); ``half_stars`` runs from 1 to 10.
    out
        Output of at least ``LINE_BYTES * sum(counts)`` bytes.
    """
    end = 0
    row = 0
    for u in range(len(counts)):
        for _ in range(counts[u]):
            end = _write_integer(out, end, first_user + u + 1)
            out[end] = 44
            end = _write_integer(out, end + 1, movie_ids[row])
            out[end] = 44
            out[end + 1] = 48 + half_stars[row] // 2
            out[end + 2] = 46
            out[end + 3] = 53 if half_stars[row] % 2 else 48
            out[end + 4] = 44
            end = _write_integer(out, end + 5, stamps[row])
            out[end] = 10
            end += 1
            row += 1
    return end


#: Upper bound of a line in bytes: three integers of 19 digits, the rating and the punctuation.
LINE_BYTES = 64


def build_alias_table(weights: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Build the alias table (Walker 1977) of an array of weights by Vose's method (1991).

    Returns
    -------
    share, other
        Both of shape (n,). To draw an index, take ``i`` uniformly, and keep it with probability
        ``share[i]``; otherwise take ``other[i]``.
    """
    n = len(weights)
    scaled = (weights * (n / weights.sum())).tolist()
    other = list(range(n))
    small = [i for i, w in enumerate(scaled) if w < 1.0]
    large = [i for i, w in enumerate(scaled) if w >= 1.0]
    while small and large:
        low, high = small.pop(), large.pop()
        other[low] = high
        scaled[high] -= 1.0 - scaled[low]
        (small if scaled[high] < 1.0 else large).append(high)
    for i in small + large:
        scaled[i] = 1.0
    return np.array(scaled), np.array(other, np.int32)
