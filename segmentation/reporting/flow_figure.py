"""Draw the movement between segments as SVG: two columns of bars with bands between them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from segmentation.reporting.figures import segment_color

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_WIDTH, _HEIGHT, _GAP, _BAR, _LINE = 860, 360, 8, 16, 16
#: Where the left bars end and the right ones begin; the names stand outside.
_LEFT, _RIGHT = 230, 630


def draw_flows(flows: NDArray[np.int64], names: Sequence[str], title: str) -> str:
    """Return an SVG of the users who went from each segment to each, with a title to read aloud.

    Parameters
    ----------
    flows
        Users by earlier and later segment, of shape (n_segments, n_segments), not all 0.
    names
        The persona of each segment.
    title
        What the figure shows, in a sentence.
    """
    k = len(flows)
    scale = (_HEIGHT - _GAP * (k - 1)) / int(flows.sum())
    parts = [
        f'<svg viewBox="0 -8 {_WIDTH} {_HEIGHT + 24}" role="img" aria-label="{escape(title)}" '
        'style="width:100%;height:auto;display:block">',
        f"<title>{escape(title)}</title>",
    ]
    tops_before, tops_now = (_stack(flows.sum(axis=axis) * scale) for axis in (1, 0))
    starts, ends = tops_before.copy(), tops_now.copy()
    for i in range(k):
        for j in range(k):
            height = float(flows[i, j]) * scale
            if height:
                text = escape(f"{names[i]} → {names[j]}: {flows[i, j]:,}")
                band = _draw_band(i, starts[i], ends[j], height)
                parts.append(f"{band}<title>{text}</title></path>")
            starts[i] += height
            ends[j] += height
    for tops, totals, x, text_x, anchor in (
        (tops_before, flows.sum(axis=1), _LEFT - _BAR, _LEFT - _BAR - 8, "end"),
        (tops_now, flows.sum(axis=0), _RIGHT - _BAR, _RIGHT + 8, "start"),
    ):
        text_y = 0.0
        for s in range(k):
            height = float(totals[s]) * scale
            if not height:
                continue
            # Names of thin bars move down, so that they do not cover each other.
            text_y = max(tops[s] + height / 2 + 5, text_y + _LINE)
            parts.append(
                f'<rect x="{x}" y="{tops[s]:.1f}" width="{_BAR}" height="{height:.1f}" '
                f'fill="{segment_color(s)}"/>'
                f'<text x="{text_x}" y="{text_y:.1f}" text-anchor="{anchor}" '
                f'font-size="14" fill="currentColor">{s} {escape(names[s])}</text>'
            )
    return "".join([*parts, "</svg>"])


def _stack(heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the tops of bars below each other with gaps between them."""
    return np.concatenate([[0.0], np.cumsum(heights + _GAP)[:-1]])


def _draw_band(segment: int, start: float, end: float, height: float) -> str:
    """Return a band from the left bars to the right ones, not closed for its title."""
    x1, x2 = _LEFT, _RIGHT - _BAR
    middle = (x1 + x2) / 2
    return (
        f'<path d="M{x1},{start:.1f} C{middle},{start:.1f} {middle},{end:.1f} {x2},{end:.1f} '
        f"L{x2},{end + height:.1f} C{middle},{end + height:.1f} {middle},{start + height:.1f} "
        f'{x1},{start + height:.1f} Z" fill="{segment_color(segment)}" fill-opacity="0.45">'
    )
