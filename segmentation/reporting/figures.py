"""The figures, drawn with matplotlib's objects: no pyplot, no display, safe in any thread."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.schema import HIGH_RATED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from segmentation.schema import SegmentProfile


#: Okabe & Ito's colours, told apart with any colour vision. With more segments than colours the
#: scatter's markers tell those of one colour apart.
COLOURS = ("#999999", "#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442")

#: Points that a scatter can hold and still be read.
SCATTER_POINTS = 12_000

#: The one colour that white can't be read on.
_PALE = COLOURS[7]
_MARKERS = "os^Dvp*"
_LEGEND_COLUMNS = 3


def colour(segment: int) -> str:
    """Return a segment's colour, the same in every figure and in the report."""
    return COLOURS[segment % len(COLOURS)]


def _plain(name: str) -> str:
    """Keep a dollar sign in a name from being taken for mathematics."""
    return name.replace("$", r"\$")


def _marker(segment: int) -> str:
    return _MARKERS[segment // len(COLOURS) % len(_MARKERS)]


@dataclass(frozen=True)
class FigureData:
    """What the figures of a run show.

    Parameters
    ----------
    points
        A sample of the users on the first two principal axes, of shape (n_points, 2).
    labels
        Their segments, int32 of shape (n_points,).
    users
        Number of users in the run.
    names
        Persona of each segment.
    genres
        Genre names, in the order of the profiles' arrays.
    explained
        Share of the variance on each axis.
    profiles
        One per segment.
    seed
        Selects the points that are drawn.
    """

    points: NDArray[np.float64]
    labels: NDArray[np.int32]
    users: int
    names: tuple[str, ...]
    genres: tuple[str, ...]
    explained: tuple[float, ...]
    profiles: tuple[SegmentProfile, ...]
    seed: int


def draw_figures(data: FigureData) -> dict[str, bytes]:
    """Draw the figures of a run; return PNGs by name."""
    return {
        "pca": pca_scatter(
            data.points, data.labels, data.users, data.names, data.explained, data.seed
        ),
        "genres": genre_heatmap(data.profiles, data.genres, data.names),
        "sizes": segment_sizes(data.profiles, data.names),
    }


def pca_scatter(
    points: NDArray[np.float64],
    labels: NDArray[np.int32],
    users: int,
    names: Sequence[str],
    explained: Sequence[float],
    seed: int,
) -> bytes:
    """Draw users on the first two axes, coloured by segment; PNG.

    Parameters
    ----------
    points
        Shape (n_points, 2): all users or a random part of them. A random :data:`SCATTER_POINTS`
        of these are drawn; centres and outlines come from all that are given.
    labels
        Segment of each, (n_points,).
    users
        How many there are in all.
    names
        Persona of each segment.
    explained
        Share of the variance on each axis.
    """
    legend_rows = -(-len(names) // _LEGEND_COLUMNS)
    figure, axes = _new(7.6, 5.0 + 0.22 * legend_rows)
    rng = np.random.default_rng(seed)
    n = len(points)
    shown = rng.permutation(n)[:SCATTER_POINTS]
    size = float(np.clip(9_000 / max(len(shown), 1), 3, 28))
    # Markers one kind at a time, each in the random order, so that no segment covers another.
    for kind in range(-(-len(names) // len(COLOURS))):
        own = shown[labels[shown] // len(COLOURS) == kind]
        axes.scatter(
            points[own, 0],
            points[own, 1],
            s=size,
            linewidths=0,
            alpha=0.55,
            rasterized=True,
            c=[colour(int(label)) for label in labels[own]],
            marker=_marker(kind * len(COLOURS)),
        )
    low, high = np.percentile(points, [0.1, 99.9], axis=0) if n else ((0, 0), (1, 1))
    margin = 0.08 * np.maximum(np.subtract(high, low), 1e-9)
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
    medians = [np.median(points[labels == s], axis=0) for s in range(len(names))]
    _label_centres(axes, medians)
    handles = [
        axes.scatter([], [], s=60, color=colour(s), marker=_marker(s), label=f"{s}  {_plain(name)}")
        for s, name in enumerate(names)
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        frameon=False,
        ncols=min(_LEGEND_COLUMNS, len(names)),
        fontsize=9 if len(names) <= 9 else 7.5,
        handletextpad=0.2,
        columnspacing=1.4,
    )
    axes.set_xlabel(f"first axis ({explained[0]:.0%} of the variance)")
    if len(explained) > 1:
        axes.set_ylabel(f"second axis ({explained[1]:.0%} of the variance)")
    drawn = f"{len(shown):,} of {users:,} users" if len(shown) < users else f"{users:,} users"
    _title(axes, "Where the segments lie", f"{drawn} on the two axes of largest variance")
    return render_png(figure)


def _label_centres(axes: Any, centres: Sequence[NDArray[np.float64]]) -> None:
    for segment, (x, y) in enumerate(centres):
        axes.annotate(
            str(segment),
            (x, y),
            ha="center",
            va="center",
            fontsize=11,
            fontweight="bold",
            color=INK if colour(segment) == _PALE else "white",
            zorder=5,
            bbox={"boxstyle": "circle,pad=0.28", "fc": colour(segment), "ec": "white", "lw": 1.6},
        )


def genre_heatmap(
    profiles: Sequence[SegmentProfile], genres: Sequence[str], names: Sequence[str]
) -> bytes:
    """Draw each segment's mean a genre (0 for unseen), genres by the audience's mean; PNG."""
    means = np.array([profile.mean for profile in profiles])
    weights = np.array([profile.share for profile in profiles])
    order = np.argsort(-(weights @ means), kind="stable")
    figure, axes = _new(max(4.6, 2.2 + 0.95 * len(profiles)), 1.5 + 0.30 * len(genres))
    edges = (np.arange(n + 1) - 0.5 for n in means.shape)
    image = axes.pcolormesh(*edges, means[:, order].T, cmap="YlGnBu", vmin=0, vmax=5)
    axes.invert_yaxis()
    axes.set_xticks(
        range(len(names)),
        [_wrapped(_plain(name)) for name in names],
        va="top",
        fontsize=8.5 if len(names) <= 12 else 7,
    )
    axes.set_yticks(range(len(genres)), [genres[g] for g in order], fontsize=9)
    axes.tick_params(length=0)
    for row, genre in enumerate(order):
        for column in range(len(profiles)):
            value = means[column, genre]
            axes.text(
                column,
                row,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if value > 2.9 else INK,
                fontweight="bold" if value >= HIGH_RATED else "normal",
                in_layout=False,  # lies within the axes: a hundred texts less to be measured
            )
    for side in axes.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=0)
    bar.set_label("mean stars", fontsize=8.5)
    _title(axes, "What each segment rates", "mean stars, 0 for unseen; bold from 3")
    return render_png(figure)


def segment_sizes(profiles: Sequence[SegmentProfile], names: Sequence[str]) -> bytes:
    """Draw users, movies per user and mean rating a segment, side by side; PNG."""
    k = len(profiles)
    figure = new_figure(8.6, 1.5 + 0.46 * k)
    panels = figure.subplots(1, 3, sharey=True)
    values: tuple[tuple[str, list[float], list[str]], ...] = (
        ("users", [p.users for p in profiles], [f"{p.users:,}  ({p.share:.0%})" for p in profiles]),
        (
            "movies per user",
            [p.movies_per_user for p in profiles],
            [f"{p.movies_per_user:,.0f}" for p in profiles],
        ),
        (
            "mean rating, stars",
            [p.mean_rating for p in profiles],
            [f"{p.mean_rating:.2f}" for p in profiles],
        ),
    )
    for axes, (label, numbers, texts) in zip(panels, values, strict=True):
        axes.barh(range(k), numbers, color=[colour(p.segment) for p in profiles], height=0.66)
        axes.set_yticks(
            range(k),
            [f"{p.segment}  {_plain(name)}" for p, name in zip(profiles, names, strict=True)],
        )
        axes.invert_yaxis()
        axes.set_xlim(0, max(numbers) * 1.62)
        for row, (number, text) in enumerate(zip(numbers, texts, strict=True)):
            axes.text(number, row, f" {text}", va="center", fontsize=8.5, color=INK)
        axes.set_title(label, loc="left", fontsize=10, color=INK)
        axes.xaxis.set_visible(False)
        axes.tick_params(length=0, labelsize=9)
        for side in axes.spines.values():
            side.set_visible(False)
    # sharey inverts once per panel; an odd number of inversions is what is wanted.
    panels[0].set_ylim(k - 0.5, -0.5)
    return render_png(figure)


def _new(width: float, height: float) -> tuple[Any, Any]:
    figure = new_figure(width, height)
    axes = figure.subplots()
    style_axes(axes)
    return figure, axes


def _title(axes: Any, title: str, subtitle: str) -> None:
    axes.set_title(title, loc="left", fontsize=12.5, fontweight="bold", color=INK, pad=24)
    axes.annotate(
        subtitle,
        (0, 1),
        (0, 7),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9,
        color="#5c5c5c",
        va="bottom",
    )


def _wrapped(name: str) -> str:
    return name.replace(" ", "\n")


INK, FAINT, ACCENT = "#222222", "#8a8a8a", "#D55E00"
_DPI = 160


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of a size in inches; safe in any thread, needs no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def style_axes(axes: Any) -> None:
    """Leave two thin spines, and labels that can be read."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)


def render_png(figure: Any) -> bytes:
    """Return a figure as PNG, the same bytes each time."""
    out = io.BytesIO()
    figure.savefig(out, format="png", facecolor="white", metadata={"Software": None})
    return out.getvalue()
