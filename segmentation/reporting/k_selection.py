"""How many segments: the search for k in words, as a table, and as a figure."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.reporting.figures import ACCENT, FAINT, INK, new_figure, render_png, style_axes
from segmentation.schema import MOST_SEGMENTS, SOUND, WEAK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from segmentation.schema import KFigures, KSearch

_FIVE = 5
#: With fewer users a segment than this, a search says so.
_FEW_A_SEGMENT = 10
_DASHES, _DOTS = (0, (4, 3)), (0, (1, 2))


def find_elbow(search: KSearch) -> int | None:
    """Return the k where the inertia bends most; None where it doesn't bend within the range.

    That is the point farthest below the chord from the first to the last, both stretched to 0…1
    (Satopää et al. 2011).
    """
    ks = np.array([f.k for f in search.in_range], np.float64)
    inertia = np.array([f.inertia for f in search.in_range])
    if len(ks) < 3 or inertia[0] <= inertia[-1]:
        return None
    along = (ks - ks[0]) / (ks[-1] - ks[0])
    down = (inertia[0] - inertia) / (inertia[0] - inertia[-1])
    above = down - along
    best = int(np.argmax(above))
    return int(ks[best]) if above[best] > 0 else None


def explain_choice(search: KSearch) -> str:
    """Say which k is recommended and why, for somebody who knows segments but not statistics."""
    chosen = search.of(search.recommended)
    assert chosen is not None
    if search.sound:
        text = (
            f"Take k = {chosen.k}: the most segments from {search.low} to {search.high} that all "
            f"come back when the fit is repeated on resampled users (the least stable has a "
            f"Jaccard similarity of {_number(chosen.weakest, 2)}; {SOUND:g} is the mark)."
        )
        following = search.of(chosen.k + 1)
        if following is not None:
            text += f" {_falls(following)}"
        elif chosen.k < min(MOST_SEGMENTS, search.stability_rows):
            text += " It is the end of the range: a wider --k-range may allow more."
    else:
        agrees = (
            ""
            if chosen.resampled_ari is None
            else f" (adjusted Rand index {chosen.resampled_ari:.2f})"
        )
        text = (
            f"Take k = {chosen.k} with care: for no k from {search.low} to {search.high} do all "
            f"segments come back when the fit is repeated on resampled users; {chosen.k} agrees "
            f"best{agrees}. Take the segments as a way of ordering users, not as groups that "
            "exist by themselves."
        )
        if chosen.k == search.low > 2:
            text += " It is the low end of the range: fewer segments may come back."
    if search.stability_rows < _FEW_A_SEGMENT * chosen.k:
        text += (
            f" There are only {search.stability_rows:,} users that differ: a segment holds "
            "hardly more than a handful."
        )
    return f"{text} {_others(search)}"


def _falls(following: KFigures) -> str:
    if following.weakest is None:
        return f"With {following.k}, resampled users are too few to tell."
    return f"With {following.k}, the least stable has {_number(following.weakest, 2)}" + (
        ", too: a wider --k-range may allow more." if following.weakest >= SOUND else "."
    )


def _others(search: KSearch) -> str:
    """Say what the other figures favour."""
    best: list[tuple[str, int]] = []
    ways: tuple[tuple[str, Callable[[KFigures], float | None], int], ...] = (
        ("the silhouette", lambda f: f.silhouette, 1),
        ("Davies–Bouldin", lambda f: f.davies_bouldin, -1),
        ("Caliński–Harabasz", lambda f: f.calinski_harabasz, 1),
    )
    for name, value, sign in ways:
        known = [(sign * v, -f.k) for f in search.in_range if (v := value(f)) is not None]
        if known:
            best.append((name, -max(known)[1]))
    bend = find_elbow(search)
    if bend is not None:
        best.append(("the elbow of the inertia", bend))
    if not best:
        return ""
    groups: dict[int, list[str]] = {}
    for name, k in best:
        groups.setdefault(k, []).append(name)
    parts = [f"{_joined(names)} favour{'s' * (len(names) == 1)} {k}" for k, names in groups.items()]
    text = ", ".join(parts)
    return text[0].upper() + text[1:] + "."


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def format_k_table(search: KSearch) -> str:
    """Return the figures as a table of plain text; the recommended k is marked."""
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
    before: KFigures | None = None
    for found in search.figures:
        saved = ""
        if before is not None and before.k == found.k - 1 and before.inertia > 0:
            saved = f"{1 - found.inertia / before.inertia:.1%}"
        rows.append(
            (
                "→" if found.k == search.recommended else "",
                str(found.k),
                _inertia(found.inertia),
                saved,
                _number(found.silhouette, 3),
                _number(found.davies_bouldin, 2),
                _number(found.calinski_harabasz, 0),
                _number(found.resampled_ari, 2),
                _number(found.weakest, 2),
            )
        )
        before = found
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    lines += [
        "",
        "saved: inertia less than with one segment fewer. agreement: adjusted Rand index over",
        "fits on resampled users. least stable: the lowest Jaccard similarity of a segment over",
        f"those; from {SOUND:g} on it is a pattern in the data, below {WEAK:g} don't trust it.",
    ]
    return "\n".join(lines)


def _inertia(value: float) -> str:
    return f"{value:,.0f}" if value == 0 or 100 <= value < 1e15 else f"{value:.4g}"


def _number(value: float | None, digits: int) -> str:
    """Return a figure cut off after some digits: what misses a mark must not read as that mark."""
    if value is None:
        return "–"
    # What arithmetic leaves in the last place is no miss.
    return f"{math.floor(value * 10**digits + 1e-6) / 10**digits:,.{digits}f}"


def draw_k_figure(search: KSearch) -> bytes:
    """Draw elbow, silhouette, Davies–Bouldin, Caliński–Harabasz and stability over k; PNG."""
    picture = new_figure(10.4, 6.4)
    picture.get_layout_engine().set(h_pad=0.12, w_pad=0.1)
    panels = picture.subplots(2, 3).ravel()
    ks = [f.k for f in search.figures]

    def draw(axes: Any, values: Sequence[float | None], label: str, colour: str = INK) -> None:
        known = [(k, v) for k, v in zip(ks, values, strict=True) if v is not None]
        points = np.array(known, np.float64).reshape(-1, 2).T
        axes.plot(*points, color=colour, marker="o", ms=4, lw=1.6, label=label)

    ways: tuple[tuple[str, str, Callable[[KFigures], float | None]], ...] = (
        ("Inertia", "lower is tighter; look for the bend", lambda f: f.inertia),
        ("Silhouette", "higher is better", lambda f: f.silhouette),
        ("Davies–Bouldin", "lower is better", lambda f: f.davies_bouldin),
        ("Caliński–Harabasz", "higher is better", lambda f: f.calinski_harabasz),
    )
    for axes, (title, hint, value) in zip(panels, ways, strict=False):
        draw(axes, [value(f) for f in search.figures], title)
        _dress(axes, search, title, hint)
    panels[0].set_ylim(bottom=0)
    draw(panels[1], [f.simplified_silhouette for f in search.figures], "simplified", "#56B4E9")
    panels[1].lines[0].set_label("on a sample")
    panels[1].legend(frameon=False, fontsize=8)
    stable = panels[4]
    draw(stable, [f.weakest for f in search.figures], "least stable segment")
    draw(stable, [f.resampled_ari for f in search.figures], "agreement of all", "#56B4E9")
    stable.axhline(SOUND, color=FAINT, lw=1, ls=_DASHES)
    stable.set_ylim(0, 1.04)
    stable.legend(frameon=False, fontsize=8, loc="best")
    for axes in panels[2:5]:
        axes.set_xlabel("segments (k)", fontsize=9, color=INK)
    _dress(stable, search, "Stability", "1 is always found again on resampled users")
    _words(panels[5], search)
    return render_png(picture)


def _dress(axes: Any, search: KSearch, title: str, hint: str) -> None:
    from matplotlib.ticker import EngFormatter

    style_axes(axes)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=17)
    axes.annotate(
        hint,
        (0, 1),
        (0, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8,
        color="#5c5c5c",
        va="bottom",
    )
    axes.axvline(search.recommended, color=ACCENT, lw=7, alpha=0.22, zorder=0)
    if search.recommended != _FIVE and search.of(_FIVE) is not None:
        axes.axvline(_FIVE, color=FAINT, lw=1.2, ls=_DOTS, zorder=0)
    ks = [f.k for f in search.figures]
    # The same in every panel, whether or not a figure is known for every k.
    margin = max(0.05 * (ks[-1] - ks[0]), 0.3)
    axes.set_xlim(ks[0] - margin, ks[-1] + margin)
    axes.set_xticks(_ticks(ks, search.recommended))
    if axes.get_ylim()[1] >= 10_000:
        # 7 M rather than 7 with a power of ten beside it.
        axes.yaxis.set_major_formatter(EngFormatter(sep=" "))


def _ticks(ks: Sequence[int], marked: int) -> list[int]:
    """Return the numbers to write below an axis: a dozen at most, the marked one among them."""
    step = max(1, -(-len(ks) // 12))
    return sorted([marked, *(k for k in ks[::step] if abs(k - marked) >= step)])


def _words(axes: Any, search: KSearch) -> None:
    from matplotlib.lines import Line2D

    axes.axis("off")
    axes.text(
        0, 1.0, f"k = {search.recommended}", fontsize=26, fontweight="bold", color=ACCENT, va="top"
    )
    told = explain_choice(search).partition(". ")[0].partition(": ")[2]
    told = told[0].upper() + told[1:].rstrip(".") + "."
    axes.text(
        0,
        0.80,
        "\n".join(textwrap.wrap(told, 44)),
        fontsize=8.5,
        color=INK,
        va="top",
        linespacing=1.35,
    )
    handles = [Line2D([], [], color=ACCENT, lw=7, alpha=0.22, label="recommended")]
    if search.recommended != _FIVE and search.of(_FIVE) is not None:
        handles.append(Line2D([], [], color=FAINT, lw=1.2, ls=_DOTS, label="k = 5, to compare"))
    handles.append(
        Line2D([], [], color=FAINT, lw=1, ls=_DASHES, label=f"{SOUND:g}: a pattern in the data")
    )
    axes.legend(handles=handles, frameon=False, fontsize=8.5, loc="lower left", borderaxespad=0)
