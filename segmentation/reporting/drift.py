"""Drift: how far an audience has moved from the one that its segments were made from.

Each measure has a threshold from which the audience is to be watched, and one from which the
segments should be fitted again. Where a difference may as well be chance, it counts as none.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.reporting.text import format_table, join_names
from segmentation.schema import Words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from segmentation.schema import Grid, Moves, Population

#: The levels of a measure and of the verdict, the mildest first.
LEVELS = ("stable", "watch", "refit")
#: A difference that chance exceeds more rarely than this is taken for real. It is divided by the
#: number of comparisons of a measure (Bonferroni).
_SIGNIFICANCE = 1e-4
#: Cells of the grid are joined until one holds this share of the users.
_GROUP_SHARE = 0.1
#: A category's mean is compared if so many users have it, before and now.
_MIN_RATED = 100
#: With fewer users, now or before, no difference can be distinguished from chance.
_MIN_USERS = 100

_SIDDIQI = "Siddiqi (2006), Credit Risk Scorecards"
_STEINLEY = "Steinley (2004), Psychological Methods 9(3)"
_OWN = "this program's own"


@dataclass(frozen=True)
class Measure:
    """One measure of drift, and how it was judged.

    Parameters
    ----------
    name
        What it measures, as in :data:`_THRESHOLDS`.
    value
        Its largest value over the segments or categories; NaN if it can't be computed.
    where
        The segment or category with that value; empty if the measure is of the whole audience.
    level
        One of :data:`LEVELS`.
    watch, refit
        Its thresholds. The agreement of two clusterings falls with drift; all others rise.
    source
        Where the thresholds come from.
    """

    name: str
    value: float
    where: str
    level: str
    watch: float
    refit: float
    source: str


@dataclass(frozen=True)
class Drift:
    """The verdict on an audience, the measures behind it, and the movement between segments.

    ``moves`` is None where the movement was not counted.
    """

    verdict: str
    reason: str
    users_before: int
    users_now: int
    measures: tuple[Measure, ...]
    segments: tuple[dict[str, Any], ...]
    categories: tuple[dict[str, Any], ...]
    moves: Moves | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record for ``drift.json``."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "users": {"before": self.users_before, "now": self.users_now},
            "measures": [asdict(measure) for measure in self.measures],
            "segments": list(self.segments),
            "categories": list(self.categories),
            "movement": None if self.moves is None else self.moves._asdict(),
        }


#: Name → the thresholds of watch and refit, and their source.
_THRESHOLDS = {
    "segment_psi": (0.1, 0.25, _SIDDIQI),
    "segment_shift": (0.02, 0.15, _OWN),
    "category_psi": (0.1, 0.25, _SIDDIQI),
    "category_mean_shift": (0.05, 0.15, _OWN),
    "outliers": (0.02, 0.05, _OWN),
    "center_shift": (0.1, 0.25, _OWN),
    "moved": (0.1, 0.25, _OWN),
    "agreement": (0.9, 0.65, _STEINLEY),
}
#: Name → what it is, in words.
MEASURE_TEXTS = {
    "segment_psi": "population stability index of the segments' shares",
    "segment_shift": "share of users by which the segments' sizes differ",
    "category_psi": "largest population stability index of a category",
    "category_mean_shift": "largest shift of a category's mean, as a share of its range",
    "outliers": "share of users beyond the 99th percentile of their segment's distances",
    "center_shift": "largest move of a centre, as a share of the way to the next",
    "moved": "share of users who are in another segment than before",
    "agreement": "agreement of the old and the refitted segments (adjusted Rand index)",
}


def population_stability_index(before: NDArray[Any], now: NDArray[Any]) -> float:
    """Return the population stability index of two sets of counts over the same groups.

    Half a user is added to each group, so that an empty one does not make it infinite.

    Examples
    --------
    >>> round(population_stability_index(np.array([500, 500]), np.array([500, 500])), 3)
    0.0
    >>> round(population_stability_index(np.array([600, 400]), np.array([400, 600])), 3)
    0.162
    """
    p = (before + 0.5) / (before + 0.5).sum()
    q = (now + 0.5) / (now + 0.5).sum()
    return float(((q - p) * np.log(q / p)).sum())


def measure_drift(
    before: Population,
    now: Population,
    centers: NDArray[np.float64],
    grid: Grid,
    categories: Sequence[str],
    moves: Moves | None = None,
    agreement: float | None = None,
    words: Words | None = None,
) -> Drift:
    """Compare an audience with the one that the segments were made from.

    Parameters
    ----------
    before, now
        What was counted of each.
    centers
        The centres of the segments, of shape (n_segments, n_features).
    grid
        The cells that both were counted in.
    categories
        The names of the features.
    moves
        The movement of the users of both, if it was counted.
    agreement
        Adjusted Rand index of the old and the refitted segments, if there are any.
    words
        What the reason calls a category.
    """
    n_before, n_now = int(before.users.sum()), int(now.users.sum())
    psi = [_group_psi(b, n) for b, n in zip(before.cells, now.cells, strict=True)]
    shifts = [_mean_shift(b, n, grid) for b, n in zip(before.cells, now.cells, strict=True)]
    center_shifts = _center_shifts(before, now, centers)
    segment_names = [f"segment {s}" for s in range(len(centers))]
    moved = float("nan")
    if moves is not None and moves.flows.sum():
        n_shared = int(moves.flows.sum())
        moved = (n_shared - int(np.trace(moves.flows))) / n_shared
    measures = [
        _judge("segment_psi", *_segment_psi(before.users, now.users)),
        _judge("segment_shift", *_segment_shift(before.users, now.users)),
        _judge_largest("category_psi", psi, categories),
        _judge_largest("category_mean_shift", shifts, categories),
        _judge("outliers", *_outlier_share(before, now)),
        _judge_largest("center_shift", center_shifts, segment_names),
        _judge("moved", moved, True),
    ]
    if agreement is not None:
        measures.append(_judge("agreement", agreement, True))
    if min(n_before, n_now) < _MIN_USERS:
        measures = [replace(measure, level=LEVELS[0]) for measure in measures]
    verdict = max((measure.level for measure in measures), key=LEVELS.index)
    return Drift(
        verdict,
        _explain(verdict, measures, n_now, words or Words()),
        n_before,
        n_now,
        tuple(measures),
        tuple(
            {
                "segment": s,
                "users_before": int(before.users[s]),
                "users": int(now.users[s]),
                "share_before": float(before.users[s] / max(n_before, 1)),
                "share": float(now.users[s] / max(n_now, 1)),
                "outliers": int(now.outliers[s]),
                "center_shift": center_shifts[s][0],
            }
            for s in range(len(centers))
        ),
        tuple(
            {"category": category, "psi": psi[g][0], "mean_shift": shifts[g][0]}
            for g, category in enumerate(categories)
        ),
        moves,
    )


def format_drift_table(drift: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the sizes of the segments, before and now, as a plain-text table.

    Parameters
    ----------
    drift
        What :meth:`Drift.to_json` returned.
    names
        The personas of the segments.
    """
    rows = [("#", "segment", "users before", "share", "users now", "share", "far from the centre")]
    for entry in drift["segments"]:
        n = entry["users"]
        rows.append(
            (
                str(entry["segment"]),
                names[entry["segment"]],
                f"{entry['users_before']:,}",
                f"{entry['share_before']:.1%}",
                f"{n:,}",
                f"{entry['share']:.1%}",
                f"{entry['outliers'] / n:.1%}" if n else "–",
            )
        )
    return "\n".join(format_table(rows, left={1}))


