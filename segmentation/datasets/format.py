"""The form of a ratings file, and what reading a part of it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segmentation.schema import MOVIE, RATING, USER

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


#: Up to here a float64 tells each whole number from the next.
_EXACT = 2**53


#: Where a row has no timestamp that is one: before every other.
NO_TIMESTAMP = -(2**63)


#: Users, movies and stars, and where details are wanted timestamps and lines; a row each. NumPy
#: arrays, and of ids that are texts Arrow's.
Columns = tuple[Any, ...]


@dataclass(frozen=True)
class RatingsFormat:
    """How one ratings file is read.

    ``columns`` are its header's names; ``data_start`` is the byte at which the first row begins
    and ``header_lines`` the number of lines before it. ``codec`` is None for plain text, else what
    it is packed as, or ``parquet``; ``size`` is that of the file as it lies there, bytes.
    ``streamed`` tells that its server gives no ranges of it, ``texts`` names columns
    whose ids are texts, and ``dated`` that timestamps are points in time, read as microseconds.
    """

    path: str
    size: int
    delimiter: bytes
    columns: tuple[str, ...]
    data_start: int
    header_lines: int
    scale: tuple[float, float]
    codec: str | None = None
    streamed: bool = False
    texts: tuple[str, ...] = ()
    dated: bool = False

    @property
    def positions(self) -> tuple[int, int, int]:
        """Field numbers of user, movie and rating."""
        at = self.columns.index
        return at(USER), at(MOVIE), at(RATING)


class LineReject(NamedTuple):
    """A rejected line of one partition: its 0-based number there, the reason, its bytes."""

    line: int
    reason: str
    text: bytes


class Partition(NamedTuple):
    """Typed rows of one part of a file, its rejects, and its number of lines (blank ones too)."""

    ratings: pd.DataFrame
    rejected: tuple[LineReject, ...]
    lines: int


def are_whole(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which floats are whole numbers, and sure to be those that were written."""
    return np.asarray((values == np.trunc(values)) & (np.abs(values) < _EXACT))
