"""Render the report as one HTML file that opens offline, and as Markdown."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any

from segmentation.reporting.drift import describe_measure, exceeds
from segmentation.reporting.figures import segment_color
from segmentation.reporting.flow_figure import draw_flows
from segmentation.reporting.text import format_table
from segmentation.reporting.wording import capitalize, format_number, make_phrases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import jinja2

    from segmentation.reporting.drift import Drift
    from segmentation.schema import Persona, SegmentProfile, Words

#: How many of a segment's categories are listed in the table, on its card, and on the terminal.
_SHOWN_IN_TABLE, _SHOWN_ON_CARD, _SHOWN_ON_TERMINAL = 6, 30, 2


@dataclass(frozen=True)
class ReportFacts:
    """The facts about a run that its report shows.

    Parameters
    ----------
    title, source, created
        The heading, one phrase about the data, and the date and time of the report.
    synthetic
        Whether the data are synthetic, which the report states at the top.
    headline
        The main numbers, as (name, value).
    warnings
        The warnings of the run, one sentence each.
    tables
        Rows of (name, value) by heading.
    drift
        The verdict on what has changed since an earlier run, which ``drift.html`` shows; empty if
        there is none.
    """

    title: str
    source: str
    synthetic: bool
    created: str
    headline: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    tables: Mapping[str, Sequence[tuple[str, str]]]
    drift: str = ""


def render_html(
    facts: ReportFacts,
    profiles: Sequence[SegmentProfile],
    personas: Sequence[Persona],
    categories: tuple[str, ...],
    figures: Mapping[str, tuple[bytes, str]],
) -> str:
    """Return the report as one HTML page that embeds its figures; all text is escaped.

    ``figures`` maps a caption to a PNG and its alternative text.
    """
    return str(
        _load_template("report.html").render(
            facts=facts,
            segments=_build_segment_rows(profiles, personas, categories),
            **_choose_words(profiles[0]),
            figures=[
                (caption, base64.b64encode(png).decode("ascii"), text)
                for caption, (png, text) in figures.items()
            ],
        )
    )


def render_markdown(
    facts: ReportFacts,
    profiles: Sequence[SegmentProfile],
    personas: Sequence[Persona],
    categories: tuple[str, ...],
    figures: Mapping[str, str],
) -> str:
    """Return the report as Markdown; ``figures`` maps a caption to a relative path."""
    return str(
        _load_template("report.md").render(
            facts=facts,
            segments=_build_segment_rows(profiles, personas, categories),
            figures=figures,
            **_choose_words(profiles[0]),
        )
    )


def render_drift_html(
    facts: ReportFacts,
    drift: Drift,
    names: Sequence[str],
    words: Words,
    *,
    is_refitted: bool = False,
) -> str:
    """Return the report on an audience in given segments as one HTML page; all text is escaped.

    Parameters
    ----------
    names
        The personas of the segments.
    is_refitted
        Whether the segments were fitted again since.
    """
    values = _describe_drift(drift, names, words, is_refitted=is_refitted)
    return str(_load_template("drift.html").render(facts=facts, **values))


def render_drift_markdown(
    facts: ReportFacts,
    drift: Drift,
    names: Sequence[str],
    words: Words,
    *,
    is_refitted: bool = False,
) -> str:
    """Return the same report as Markdown."""
    values = _describe_drift(drift, names, words, is_refitted=is_refitted)
    return str(_load_template("drift.md").render(facts=facts, **values))


_VERDICTS = {
    "stable": (
        "The segments still hold",
        "These users are spread over the segments as those were that the segments were made from.",
    ),
    "watch": (
        "The segments hold, and are to be watched",
        "The audience has begun to differ from the one that the segments were made from. Look at "
        "the measures again with the next data.",
    ),
    "refit": (
        "The segments should be made again",
        "The audience differs so much from the one that the segments were made from that their "
        "profiles no longer describe it. If these data hold only a part of what their users rated, "
        "such as one month, that is the reason.",
    ),
}


_REFITTED = {
    "stable": (
        "The segments held",
        "The users were spread over the earlier segments as before. These were fitted again all "
        "the same.",
    ),
    "watch": (
        "The audience has begun to change",
        "The segments were fitted again, so that they describe the users of now. Look at what has "
        "changed before a campaign relies on last month's lists.",
    ),
    "refit": (
        "The audience has changed",
        "The segments were fitted again, so that they describe the users of now. They keep their "
        "names where most of their users stayed: read their profiles again.",
    ),
}


def _describe_drift(
    drift: Drift, names: Sequence[str], words: Words, *, is_refitted: bool
) -> dict[str, Any]:
    """Return the fields that the templates of the drift report use."""
    title, meaning = (_REFITTED if is_refitted else _VERDICTS)[drift.verdict]
    return {
        "verdict": {"title": title, "reason": drift.reason, "meaning": meaning},
        "segments": [
            {
                "number": entry["segment"],
                "name": names[entry["segment"]],
                "color": segment_color(entry["segment"]),
                "users_before": f"{entry['users_before']:,}",
                "share_before": f"{entry['share_before']:.1%}",
                "users": f"{entry['users']:,}",
                "share": f"{entry['share']:.1%}",
                "outliers": f"{entry['outliers'] / entry['users']:.1%}" if entry["users"] else "–",
            }
            for entry in drift.segments
        ],
        "is_refitted": is_refitted,
        "flows": _describe_moves(drift, names),
        "measures": [
            {
                "text": capitalize(describe_measure(m.name, words)),
                "value": "–" if isnan(m.value) else f"{m.value:.3f}",
                "where": m.where,
                "level": "may be chance" if exceeds(m) and m.level == "stable" else m.level,
                "watch": f"{m.watch:g}",
                "refit": f"{m.refit:g}",
                "source": m.source,
            }
            for m in drift.measures
        ],
    }


def _count_users(n: int) -> str:
    return f"{n:,} user" + ("" if n == 1 else "s")


def _describe_moves(drift: Drift, names: Sequence[str]) -> dict[str, Any] | None:
    if drift.moves is None:
        return None
    flows, entered, left = drift.moves
    n_shared, n_moved = int(flows.sum()), int(flows.sum() - flows.trace())
    text = f"In both audiences: {_count_users(n_shared)}; in this one only: {entered:,}; in the "
    text += f"earlier one only: {left:,}."
    if n_shared:
        text += f" {n_moved:,} of those in both ({n_moved / n_shared:.1%}) changed their segment."
    return {
        "text": text,
        "svg": draw_flows(flows, names, text) if n_shared else "",
        "rows": [
            {
                "number": s,
                "name": names[s],
                "color": segment_color(s),
                "cells": [f"{value:,}" for value in flows[s]],
            }
            for s in range(len(flows))
        ],
    }


def _choose_words(profile: SegmentProfile) -> dict[str, Any]:
    """Return the words and phrases of the templates."""
    words = profile.words
    return {
        "words": words,
        "Ratings": capitalize(words.ratings),
        "phrases": make_phrases(profile),
    }


def format_segment_table(
    profiles: Sequence[SegmentProfile], personas: Sequence[Persona], categories: tuple[str, ...]
) -> str:
    """Return the segments as a plain-text table for the terminal."""
    words = profiles[0].words
    rows = [
        (
            *("#", "segment", "users", "share", f"{words.ratings}/user", "median"),
            *([words.unit] if words.has_ratings else []),
            make_phrases(profiles[0]).high_column,
        )
    ]
    for profile, persona in zip(profiles, personas, strict=True):
        high = profile.high_rated(categories)
        rows.append(
            (
                str(profile.segment),
                persona.name,
                f"{profile.users:,}",
                f"{profile.share:.1%}",
                f"{profile.items_per_user:,.1f}",
                format_number(profile.median_items_per_user),
                *([f"{profile.mean_rating:.2f}"] if words.has_ratings else []),
                f"{len(high)} of {len(categories)}"
                + (f": {', '.join(high[:_SHOWN_ON_TERMINAL])}" if high else "")
                + (" …" if len(high) > _SHOWN_ON_TERMINAL else ""),
            )
        )
    lines = format_table(rows, left={1, len(rows[0]) - 1})
    weak = [str(profile.segment) for profile in profiles if profile.is_weak]
    if weak:
        lines += [
            "",
            f"weak: segment{'s' if len(weak) > 1 else ''} {', '.join(weak)}, hardly found again "
            "when the fit is repeated on resampled users",
        ]
    return "\n".join(lines)


def _build_segment_rows(
    profiles: Sequence[SegmentProfile], personas: Sequence[Persona], categories: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Return the fields of each segment that the templates use."""
    rows = []
    for profile, persona in zip(profiles, personas, strict=True):
        high = profile.high_rated(categories)
        lifts = sorted(
            (
                (float(profile.lift[g]), category)
                for g, category in enumerate(categories)
                if profile.lift[g] >= 1.1
            ),
            reverse=True,
        )
        rows.append(
            {
                "number": profile.segment,
                "color": segment_color(profile.segment),
                "name": persona.name,
                "tagline": persona.tagline,
                "summary": persona.summary,
                "strategy": persona.product_strategy,
                "actions": persona.marketing_actions,
                "weak": profile.is_weak,
                "stability": "–" if isnan(profile.stability) else f"{profile.stability:.2f}",
                "users": f"{profile.users:,}",
                "share": f"{profile.share:.1%}",
                "ratings": f"{profile.items_per_user:,.1f}",
                "median": format_number(profile.median_items_per_user),
                "rating": f"{profile.mean_rating:.2f}",
                "high": high[:_SHOWN_ON_CARD],
                "high_rest": max(0, len(high) - _SHOWN_ON_CARD),
                "high_count": f"{len(high)} of {len(categories)}",
                "high_shown": high[:_SHOWN_IN_TABLE],
                "high_more": max(0, len(high) - _SHOWN_IN_TABLE),
                "lifts": [(category, f"{lift:.1f}×") for lift, category in lifts[:4]],
            }
        )
    return rows


def _escape_markdown(value: object) -> str:
    """Escape characters that Markdown reads as tables, links, code or HTML."""
    return "".join("\\" + c if c in "\\|<>[]`" else c for c in " ".join(str(value).split()))


def _load_template(name: str) -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("segmentation", "reporting"),
        autoescape=name.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["markdown"] = _escape_markdown
    return environment.get_template(name)
