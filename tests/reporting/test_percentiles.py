"""The 99th percentile over blocks is NumPy's, to the last bit, whatever the blocks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from segmentation.reporting import percentiles as distances


def percentiles(labels: np.ndarray, values: np.ndarray, blocks: int, n_segments: int) -> np.ndarray:
    parts = list(zip(np.array_split(labels, blocks), np.array_split(values, blocks), strict=True))
    bins = distances.merge_histograms([distances.build_histogram(*part) for part in parts])
    keys = distances.bins_needed(bins, n_segments)
    fetched = [distances.values_in_bins(*part, keys) for part in parts]
    return distances.percentile_99(bins, keys, fetched, n_segments)


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
def test_as_numpy_has_it(values: np.ndarray, k: int, blocks: int, random) -> None:
    labels = np.array([random.randrange(k) for _ in values], np.int32)
    found = percentiles(labels, values, blocks, k + 1)
    np.testing.assert_allclose(found, expected(labels, values, k + 1), rtol=1e-15)


def test_many_in_few_bins() -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.gamma(2.0, size=200_000), rng.integers(0, 5, 200_000).astype(np.int32)
    found = percentiles(labels, values, 9, 5)
    np.testing.assert_allclose(found, expected(labels, values, 5), rtol=1e-15)
    # A bin is 1/256 of its value wide: what is fetched is a small part.
    bins = distances.build_histogram(labels, values)
    fetched = distances.values_in_bins(labels, values, distances.bins_needed(bins, 5))
    assert sum(map(len, fetched)) < len(values) / 100
