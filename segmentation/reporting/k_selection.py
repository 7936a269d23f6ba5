"""Report the search for the number of segments: in words, as a table and as a figure."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from segmentation.reporting.figures import (
    ACCENT,
    COLORS,
    FAINT,
    INK,
    new_figure,
    render_png,
    set_title,
    style_axes,
)
from segmentation.reporting.text import format_table, join_names
from segmentation.schema import MOST_SEGMENTS, SOUND, WEAK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

    from segmentation.schema import KFigures, KSearch

#: The number of segments in the original analysis, which the figure marks for comparison.
_ORIGINAL_K = 5
#: With fewer distinct users per segment than this, the explanation adds a warning.
_MIN_USERS_PER_SEGMENT = 10
_DASHES, _DOTS = (0, (4, 3)), (0, (1, 2))
_SECOND_COLOR = COLORS[1]


def find_elbow(search: KSearch) -> int | None:
    """Return the k at which the inertia bends most, or None if it doesn't bend within the range.

    This is the point farthest below the chord from the first point to the last, with both axes
    scaled to 0…1 (Satopää et al. 2011, "Finding a 'Kneedle' in a Haystack").
    """
    ks = np.array([f.k for f in search.in_range], np.float64)
    inertia = np.array([f.inertia for f in search.in_range])
    if len(ks) < 3 or inertia[0] <= inertia[-1]:
        return None
    x = (ks - ks[0]) / (ks[-1] - ks[0])
    y = (inertia[0] - inertia) / (inertia[0] - inertia[-1])
    best = int(np.argmax(y - x))
    return int(ks[best]) if y[best] > x[best] else None


def explain_choice(search: KSearch) -> str:
    """Explain which k is recommended and why, for readers without statistics."""
    chosen = search.of(search.recommended)
    assert chosen is not None
    text = _explain_stable(search, chosen) if search.sound else _explain_unstable(search, chosen)
    if search.stability_rows < _MIN_USERS_PER_SEGMENT * chosen.k:
        text += (
            f" There are only {search.stability_rows:,} distinct users, so a segment holds hardly "
            "more than a handful of them."
        )
    return f"{text} {_compare_criteria(search)}".rstrip()


def _explain_stable(search: KSearch, chosen: KFigures) -> str:
    text = (
        f"Take k = {chosen.k}: the largest number of segments from {search.low} to {search.high} "
        "that are all found again when the fit is repeated on resampled users (the least stable "
        f"has a Jaccard similarity of {_format_number(chosen.weakest, 2)}; {SOUND:g} is required)."
    )
    following = search.of(chosen.k + 1)
    if following is None:
        if chosen.k < min(MOST_SEGMENTS, search.stability_rows):
            text += " This is the end of the range: a wider range may allow more."
        return text
    if following.weakest is None:
        return f"{text} With {following.k}, there are too few resampled users to tell."
    text += f" With {following.k}, the least stable has {_format_number(following.weakest, 2)}"
    if following.weakest >= SOUND:
        return f"{text}, too: a wider range may allow more."
    return f"{text}."


def _explain_unstable(search: KSearch, chosen: KFigures) -> str:
    agreement = (
        "" if chosen.resampled_ari is None else f" (adjusted Rand index {chosen.resampled_ari:.2f})"
    )
    text = (
        f"Take k = {chosen.k} with care: for no k from {search.low} to {search.high} are all "
        f"segments found again when the fit is repeated on resampled users; {chosen.k} agrees "
        f"best{agreement}. Treat the segments as a way of ordering users, not as groups that exist "
        "by themselves."
    )
    if chosen.k == search.low > 2:
        text += " This is the low end of the range: fewer segments may be stable."
    return text


def _compare_criteria(search: KSearch) -> str:
    """Name the k that each of the other criteria favors; ties go to the smallest k."""
    best: list[tuple[str, int]] = []
    criteria: tuple[tuple[str, Callable[[KFigures], float | None], int], ...] = (
        ("the silhouette", lambda f: f.silhouette, 1),
        ("Davies–Bouldin", lambda f: f.davies_bouldin, -1),
        ("Caliński–Harabasz", lambda f: f.calinski_harabasz, 1),
    )
    for name, value, sign in criteria:
        scores = [(sign * v, -f.k) for f in search.in_range if (v := value(f)) is not None]
        if scores:
            best.append((name, -max(scores)[1]))
    elbow = find_elbow(search)
    if elbow is not None:
        best.append(("the elbow of the inertia", elbow))
    if not best:
        return ""
    groups: dict[int, list[str]] = {}
    for name, k in best:
        groups.setdefault(k, []).append(name)
    parts = []
    for k, names in groups.items():
        verb = "favours" if len(names) == 1 else "favour"
        parts.append(f"{join_names(names)} {verb} {k}")
    text = ", ".join(parts)
    return text[0].upper() + text[1:] + "."


def format_k_table(search: KSearch) -> str:
    """Return the scores of each k as a plain-text table; an arrow marks the recommended k."""
    rows = [
        (
            "",
            "k",
            "inertia",
            "saved",
            "silhouette",
            "Davies–Bouldin",
            "Caliński–Harabasz",
            "agreement",
            "least stable",
        )
    ]
    previous: KFigures | None = None
    for candidate in search.figures:
        saved = ""
        if previous is not None and previous.k == candidate.k - 1 and previous.inertia > 0:
            saved = f"{1 - candidate.inertia / previous.inertia:.1%}"
        rows.append(
            (
                "→" if candidate.k == search.recommended else "",
                str(candidate.k),
                _format_inertia(candidate.inertia),
                saved,
                _format_number(candidate.silhouette, 3),
                _format_number(candidate.davies_bouldin, 2),
                _format_number(candidate.calinski_harabasz, 0),
                _format_number(candidate.resampled_ari, 2),
                _format_number(candidate.weakest, 2),
            )
        )
        previous = candidate
    lines = format_table(rows)
    lines += [
        "",
        "saved: reduction of the inertia compared with one segment fewer.",
        "agreement: mean adjusted Rand index with fits on resampled users.",
        "least stable: lowest Jaccard similarity of a segment with its match in those fits;",
        f"from {SOUND:g} on it is stable, below {WEAK:g} it should not be trusted.",
    ]
    return "\n".join(lines)


def _format_inertia(value: float) -> str:
    return f"{value:,.0f}" if value == 0 or 100 <= value < 1e15 else f"{value:.4g}"


def _format_number(value: float | None, digits: int) -> str:
    """Format a number rounded down: a value below a threshold must not appear to reach it."""
    if value is None:
        return "–"
    # The small term compensates for rounding errors of the product.
    return f"{math.floor(value * 10**digits + 1e-6) / 10**digits:,.{digits}f}"


def draw_k_figure(search: KSearch) -> bytes:
    """Draw inertia, silhouette, Davies–Bouldin, Caliński–Harabasz and stability over k as a PNG."""
    figure = new_figure(10.4, 6.4)
    figure.set_layout_engine("constrained", h_pad=0.12, w_pad=0.1)
    panels = figure.subplots(2, 3).ravel()
    criteria: tuple[tuple[str, str, Callable[[KFigures], float | None]], ...] = (
        ("Inertia", "lower is tighter; look for the bend", lambda f: f.inertia),
        ("Silhouette", "higher is better", lambda f: f.silhouette),
        ("Davies–Bouldin", "lower is better", lambda f: f.davies_bouldin),
        ("Caliński–Harabasz", "higher is better", lambda f: f.calinski_harabasz),
    )
    for axes, (title, hint, value) in zip(panels, criteria, strict=False):
        _draw_curve(axes, search, value, title)
        _style_panel(axes, search, title, hint)
    panels[0].set_ylim(bottom=0)
    silhouette, stability = panels[1], panels[4]
    _draw_curve(silhouette, search, lambda f: f.simplified_silhouette, "simplified", _SECOND_COLOR)
    silhouette.lines[0].set_label("on a sample")
    silhouette.legend(frameon=False, fontsize=8)
    _draw_curve(stability, search, lambda f: f.weakest, "least stable segment")
    _draw_curve(stability, search, lambda f: f.resampled_ari, "agreement of all", _SECOND_COLOR)
    stability.axhline(SOUND, color=FAINT, lw=1, ls=_DASHES)
    stability.set_ylim(0, 1.04)
    stability.legend(frameon=False, fontsize=8, loc="best")
    for axes in panels[2:5]:
        axes.set_xlabel("segments (k)", fontsize=9, color=INK)
    _style_panel(stability, search, "Stability", "1: always found again on resampled users")
    _write_recommendation(panels[5], search)
    return render_png(figure)


def _draw_curve(
    axes: Axes,
    search: KSearch,
    value: Callable[[KFigures], float | None],
    label: str,
    color: str = INK,
) -> None:
    points = [(f.k, v) for f in search.figures if (v := value(f)) is not None]
    x, y = np.array(points, np.float64).reshape(-1, 2).T
    axes.plot(x, y, color=color, marker="o", ms=4, lw=1.6, label=label)


def _style_panel(axes: Axes, search: KSearch, title: str, hint: str) -> None:
    from matplotlib.ticker import EngFormatter

    style_axes(axes)
    set_title(axes, title, hint, font_sizes=(11, 8), offsets=(17, 4))
    axes.axvline(search.recommended, color=ACCENT, lw=7, alpha=0.22, zorder=0)
    if _shows_original(search):
        axes.axvline(_ORIGINAL_K, color=FAINT, lw=1.2, ls=_DOTS, zorder=0)
    ks = [f.k for f in search.figures]
    # The same limits in every panel, even if a value is missing for some k.
    margin = max(0.05 * (ks[-1] - ks[0]), 0.3)
    axes.set_xlim(ks[0] - margin, ks[-1] + margin)
    axes.set_xticks(_choose_ticks(ks, search.recommended))
    if axes.get_ylim()[1] >= 10_000:
        # "7 M" instead of "7" and a separate power of ten.
        axes.yaxis.set_major_formatter(EngFormatter(sep=" "))


def _shows_original(search: KSearch) -> bool:
    """Return whether the figure marks the original's k as well as the recommended one."""
    return search.recommended != _ORIGINAL_K and search.of(_ORIGINAL_K) is not None


