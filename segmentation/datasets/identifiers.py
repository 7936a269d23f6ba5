"""Ids of users and movies: 64-bit integers, or strings.

The first rows of a text column, or the type of a Parquet column, decide which of the two a column
holds, once for all files of a run; of a uint64 column, its values. Movies are of the kind that the
catalogue has.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

#: Maximum length of a string id, in bytes of UTF-8; longer ids are rejected.
MAX_BYTES = 256
#: The pandas dtype of string ids; Dask's shuffle supports it.
STRING_DTYPE = "string[pyarrow]"
#: An integer that may be an id; longer ones are more likely strings of digits.
_INTEGER = re.compile(rb"[ \t]*-?\d{1,25}[ \t]*\Z")
#: Any integer, up to the maximum length of an id: `int` refuses thousands of digits.
_WIDE_INTEGER = re.compile(rb"[ \t]*-?\d{1,256}[ \t]*\Z")
#: A larger share of integers beyond 64 bits is ids, not damage.
_MAX_WIDE_SHARE = 0.02
_INT64 = range(-(2**63), 2**63)
_BLANKS = " \t"


def parse_integer(field: bytes) -> int | str:
    """Return the integer in a field, or as a string why it is rejected.

    Examples
    --------
    >>> parse_integer(b" 42")
    42
    >>> parse_integer(b"4.2")
    'is not an integer'
    >>> parse_integer(b"9" * 30)
    'does not fit in 64 bits'
    """
    if not _WIDE_INTEGER.match(field):
        return "is not an integer"
    value = int(field)
    return value if value in _INT64 else "does not fit in 64 bits"


def parse_string(field: bytes) -> bytes | str:
    """Return the id in a field without surrounding blanks, or as a string why it is rejected.

    Examples
    --------
    >>> parse_string(b" anna ")
    b'anna'
    >>> parse_string(b"  ")
    'is empty'
    """
    value = field.strip(_BLANKS.encode())
    if not value:
        return "is empty"
    if len(value) > MAX_BYTES:
        return f"is longer than {MAX_BYTES} bytes"
    if b"\0" in value:
        return "contains a NUL byte"
    try:
        value.decode()
    except UnicodeDecodeError:
        return "is not valid UTF-8"
    return value


def is_string_column(fields: Sequence[bytes]) -> bool:
    """Return whether a column's ids are strings, based on a sample of its fields.

    They are if more than half of the fields are not integers, or if more than 2 % (and more than
    one) are integers that exceed 64 bits. A few damaged lines do not turn numbers into strings.

    Examples
    --------
    >>> is_string_column([b"1", b"2", b"x"])
    False
    >>> is_string_column([b"1", b"x", b"y"])
    True
    """
    n_wide = sum(bool(_WIDE_INTEGER.match(field)) and int(field) not in _INT64 for field in fields)
    if n_wide > max(1, _MAX_WIDE_SHARE * len(fields)):
        return True
    return 2 * sum(not _INTEGER.match(field) for field in fields) > len(fields)


def strip_strings(column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Return an Arrow column as strings without surrounding blanks, and a mask of valid ids."""
    import pyarrow as pa
    import pyarrow.compute as pc

    is_valid = column.is_valid().to_numpy(zero_copy_only=False)
    strings = pc.utf8_trim(pc.cast(column, pa.string()).fill_null(""), _BLANKS)
    n_bytes = pc.binary_length(strings).to_numpy(zero_copy_only=False)
    has_nul = pc.match_substring(strings, "\0").to_numpy(zero_copy_only=False)
    return strings, is_valid & (n_bytes > 0) & (n_bytes <= MAX_BYTES) & ~has_nul


def cast_integers(strings: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray | None:
    """Return an Arrow column of strings as int64; None if any is not a 64-bit integer."""
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim(strings, _BLANKS)
    if not pc.all(pc.match_substring_regex(trimmed, r"^-?[0-9]{1,25}$"), min_count=0).as_py():
        return None
    try:
        return pc.cast(trimmed, pa.int64())
    except pa.ArrowInvalid:
        return None


def concat_columns(columns: Sequence[Any]) -> Any:
    """Concatenate chunks of a column, either all NumPy arrays or all Arrow arrays."""
    if isinstance(columns[0], np.ndarray):
        return np.concatenate(columns)
    import pyarrow as pa

    return pa.concat_arrays(
        [
            array
            for column in columns
            for array in (column.chunks if isinstance(column, pa.ChunkedArray) else [column])
        ]
    )


def to_frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return a data frame of NumPy and Arrow columns; the latter have dtype `STRING_DTYPE`."""
    import pandas as pd

    return pd.DataFrame(
        {
            name: column if isinstance(column, np.ndarray) else pd.array(column, dtype=STRING_DTYPE)
            for name, column in columns.items()
        },
        copy=False,
    )
