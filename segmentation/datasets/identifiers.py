"""Ids of users and items: 64-bit integers, or strings.

The first rows of each text file, or the type of a Parquet column, decide which of the two a column
holds, once for all files of a run; of a uint64 column, its values. Items are of the kind that the
catalogue has. If a later row contradicts the decision, the run ends with an error: nobody is
dropped, and no two ids become one.
"""

from __future__ import annotations

import decimal
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
#: A whole number, up to the maximum length of an id: `int` refuses thousands of digits. pandas
#: writes integers as floats if the column has missing values.
_INTEGER = re.compile(rb"[ \t]*(-?\d{1,256})(?:\.0*)?[ \t]*\Z")
#: R writes 100000 as 1e+05. Without the sign, 1E5 may be a text.
_EXPONENT = re.compile(rb"[ \t]*\d(?:\.\d{1,17})?[eE]\+\d{1,2}[ \t]*\Z")
#: Numbers that marks join, such as 77-5.
_JOINED = re.compile(r"\d+(?:[-_:/]\d+)+\Z")
#: Zeros before a number tell that it is a string of digits.
_PADDED = re.compile(rb"[ \t]*-?0\d")
#: Fields that stand for a missing id.
_MISSING = frozenset((b"", b"na", b"n/a", b"nan", b"none", b"null", b"nil", b"-", b"?", b"<na>"))
#: A larger share of fields that are no integers, or exceed 64 bits, is ids, not damage.
_MAX_DAMAGED = 0.02
#: Why an integer column rejects an id that may be one of a string column.
LEADING_ZEROS, IS_TEXT, IS_TOO_LARGE = "has leading zeros", "is text", "does not fit in 64 bits"
_INT64 = range(-(2**63), 2**63)
_BLANKS = " \t"


def parse_integer(field: bytes, *, allow_padding: bool = False) -> int | str:
    """Return the integer in a field, or as a string why it is rejected.

    With ``allow_padding``, zeros before a number mean nothing.

    Examples
    --------
    >>> parse_integer(b" 42"), parse_integer(b"42.0")
    (42, 42)
    >>> parse_integer(b"4.2")
    'is not an integer'
    >>> parse_integer(b"0042"), parse_integer(b"anna")
    ('has leading zeros', 'is text')
    >>> parse_integer(b"9" * 30)
    'does not fit in 64 bits'
    """
    match = _INTEGER.match(field)
    if match is None:
        value = _parse_exponent(field)
        if value is None:
            return IS_TEXT if _is_text(field) else "is not an integer"
        return value
    if not allow_padding and _PADDED.match(field):
        return LEADING_ZEROS
    value = int(match[1])
    return value if value in _INT64 else IS_TOO_LARGE


def is_missing(field: bytes) -> bool:
    """Return whether a field means that a value is missing."""
    return field.strip().lower() in _MISSING


def _parse_exponent(field: bytes) -> int | None:
    """Return the whole number in scientific notation; None if it is not one."""
    if not _EXPONENT.match(field):
        return None
    value = decimal.Decimal(field.strip().decode())
    return int(value) if value == value.to_integral_value() and int(value) in _INT64 else None


def _is_text(field: bytes) -> bool:
    """Return whether a field that is no number may be an id rather than damage."""
    value = field.strip(_BLANKS.encode())
    if is_missing(value) or isinstance(parse_string(value), str):
        return False
    text = value.decode()
    has_letters = any(c.isalpha() for c in text) and not _is_damaged_number(text)
    return text.isprintable() and (has_letters or _JOINED.match(text) is not None)


def _is_damaged_number(text: str) -> bool:
    """Return whether a text is infinite or no integer, as in 1.5e3; 1E5 may be an id."""
    try:
        float(text)
    except ValueError:
        return False
    return re.fullmatch(r"\d+[eE]\d+", text) is None


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


def is_string_column(fields: Sequence[bytes], *, max_damaged: float = _MAX_DAMAGED) -> bool:
    """Return whether a column's ids are strings, based on a sample of its fields.

    They are if one has zeros before its digits, or if a larger share than ``max_damaged`` (and more
    than one, or most) are no integers of 64 bits. Missing ids don't count, and a few damaged lines
    do not turn numbers into strings.

    Examples
    --------
    >>> is_string_column([b"1", b"2", b"x"]), is_string_column([b"1.0", b"2", b""])
    (False, False)
    >>> is_string_column([b"1", b"x", b"y"]), is_string_column([b"1", b"007"])
    (True, True)
    """
    n_strings = n_fields = 0
    for field in fields:
        if is_missing(field):
            continue
        n_fields += 1
        value = parse_integer(field)
        if value == LEADING_ZEROS:
            return True
        n_strings += isinstance(value, str)
    return n_strings > max(1, max_damaged * n_fields) or 2 * n_strings > n_fields


def strip_strings(column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Return an Arrow column as strings without surrounding blanks, and a mask of valid ids."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, pa.DictionaryArray) and column.type.value_type != pa.null():
        # Long strings that repeat may take any memory where they are written out.
        values, is_id = strip_strings(column.dictionary)
        values = pc.if_else(pa.array(is_id), values, "")
        indices = column.indices.fill_null(0)
        is_id = np.append(is_id, False)[indices.to_numpy(zero_copy_only=False)]
        is_valid = column.is_valid().to_numpy(zero_copy_only=False)
        if not len(values):
            return pa.array([""] * len(column), pa.string()), is_valid & False
        return values.take(indices), is_valid & is_id
    is_valid = column.is_valid().to_numpy(zero_copy_only=False)
    strings = pc.utf8_trim(pc.cast(column, pa.string()).fill_null(""), _BLANKS)
    n_bytes = pc.binary_length(strings).to_numpy(zero_copy_only=False)
    has_nul = pc.match_substring(strings, "\0").to_numpy(zero_copy_only=False)
    return strings, is_valid & (n_bytes > 0) & (n_bytes <= MAX_BYTES) & ~has_nul


def cast_integers(
    strings: pa.Array | pa.ChunkedArray, *, allow_padding: bool = False
) -> pa.Array | pa.ChunkedArray | None:
    """Return an Arrow column of strings as int64; None if :func:`parse_integer` has to read it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim(strings, _BLANKS)
    pattern = r"^-?[0-9]{1,25}(\.0*)?$" if allow_padding else r"^-?(0|[1-9][0-9]{0,24})(\.0*)?$"
    if not pc.all(pc.match_substring_regex(trimmed, pattern), min_count=0).as_py():
        return None
    if pc.any(pc.match_substring(trimmed, "."), min_count=0).as_py():
        trimmed = pc.replace_substring_regex(trimmed, r"\..*", "")
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
