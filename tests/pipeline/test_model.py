"""The saved model: JSON that comes back equal and can't execute anything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segmentation.errors import DataError
from segmentation.pipeline.model import SavedModel, load_model
from segmentation.schema import Axes, Grid, Population, Words

MODEL = SavedModel(
    "taste",
    "links",
    "kaggle",
    ("Drama", "War"),
    (1.0, 10.0),
    "ratings",
    3,
    Words("book", "books", "subject", "subjects"),
    ("Quiet", "Loud"),
    np.array([[0.1, 1 / 3], [2.0, 4.0]]),
    np.array([1.0, 2.5]),
    Axes(np.array([1.0, 2.0]), np.eye(2), np.array([0.7, 0.2])),
    Population(
        np.array([3, 5]),
        np.array([0, 1]),
        np.array([1.5, 2.5]),
        np.array([[0.1, 1.0], [2.0, 1 / 3]]),
        np.arange(82).reshape(2, 41),
    ),
    synthetic=True,
)


def test_comes_back_equal(tmp_path: Path) -> None:
    MODEL.save(tmp_path)
    assert_equal(load_model(tmp_path))


def test_a_model_that_an_earlier_program_saved() -> None:
    """The file was written when the format came up; what it says must never change."""
    assert_equal(load_model(Path(__file__).with_name("model-format-4.json")))


def assert_equal(loaded: SavedModel) -> None:
    for name in (
        "preset",
        "join",
        "layout",
        "categories",
        "scale",
        "ratings",
        "min_ratings",
        "words",
    ):
        assert getattr(loaded, name) == getattr(MODEL, name)
    assert (loaded.personas, loaded.synthetic) == (MODEL.personas, MODEL.synthetic)
    assert loaded.grid == Grid(-9.0, 9.0)
    np.testing.assert_array_equal(loaded.centers, MODEL.centers)
    np.testing.assert_array_equal(loaded.distance_p99, MODEL.distance_p99)
    pairs = zip((*loaded.axes, *loaded.population), (*MODEL.axes, *MODEL.population), strict=True)
    for one, other in pairs:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format=99), "has format 99, and this program reads format 4"),
        (lambda v: v.pop("segments"), "is damaged"),
        (lambda v: v["segments"][0].update(center="x"), "is damaged"),
    ],
)
def test_damage_is_reported(tmp_path: Path, change, message: str) -> None:
    MODEL.save(tmp_path)
    values = json.loads((tmp_path / "model.json").read_text())
    change(values)
    (tmp_path / "model.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=message):
        load_model(tmp_path)


def test_none_or_not_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no model.json: name the folder of a run"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(DataError, match="can't be read .*: run segment again"):
        load_model(tmp_path)
