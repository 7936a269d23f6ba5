"""Distinct ids and codes, as pandas factorizes them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.datasets.identifiers import STRING_DTYPE
from segmentation.features.factorize import factorize, format_id


@pytest.mark.parametrize("is_sorted", [False, True])
@given(values=st.lists(st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1), max_size=40))
def test_integers(is_sorted: bool, values: list[int]) -> None:
    column = pd.Series(sorted(values) if is_sorted else values, dtype=np.int64)
    ids, codes = factorize(column)
    expected_codes, expected_ids = pd.factorize(column, sort=True)
    assert ids.tolist() == expected_ids.tolist()
    assert codes.tolist() == expected_codes.tolist()
    assert codes.dtype == np.int64


@given(
    st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=5))
)
def test_strings(values: list[str]) -> None:
    ids, codes = factorize(pd.Series(values, dtype=STRING_DTYPE))
    assert [key.decode() for key in ids] == sorted(set(values), key=str.encode)
    assert [ids[code].decode() for code in codes] == values


def test_ids_for_people() -> None:
    assert format_id(np.int64(7)) == "7"
    assert format_id("ü7".encode()) == "ü7"