def _judge(name: str, value: float, is_real: bool, where: str = "") -> Measure:
    """Return a measure with its level: that of ``value`` if the difference is not chance."""
    watch, refit, source = _THRESHOLDS[name]
    falls = refit < watch
    level = "stable"
    if is_real and not math.isnan(value):
        passed = [value <= limit if falls else value >= limit for limit in (watch, refit)]
        level = LEVELS[sum(passed)]
    return Measure(name, value, where, level, watch, refit, source)


def _judge_largest(
    name: str, values: Sequence[tuple[float, float]], names: Sequence[str]
) -> Measure:
    """Judge the largest of several values, each with the probability that chance exceeds it.

    Real differences come before those that may be chance.
    """
    limit = _SIGNIFICANCE / max(len(values), 1)
    ranked = [(p < limit, value, i) for i, (value, p) in enumerate(values) if not math.isnan(value)]
    if not ranked:
        return _judge(name, float("nan"), False)
    is_real, value, i = max(ranked, key=lambda entry: (entry[0], entry[1]))
    return _judge(name, value, is_real, names[i])


def _segment_psi(before: NDArray[np.int64], now: NDArray[np.int64]) -> tuple[float, bool]:
    value = population_stability_index(before, now)
    return value, _psi_chance(value, before, now) < _SIGNIFICANCE


def _segment_shift(before: NDArray[np.int64], now: NDArray[np.int64]) -> tuple[float, bool]:
    """Return the share of users who would have to be in another segment for equal shares."""
    p, q = before / max(before.sum(), 1), now / max(now.sum(), 1)
    value = population_stability_index(before, now)
    return float(np.abs(p - q).sum() / 2), _psi_chance(value, before, now) < _SIGNIFICANCE


