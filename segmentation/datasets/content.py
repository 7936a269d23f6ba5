"""Recognize files that hold something else than ratings or a catalogue, and say what to do."""

from __future__ import annotations

import re

from segmentation.errors import DataError

#: The first bytes of a file → what it is, and what to do. The first match counts.
_KINDS = [
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), what, remedy)
    for pattern, what, remedy in (
        (
            rb"version https://git-lfs\.github\.com/spec/",
            "is a Git LFS pointer, not the file itself",
            "run git lfs pull in its repository",
        ),
        (rb"PK\x03\x04.*(xl/|\[Content_Types\]\.xml)", "is an Excel workbook", "save it as CSV"),
        (rb"PK\x03\x04", "is a zip archive", "unpack it"),
        (rb".{257}ustar", "is a tar archive", "unpack it"),
        (rb"BZh", "holds bzip2 data, which is not supported", "unpack it with bunzip2"),
        (rb"\xfd7zXZ", "holds xz data, which is not supported", "unpack it with unxz"),
        (rb"7z\xbc\xaf|Rar!", "is an archive, which is not supported", "unpack it"),
        (rb"\xd0\xcf\x11\xe0", "is an Excel workbook", "save it as CSV"),
        (rb"SQLite format 3\0", "is an SQLite database", "export the table as CSV"),
        (rb"\x89HDF", "is an HDF5 file", "write it as CSV or Parquet"),
        (rb"ARROW1|FEA1", "is an Arrow file", "write it as Parquet"),
        (rb"\x80[\x02-\x05]", "is a pickle, which is never loaded", "write it as CSV or Parquet"),
        (
            rb"\s*<(!doctype html|html|head|\?xml)",
            "is a web page, perhaps of a login",
            "download the file itself",
        ),
        (
            rb"\s*[\[{]\s*[\[{\"]",
            "holds JSON",
            "write it as CSV or Parquet, with one row per rating,",
        ),
        (
            rb"\d+:\r?\n\d+,[1-5],\d{4}-\d\d-\d\d",
            "is in Netflix' form, a block of ratings per movie",
            "write one row per user, movie and rating",
        ),
    )
]


def check_content(path: str, head: bytes) -> None:
    """Check that a file's first bytes may be those of a table.

    Raises
    ------
    DataError
        If they are those of something else.
    """
    for pattern, what, remedy in _KINDS:
        if pattern.match(head):
            raise DataError(f"{path}: {what}; {remedy} and name the result")
