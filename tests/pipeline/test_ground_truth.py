"""Agreement with planted segments, against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from segmentation.datasets import layouts
from segmentation.pipeline import ground_truth
from tests.conftest import write_tiny


def write_parts(folder: Path, frame: pd.DataFrame, n_parts: int) -> Path:
    folder.mkdir(parents=True)
    edges = np.linspace(0, len(frame), n_parts + 1).astype(int)
    for number in range(n_parts):
        part = frame.iloc[edges[number] : edges[number + 1]]
        part.to_parquet(folder / f"part-{number:05d}.parquet")
    return folder


@pytest.mark.parametrize("n_parts", [1, 3])
def test_the_agreement_is_scikit_learns(tmp_path: Path, n_parts: int) -> None:
    rng = np.random.default_rng(0)
    users = np.sort(rng.choice(10_000, 500, replace=False))
    planted = rng.integers(0, 4, 500)
    found = np.where(rng.random(500) < 0.7, planted, rng.integers(0, 5, 500)).astype(np.int32)
    order = rng.permutation(500)
    pd.DataFrame({"userId": users[order], "segment": 10 * planted[order]}).to_parquet(
        tmp_path / "planted.parquet"
    )
    # One user more than were planted, who does not count.
    frame = pd.DataFrame({"userId": [*users, 20_000], "segment": np.append(found, np.int32(9))})
    assignments = write_parts(tmp_path / "assignments.parquet", frame, n_parts)
    agreement = ground_truth.planted_agreement(str(tmp_path), assignments)
    assert agreement == pytest.approx(sklearn.metrics.adjusted_rand_score(planted, found))


def test_there_is_none_without_planted_segments(tmp_path: Path) -> None:
    frame = pd.DataFrame({"userId": [1, 2], "segment": np.array([0, 1], np.int32)})
    assignments = write_parts(tmp_path / "assignments.parquet", frame, 1)
    assert ground_truth.planted_agreement(str(tmp_path), assignments) is None
    (tmp_path / "planted.parquet").write_bytes(b"no parquet")
    assert ground_truth.planted_agreement(str(tmp_path), assignments) is None


def test_string_ids_have_no_ground_truth(tmp_path: Path) -> None:
    pd.DataFrame({"userId": [1], "segment": [0]}).to_parquet(tmp_path / "planted.parquet")
    frame = pd.DataFrame({"userId": ["a"], "segment": np.array([0], np.int32)})
    assignments = write_parts(tmp_path / "assignments.parquet", frame, 1)
    assert ground_truth.planted_agreement(str(tmp_path), assignments) is None


def test_the_marker_decides_whether_data_is_synthetic(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "tiny")
    layout = layouts.detect_layout(str(folder))
    assert ground_truth.synthetic_folder(layout) is None
    (folder / "synthetic.json").write_text("{}")
    assert ground_truth.synthetic_folder(layout) == str(folder)