def _choose_ticks(ks: Sequence[int], marked: int) -> list[int]:
    """Return at most 12 tick positions, including ``marked``."""
    step = max(1, -(-len(ks) // 12))
    return sorted([marked, *(k for k in ks[::step] if abs(k - marked) >= step)])


def _write_recommendation(axes: Axes, search: KSearch) -> None:
    from matplotlib.lines import Line2D

    axes.axis("off")
    axes.text(
        0, 1.0, f"k = {search.recommended}", fontsize=26, fontweight="bold", color=ACCENT, va="top"
    )
    reason = explain_choice(search).partition(". ")[0].partition(": ")[2]
    reason = reason[0].upper() + reason[1:].rstrip(".") + "."
    axes.text(
        0,
        0.80,
        "\n".join(textwrap.wrap(reason, 44)),
        fontsize=8.5,
        color=INK,
        va="top",
        linespacing=1.35,
    )
    handles = [Line2D([], [], color=ACCENT, lw=7, alpha=0.22, label="recommended")]
    if _shows_original(search):
        label = f"k = {_ORIGINAL_K}, for comparison"
        handles.append(Line2D([], [], color=FAINT, lw=1.2, ls=_DOTS, label=label))
    handles.append(Line2D([], [], color=FAINT, lw=1, ls=_DASHES, label=f"{SOUND:g}: stable"))
    axes.legend(handles=handles, frameon=False, fontsize=8.5, loc="lower left", borderaxespad=0)
