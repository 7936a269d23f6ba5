"""The format of a ratings file."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from segmentation.datasets.format import RatingsFormat, is_exact_integer


def test_positions_follow_the_header() -> None:
    columns = ("timestamp", "rating", "tag", "userId", "movieId")
    file = RatingsFormat("a.csv", 9, b",", columns, 0, 1, (0.5, 5.0))
    assert file.positions == (3, 4, 1)


@given(st.lists(st.floats(), min_size=1))
@example([2.0**53, -(2.0**53), 2.0**53 - 1, 2.0**53 + 2, -0.0, float("inf"), float("nan")])
def test_exact_integers(values: list[float]) -> None:
    """Below 2**53 every integer is a float of its own, so it is the one that was written."""

    def is_exact(value: float) -> bool:
        if not math.isfinite(value):
            return False
        return Fraction(value).denominator == 1 and abs(int(value)) < 9_007_199_254_740_992

    assert is_exact_integer(np.array(values)).tolist() == [is_exact(value) for value in values]
