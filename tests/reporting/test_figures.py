"""Figures for few and many segments and users, without a display."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest

from segmentation.reporting import figures
from segmentation.schema import KAGGLE_GENRES
from tests.reporting.test_personas import profile


def pixels(png: bytes) -> np.ndarray:
    from matplotlib import image

    return image.imread(io.BytesIO(png))


def count_pixels(png: bytes, color: str) -> int:
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return int((np.abs(pixels(png)[..., :3] - rgb).max(axis=2) < 0.02).sum())


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 5), (30_000, 8), (5_000, 20), (9_000, 50)])
def test_scatter(n: int, k: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(k), rng.integers(k, size=max(0, n - k))])[:n]
    names = [f"Persona {s}" for s in range(k)]
    if n < k:
        labels = np.zeros(n, np.int64)
    png = figures.draw_pca_scatter(
        rng.normal(size=(n, 2)), labels.astype(np.int32), n, names, [0.5, 0.2], 0
    )
    assert png.startswith(b"\x89PNG")
    assert min(pixels(png).shape[:2]) > 500
    for edge in (pixels(png)[:2], pixels(png)[-2:], pixels(png)[:, :2], pixels(png)[:, -2:]):
        assert (edge[..., :3] > 0.98).all(), "nothing is cut off"
    assert all(count_pixels(png, figures.segment_color(s)) > 20 for s in np.unique(labels))


def test_dollar_signs_are_no_mathematics() -> None:
    names = ["Under $5, over $3", r"Cheap $\frac$ & Co"]
    profiles = [profile(0, 5, 0), profile(1, 9, 2)]
    points, labels = np.zeros((4, 2)), np.array([0, 1, 0, 1], np.int32)
    assert figures.draw_pca_scatter(points, labels, 4, names, [0.0, 0.0], 0).startswith(b"\x89PNG")
    assert figures.draw_category_heatmap(profiles, KAGGLE_GENRES, names).startswith(b"\x89PNG")
    assert figures.draw_segment_sizes(profiles, names).startswith(b"\x89PNG")


def test_equal_input_gives_an_equal_png() -> None:
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(20_000, 2)), rng.integers(3, size=20_000).astype(np.int32)
    draw = [
        figures.draw_pca_scatter(points, labels, 30_000, ["a", "b", "c"], [0.5, 0.1], 7)
        for _ in "12"
    ]
    assert draw[0] == draw[1]


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_heatmap_and_sizes(k: int) -> None:
    profiles = [profile(s, 5 * 2**s, s) for s in range(k)]
    names = [f"Expanding Enthusiasts ({KAGGLE_GENRES[s]})" for s in range(k)]
    for png in (
        figures.draw_category_heatmap(profiles, KAGGLE_GENRES, names),
        figures.draw_segment_sizes(profiles, names),
    ):
        assert png.startswith(b"\x89PNG")
        picture = pixels(png)[..., :3]
        # Nothing is cut off: the outermost pixels are blank.
        for edge in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]):
            assert (edge > 0.98).all()


def test_no_display_is_needed() -> None:
    code = (
        "import sys, numpy as np\n"
        "from segmentation.reporting import figures\n"
        "labels = np.zeros(3, np.int32)\n"
        "figures.draw_pca_scatter(np.ones((3, 2)), labels, 3, ['a'], [1.0, 0.0], 0)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {**os.environ, "MPLBACKEND": "TkAgg", "DISPLAY": ""}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
