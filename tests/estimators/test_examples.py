"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ["_k_means", "kmeans", "metrics", "model_selection", "pca", "stability"]


@pytest.mark.parametrize(
    "name", ["segmentation", *(f"segmentation.estimators.{name}" for name in MODULES)]
)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
