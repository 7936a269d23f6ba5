"""Draw figures with matplotlib's object API: no pyplot, no display, safe in any thread.

matplotlib is imported when the first figure is created.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segmentation.reporting.wording import format_number, make_phrases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from segmentation.schema import SegmentProfile


#: The palette of Okabe and Ito for all kinds of color vision, with gray in place of black. Segments
#: that share a color have different markers.
COLORS = ("#999999", "#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442")

INK, FAINT, ACCENT = "#222222", "#8a8a8a", "#D55E00"

#: Maximum number of points of a scatter plot; with more, it is hard to read.
SCATTER_POINTS = 12_000

#: The only color that needs dark text.
_PALE = COLORS[7]
_MARKERS = "os^Dvp*"
_LEGEND_COLUMNS = 3
#: Rows of a heat map, and characters of the name of one.
_MOST_ROWS, _MOST_CHARACTERS = 40, 36
_DPI = 160


def segment_color(segment: int) -> str:
    """Return the color of a segment in all figures and reports."""
    return COLORS[segment % len(COLORS)]


def _escape_math(name: str) -> str:
    """Escape dollar signs, which matplotlib would read as the start of a formula."""
    return name.replace("$", r"\$")


def _choose_marker(segment: int) -> str:
    return _MARKERS[segment // len(COLORS) % len(_MARKERS)]


@dataclass(frozen=True)
class FigureData:
    """The data that a run's figures show.

    Parameters
    ----------
    points
        A sample of the users on the first two principal axes, of shape (n_points, 2).
    labels
        Their segments, int32 of shape (n_points,).
    users
        Number of users in the run.
    names
        Name of each segment's persona.
    categories
        Category names, in the order of the profiles' arrays.
    explained
        Share of the variance on each axis.
    profiles
        One per segment.
    seed
        Seed for the choice of the points that are drawn.
    """

    points: NDArray[np.float64]
    labels: NDArray[np.int32]
    users: int
    names: tuple[str, ...]
    categories: tuple[str, ...]
    explained: tuple[float, ...]
    profiles: tuple[SegmentProfile, ...]
    seed: int


def draw_figures(data: FigureData) -> dict[str, bytes]:
    """Draw the figures of a run; return PNGs by name."""
    return {
        "pca": draw_pca_scatter(
            data.points, data.labels, data.users, data.names, data.explained, data.seed
        ),
        "genres": draw_category_heatmap(data.profiles, data.categories, data.names),
        "sizes": draw_segment_sizes(data.profiles, data.names),
    }


def draw_pca_scatter(
    points: NDArray[np.float64],
    labels: NDArray[np.int32],
    users: int,
    names: Sequence[str],
    explained: Sequence[float],
    seed: int,
) -> bytes:
    """Draw users on the first two principal axes, colored by segment; return a PNG.

    Parameters
    ----------
    points
        All users or a random sample of them, of shape (n_points, 2). Limits and medians are
        computed from all of them; at most :data:`SCATTER_POINTS`, chosen at random, are drawn.
    labels
        Their segments, int32 of shape (n_points,).
    users
        Number of users in the run.
    names
        Name of each segment's persona.
    explained
        Share of the variance on each axis.
    seed
        Seed for the choice of the points that are drawn.
    """
    legend_rows = -(-len(names) // _LEGEND_COLUMNS)
    figure, axes = _create_axes(7.6, 5.0 + 0.22 * legend_rows)
    shown = np.random.default_rng(seed).permutation(len(points))[:SCATTER_POINTS]
    _scatter_points(axes, points[shown], labels[shown], len(names))
    low, high = np.percentile(points, [0.1, 99.9], axis=0) if len(points) else ((0, 0), (1, 1))
    margin = 0.08 * np.maximum(np.subtract(high, low), 1e-9)
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
    _label_centers(axes, [np.median(points[labels == s], axis=0) for s in range(len(names))])
    _add_segment_legend(figure, axes, names)
    axes.set_xlabel(f"first axis ({explained[0]:.0%} of the variance)")
    if len(explained) > 1:
        axes.set_ylabel(f"second axis ({explained[1]:.0%} of the variance)")
    sample = f"{len(shown):,} of {users:,} users" if len(shown) < users else f"{users:,} users"
    set_title(axes, "Where the segments lie", f"{sample} on the two axes of largest variance")
    return render_png(figure)


def _scatter_points(
    axes: Axes, points: NDArray[np.float64], labels: NDArray[np.int32], n_segments: int
) -> None:
    """Draw points in their random order, so that segments with the same marker mix."""
    size = float(np.clip(9_000 / max(len(points), 1), 3, 28))
    # One call per marker, because a call draws only one.
    for kind in range(-(-n_segments // len(COLORS))):
        mask = labels // len(COLORS) == kind
        axes.scatter(
            points[mask, 0],
            points[mask, 1],
            s=size,
            linewidths=0,
            alpha=0.55,
            rasterized=True,
            c=[segment_color(int(label)) for label in labels[mask]],
            marker=_choose_marker(kind * len(COLORS)),
        )


def _add_segment_legend(figure: Figure, axes: Axes, names: Sequence[str]) -> None:
    handles = [
        axes.scatter(
            [],
            [],
            s=60,
            color=segment_color(s),
            marker=_choose_marker(s),
            label=f"{s}  {_escape_math(name)}",
        )
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


def _label_centers(axes: Axes, centers: Sequence[NDArray[np.float64]]) -> None:
    for segment, (x, y) in enumerate(centers):
        axes.annotate(
            str(segment),
            (x, y),
            ha="center",
            va="center",
            fontsize=11,
            fontweight="bold",
            color=INK if segment_color(segment) == _PALE else "white",
            zorder=5,
            bbox={
                "boxstyle": "circle,pad=0.28",
                "fc": segment_color(segment),
                "ec": "white",
                "lw": 1.6,
            },
        )


def draw_category_heatmap(
    profiles: Sequence[SegmentProfile], categories: Sequence[str], names: Sequence[str]
) -> bytes:
    """Draw the means per category and segment, 0 for an unseen category; return a PNG.

    Categories are sorted by their mean over all users, highest first.
    """
    means = np.array([profile.mean for profile in profiles])
    weights = np.array([profile.share for profile in profiles])
    order = np.argsort(-(weights @ means), kind="stable")[:_MOST_ROWS]
    words = profiles[0].words
    figure, axes = _create_axes(max(4.6, 2.2 + 0.95 * len(profiles)), 1.5 + 0.30 * len(order))
    edges = (np.arange(n + 1) - 0.5 for n in (len(profiles), len(order)))
    image = axes.pcolormesh(
        *edges, means[:, order].T, cmap="YlGnBu", vmin=0, vmax=profiles[0].scale[1]
    )
    axes.invert_yaxis()
    axes.set_xticks(
        range(len(names)),
        [_wrap(_escape_math(name)) for name in names],
        va="top",
        fontsize=8.5 if len(names) <= 12 else 7,
    )
    axes.set_yticks(
        range(len(order)), [_escape_math(_shorten(categories[g])) for g in order], fontsize=9
    )
    axes.tick_params(length=0)
    _write_means(axes, means[:, order], profiles[0])
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=0)
    phrases, high = make_phrases(profiles[0]), profiles[0].high_rating
    bar.set_label(phrases.mean, fontsize=8.5)
    subtitle = f"{phrases.mean}, {phrases.footnote}bold: {high:g} or more"
    if len(order) < len(categories):
        subtitle = f"the {len(order)} highest of {len(categories):,} {words.categories}\n{subtitle}"
    lines = subtitle.count("\n")
    set_title(
        axes, f"The {words.categories} of each segment", subtitle, offsets=(24 + 12 * lines, 7)
    )
    return render_png(figure)


def _write_means(axes: Axes, means: NDArray[np.float64], profile: SegmentProfile) -> None:
    dark = 0.58 * profile.scale[1]
    for (column, row), mean in np.ndenumerate(means):
        axes.text(
            column,
            row,
            f"{mean:.2f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if mean > dark else INK,
            fontweight="bold" if mean >= profile.high_rating else "normal",
            in_layout=False,  # Texts are within the axes: the layout can ignore them.
        )


def draw_segment_sizes(profiles: Sequence[SegmentProfile], names: Sequence[str]) -> bytes:
    """Draw users, ratings per user and mean rating per segment, side by side; return a PNG."""
    k = len(profiles)
    figure = new_figure(8.6, 1.5 + 0.46 * k)
    words = profiles[0].words
    values: list[tuple[str, list[float], list[str]]] = [
        ("users", [p.users for p in profiles], [f"{p.users:,}  ({p.share:.0%})" for p in profiles]),
        (
            f"{words.ratings} per user (median)",
            [p.items_per_user for p in profiles],
            [
                f"{format_number(p.items_per_user)}  ({format_number(p.median_items_per_user)})"
                for p in profiles
            ],
        ),
    ]
    if words.has_ratings:
        values.append(
            (
                f"mean rating, {words.unit}",
                [p.mean_rating for p in profiles],
                [f"{p.mean_rating:.2f}" for p in profiles],
            )
        )
    panels = figure.subplots(1, len(values), sharey=True)
    for axes, (label, numbers, texts) in zip(panels, values, strict=True):
        axes.barh(
            range(k), numbers, color=[segment_color(p.segment) for p in profiles], height=0.66
        )
        axes.set_yticks(
            range(k),
            [f"{p.segment}  {_escape_math(name)}" for p, name in zip(profiles, names, strict=True)],
        )
        axes.set_xlim(0, max(numbers) * 1.62)
        for row, (number, text) in enumerate(zip(numbers, texts, strict=True)):
            axes.text(number, row, f" {text}", va="center", fontsize=8.5, color=INK)
        axes.set_title(label, loc="left", fontsize=10, color=INK)
        axes.xaxis.set_visible(False)
        axes.tick_params(length=0, labelsize=9)
        axes.spines[:].set_visible(False)
    panels[0].set_ylim(k - 0.5, -0.5)  # Shared by all panels: the first segment is on top.
    return render_png(figure)


def _create_axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = new_figure(width, height)
    axes = figure.subplots()
    style_axes(axes)
    return figure, axes


def set_title(
    axes: Axes,
    title: str,
    subtitle: str,
    *,
    font_sizes: tuple[float, float] = (12.5, 9),
    offsets: tuple[float, float] = (24, 7),
) -> None:
    """Write a title and a smaller subtitle above the axes, left-aligned.

    ``font_sizes`` and ``offsets``, in points, are those of the title and of the subtitle.
    """
    size, subtitle_size = font_sizes
    pad, offset = offsets
    axes.set_title(title, loc="left", fontsize=size, fontweight="bold", color=INK, pad=pad)
    axes.annotate(
        subtitle,
        (0, 1),
        (0, offset),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=subtitle_size,
        color="#5c5c5c",
        va="bottom",
    )


def _wrap(name: str) -> str:
    return name.replace(" ", "\n")


def _shorten(name: str) -> str:
    return name if len(name) <= _MOST_CHARACTERS else f"{name[: _MOST_CHARACTERS - 1]}…"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure; width and height are in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def style_axes(axes: Axes) -> None:
    """Keep the left and bottom spines only, and set the color and size of the labels."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)


def render_png(figure: Figure) -> bytes:
    """Return a figure as a PNG; equal figures give equal bytes."""
    out = io.BytesIO()
    figure.savefig(out, format="png", facecolor="white", metadata={"Software": None})
    return out.getvalue()
