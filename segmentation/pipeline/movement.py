"""Count how users move between segments, from two runs' assignments that are sorted by user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.errors import DataError, format_error
from segmentation.schema import USER, Moves

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


def count_moves(
    before: Sequence[Path],
    now: Iterable[tuple[NDArray[Any], NDArray[np.integer[Any]]]],
    n_before: int,
    n_now: int,
) -> Moves:
    """Count the moves from the parts of earlier assignments, one after the other.

    Parameters
    ----------
    now
        Users in ascending order and their segments, in parts.
    n_before, n_now
        The numbers of segments.

    Raises
    ------
    DataError
        If there are no parts, or one can't be read, or ids are of two kinds.
    """
    flows = np.zeros((n_before, n_now), np.int64)
    earlier = _SortedUsers(before)
    n_users = 0
    for users, labels in now:
        n_users += len(users)
        known, known_labels = earlier.take_until(users[-1])
        if len(known) and known.dtype.kind != users.dtype.kind:
            raise DataError(
                f"{before[0].parent}: its user ids are "
                f"{'texts' if known.dtype.kind == 'S' else 'numbers'}, "
                "and the new ones are not: read both alike"
            )
        rows = np.minimum(np.searchsorted(known, users), max(len(known) - 1, 0))
        is_shared = known[rows] == users if len(known) else np.zeros(len(users), np.bool_)
        np.add.at(flows, (known_labels[rows[is_shared]], labels[is_shared]), 1)
    n_shared = int(flows.sum())
    return Moves(flows, n_users - n_shared, earlier.count_all() - n_shared)


class _SortedUsers:
    """The users and segments of a run in ascending order, of which no more is held than needed."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self._parts = read_assignments(parts)
        self._users: NDArray[Any] = np.empty(0, np.int64)
        self._labels = np.empty(0, np.int64)
        self._n_read = 0

    def take_until(self, last: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the users up to ``last`` that were not returned before, and their segments."""
        users, labels = [self._users], [self._labels]
        while not len(users[-1]) or _is_before(users[-1][-1], last):
            part = next(self._parts, None)
            if part is None:
                break
            self._n_read += len(part[0])
            users.append(part[0])
            labels.append(part[1])
        # Empty arrays would change the dtype of byte strings.
        filled = [array for array in users if len(array)]
        if not filled:
            return users[0], labels[0]
        all_users, all_labels = np.concatenate(filled), np.concatenate(labels)
        if isinstance(last, bytes) != (all_users.dtype.kind == "S"):
            return all_users, all_labels
        stop = int(np.searchsorted(all_users, last, side="right"))
        self._users, self._labels = all_users[stop:].copy(), all_labels[stop:].copy()
        return all_users[:stop], all_labels[:stop]

    def count_all(self) -> int:
        """Return the number of all users, read or not."""
        self._n_read += sum(len(users) for users, _ in self._parts)
        return self._n_read


def _is_before(user: Any, other: Any) -> bool:
    return isinstance(user, bytes) == isinstance(other, bytes) and bool(user < other)


def read_assignments(parts: Sequence[Path]) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    """Yield the users and segments of each part; ids as byte strings where they are text."""
    for users, labels in read_columns(parts, "segment"):
        yield users, labels.astype(np.int64)


def read_columns(parts: Sequence[Path], *names: str) -> Iterator[tuple[NDArray[Any], ...]]:
    """Yield the users of each part that has any, and the columns with these names.

    Raises
    ------
    DataError
        If a part can't be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in parts:
        try:
            table = pq.ParquetFile(part, page_checksum_verification=True).read([USER, *names])
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{part}: can't be read ({format_error(error)}): restore it from a copy, or run "
                "again"
            ) from error
        users, *columns = (column.to_numpy() for column in table.columns)
        if users.dtype.kind == "O":
            users = np.array([user.encode() for user in users], np.bytes_)
        if len(users):
            yield users, *columns