def _psi_chance(value: float, before: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """Return the probability that two samples of one audience differ by more than this index.

    The index of samples of n and m users, times n m / (n + m), has a chi-squared distribution with
    one degree of freedom less than there are groups (Yurdakul 2018).
    """
    from scipy.stats import chi2

    n, m = int(before.sum()), int(now.sum())
    groups = int(((before + now) > 0).sum())
    if not n or not m or groups < 2:
        return 1.0
    return float(chi2.sf(value * n * m / (n + m), groups - 1))


def _group_psi(before: NDArray[np.int64], now: NDArray[np.int64]) -> tuple[float, float]:
    """Return the index of one feature over groups of cells, and its probability by chance.

    Groups hold about a tenth of the users of ``before`` each. Zero stays by itself.
    """
    total = int(before.sum())
    groups, filled = [0], 0
    for count in before[1:].tolist():
        starts_group = len(groups) == 1 or filled >= _GROUP_SHARE * total
        groups.append(groups[-1] + 1 if starts_group else groups[-1])
        filled = count if starts_group else filled + count
    index = np.array(groups)
    # A last group that is nearly empty joins the one before.
    if 0 < filled < _GROUP_SHARE * total / 2 and index[-1] > 1:
        index[index == index[-1]] -= 1
    b, n = (np.bincount(index, counts) for counts in (before, now))
    value = population_stability_index(b, n)
    return value, _psi_chance(value, b, n)


def _mean_shift(
    before: NDArray[np.int64], now: NDArray[np.int64], grid: Grid
) -> tuple[float, float]:
    """Return how far the mean of those with the category moved, as a share of the range."""
    points = grid.midpoints[1:]
    (n, mean_before, var_before), (m, mean_now, var_now) = (
        _moments(counts[1:], points) for counts in (before, now)
    )
    if min(n, m) < _MIN_RATED:
        return float("nan"), 1.0
    difference = abs(mean_now - mean_before)
    return difference / (grid.high - grid.low), _normal_chance(
        difference, math.sqrt(var_before / n + var_now / m)
    )


def _moments(counts: NDArray[np.int64], points: NDArray[np.float64]) -> tuple[int, float, float]:
    n = int(counts.sum())
    if not n:
        return 0, float("nan"), float("nan")
    mean = float(counts @ points) / n
    return n, mean, float(counts @ (points - mean) ** 2) / n


def _normal_chance(difference: float, error: float) -> float:
    """Return the probability that chance gives a larger difference with this standard error."""
    if error == 0:
        return 0.0 if difference else 1.0
    return math.erfc(difference / error / math.sqrt(2))


def _outlier_share(before: Population, now: Population) -> tuple[float, bool]:
    """Return the share of outliers, and whether it is larger than chance makes it.

    Beyond a 99th percentile that was estimated from n users lie, of other users of the same
    audience, (0.01 n + 0.99) / (n + 1) in the mean: a Beta distribution, as of every order
    statistic (David & Nagaraja 2003).
    """
    from scipy.stats import betabinom

    n_now = int(now.users.sum())
    if not n_now:
        return float("nan"), False
    share, weights = int(now.outliers.sum()) / n_now, now.users / n_now
    expected = (0.01 * before.users + 0.99) / (before.users + 1)
    mean = float(weights @ expected)
    variance = mean * (1 - mean) / n_now
    variance += float(weights**2 @ (expected * (1 - expected) / (before.users + 2)))
    if share <= mean:
        return share, False
    # The number of outliers then has a beta-binomial distribution of about these moments.
    spread = max(variance - mean * (1 - mean) / n_now, 1e-12)
    size = max(mean * (1 - mean) / spread - 1, 1e-6)
    chance = betabinom.sf(int(now.outliers.sum()) - 1, n_now, mean * size, (1 - mean) * size)
    return share, float(chance) < _SIGNIFICANCE


def _center_shifts(
    before: Population, now: Population, centers: NDArray[np.float64]
) -> list[tuple[float, float]]:
    """Return each centre's move with the mean of its users, as a share of the way to the next."""
    shifts = []
    for s, center in enumerate(centers):
        n, m = int(before.users[s]), int(now.users[s])
        others = np.delete(centers, s, axis=0)
        if not min(n, m) or not len(others):
            shifts.append((float("nan"), 1.0))
            continue
        gap = float(np.sqrt(((others - center) ** 2).sum(axis=1)).min())
        move = float(np.linalg.norm(now.sums[s] / m - before.sums[s] / n))
        # By chance, the means of n and m users lie so far apart in the root mean square.
        error = math.sqrt(before.squares[s] / n**2 + now.squares[s] / m**2)
        shifts.append((move / gap if gap else float("nan"), _normal_chance(move, error)))
    return shifts


def describe_measure(name: str, words: Words) -> str:
    """Return what a measure is, in the words of the data."""
    return MEASURE_TEXTS[name].replace("category", words.category)


def exceeds(measure: Measure) -> bool:
    """Return whether a value is beyond its threshold, by chance or not."""
    if measure.refit < measure.watch:
        return measure.value <= measure.watch
    return measure.value >= measure.watch


def _explain(verdict: str, measures: Sequence[Measure], n_now: int, words: Words) -> str:
    """Return the reason for the verdict in a sentence."""
    decisive = [measure for measure in measures if measure.level == verdict]
    if verdict == "stable" and n_now < _MIN_USERS:
        return f"{n_now:,} users are too few to tell a change from chance."
    if verdict == "stable":
        return f"No measure of {n_now:,} users exceeds its threshold by more than chance."
    parts = [
        f"the {describe_measure(m.name, words)} is {m.value:.2g}"
        + (f" for {m.where}" if m.where else "")
        + f" (threshold {m.watch if verdict == 'watch' else m.refit:g})"
        for m in decisive
    ]
    text = join_names(parts)
    return text[0].upper() + text[1:] + "."
