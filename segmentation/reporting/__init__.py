"""Turn statistics per segment into profiles, personas, figures and reports.

Profiles are built from sums over blocks of users, and a playbook assigns a persona to each.
Figures, ``segments.json`` and the reports in HTML and Markdown show both.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "FigureData": "figures",
    "Playbook": "personas",
    "ReportFacts": "report",
    "assign_personas": "personas",
    "build_profiles": "profiles",
    "draw_figures": "figures",
    "draw_k_figure": "k_selection",
    "explain_choice": "k_selection",
    "format_k_table": "k_selection",
    "format_segment_table": "report",
    "load_playbook": "personas",
    "read_segments": "outputs",
    "write_figures": "outputs",
    "write_reports": "outputs",
    "write_segments": "outputs",
}

__all__ = [
    "FigureData",
    "Playbook",
    "ReportFacts",
    "assign_personas",
    "build_profiles",
    "draw_figures",
    "draw_k_figure",
    "explain_choice",
    "format_k_table",
    "format_segment_table",
    "load_playbook",
    "read_segments",
    "write_figures",
    "write_reports",
    "write_segments",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
