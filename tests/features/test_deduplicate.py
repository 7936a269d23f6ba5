"""Only the latest rating counts: by hand, as pandas has it, and in any order of the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from segmentation.datasets.format import NO_TIMESTAMP
from segmentation.features import deduplicate
from segmentation.features.deduplicate import superseded_mask
from segmentation.features.partition_reader import FRAGMENT
from segmentation.schema import ITEM, LINE, RATING, TIMESTAMP, USER
from tests.features.helpers import (
    TABLE,
    assert_equal,
    expected_statistics,
    split,
    summarize,
    write_file,
)


def to_frame(rows: list[tuple]) -> pd.DataFrame:
    names = [USER, ITEM, RATING, TIMESTAMP, FRAGMENT, LINE]
    return pd.DataFrame(rows, columns=names).astype({RATING: float, USER: int})


def test_by_hand() -> None:
    rows = to_frame(
        [
            (1, 10, 4.0, 5, 0, 0),  # superseded by the next row
            (1, 10, 1.0, 9, 0, 1),
            (1, 20, 2.0, 5, 0, 2),
            (2, 10, 3.0, 5, 0, 3),  # superseded by the last row: same time, more stars
            (1, 10, 5.0, 7, 1, 0),  # later in the file, but earlier in time
            (2, 10, 4.5, 5, 1, 1),
        ]
    )
    assert superseded_mask(rows).tolist() == [True, False, False, True, True, False]
    assert superseded_mask(rows.iloc[:0]).tolist() == []


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 10), st.integers(0, 3)),
        max_size=40,
    ),
    seed=st.integers(0, 99),
)
def test_as_pandas_drops_duplicates(rows: list[tuple], seed: int) -> None:
    frame = to_frame([(u, m, h / 2, t, i // 7, i % 7) for i, (u, m, h, t) in enumerate(rows)])
    latest = (
        frame.sort_values([TIMESTAMP, RATING, FRAGMENT, LINE])
        .drop_duplicates([USER, ITEM], keep="last")
        .index
    )
    assert sorted(np.flatnonzero(~superseded_mask(frame))) == sorted(latest)
    shuffled = frame.iloc[np.random.default_rng(seed).permutation(len(frame))]
    assert sorted(shuffled.index[~superseded_mask(shuffled)]) == sorted(latest)


def test_a_partition_leaves_its_edges_undecided(tmp_path: Path) -> None:
    text = b"1,1,1.0,1\n1,1,2.0,2\n2,1,3.0,5\n2,1,4.0,4\n2,9,5.0,1\n3,9,2.0,1\n"
    fragments = split(write_file(tmp_path / "r.csv", text), 20)
    statistics, summary, leftovers = deduplicate.read_latest(fragments, 7, TABLE)
    assert_equal(statistics, expected_statistics([(2, 1, 3.0), (2, 9, 5.0)]))
    assert leftovers.superseded[[RATING, FRAGMENT, LINE]].values.tolist() == [[4.0, 8, 1]]
    assert leftovers.edges[USER].tolist() == [1, 1, 3]
    assert (summary.used, summary.n_users, summary.sketch.tolist()) == (6, 3, [1, 2, 3])


def test_superseded_rows_have_their_place() -> None:
    rows = to_frame([(7, 0, 4.0, 5, 1, 3), (8, 3, 0.5, NO_TIMESTAMP, 0, 0)])
    rejected = deduplicate.superseded_rows(rows, [("a.csv", 2), ("b.csv", 20)], TABLE)
    assert [(row.file, row.line, row.text) for row in rejected] == [
        ("b.csv", 23, "7,1,4,5"),
        ("a.csv", 2, "8,9,0.5"),
    ]


def test_is_sorted_by_user() -> None:
    first, second, third = (summarize(np.array(ids)) for ids in ([1, 5], [5, 7], [9]))
    empty = summarize(np.empty(0, np.int64))
    # Partitions finish in any order, and may share the user at an edge.
    assert deduplicate.is_sorted_by_user([third, empty, first, second])
    assert not deduplicate.is_sorted_by_user([first, second, summarize(np.array([6, 9]))])
