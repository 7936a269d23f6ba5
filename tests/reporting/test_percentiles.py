"""The 99th percentile over blocks equals NumPy's, whatever the blocks."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from segmentation.reporting.percentiles import (
    bins_needed,
    build_histogram,
    merge_histograms,
    percentile_99,
    values_in_bins,
)


def percentile_over_blocks(
    labels: np.ndarray, values: np.ndarray, n_blocks: int, n_segments: int
) -> np.ndarray:
    blocks = list(
        zip(np.array_split(labels, n_blocks), np.array_split(values, n_blocks), strict=True)
    )
    histogram = merge_histograms([build_histogram(*block) for block in blocks])
    keys = bins_needed(histogram, n_segments)
    fetched = [values_in_bins(*block, keys) for block in blocks]
    return percentile_99(histogram, keys, fetched, n_segments)


def expected(labels: np.ndarray, values: np.ndarray, n_segments: int) -> np.ndarray:
    return np.array(
        [
            np.quantile(values[labels == s], 0.99) if (labels == s).any() else np.nan
            for s in range(n_segments)
        ]
    )


@given(
    npst.arrays(
        np.float64,
        st.integers(1, 300),
        elements=st.floats(0, 1e6) | st.sampled_from([-0.0, 0.0, 1.0, 1.5]),
    ),
    st.integers(1, 5),
    st.integers(1, 7),
    st.randoms(use_true_random=False),
)
def test_equal_to_numpy(values: np.ndarray, k: int, n_blocks: int, random: Random) -> None:
    labels = np.array([random.randrange(k) for _ in values], np.int32)
    np.testing.assert_allclose(
        percentile_over_blocks(labels, values, n_blocks, k + 1),
        expected(labels, values, k + 1),
        rtol=1e-15,
    )


def test_only_a_small_part_is_fetched() -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.gamma(2.0, size=200_000), rng.integers(0, 5, 200_000).astype(np.int32)
    np.testing.assert_allclose(
        percentile_over_blocks(labels, values, 9, 5), expected(labels, values, 5), rtol=1e-15
    )
    # The width of a bin is at most 1/256 of its values.
    keys = bins_needed(build_histogram(labels, values), 5)
    fetched = values_in_bins(labels, values, keys)
    assert sum(map(len, fetched)) < len(values) / 100
