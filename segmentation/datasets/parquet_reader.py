"""Ratings in Parquet: row groups → typed rows, what is no rating aside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.datasets import identifiers
from segmentation.datasets.filesystem import open_file
from segmentation.datasets.format import (
    NO_TIMESTAMP,
    Columns,
    LineReject,
    Partition,
    RatingsFormat,
    are_whole,
)
from segmentation.datasets.retry import one_line
from segmentation.errors import DataError
from segmentation.schema import LINE, MOVIE, RATING, TIMESTAMP, USER, ByteRange

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_NEEDED = (USER, MOVIE, RATING)
#: Rows that are typed at a time.
_ROWS = 1 << 18


def probe(path: str, size: int, scale: tuple[float, float]) -> RatingsFormat:
    """Look at a Parquet file's schema.

    Raises
    ------
    DataError
        If it can't be read, lacks a needed column, or has one of a type that holds no ratings.
    """
    import pyarrow as pa
    import pyarrow.types as kinds

    with _opened(path, None) as file:
        schema = file.schema_arrow
        metadata = file.metadata
        beyond = [
            name
            for name in (USER, MOVIE)
            if name in schema.names
            and schema.field(name).type == pa.uint64()
            and _goes_beyond(file, name)
        ]
    missing = [name for name in _NEEDED if name not in schema.names]
    if missing:
        raise DataError(
            f"{path}: has no column {' and no '.join(missing)} (it has: "
            f"{', '.join(schema.names)[:80]}): name its columns {', '.join(_NEEDED)}"
        )
    texts = []
    for name in (USER, MOVIE):
        kind = schema.field(name).type
        if _holds_texts(kind) or name in beyond:
            texts.append(name)
        elif not kinds.is_integer(kind):
            raise DataError(f"{path}: column {name} is of type {kind}: give whole numbers or texts")
    kind = schema.field(RATING).type
    if not (kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind)):
        raise DataError(f"{path}: column {RATING} is of type {kind}: give numbers")
    # Nothing to read looks the same for every kind of file.
    start = 0 if metadata.num_rows else size
    dated = TIMESTAMP in schema.names and _is_date(schema.field(TIMESTAMP).type)
    return RatingsFormat(
        path,
        size,
        b"",
        tuple(schema.names),
        start,
        0,
        scale,
        "parquet",
        texts=tuple(texts),
        dated=dated,
    )


def check_alike(files: Sequence[RatingsFormat]) -> None:
    """Refuse files in one of which ids are numbers, and in another texts.

    Raises
    ------
    DataError
        With the first that differs from the first of all.
    """
    for other in files[1:]:
        for name in {*files[0].texts} ^ {*other.texts}:
            kinds = []
            for path in (files[0].path, other.path):
                with _opened(path, None) as file:
                    kinds.append(file.schema_arrow.field(name).type)
            # Numbers that 64 bits with a sign don't hold count as texts as well.
            if _holds_texts(kinds[0]) != _holds_texts(kinds[1]):
                raise DataError(
                    f"{other.path}: column {name} is of type {kinds[1]}, and {kinds[0]} in "
                    f"{files[0].path}: write all parts with one type"
                )


def _holds_texts(kind: Any) -> bool:
    import pyarrow.types as kinds

    if kinds.is_dictionary(kind):
        kind = kind.value_type
    whole = kinds.is_decimal(kind) and kind.scale == 0
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or whole)


def _goes_beyond(file: Any, name: str) -> bool:
    """Tell whether int64 can't hold a column of uint64: by statistics, else by all its values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    metadata = file.metadata
    at = metadata.schema.names.index(name)
    for group in range(metadata.num_row_groups):
        known = metadata.row_group(group).column(at).statistics
        if known is not None and known.has_min_max:
            most = known.max
        else:
            try:
                most = pc.max(file.read_row_group(group, [name])[name]).as_py() or 0
            except (pa.ArrowException, OSError):
                # Whoever reads the ratings will say so, with the place.
                continue
        if most >= 2**63:
            return True
    return False


def ranges(file: RatingsFormat, size: int) -> Iterator[tuple[ByteRange, int]]:
    """Return runs of row groups of about ``size`` bytes, and the bytes of each."""
    with _opened(file.path, file.size) as source:
        metadata = source.metadata
        # Compressed, and of the needed columns alone; a group's columns are told by their path.
        costs = []
        for group in range(metadata.num_row_groups):
            found = metadata.row_group(group)
            columns = [found.column(i) for i in range(found.num_columns)]
            costs.append(
                sum(c.total_compressed_size for c in columns if c.path_in_schema in _NEEDED)
            )
    start, cost = 0, 0
    for group, own in enumerate(costs):
        if group > start and cost + own > size:
            yield ByteRange(file.path, start, group), cost
            start, cost = group, 0
        cost += own
    if costs:
        yield ByteRange(file.path, start, len(costs)), cost


