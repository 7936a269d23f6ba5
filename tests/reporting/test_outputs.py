"""The files that a run leaves for people: their keys, values and cross-references."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import segmentation.reporting
from segmentation.errors import DataError
from segmentation.reporting import outputs
from segmentation.schema import KFigures, KSearch, Persona, SegmentProfile, Words
from segmentation.storage.run_folder import RunFolder, RunOutputs

GENRES = ("Drama", "Comedy", "War")
#: What the layouts of films call things.
WORDS = Words("movie", "movies", "genre", "genres", unit="stars")
PROFILES = [
    SegmentProfile(
        segment=0,
        users=3,
        share=0.75,
        items_per_user=4.5,
        median_items_per_user=4.0,
        mean_rating=3.25,
        mean=np.array([3.5, 4.0, 0.0]),
        mean_rated=np.array([3.5, 4.5, np.nan]),
        coverage=np.array([1.0, 0.5, 0.0]),
        lift=np.array([1.2, 0.8, np.nan]),
        stability=0.9,
        words=WORDS,
    ),
    SegmentProfile(
        segment=1,
        users=1,
        share=0.25,
        items_per_user=9.0,
        median_items_per_user=9.0,
        mean_rating=2.0,
        mean=np.array([1.0, 2.0, 3.0]),
        mean_rated=np.array([1.0, 2.0, 3.0]),
        coverage=np.array([1.0, 1.0, 1.0]),
        lift=np.array([0.5, 1.5, 1.0]),
    ),
]
PERSONAS = [
    Persona("Quiet", "tag 0", "summary 0", ("a", "b"), ("c",)),
    Persona("Loud", "tag 1", "summary 1", ("d",), ("e", "f")),
]
SEARCH = KSearch(
    tuple(KFigures(k, 100.0 / k, 3, 0.3, 0.4, 1.0, 100.0, 0.8, 0.7, (0.9,) * k) for k in (2, 3, 4)),
    2,
    4,
    4,
    True,
    1000,
    1000,
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    folder = RunFolder(tmp_path / "out", RunOutputs("segment", ()), "fingerprint")
    yield folder
    folder.abandon()


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "settings": {"join": "links", "implicit": False, "preset": "engagement", "seed": 7},
        "data": {
            "source": "kaggle",
            "ratings": "/data/ratings.csv",
            "layout": "kaggle",
            "synthetic": False,
            "fingerprint": "0123456789abcdef0123",
        },
        "rows": {"read": 12_345, "used": 12_000, "unmapped": 340, "rejected": 5},
        "users": 4,
        "items": 99,
        "kmeans": {
            "n_clusters": 2,
            "inertia": 1234.56,
            "n_iter": 8,
            "silhouette": 0.1234,
            "silhouette_rows": 5000,
            "simplified_silhouette": None,
            "davies_bouldin": 1.5,
            "calinski_harabasz": 77.77,
            "stability": {"resampled_ari": None, "reseeded_ari": 1.0},
        },
        "pca": {"explained_variance_ratio": [0.4, 0.1], "angle_to_exact_degrees": 0.0012},
        "cluster": {"kind": "threads", "workers": 1, "threads": 2},
        "warnings": ["half of the catalogue is missing"],
        "seconds": 1.26,
        "peak_memory_bytes": 412_300_000,
        "versions": {"segmentation": "1", "dask": "2", "dask-ml": "3", "scikit-learn": "4"},
        **changes,
    }


def test_segments_json(folder: RunFolder) -> None:
    outputs.write_segments(folder, PROFILES, PERSONAS, GENRES)
    first, second = json.loads(folder.result_path("segments.json").read_text("utf-8"))
    assert first == {
        "segment": 0,
        "persona": "Quiet",
        "tagline": "tag 0",
        "users": 3,
        "share": 0.75,
        "items_per_user": 4.5,
        "median_items_per_user": 4.0,
        "mean_rating": 3.25,
        "stability": 0.9,
        "scale": [0.5, 5.0],
        "words": dataclasses.asdict(WORDS),
        "high_rated": ["Comedy", "Drama"],
        "categories": {
            "Drama": {"mean": 3.5, "mean_rated": 3.5, "coverage": 1.0, "lift": 1.2},
            "Comedy": {"mean": 4.0, "mean_rated": 4.5, "coverage": 0.5, "lift": 0.8},
            "War": {"mean": 0.0, "mean_rated": None, "coverage": 0.0, "lift": None},
        },
        "summary": "summary 0",
        "product_strategy": ["a", "b"],
        "marketing_actions": ["c"],
    }
    assert second["high_rated"] == ["War"]
    assert second["stability"] is None


def test_segments_csv(folder: RunFolder) -> None:
    outputs.write_segments(folder, PROFILES, PERSONAS, GENRES)
    table = pd.read_csv(folder.result_path("segments.csv"))
    assert list(table.columns) == [
        *("segment", "persona", "tagline", "users", "share"),
        *("items_per_user", "median_items_per_user", "mean_rating"),
        *("stability", "scale", "high_rated", "summary", "product_strategy", "marketing_actions"),
        *("mean:Drama", "mean_rated:Drama", "coverage:Drama", "lift:Drama"),
        *("mean:Comedy", "mean_rated:Comedy", "coverage:Comedy", "lift:Comedy"),
        *("mean:War", "mean_rated:War", "coverage:War", "lift:War"),
    ]
    assert table["high_rated"].tolist() == ["Comedy; Drama", "War"]
    assert table["marketing_actions"].tolist() == ["c", "e; f"]
    assert table["coverage:Comedy"].tolist() == [0.5, 1.0]
    assert table["lift:War"].isna().tolist() == [True, False]
    assert table["stability"].isna().tolist() == [False, True]


def test_segments_are_read_back(folder: RunFolder) -> None:
    outputs.write_segments(folder, PROFILES, PERSONAS, GENRES)
    genres, profiles, personas = outputs.read_segments(folder.result_path("segments.json"))
    assert genres == GENRES
    assert personas == PERSONAS
    for profile, original in zip(profiles, PROFILES, strict=True):
        for name, value in vars(original).items():
            np.testing.assert_array_equal(getattr(profile, name), value, err_msg=name)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "FileNotFoundError"),
        ("[{", "JSONDecodeError"),
        ("[]", "IndexError"),
        ('[{"categories": {}}]', "KeyError"),
        ('[{"categories": 1}]', "TypeError"),
    ],
)
def test_damaged_segments(tmp_path: Path, content: str | None, error: str) -> None:
    path = tmp_path / "{braces}.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError) as raised:
        outputs.read_segments(path)
    assert str(raised.value).startswith(f"{path}: can't be read ({error}(")
    assert str(raised.value).endswith("run again with overwrite")
    assert raised.value.render({"overwrite": "--overwrite"}).endswith("with --overwrite")


def test_figures(folder: RunFolder) -> None:
    pngs = {"pca": b"1", "sizes": b"2"}
    assert outputs.write_figures(folder, pngs, None) == pngs
    assert folder.result_path("figures/pca.png").read_bytes() == b"1"
    assert folder.result_path("figures/sizes.png").read_bytes() == b"2"
    assert not folder.result_path("figures/choose_k.png").exists()


def test_figure_of_a_search(folder: RunFolder) -> None:
    figures = outputs.write_figures(folder, {"pca": b"1"}, SEARCH)
    assert list(figures) == ["pca", "choose_k"]
    assert figures["choose_k"].startswith(b"\x89PNG")
    assert folder.result_path("figures/choose_k.png").read_bytes() == figures["choose_k"]


@pytest.mark.parametrize("search", [None, SEARCH])
def test_reports_show_the_figures_of_the_run(folder: RunFolder, search: KSearch | None) -> None:
    pngs = {name: name.encode() for name in ("pca", "genres", "sizes")}
    figures = outputs.write_figures(folder, pngs, search)
    outputs.write_reports(folder, manifest(), PROFILES, PERSONAS, GENRES, figures, search)
    page = folder.result_path("report.html").read_text("utf-8")
    text = folder.result_path("report.md").read_text("utf-8")
    assert page.count("<figure>") == len(figures)
    paths = re.findall(r"\]\((figures/.*?)\)", text)
    assert paths == [f"figures/{name}.png" for name in figures]
    assert all(folder.result_path(path).exists() for path in paths)
    for form in (page, text):
        assert ("Take k = 4" in form) == (search is not None)
        assert "12,345" in form
        assert "half of the catalogue is missing" in form
        assert all(persona.summary in form for persona in PERSONAS)


def test_facts_by_hand() -> None:
    facts = outputs.collect_report_facts(manifest(), WORDS)
    assert facts.source == "Ratings from ratings.csv (kaggle layout)"
    assert facts.headline == (
        ("Users", "4"),
        ("Ratings used", "12,000"),
        ("Movies", "99"),
        ("Segments", "2"),
    )
    assert facts.warnings == ("half of the catalogue is missing",)
    assert dict(facts.tables["Data"]) == {
        "source": "kaggle",
        "file": "ratings.csv",
        "layout": "kaggle",
        "join": "links",
        "rows read": "12,345",
        "rows used": "12,000",
        "rows of movies not in the catalogue": "340",
        "rows rejected": "5",
        "fingerprint": "0123456789abcdef",
    }
    assert dict(facts.tables["Quality"]) == {
        "inertia (sum of squared distances)": "1,234.6",
        "Lloyd iterations": "8",
        "silhouette": "0.123 on 5,000 users",
        "simplified silhouette, all users": "–",
        "Davies–Bouldin (lower is better)": "1.500",
        "Caliński–Harabasz (higher is better)": "77.8",
        "adjusted Rand index, resampled users": "–",
        "adjusted Rand index, other seeds": "1.000",
        "variance on the two axes": "50.0%",
        "angle to exact PCA": "0.0012°",
    }
    assert dict(facts.tables["Run"]) == {
        "preset": "engagement",
        "segments (k)": "2",
        "seed": "7",
        "cluster": "threads: 1 worker, 2 threads",
        "time": "1.3 s",
        "peak memory, all processes": "412 MB",
        "versions": "segmentation 1, dask 2, dask-ml 3, scikit-learn 4",
    }


def test_facts_of_a_synthetic_run_and_of_a_search() -> None:
    run = manifest(choose_k={"range": [2, 9]})
    run["data"].update(synthetic=True, source="synthetic:1000", layout="ml-latest")
    run["kmeans"]["planted_ari"] = 0.5
    run["pca"]["angle_to_exact_degrees"] = None
    facts = outputs.collect_report_facts(run, WORDS)
    assert facts.synthetic
    assert facts.source.startswith("Synthetic ratings")
    assert dict(facts.tables["Data"])["source"] == "synthetic:1000 (synthetic)"
    assert dict(facts.tables["Data"])["join"] == "by id"
    assert dict(facts.tables["Quality"])["adjusted Rand index, planted segments"] == "0.500"
    assert dict(facts.tables["Quality"])["angle to exact PCA"] == "–"
    assert dict(facts.tables["Run"])["segments (k)"] == "2, chosen from 2 to 9"


def test_public_names_are_importable() -> None:
    for name in segmentation.reporting.__all__:
        assert getattr(segmentation.reporting, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = segmentation.reporting.nothing
