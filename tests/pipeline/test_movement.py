"""Movement between segments, compared with a merge in pandas, in any parts."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.errors import DataError
from segmentation.pipeline.movement import count_moves, read_assignments
from segmentation.storage.parquet import list_parts, part_path


def write(folder: Path, frame: pd.DataFrame, cuts: list[int]) -> list[Path]:
    folder.mkdir()
    bounds = [0, *sorted(min(cut, len(frame)) for cut in cuts), len(frame)]
    for number, (low, high) in enumerate(itertools.pairwise(bounds)):
        frame[low:high].to_parquet(part_path(folder, number), index=False)
    return list_parts(folder)


users = st.lists(st.integers(-20, 40), unique=True, min_size=1, max_size=40)
cuts = st.lists(st.integers(0, 40), max_size=4)


@given(
    before=users, now=users, cuts_before=cuts, cuts_now=cuts, text=st.booleans(), seed=st.integers()
)
def test_any_parts(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[int],
    now: list[int],
    cuts_before: list[int],
    cuts_now: list[int],
    text: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(abs(seed))
    folder = tmp_path_factory.mktemp("moves")

    def frame(ids: list[int], k: int) -> pd.DataFrame:
        keys: list[int] | list[str] = [f"u{i}" for i in ids] if text else ids
        segments = rng.integers(0, k, len(ids)).astype(np.int32)
        return pd.DataFrame({"userId": sorted(keys), "segment": segments})

    one, other = frame(before, 2), frame(now, 3)
    merged = one.merge(other, on="userId")
    flows = np.zeros((2, 3), int)
    np.add.at(flows, (merged.segment_x, merged.segment_y), 1)
    now_parts = read_assignments(write(folder / "now", other, cuts_now))
    moves = count_moves(write(folder / "before", one, cuts_before), now_parts, 2, 3)
    assert moves.flows.tolist() == flows.tolist()
    assert moves.entered == len(other) - len(merged)
    assert moves.left == len(one) - len(merged)


def test_ids_of_two_kinds_are_not_compared(tmp_path: Path) -> None:
    number = pd.DataFrame({"userId": [1], "segment": [0]})
    text = pd.DataFrame({"userId": ["1"], "segment": [0]})
    now = read_assignments(write(tmp_path / "b", text, []))
    with pytest.raises(DataError, match="its user ids are numbers, and the new ones are not"):
        count_moves(write(tmp_path / "a", number, []), now, 1, 1)


def test_a_damaged_part(tmp_path: Path) -> None:
    frame = pd.DataFrame({"userId": [1], "segment": [0]})
    before, now = write(tmp_path / "a", frame, []), write(tmp_path / "b", frame, [])
    before[0].write_bytes(before[0].read_bytes()[:-9])
    with pytest.raises(DataError, match=r"part-00000.parquet: can't be read"):
        count_moves(before, read_assignments(now), 1, 1)
