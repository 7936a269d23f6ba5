"""Damage is found, whatever it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segmentation.storage import integrity
from segmentation.storage.integrity import FileDigest


def test_files_and_the_files_of_folders_are_listed(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name in ("parts/b", "parts/a", "c"):
        (tmp_path / name).write_text(name)
    assert integrity.list_files(tmp_path, ["c", "d", "parts"]) == ["c", "parts/a", "parts/b"]


@pytest.mark.parametrize("content", [b"", b"dat", b"Data", b"data.", None])
def test_the_first_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "a").write_bytes(b"data")
    # Known from elsewhere: printf data | sha256sum.
    sha256 = "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"
    assert FileDigest.of(tmp_path / "a") == (4, sha256)
    digests = {"a": [4, sha256]}
    assert integrity.find_damage(tmp_path, digests) is None
    (tmp_path / "a").unlink()
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    assert integrity.find_damage(tmp_path, digests) == tmp_path / "a"


def test_a_checksum_holds_for_equal_values_only() -> None:
    record = integrity.add_checksum({"a": np.float64(0.1), "b": {"c": [1, None]}, "é": "ü"})
    assert integrity.verify_checksum(dict(reversed(record.items())))
    for changed in (
        {**record, "a": 0.1 + 2**-50},
        {**record, "new": 1},
        {name: value for name, value in record.items() if name != "b"},
        {name: value for name, value in record.items() if name != "checksum"},
        {**record, "checksum": None},
        [record],
        None,
    ):
        assert not integrity.verify_checksum(changed)
