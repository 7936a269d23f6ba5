"""Samples of users: the same users in every partition, and balanced block boundaries."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.features import sketches


@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65, 1000])
def test_quantile_sketch(n: int) -> None:
    users = np.arange(n) * 3
    sketch = sketches.quantile_sketch(users)
    assert len(sketch) == min(n, 64)
    assert set(sketch) <= set(users)
    if n:
        assert (sketch[0], sketch[-1]) == (users[0], users[-1])
        gaps = np.diff(np.searchsorted(users, sketch))
        assert n == 1 or gaps.max() - gaps.min() <= 1


@given(
    st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=60), min_size=1, max_size=5),
    st.booleans(),
)
def test_samples_unite(partitions: list[list[int]], strings: bool) -> None:
    """The samples of partitions together are the sample of their distinct users."""

    def sample(ids: list[int]) -> set[int]:
        if strings:
            # Padded to the longest of the partition, which must not change the hash.
            users = np.array(sorted({str(key).encode() for key in ids}), np.bytes_)
        else:
            users = np.array(sorted(set(ids)), np.int64)
        return set(sketches.hash_sample(users).tolist())

    everyone = [key for ids in partitions for key in ids]
    assert set.union(*map(sample, partitions)) == sample(everyone)


@pytest.mark.parametrize("kind", ["dense", "spaced", "random", "strings"])
def test_estimate_n_users(kind: str) -> None:
    n = 200_000
    users = {
        "dense": np.arange(n),
        "spaced": np.arange(n) * 4096 + 7,
        "random": np.random.default_rng(0).integers(-(2**62), 2**62, n),
        "strings": np.array([f"user-{i}".encode() for i in range(n)]),
    }[kind]
    # Partitions that overlap.
    parts = [users[: n // 2], users[n // 4 : -n // 4], users[n // 2 :]]
    samples = [sketches.hash_sample(part) for part in parts]
    # 3,125 in the sample on average: five standard deviations are 9 %.
    assert sketches.estimate_n_users(samples) == pytest.approx(n, rel=0.09)


@given(
    st.lists(st.lists(st.integers(-50, 50), max_size=40), min_size=1, max_size=5),
    st.integers(1, 8),
)
def test_block_boundaries(partitions: list[list[int]], n_blocks: int) -> None:
    samples = [np.array(sorted(set(ids)), np.int64) for ids in partitions]
    boundaries = sketches.block_boundaries(samples, [len(ids) for ids in samples], n_blocks)
    users = sorted(key for sample in samples for key in sample.tolist())
    assert boundaries == sorted(set(boundaries))
    assert len(boundaries) < n_blocks
    assert set(boundaries) <= set(users)
    # No block is empty.
    bounds = [-(10**9), *boundaries, 10**9]
    sizes = [sum(low <= u < high for u in users) for low, high in itertools.pairwise(bounds)]
    assert not users or min(sizes) > 0


def test_blocks_are_balanced() -> None:
    users = np.random.default_rng(0).permutation(10_000)
    partitions = [sketches.quantile_sketch(np.sort(part)) for part in np.array_split(users, 10)]
    bounds = [0, *sketches.block_boundaries(partitions, [1_000] * 10, 4), 10_000]
    np.testing.assert_allclose(np.diff(bounds), 2_500, rtol=0.05)


def test_blocks_are_balanced_where_partitions_hold_few_or_many_users() -> None:
    """A log sorted by user whose first users are the most active."""
    users = np.arange(10_000)
    parts = np.split(users, [50, 100, 200, 400, 1_000])
    samples = [sketches.quantile_sketch(part) for part in parts]
    bounds = [0, *sketches.block_boundaries(samples, [len(part) for part in parts], 4), 10_000]
    # Each of the last partition's 64 ids represents 141 users.
    np.testing.assert_allclose(np.diff(bounds), 2_500, atol=150)


def test_boundaries_of_strings_next_to_an_empty_partition() -> None:
    sample = np.array([b"anna", b"bo", b"carl"])
    empty = np.empty(0, np.int64)
    assert sketches.block_boundaries([empty, sample], [0, 3], 2) == [b"bo"]
