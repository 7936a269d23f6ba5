"""Compiled loops of the generator. Every random number is a function of (seed, user)."""

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

#: From this many films on, all films race; below, films are drawn until enough are distinct.
HEAVY = 1_500


@_compiled  # type: ignore[untyped-decorator]
def _mix(state: np.uint64) -> np.uint64:
    """Scramble a counter: the output function of SplitMix64 (Steele, Lea & Flood 2014)."""
    z = state
    z = (z ^ (z >> _S30)) * _MIX1
    z = (z ^ (z >> _S27)) * _MIX2
    return z ^ (z >> _S31)


@_compiled  # type: ignore[untyped-decorator]
def _unit(bits: np.uint64) -> float:
    return float(bits >> _S11) * _TO_UNIT


@_compiled  # type: ignore[untyped-decorator]
def _bell(state: np.uint64) -> float:
    """Return a nearly normal number (Irwin–Hall of four), exact on every machine."""
    total = 0.0
    for i in range(4):
        total += _unit(_mix(state + np.uint64(i + 1) * _GOLDEN))
    return (total - 2.0) * 1.7320508075688772


@_compiled  # type: ignore[untyped-decorator]
def draw_films(
    seed: np.uint64,
    first_user: int,
    segments: NDArray[np.int8],
    counts: NDArray[np.int64],
    alias_share: NDArray[np.float64],
    alias_other: NDArray[np.int32],
    weights: NDArray[np.float64],
    films: NDArray[np.int32],
) -> None:
    """Draw each user's distinct films, likelier the heavier their weight, in place.

    Drawing until enough are distinct and letting all films race (the smallest of
    ``exponential / weight``, Efraimidis & Spirakis 2006) are the same distribution.

    Parameters
    ----------
    first_user
        Number of the first user of this group; users count on from it.
    segments, counts
        Planted segment and number of films a user; shape (n_users,).
    alias_share, alias_other, weights
        A segment's alias table (Walker 1977) and its plain weights; (n_segments, n_films).
    films
        Output: film numbers, a user's together; shape (sum(counts),).
    """
    n_films = weights.shape[1]
    taken = np.full(n_films, -1, np.int64)
    keys = np.empty(n_films)
    at = 0
    for u in range(len(counts)):
        state = _mix(seed + np.uint64(first_user + u + 1) * _GOLDEN)
        segment = segments[u]
        count = counts[u]
        if count >= HEAVY:
            for f in range(n_films):
                state += _GOLDEN
                keys[f] = -np.log(1.0 - _unit(_mix(state))) / weights[segment, f]
            chosen = np.argsort(keys)[:count]
            for i in range(count):
                films[at + i] = chosen[i]
        else:
            found = 0
            while found < count:
                state += _GOLDEN
                place = _unit(_mix(state)) * n_films
                f = int(place)
                if place - f >= alias_share[segment, f]:
                    f = alias_other[segment, f]
                if taken[f] != u:
                    taken[f] = u
                    films[at + found] = f
                    found += 1
        at += count


@_compiled  # type: ignore[untyped-decorator]
def judge(
    seed: np.uint64,
    first_user: int,
    segments: NDArray[np.int8],
    counts: NDArray[np.int64],
    films: NDArray[np.int32],
    appeal: NDArray[np.float64],
    offsets: NDArray[np.int32],
    codes: NDArray[np.int32],
    n_genres: int,
    scores: NDArray[np.float64],
) -> None:
    """Score each rating: the user's mildness and taste, the film's appeal, and chance.

    ``appeal`` has shape (n_segments, n_films); ``scores`` is the output, one a film of ``films``.
    """
    at = 0
    taste = np.empty(n_genres)
    for u in range(len(counts)):
        state = _mix((seed ^ _MIX1) + np.uint64(first_user + u + 1) * _GOLDEN)
        mild = 0.40 * _bell(state)
        for g in range(n_genres):
            state += _MIX2
            taste[g] = 0.25 * _bell(state)
        for i in range(at, at + counts[u]):
            state += _MIX2
            film = films[i]
            score = appeal[segments[u], film] + mild + 0.75 * _bell(state)
            for j in range(offsets[film], offsets[film + 1]):
                score += taste[codes[j]]
            scores[i] = score
        at += counts[u]


@_compiled  # type: ignore[untyped-decorator]
def stamp(
    seed: np.uint64,
    first_user: int,
    counts: NDArray[np.int64],
    quartiles: NDArray[np.int64],
    stamps: NDArray[np.int64],
) -> None:
    """Give each user a first day by the quartiles and spread the ratings over its sessions."""
    at = 0
    parts = len(quartiles) - 1
    last = quartiles[parts]
    for u in range(len(counts)):
        state = _mix((seed ^ _MIX2) + np.uint64(first_user + u + 1) * _GOLDEN)
        place = _unit(_mix(state)) * parts
        part = int(place)
        low, high = quartiles[part], quartiles[part + 1]
        begin = low + int((place - part) * (high - low))
        for i in range(at, at + counts[u]):
            state += _GOLDEN
            late = _unit(_mix(state))
            # Half a minute a film, and a session now and then for those who rate many.
            spread = counts[u] * 30.0 * (1.0 + counts[u] / 50.0)
            stamps[i] = min(last, begin + int(late * late * spread))
        at += counts[u]


@_compiled  # type: ignore[untyped-decorator]
def _digits(out: NDArray[np.uint8], at: int, value: int) -> int:
    length = 1
    rest = value // 10
    while rest > 0:
        rest //= 10
        length += 1
    for i in range(length - 1, -1, -1):
        out[at + i] = 48 + value % 10
        value //= 10
    return at + length


@_compiled  # type: ignore[untyped-decorator]
def write_rows(
    first_user: int,
    counts: NDArray[np.int64],
    movie_ids: NDArray[np.int64],
    half_stars: NDArray[np.int8],
    stamps: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> int:
    """Write ``userId,movieId,rating,timestamp`` lines; return how many bytes they took.

    Users are numbered from ``first_user + 1``; ``half_stars`` counts halves, 1 to 10.
    """
    at = 0
    row = 0
    for u in range(len(counts)):
        for _ in range(counts[u]):
            at = _digits(out, at, first_user + u + 1)
            out[at] = 44
            at = _digits(out, at + 1, movie_ids[row])
            out[at] = 44
            out[at + 1] = 48 + half_stars[row] // 2
            out[at + 2] = 46
            out[at + 3] = 53 if half_stars[row] % 2 else 48
            out[at + 4] = 44
            at = _digits(out, at + 5, stamps[row])
            out[at] = 10
            at += 1
            row += 1
    return at


#: Bytes that a line takes at most: three ids of 19 digits, the stars and the punctuation.
LINE_BYTES = 64


def alias_table(weights: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Build Walker's alias table (1977) of one row of weights, by Vose's method (1991)."""
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
