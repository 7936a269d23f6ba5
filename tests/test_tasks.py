"""Dask's configuration is restored, however blocks in threads overlap; large values are sent."""

from __future__ import annotations

import itertools
from contextlib import ExitStack

import dask
import numpy as np
import pytest
from distributed import Client

from segmentation.tasks import set_dask_config, submit_value

KEYS = ("test-only.present", "test-only.sub.absent", "absent")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_overlapping_blocks_restore_what_was_there(order: tuple[int, ...]) -> None:
    with dask.config.set({KEYS[0]: "before"}):
        before = repr(dask.config.config)
        stacks = [ExitStack() for _ in range(3)]
        for number, stack in enumerate(stacks):
            stack.enter_context(set_dask_config(dict.fromkeys(KEYS[: number + 1], number)))
            assert dask.config.get(KEYS[number]) == number
        for number in order:
            assert dask.config.get(KEYS[0]) == 2
            stacks[number].close()
        assert repr(dask.config.config) == before
    assert dask.config.get(KEYS[2], None) is None
    assert "test-only" not in dask.config.config


def test_a_value_of_the_caller_within_a_block_stays_elsewhere() -> None:
    with set_dask_config({"test-only.a": 1}), dask.config.set({"test-only.b": 2}):
        assert dask.config.get("test-only.a") == 1
        assert dask.config.get("test-only.b") == 2
    assert dask.config.get("test-only.a", None) is None


def test_large_values_are_sent_without_a_warning(client: Client) -> None:
    """Dask would warn on stderr of what the user can't change; here a warning is an error."""
    value = np.arange(3_000_000)
    assert submit_value(client, "large", value).result()[-1] == len(value) - 1