def read(file: RatingsFormat, part: ByteRange, *, detailed: bool = False) -> Iterator[Partition]:
    """Read row groups: typed rows in the file's order, what is no rating aside.

    ``detailed`` is what it is to :func:`segmentation.datasets.csv_reader.parse_lines`.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    import pyarrow as pa

    with _opened(file.path, file.size) as source:
        try:
            groups = list(range(part.start, part.stop))
            names = [*_NEEDED, *([TIMESTAMP] if detailed and TIMESTAMP in file.columns else [])]
            for batch in source.iter_batches(_ROWS, groups, names, use_threads=False):
                yield _typed(batch, file, detailed=detailed)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{part.path}: can't be read ({one_line(error)}): it is damaged: write it again"
            ) from error


def _typed(batch: Any, file: RatingsFormat, *, detailed: bool) -> Partition:
    import pyarrow as pa
    import pyarrow.compute as pc

    users, movies = (
        identifiers.sound_texts(batch.column(name))
        if name in file.texts
        else _numbers(batch.column(name))
        for name in (USER, MOVIE)
    )
    what = [
        f"{name} is no text of 1 to {identifiers.LONGEST} bytes"
        if name in file.texts
        else f"{name} is no whole number within 64 bits"
        for name in (USER, MOVIE)
    ]
    stars = batch.column(RATING)
    known = stars.is_valid().to_numpy(zero_copy_only=False)
    values = pc.cast(stars.fill_null(0), pa.float64()).to_numpy(zero_copy_only=False)
    low, high = file.scale
    reasons = (
        (~users[1], what[0]),
        (~movies[1], what[1]),
        (~known | ~np.isfinite(values), f"{RATING} is no number"),
        (~((values >= low) & (values <= high)), f"{RATING} is outside {low:g} to {high:g}"),
    )
    bad = np.logical_or.reduce([mask for mask, _ in reasons])
    rejected = []
    for row in np.flatnonzero(bad):
        cells = batch.slice(int(row), 1).to_pylist()[0]
        text = ",".join("" if cells[name] is None else str(cells[name]) for name in _NEEDED)
        reason = next(reason for mask, reason in reasons if mask[row])
        rejected.append(LineReject(int(row), reason, text.encode()))
    columns: Columns = (users[0], movies[0], values)
    if detailed:
        columns = (*columns, _timestamps(batch), np.arange(len(bad)))
    if rejected:
        columns = tuple(
            column[~bad] if isinstance(column, np.ndarray) else column.filter(pa.array(~bad))
            for column in columns
        )
    names = (*_NEEDED, TIMESTAMP, LINE)[: len(columns)]
    frame = identifiers.framed(dict(zip(names, columns, strict=True)))
    return Partition(frame, tuple(rejected), len(bad))


def _timestamps(batch: Any) -> NDArray[np.int64]:
    """Return whatever whole numbers stand there, or microseconds of points in time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if TIMESTAMP not in batch.schema.names:
        return np.full(batch.num_rows, NO_TIMESTAMP)
    column = batch.column(TIMESTAMP)
    kind = column.type
    if _is_date(kind):
        column = pc.cast(column, pa.timestamp("us", getattr(kind, "tz", None)), safe=False)
    elif pa.types.is_floating(kind):
        stamps = column.fill_null(np.nan).to_numpy(zero_copy_only=False).astype(np.float64)
        whole = are_whole(stamps)
        return np.where(whole, np.where(whole, stamps, 0).astype(np.int64), NO_TIMESTAMP)
    elif not pa.types.is_integer(kind):
        return np.full(batch.num_rows, NO_TIMESTAMP)
    found: NDArray[np.int64] = (
        pc.cast(column, pa.int64(), safe=False)
        .fill_null(NO_TIMESTAMP)
        .to_numpy(zero_copy_only=False)
    )
    return found


def _is_date(kind: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_timestamp(kind) or kinds.is_date(kind))


def _numbers(column: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return a column of ids as int64, and which of them are ids."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if _holds_texts(column.type):
        return _numbers_of_texts(column)
    known = column.is_valid().to_numpy(zero_copy_only=False)
    filled = column.fill_null(0)
    if filled.type == pa.uint64():
        wide = filled.to_numpy(zero_copy_only=False)
        return wide.astype(np.int64), known & (wide <= np.iinfo(np.int64).max)
    return pc.cast(filled, pa.int64()).to_numpy(zero_copy_only=False), known


def _numbers_of_texts(column: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    coded = pc.cast(column, pa.string()).fill_null("").dictionary_encode()
    found = [identifiers.number(text.encode()) for text in coded.dictionary.to_pylist()]
    sound = np.array([not isinstance(value, str) for value in found], np.bool_)
    values = np.array([0 if isinstance(value, str) else value for value in found], np.int64)
    at = coded.indices.to_numpy(zero_copy_only=False)
    return values[at], sound[at]


class _opened:  # noqa: N801 - a context manager, used like a function
    """An open Parquet file; what pyarrow finds wrong with it becomes an error of the data."""

    def __init__(self, path: str, size: int | None) -> None:
        self._path, self._size = path, size

    def __enter__(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._handle = open_file(self._path, self._size)
        if not self._handle.seekable():
            self._handle.close()
            raise DataError(
                f"{self._path}: its server gives no ranges, without which Parquet can't be read: "
                "download it and name the file"
            )
        try:
            return pq.ParquetFile(self._handle, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            self._handle.close()
            raise DataError(
                f"{self._path}: can't be read as Parquet ({one_line(error)}): it is damaged or "
                "cut off: write it again"
            ) from error

    def __exit__(self, *_: object) -> None:
        self._handle.close()
