"""Parquet data sets are folders of parts, in the order of the blocks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from segmentation.storage import parquet


def build(start: int, stop: int, scale: int) -> pa.Table:
    return pa.table({"x": pa.array(range(start, stop)), "y": pa.array([scale] * (stop - start))})


@pytest.mark.parametrize("n_blocks", [1, 2, 11])
def test_one_part_per_block_in_order(tmp_path: Path, client, n_blocks: int) -> None:
    path = tmp_path / "d.parquet"
    path.write_bytes(b"an earlier version wrote one file")
    starts = [10 * i for i in range(n_blocks)]
    submitted: list[int] = []
    parquet.write_parts(
        client, path, build, [starts, [s + 10 for s in starts], 7], 4, submitted.append
    )
    assert len(parquet.list_parts(path)) == n_blocks
    frame = pd.read_parquet(path)
    assert frame["x"].tolist() == list(range(10 * n_blocks))
    assert set(frame["y"]) == {7}
    assert submitted == [*range(4, n_blocks, 4), n_blocks]
    assert [p.name for p in tmp_path.iterdir()] == ["d.parquet"]


def test_a_failed_block_leaves_no_data_set(tmp_path: Path, client) -> None:
    def fail(number: int) -> pa.Table:
        if number:
            raise ValueError("block 1")
        return pa.table({"x": [number]})

    with pytest.raises(ValueError, match="block 1"):
        parquet.write_parts(client, tmp_path / "d.parquet", fail, [[0, 1]], 1)
    assert not (tmp_path / "d.parquet").exists()


@pytest.mark.parametrize(
    "values",
    [
        np.array([3, -1, 2**62]),
        np.array([1.5, np.nan], np.float32),
        np.array([b"a", b"", "Ωκ".encode()]),
        np.array([], np.int64),
        np.arange(10)[::3],
    ],
)
def test_arrow_arrays_equal_those_of_pyarrow(values: np.ndarray) -> None:
    expected = [v.decode() for v in values] if values.dtype.kind == "S" else values
    array = parquet.arrow_array(values)
    array.validate(full=True)
    assert array.equals(pa.array(expected)) or np.isnan(values).any()
    assert array.type == pa.array(expected).type


def test_nulls_and_strings() -> None:
    is_null = np.array([False, True, False])
    assert parquet.arrow_array(np.arange(3), is_null).to_pylist() == [0, None, 2]
    assert parquet.arrow_strings(["Quiet", "", "Ωκ"]).to_pylist() == ["Quiet", "", "Ωκ"]


def test_arrow_arrays_do_not_import_pandas() -> None:
    import subprocess

    code = (
        "import sys, numpy as np\n"
        "from segmentation.storage import parquet\n"
        "parquet.arrow_array(np.arange(3)); parquet.arrow_strings(['a'])\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
