"""Finished stages that were damaged on disk never lead to another result."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pandas as pd
import pytest

from jobs import segment
from segmentation.pipeline import stages

#: Bits to flip; each takes a run.
N_FLIPS = int(os.environ.get("SEGMENTATION_BIT_FLIPS", "12"))


def run(out: Path, *options: str) -> int:
    arguments = ["--data", "synthetic:1000", "--k", "3", "--out", str(out), "--quiet"]
    return segment.main([*arguments, *options])


def read_results(out: Path) -> tuple[pd.DataFrame, str]:
    return pd.read_parquet(out / "assignments.parquet"), (out / "segments.json").read_text()


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that failed after all stages that it computes from the ratings."""
    out = tmp_path_factory.mktemp("damage") / "unfinished"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "evaluate_clustering", lambda *_: 1 / 0)
        assert run(out) == 1
    return out


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, str]:
    out = tmp_path_factory.mktemp("damage") / "expected"
    assert run(out) == 0
    return read_results(out)


def test_flipped_bits_are_found(
    unfinished: Path, expected: tuple[pd.DataFrame, str], tmp_path: Path, capsys
) -> None:
    random_numbers = random.Random(0)
    names = [
        path.relative_to(unfinished)
        for path in sorted((unfinished / ".work").rglob("*"))
        if path.is_file() and path.name != "lock"
    ]
    assert Path(".work/products/model/user_statistics.parquet/part-00000.parquet") in names
    for number in range(N_FLIPS):
        out = tmp_path / str(number)
        shutil.copytree(unfinished, out)
        path = out / random_numbers.choice(names)
        content = bytearray(path.read_bytes())
        bit = random_numbers.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        capsys.readouterr()
        assert run(out, "--resume") == 0
        if path.is_relative_to(out / ".work" / "products" / "model"):
            assert "the ratings stage is computed again" in capsys.readouterr().err
        assignments, segments = read_results(out)
        pd.testing.assert_frame_equal(assignments, expected[0])
        assert segments == expected[1]
        shutil.rmtree(out)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.json", b""),
        ("state.json", b"[]"),
        ("state.json", b'{"identity": {}, "stages": {}}'),
        ("products/model/user_statistics.parquet/part-00000.parquet", b""),
        ("products/model/user_statistics.parquet/part-00000.parquet", b"PAR1"),
    ],
)
def test_files_that_were_cut_or_replaced_are_found(
    unfinished: Path,
    expected: tuple[pd.DataFrame, str],
    tmp_path: Path,
    capsys,
    name: str,
    content: bytes,
) -> None:
    shutil.copytree(unfinished, tmp_path / "out")
    (tmp_path / "out" / ".work" / name).write_bytes(content)
    assert run(tmp_path / "out", "--resume") == 0
    error = capsys.readouterr().err
    assert ("is damaged, so none" if name == "state.json" else "is missing or differs") in error
    pd.testing.assert_frame_equal(read_results(tmp_path / "out")[0], expected[0])


def test_a_hand_edited_state_is_not_used(
    unfinished: Path, expected: tuple[pd.DataFrame, str], tmp_path: Path, capsys
) -> None:
    shutil.copytree(unfinished, tmp_path / "out")
    state = tmp_path / "out" / ".work" / "state.json"
    text = state.read_text()
    assert '"items": ' in text
    state.write_text(text.replace('"items": ', '"items": 1', 1))
    assert run(tmp_path / "out", "--resume") == 0
    assert "is damaged, so none of them is used" in capsys.readouterr().err
    pd.testing.assert_frame_equal(read_results(tmp_path / "out")[0], expected[0])


@pytest.mark.parametrize("name", ["segments.json", "model/model.json", "report.html", "run.json"])
def test_a_damaged_finished_run_is_refused(tmp_path: Path, capsys, name: str) -> None:
    assert run(tmp_path / "out") == 0
    path = tmp_path / "out" / name
    path.write_bytes(path.read_bytes().replace(b"0.1", b"0.2", 1).replace(b"e", b"f", 1))
    assert run(tmp_path / "out", "--resume") in (2, 3)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith("pass --overwrite instead of --resume")
    assert run(tmp_path / "out", "--overwrite") == 0
