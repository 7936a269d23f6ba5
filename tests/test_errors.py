"""Errors: one message, read with the names of fields or of options."""

from __future__ import annotations

import copy
import pickle

import pytest

from segmentation.errors import ClusterError, DataError, SegmentationError, UsageError


def test_a_message_without_fields_is_taken_as_it_is() -> None:
    assert str(DataError("{path}/a.csv: is empty")) == "{path}/a.csv: is empty"


def test_fields_are_rendered_by_the_names_that_are_given() -> None:
    error = UsageError(
        "{out} {path}: holds a run: pass {resume} or {overwrite}",
        "out",
        "resume",
        "overwrite",
        path="runs/{k}",
    )
    assert str(error) == "out runs/{k}: holds a run: pass resume or overwrite"
    names = {"out": "--out", "resume": "--resume", "overwrite": "--overwrite"}
    assert error.render(names) == "--out runs/{k}: holds a run: pass --resume or --overwrite"


@pytest.mark.parametrize("kind", [SegmentationError, UsageError, DataError, ClusterError])
def test_an_error_survives_the_way_from_a_worker(kind: type[SegmentationError]) -> None:
    error = kind("{k} {value}", "k", value=3)
    for received in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(received) is kind
        assert str(received) == "k 3"
        assert received.fields == ("k",)
