"""Read Parquet row groups into typed rows, and set rejected rows aside."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from segmentation.datasets import identifiers
from segmentation.datasets.filesystem import open_file
from segmentation.datasets.format import (
    NO_TIMESTAMP,
    Columns,
    LineReject,
    ParsedChunk,
    RatingsFormat,
    convert_counts,
    is_exact_integer,
)
from segmentation.datasets.reading import ReadingOptions, name_columns
from segmentation.datasets.retry import describe_error
from segmentation.errors import DataError
from segmentation.schema import ITEM, LINE, RATING, RATING_DTYPES, TIMESTAMP, USER, ByteRange

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

#: Rows per batch.
_BATCH_ROWS = 1 << 18


def probe_parquet(
    path: str, size: int, scale: tuple[float, float], reading: ReadingOptions | None = None
) -> RatingsFormat:
    """Return the format of a Parquet file, from its schema.

    Parameters
    ----------
    path
        A local path or a URL.
    size
        Size of the file in bytes.
    scale
        The lowest and the highest rating of the layout.
    reading
        What the user says about the ratings; None for nothing.

    Raises
    ------
    DataError
        If the file can't be read, lacks a column, or has a column of the wrong type.
    """
    reading = reading or ReadingOptions()
    with _open_parquet(path, None) as file:
        schema = file.schema_arrow
        n_rows = file.metadata.num_rows
        columns = name_columns(path, schema.names, reading.roles)
        types = {name: schema.field(i).type for i, name in enumerate(columns) if name}
        _check_types(path, types)
        string_columns = tuple(
            name
            for name in (USER, ITEM)
            if _is_string_type(types[name]) or _exceeds_int64(file, columns.index(name))
        )
    return RatingsFormat(
        path,
        size,
        b"",
        columns,
        # As for text, the data of a file without rows starts at its end.
        data_start=0 if n_rows else size,
        header_lines=0,
        scale=reading.scale or scale,
        reading=reading,
        codec="parquet",
        string_columns=string_columns,
        has_datetime_timestamps=TIMESTAMP in types and _is_datetime_type(types[TIMESTAMP]),
        unrated=reading.unrated,
        source_columns=tuple(schema.names),
    )


def check_id_types(files: Sequence[RatingsFormat]) -> None:
    """Reject Parquet files that disagree on whether a column's ids are strings.

    Raises
    ------
    DataError
        If a file disagrees with the first one.
    """
    for file in files[1:]:
        for name in {*files[0].string_columns} ^ {*file.string_columns}:
            types = []
            for path in (files[0].path, file.path):
                with _open_parquet(path, None) as source:
                    types.append(source.schema_arrow.field(file.columns.index(name)).type)
            # A uint64 column that exceeds int64 is read as strings, but may be mixed with int64.
            if _is_string_type(types[0]) != _is_string_type(types[1]):
                raise DataError(
                    f"{file.path}: column {name} is of type {types[1]}, but of type {types[0]} "
                    f"in {files[0].path}; write all parts with the same type"
                )


def plan_row_groups(file: RatingsFormat, size: int) -> Iterator[tuple[ByteRange, int]]:
    """Yield ranges of row groups of about ``size`` bytes, each with its number of bytes.

    The bytes are compressed ones of the user, item and rating columns. The ``start`` and ``stop``
    of a range are indices of row groups.
    """
    required = {file.source_columns[file.columns.index(name)] for name in file.required}
    with _open_parquet(file.path, file.size) as source:
        metadata = source.metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        columns = [[group.column(i) for i in range(group.num_columns)] for group in groups]
        group_bytes = [
            sum(c.total_compressed_size for c in chunks if c.path_in_schema in required)
            for chunks in columns
        ]
    start, n_bytes = 0, 0
    for group, cost in enumerate(group_bytes):
        if group > start and n_bytes + cost > size:
            yield ByteRange(file.path, start, group), n_bytes
            start, n_bytes = group, 0
        n_bytes += cost
    if group_bytes:
        yield ByteRange(file.path, start, len(group_bytes)), n_bytes


def read_row_groups(
    file: RatingsFormat, part: ByteRange, *, detailed: bool = False
) -> Iterator[ParsedChunk]:
    """Yield the rows of a range of row groups in batches, in the order of the file.

    Parameters
    ----------
    file
        The format of the file.
    part
        The range of row groups, by index.
    detailed
        Add the int64 columns ``timestamp`` and ``line``, as
        :func:`segmentation.datasets.csv_reader.parse_lines` does; ``line`` is the row within the
        batch.

    Raises
    ------
    DataError
        If the file can't be read.
    """
    import pyarrow as pa

    has_timestamps = detailed and TIMESTAMP in file.columns
    names = [*file.required, *([TIMESTAMP] if has_timestamps else [])]
    sources = [file.source_columns[file.columns.index(name)] for name in names]
    groups = list(range(part.start, part.stop))
    # A string that repeats is kept once.
    strings = [s for s, name in zip(sources, names, strict=True) if name in (USER, ITEM)]
    with _open_parquet(file.path, file.size, strings) as source:
        try:
            for batch in source.iter_batches(_BATCH_ROWS, groups, sources, use_threads=False):
                named = pa.RecordBatch.from_arrays([batch.column(s) for s in sources], names)
                yield _parse_batch(named, file, detailed=detailed)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{part.path}: can't be read ({describe_error(error)}); write the file again"
            ) from error


def _parse_batch(batch: pa.RecordBatch, file: RatingsFormat, *, detailed: bool) -> ParsedChunk:
    import pyarrow as pa

    masks: dict[str, NDArray[np.bool_]] = {}
    columns: Columns = ()
    for name in (USER, ITEM):
        if name in file.string_columns:
            values, is_id = identifiers.strip_strings(batch.column(name))
            reason = f"{name} is not a string of 1 to {identifiers.MAX_BYTES} bytes"
        else:
            values, is_id = _parse_integers(batch.column(name), file)
            reason = f"{name} is not a 64-bit integer"
        masks[reason] = ~is_id
        columns = (*columns, values)
    ratings, is_number = _parse_ratings(batch, file)
    low, high = file.scale
    masks[f"{RATING} is not a number"] = ~is_number
    is_unrated = np.isin(ratings, file.unrated)
    is_inside = (ratings >= low) & (ratings <= high)
    masks[file.describe_outside()] = ~(is_inside | is_unrated)
    if file.has_counts:
        ratings = convert_counts(np.maximum(ratings, low))
    columns = (*columns, ratings)
    if detailed:
        columns = (*columns, _parse_timestamps(batch), np.arange(batch.num_rows))
    is_rejected = np.logical_or.reduce(list(masks.values()))
    rejected = []
    for row in np.flatnonzero(is_rejected):
        cells = {name: _read_cell(batch.column(name), int(row)) for name in file.required}
        text = b",".join(cells.values())
        reason = next(reason for reason, mask in masks.items() if mask[row])
        name, _, _ = reason.partition(" ")
        is_parsed = name not in file.string_columns and _is_string_type(batch.column(name).type)
        if is_parsed and cells[name]:
            # Of a string there is more to say than that it is no integer.
            why = identifiers.parse_integer(cells[name], allow_padding=file.allow_padding)
            reason = f"{name} {why}"
        rejected.append(LineReject(int(row), reason, text))
    is_kept = ~(is_rejected | is_unrated)
    if not is_kept.all():
        columns = tuple(
            column[is_kept] if isinstance(column, np.ndarray) else column.filter(pa.array(is_kept))
            for column in columns
        )
    names = (*RATING_DTYPES, TIMESTAMP, LINE)[: len(columns)]
    frame = identifiers.to_frame(dict(zip(names, columns, strict=True)))
    n_unrated = int((is_unrated & ~is_rejected).sum())
    return ParsedChunk(frame, tuple(rejected), batch.num_rows, unrated=n_unrated)


def _read_cell(column: pa.Array, row: int) -> bytes:
    """Return a cell as text; strings may hold bytes that are not UTF-8."""
    import pyarrow as pa

    value = column[row]
    if isinstance(value, pa.DictionaryScalar):
        value = value.value
    if not value.is_valid:
        return b""
    if pa.types.is_string(value.type) or pa.types.is_large_string(value.type):
        return bytes(value.as_buffer())
    return str(value.as_py()).encode()


def _parse_ratings(
    batch: pa.RecordBatch, file: RatingsFormat
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the ratings as float64, and a mask of the finite ones; without ratings, ones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not file.has_ratings:
        return np.ones(batch.num_rows), np.ones(batch.num_rows, np.bool_)
    column = batch.column(RATING)
    is_valid = column.is_valid().to_numpy(zero_copy_only=False)
    values = pc.cast(column.fill_null(0), pa.float64()).to_numpy(zero_copy_only=False)
    return values, is_valid & np.isfinite(values)


def _parse_timestamps(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """Return whole numbers as int64, dates and datetimes in microseconds, else `NO_TIMESTAMP`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if TIMESTAMP not in batch.schema.names:
        return np.full(batch.num_rows, NO_TIMESTAMP)
    column = batch.column(TIMESTAMP)
    if _is_datetime_type(column.type):
        column = pc.cast(column, pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
    elif pa.types.is_floating(column.type):
        floats = column.fill_null(np.nan).to_numpy(zero_copy_only=False).astype(np.float64)
        is_integer = is_exact_integer(floats)
        return np.where(is_integer, np.where(is_integer, floats, 0).astype(np.int64), NO_TIMESTAMP)
    elif not pa.types.is_integer(column.type):
        return np.full(batch.num_rows, NO_TIMESTAMP)
    timestamps: NDArray[np.int64] = (
        pc.cast(column, pa.int64(), safe=False)
        .fill_null(NO_TIMESTAMP)
        .to_numpy(zero_copy_only=False)
    )
    return timestamps


def _parse_integers(
    column: pa.Array, file: RatingsFormat
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return a column of ids as int64, and a mask of the valid ones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if _is_string_type(column.type) or pa.types.is_decimal(column.type):
        return _parse_integers_in_strings(column, file)
    if pa.types.is_floating(column.type):
        floats = column.fill_null(np.nan).to_numpy(zero_copy_only=False).astype(np.float64)
        is_integer = is_exact_integer(floats)
        return np.where(is_integer, floats, 0).astype(np.int64), is_integer
    is_valid = column.is_valid().to_numpy(zero_copy_only=False)
    filled = column.fill_null(0)
    if filled.type == pa.uint64():
        unsigned = filled.to_numpy(zero_copy_only=False)
        return unsigned.astype(np.int64), is_valid & (unsigned <= np.iinfo(np.int64).max)
    return pc.cast(filled, pa.int64()).to_numpy(zero_copy_only=False), is_valid


def _parse_integers_in_strings(
    column: pa.Array, file: RatingsFormat
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(column, pa.DictionaryArray):
        column = pc.cast(column, pa.string()).dictionary_encode()
    encoded = column.fill_null(pa.scalar("", column.type.value_type))
    texts = pc.cast(pc.cast(encoded.dictionary, pa.string()), pa.binary()).to_pylist()
    parsed = [identifiers.parse_integer(t, allow_padding=file.allow_padding) for t in texts]
    is_id = np.array([not isinstance(value, str) for value in parsed], np.bool_)
    values = np.array([0 if isinstance(value, str) else value for value in parsed], np.int64)
    indices = encoded.indices.to_numpy(zero_copy_only=False)
    return values[indices], is_id[indices]


def _check_types(path: str, types: Mapping[str, pa.DataType]) -> None:
    import pyarrow as pa

    for name in (USER, ITEM, *([RATING] if RATING in types else [])):
        dtype = types[name]
        is_number = (
            pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype)
        )
        if not (is_number or (name != RATING and _is_string_type(dtype))):
            kinds = "a numeric type" if name == RATING else "integers or strings"
            raise DataError(f"{path}: column {name} is of type {dtype}; use {kinds}")


def _is_string_type(dtype: pa.DataType) -> bool:
    """Return whether ids of this type are read as strings; decimals may exceed 64 bits."""
    import pyarrow as pa

    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    is_integral = pa.types.is_decimal(dtype) and dtype.scale == 0
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or is_integral)


def _is_datetime_type(dtype: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(dtype) or pa.types.is_date(dtype))


def _exceeds_int64(file: pq.ParquetFile, place: int) -> bool:
    """Return whether a uint64 column exceeds int64: by its statistics, else by its values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    name = file.schema_arrow.names[place]
    if file.schema_arrow.field(place).type != pa.uint64():
        return False
    metadata = file.metadata
    index = metadata.schema.names.index(name)
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(index).statistics
        if statistics is not None and statistics.has_min_max:
            largest = statistics.max
        else:
            try:
                largest = pc.max(file.read_row_group(group, [name])[name]).as_py() or 0
            except (pa.ArrowException, OSError):
                # The damage is reported when the ratings are read.
                continue
        if largest >= 2**63:
            return True
    return False


@contextmanager
def _open_parquet(
    path: str, size: int | None, read_dictionary: Sequence[str] | None = None
) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; ``size`` is that of :func:`open_file`.

    The columns ``read_dictionary`` are read as dictionaries, if they hold strings.

    Raises
    ------
    DataError
        If the file can't be read, is not Parquet, or its server does not support range requests.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_file(path, size) as handle:
        if not handle.seekable():
            raise DataError(
                f"{path}: Parquet needs range requests, which its server does not support; "
                "download it and pass the local file"
            )
        try:
            file = pq.ParquetFile(
                handle, page_checksum_verification=True, read_dictionary=read_dictionary
            )
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path}: can't be read as Parquet ({describe_error(error)}); write the file again"
            ) from error
        yield file
