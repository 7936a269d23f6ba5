"""What all figures share: ink, a canvas without pyplot, and the way to PNG."""

from __future__ import annotations

import io
from typing import Any

INK, FAINT, ACCENT = "#222222", "#8a8a8a", "#D55E00"
_DPI = 160


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of a size in inches; safe in any thread, needs no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def plain_axes(axes: Any) -> None:
    """Leave two thin spines, and labels that can be read."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)


def png(figure: Any) -> bytes:
    """Return a figure as PNG, the same bytes each time."""
    out = io.BytesIO()
    figure.savefig(out, format="png", facecolor="white", metadata={"Software": None})
    return out.getvalue()
