"""Write the figures, tables and reports of a run into its folder, and read its segments."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.errors import DataError
from segmentation.reporting import k_selection, report
from segmentation.reporting.wording import capitalize, make_phrases
from segmentation.schema import COUNTS_NOTE, Persona, SegmentProfile, Words
from segmentation.storage import atomic, integrity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from segmentation.reporting.drift import Drift
    from segmentation.schema import KSearch
    from segmentation.storage.run_folder import RunFolder

_PROFILE_COLUMNS = (
    *("segment", "users", "share"),
    *("items_per_user", "median_items_per_user", "mean_rating"),
)
_CATEGORY_COLUMNS = ("mean", "mean_rated", "coverage", "lift")


def write_figures(
    folder: RunFolder, pngs: Mapping[str, bytes], search: KSearch | None
) -> dict[str, bytes]:
    """Write the figures, including that of the search for k if there was one.

    Returns
    -------
    dict
        All figures as PNGs by name.
    """
    figures = dict(pngs)
    if search is not None:
        figures["choose_k"] = k_selection.draw_k_figure(search)
    for name, png in figures.items():
        atomic.write_bytes(folder.result_path(f"figures/{name}.png"), png)
    return figures


def _caption_figures(profile: SegmentProfile) -> dict[str, tuple[str, str]]:
    """Return the caption and the alternative text of each figure."""
    words, phrases = profile.words, make_phrases(profile)
    how_highly = f", and the mean {words.unit}" if words.has_ratings else ""
    return {
        "pca": (
            "Each point is a user, placed on the two axes along which users differ most. The "
            "numbers mark the median of each segment.",
            "Scatter plot of users on two principal axes, coloured by segment",
        ),
        "genres": (
            phrases.caption,
            f"Heat map of the {phrases.mean} by {words.category} and segment",
        ),
        "sizes": (
            f"The size of each segment, how many {words.ratings} its users have{how_highly}.",
            f"Bar charts of users, {words.ratings} per user{how_highly} by segment",
        ),
    }


def write_segments(
    folder: RunFolder,
    profiles: Sequence[SegmentProfile],
    personas: Sequence[Persona],
    categories: tuple[str, ...],
) -> None:
    """Write ``segments.json``, and the same records as a flat table in ``segments.csv``."""
    records = [
        build_segment_record(profile, persona, categories)
        for profile, persona in zip(profiles, personas, strict=True)
    ]
    atomic.write_json(folder.result_path("segments.json"), records)
    scalars = [name for name in records[0] if name not in ("categories", "words")]
    header = scalars + [
        f"{column}:{category}" for category in categories for column in _CATEGORY_COLUMNS
    ]
    rows = []
    for record in records:
        cells = [
            "; ".join(map(str, value)) if isinstance(value, list) else value
            for value in (record[name] for name in scalars)
        ]
        for category in categories:
            cells += [
                atomic.jsonable(record["categories"][category][column])
                for column in _CATEGORY_COLUMNS
            ]
        rows.append(cells)
    atomic.write_csv(folder.result_path("segments.csv"), header, rows)


def build_segment_record(
    profile: SegmentProfile, persona: Persona, categories: tuple[str, ...]
) -> dict[str, Any]:
    """Build the record of a segment for ``segments.json``."""
    return {
        "segment": profile.segment,
        "persona": persona.name,
        "tagline": persona.tagline,
        "users": profile.users,
        "share": profile.share,
        "items_per_user": profile.items_per_user,
        "median_items_per_user": profile.median_items_per_user,
        "mean_rating": profile.mean_rating,
        "stability": profile.stability,
        "scale": list(profile.scale),
        "words": asdict(profile.words),
        "high_rated": profile.high_rated(categories),
        "categories": {
            category: {column: float(getattr(profile, column)[g]) for column in _CATEGORY_COLUMNS}
            for g, category in enumerate(categories)
        },
        "summary": persona.summary,
        "product_strategy": list(persona.product_strategy),
        "marketing_actions": list(persona.marketing_actions),
    }


def read_segments(
    path: Path,
) -> tuple[tuple[str, ...], list[SegmentProfile], list[Persona]]:
    """Read categories, profiles and personas from ``segments.json``.

    Raises
    ------
    DataError
        If the file is missing or damaged.
    """
    try:
        records = integrity.read_json(path)
        categories = tuple(records[0]["categories"])
        profiles = [_parse_profile(record, categories) for record in records]
        personas = [_parse_persona(record) for record in records]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            "{path}: can't be read ({error}): run again with {overwrite}",
            "overwrite",
            path=path,
            error=repr(error),
        ) from error
    return categories, profiles, personas


def _parse_profile(record: Mapping[str, Any], categories: tuple[str, ...]) -> SegmentProfile:
    arrays: dict[str, Any] = {
        column: np.array(
            [record["categories"][category][column] for category in categories], np.float64
        )
        for column in _CATEGORY_COLUMNS
    }
    stability = record["stability"]
    return SegmentProfile(
        **{name: record[name] for name in _PROFILE_COLUMNS},
        **arrays,
        scale=(float(record["scale"][0]), float(record["scale"][1])),
        words=Words(**record["words"]),
        stability=float("nan") if stability is None else stability,
    )


def _parse_persona(record: Mapping[str, Any]) -> Persona:
    return Persona(
        record["persona"],
        record["tagline"],
        record["summary"],
        tuple(record["product_strategy"]),
        tuple(record["marketing_actions"]),
    )


def write_reports(
    folder: RunFolder,
    manifest: Mapping[str, Any],
    profiles: Sequence[SegmentProfile],
    personas: Sequence[Persona],
    categories: tuple[str, ...],
    figures: Mapping[str, bytes],
    search: KSearch | None,
) -> None:
    """Write ``report.html`` and ``report.md``."""
    facts = collect_report_facts(manifest, profiles[0].words)
    captions = _caption_figures(profiles[0])
    if search is not None:
        captions["choose_k"] = (
            k_selection.explain_choice(search),
            "Curves of inertia, silhouette, Davies–Bouldin, Caliński–Harabasz and stability over k",
        )
    pictures = {caption: (figures[name], text) for name, (caption, text) in captions.items()}
    page = report.render_html(facts, profiles, personas, categories, pictures)
    paths = {caption: f"figures/{name}.png" for name, (caption, _) in captions.items()}
    text = report.render_markdown(facts, profiles, personas, categories, paths)
    _write_page(folder, "report", page, text)


def write_drift_reports(
    folder: RunFolder,
    manifest: Mapping[str, Any],
    drift: Drift,
    names: Sequence[str],
    words: Words,
) -> None:
    """Write ``report.html`` and ``report.md`` of users who were put into given segments."""
    scored = manifest["scored"]
    n_unknown = scored["unscored"].get("no_known_item", 0)
    n_few = scored["unscored"].get("few_ratings", 0)
    n_unscored = n_unknown + n_few
    facts = report.ReportFacts(
        title="Users in the segments of an earlier run",
        source=_describe_source(manifest["data"], words),
        synthetic=bool(manifest["data"]["synthetic"]),
        created=_format_now(),
        headline=(
            ("Users with a segment", f"{manifest['users']:,}"),
            ("Users without one", f"{n_unscored:,}"),
            (f"{capitalize(words.ratings)} used", f"{manifest['rows']['used']:,}"),
            ("Verdict", drift.verdict),
        ),
        warnings=tuple(manifest["warnings"]),
        tables={
            "Data": _list_data_facts(manifest, words),
            "Users without a segment": [
                (f"without a known {words.item}", f"{n_unknown:,}"),
                (f"with too few {words.ratings}", f"{n_few:,}"),
                ("listed in", "unscored.parquet" if n_unscored else "–"),
            ],
            "Run": [
                ("segments of", scored["model"]),
                ("preset", manifest["settings"]["preset"]),
                *_list_cost_facts(manifest),
            ],
        },
    )
    page = report.render_drift_html(facts, drift, names, words)
    text = report.render_drift_markdown(facts, drift, names, words)
    _write_page(folder, "report", page, text)


def write_refresh_drift(
    folder: RunFolder,
    manifest: Mapping[str, Any],
    drift: Drift,
    names: Sequence[str],
    words: Words,
) -> None:
    """Write ``drift.html`` and ``drift.md``: what changed since the run before."""
    facts = report.ReportFacts(
        title="What has changed since the earlier run",
        source=_describe_source(manifest["data"], words),
        synthetic=bool(manifest["data"]["synthetic"]),
        created=_format_now(),
        headline=(
            ("Users before", f"{drift.users_before:,}"),
            ("Users now", f"{drift.users_now:,}"),
            (f"{capitalize(words.ratings)} in all", f"{manifest['rows']['used']:,}"),
            ("Verdict", drift.verdict),
        ),
        warnings=tuple(manifest["warnings"]),
        tables={
            "Data": [
                ("segments of", manifest["settings"]["from_run"]),
                *(
                    (f"{words.ratings} {i}", m["source"])
                    for i, m in enumerate(manifest["data"]["merged"], 1)
                ),
            ],
        },
    )
    page = report.render_drift_html(facts, drift, names, words, is_refitted=True)
    text = report.render_drift_markdown(facts, drift, names, words, is_refitted=True)
    _write_page(folder, "drift", page, text)


def _write_page(folder: RunFolder, name: str, html: str, markdown: str) -> None:
    atomic.write_bytes(folder.result_path(f"{name}.html"), html.encode("utf-8"))
    atomic.write_bytes(folder.result_path(f"{name}.md"), markdown.encode("utf-8"))


def _format_now() -> str:
    return datetime.now().astimezone().strftime("%d %B %Y, %H:%M").lstrip("0")


def collect_report_facts(manifest: Mapping[str, Any], words: Words) -> report.ReportFacts:
    """Collect the facts about a run for its reports, from its manifest."""
    data = manifest["data"]
    return report.ReportFacts(
        title="Audience segments",
        source=_describe_source(data, words),
        synthetic=bool(data["synthetic"]),
        created=_format_now(),
        headline=(
            ("Users", f"{manifest['users']:,}"),
            (f"{capitalize(words.ratings)} used", f"{manifest['rows']['used']:,}"),
            (capitalize(words.items), f"{manifest['items']:,}"),
            ("Segments", str(manifest["kmeans"]["n_clusters"])),
        ),
        warnings=tuple(manifest["warnings"]),
        tables={
            "Data": _list_data_facts(manifest, words),
            "Quality": _list_quality_facts(manifest),
            "Run": _list_run_facts(manifest),
        },
        drift=manifest.get("drift", {}).get("verdict", ""),
    )


def _list_data_facts(manifest: Mapping[str, Any], words: Words) -> list[tuple[str, str]]:
    settings, data, rows = manifest["settings"], manifest["data"], manifest["rows"]
    return [
        ("source", data["source"] + (" (synthetic)" if data["synthetic"] else "")),
        ("file", data["ratings"].rsplit("/", 1)[-1]),
        ("layout", data["layout"]),
        ("join", settings["join"] if data["layout"] == "kaggle" else "by id"),
        *([("ratings", _describe_implicit(settings))] if settings["implicit"] else []),
        ("rows read", f"{rows['read']:,}"),
        ("rows used", f"{rows['used']:,}"),
        (f"rows of {words.items} not in the catalogue", f"{rows['unmapped']:,}"),
        ("rows rejected", f"{rows['rejected']:,}"),
        ("fingerprint", data["fingerprint"][:16]),
    ]


def _describe_implicit(settings: Mapping[str, Any]) -> str:
    has_counts = "rating" in (settings["columns"] or {})
    return COUNTS_NOTE if has_counts else "none: each row counts 1"


def _list_quality_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    kmeans, pca = manifest["kmeans"], manifest["pca"]
    silhouette, stability = _format_number(kmeans["silhouette"]), kmeans["stability"]
    facts = [
        ("inertia (sum of squared distances)", _format_number(kmeans["inertia"], 1)),
        ("Lloyd iterations", str(kmeans["n_iter"])),
        ("silhouette", f"{silhouette} on {kmeans['silhouette_rows']:,} users"),
        ("simplified silhouette, all users", _format_number(kmeans["simplified_silhouette"])),
        ("Davies–Bouldin (lower is better)", _format_number(kmeans["davies_bouldin"])),
        ("Caliński–Harabasz (higher is better)", _format_number(kmeans["calinski_harabasz"], 1)),
        (
            "adjusted Rand index, resampled users",
            _format_number(stability["resampled_ari"]),
        ),
        ("adjusted Rand index, other seeds", _format_number(stability["reseeded_ari"])),
    ]
    if kmeans.get("planted_ari") is not None:
        facts.append(
            ("adjusted Rand index, planted segments", _format_number(kmeans["planted_ari"]))
        )
    return [
        *facts,
        ("variance on the two axes", f"{sum(pca['explained_variance_ratio']):.1%}"),
        ("angle to exact PCA", _format_degrees(pca["angle_to_exact_degrees"])),
    ]


def _list_run_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings = manifest["settings"]
    return [
        ("preset", settings["preset"]),
        ("segments (k)", _describe_k(manifest)),
        ("seed", str(settings["seed"])),
        *_list_cost_facts(manifest),
    ]


def _list_cost_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    cluster = manifest["cluster"]
    libraries = ("segmentation", "dask", "dask-ml", "scikit-learn")
    return [
        (
            "cluster",
            f"{cluster['kind']}: {_count(cluster['workers'], 'worker')}, "
            f"{_count(cluster['threads'], 'thread')}",
        ),
        ("time", f"{manifest['seconds']:.1f} s"),
        ("peak memory, all processes", f"{manifest['peak_memory_bytes'] / 1e6:,.0f} MB"),
        ("versions", ", ".join(f"{name} {manifest['versions'][name]}" for name in libraries)),
    ]


def _describe_k(manifest: Mapping[str, Any]) -> str:
    k = str(manifest["kmeans"]["n_clusters"])
    if "choose_k" not in manifest:
        return k
    low, high = manifest["choose_k"]["range"]
    return f"{k}, chosen from {low} to {high}"


def _describe_source(data: Mapping[str, Any], words: Words) -> str:
    if data["synthetic"]:
        return "Synthetic ratings modelled on MovieLens"
    name = data["ratings"].rsplit("/", 1)[-1]
    return f"{capitalize(words.ratings)} from {name} ({data['layout']} layout)"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _format_number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _format_degrees(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.2g}°"
