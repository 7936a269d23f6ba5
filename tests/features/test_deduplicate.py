"""The latest rating stands: against pandas, by hand, and in any order of the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from segmentation.features.deduplicate import PIECE, superseded_mask
from segmentation.schema import LINE, MOVIE, RATING, TIMESTAMP, USER


def table(rows: list[tuple]) -> pd.DataFrame:
    names = [USER, MOVIE, RATING, TIMESTAMP, PIECE, LINE]
    return pd.DataFrame(rows, columns=names).astype({RATING: float, USER: int})


def test_by_hand() -> None:
    rows = table(
        [
            (1, 10, 4.0, 5, 0, 0),  # rated again below
            (1, 10, 1.0, 9, 0, 1),
            (1, 20, 2.0, 5, 0, 2),
            (2, 10, 3.0, 5, 0, 3),
            (1, 10, 5.0, 7, 1, 0),  # later in the file, earlier in time
            (2, 10, 4.5, 5, 1, 1),  # at the same time with more stars: stands
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
def test_as_pandas_drops_duplicates_in_any_order(rows: list[tuple], seed: int) -> None:
    whole = table([(u, m, h / 2, t, i // 7, i % 7) for i, (u, m, h, t) in enumerate(rows)])
    kept = (
        whole.sort_values([TIMESTAMP, RATING, PIECE, LINE])
        .drop_duplicates([USER, MOVIE], keep="last")
        .index
    )
    assert sorted(np.flatnonzero(~superseded_mask(whole))) == sorted(kept)
    order = np.random.default_rng(seed).permutation(len(whole))
    mixed = whole.iloc[order]
    assert sorted(mixed.index[~superseded_mask(mixed)]) == sorted(kept)
