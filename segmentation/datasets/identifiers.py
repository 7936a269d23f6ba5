"""Ids of users and movies in a file: whole numbers within 64 bits, or texts.

Which of the two a column holds is told from its beginning, once for all files of a run.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Texts that are longer than this, bytes, are no ids but damage.
LONGEST = 256
_NUMBER = re.compile(rb"[ \t]*-?\d{1,25}[ \t]*\Z")
_WIDE = re.compile(rb"[ \t]*-?\d{1,256}[ \t]*\Z")
#: Of the first lines no more than this share are damaged, or the run would end at once.
_DAMAGED = 0.02
_INT64 = range(-(2**63), 2**63)
_BLANK = " \t"


def number(field: bytes) -> int | str:
    """Return the whole number that a field holds, or why it holds none."""
    if not _NUMBER.match(field):
        return "is no whole number"
    found = int(field)
    return found if found in _INT64 else "is beyond 64 bits"


def text(field: bytes) -> bytes | str:
    """Return the text that a field holds, or why it is no id; blanks around it don't count."""
    found = field.strip(_BLANK.encode())
    if not found:
        return "is empty"
    if len(found) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    if b"\0" in found:
        return "holds a NUL"
    try:
        found.decode()
    except UnicodeDecodeError:
        return "is no UTF-8"
    return found


def are_texts(fields: Sequence[bytes]) -> bool:
    """Tell from some fields of a column whether its ids are texts.

    They are if most are no whole numbers, or if 64 bits don't hold more of them than damage
    explains: the odd broken line makes no texts of numbers.
    """
    wide = sum(bool(_WIDE.match(field)) and int(field) not in _INT64 for field in fields)
    if wide > max(1, _DAMAGED * len(fields)):
        return True
    return 2 * sum(not _NUMBER.match(field) for field in fields) > len(fields)


def sound_texts(column: Any) -> tuple[Any, NDArray[np.bool_]]:
    """Return an Arrow column as texts without blanks around them, and which of them are ids."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = column.is_valid().to_numpy(zero_copy_only=False)
    texts = pc.utf8_trim(pc.cast(column, pa.string()).fill_null(""), _BLANK)
    length = pc.binary_length(texts).to_numpy(zero_copy_only=False)
    known = known & (length > 0) & (length <= LONGEST)
    torn = pc.match_substring(texts, "\0").to_numpy(zero_copy_only=False)
    return texts, known & ~torn


def numbers_in(texts: Any) -> Any:
    """Return Arrow texts as int64; None unless all are whole numbers within 64 bits."""
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim(texts, _BLANK)
    if not pc.all(pc.match_substring_regex(trimmed, r"^-?[0-9]{1,25}$"), min_count=0).as_py():
        return None
    try:
        return pc.cast(trimmed, pa.int64())
    except pa.ArrowInvalid:
        return None


def joined(columns: Sequence[Any]) -> Any:
    """Return columns of one kind, NumPy's or Arrow's, one behind the other."""
    if isinstance(columns[0], np.ndarray):
        return np.concatenate(columns)
    import pyarrow as pa

    return pa.concat_arrays([part for column in columns for part in _arrays(column)])


def _arrays(column: Any) -> Sequence[Any]:
    chunks: Sequence[Any] = column.chunks if hasattr(column, "chunks") else [column]
    return chunks


def framed(columns: dict[str, Any]) -> Any:
    """Return columns as a data frame; Arrow texts become pandas' own kind of them."""
    import pandas as pd

    for name, column in columns.items():
        if not isinstance(column, np.ndarray):
            columns[name] = pd.array(column, dtype=TEXT_DTYPE)
    return pd.DataFrame(columns, copy=False)


#: pandas' name for Arrow texts, which Dask's shuffle knows as well.
TEXT_DTYPE = "string[pyarrow]"
