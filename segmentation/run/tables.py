"""Tables that workers build, a block of users each → one Parquet file, or a folder of parts.

Many blocks are packed where they are built: the driver writes bytes, and packs nothing itself.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from typing import TYPE_CHECKING, Any

from segmentation.tasks import submit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

#: Up to so many blocks make one file; half a million users at the usual size of a block.
ONE_FILE = 8
_PACKED = {"compression": "zstd", "compression_level": 1}


def part_of(folder: Path, number: int) -> Path:
    """Return where one block of a folder of parts lies."""
    return folder / f"part-{number:05d}.parquet"


def write(
    client: Any,
    path: Path,
    make: Callable[..., Any],
    columns: Sequence[Any],
    ahead: int,
    after: Callable[[int], None] = lambda number: None,
) -> None:
    """Write a table a block, beside their place and renamed.

    Parameters
    ----------
    make
        Makes one Arrow table, on a worker.
    columns
        What it is given, as for :func:`segmentation.tasks.submit`; a list for what differs.
    ahead
        How many are built at a time, beyond those that are being written.
    after
        Told the number of blocks that have been asked for, each time.
    """
    n = next(len(column) for column in columns if isinstance(column, list))
    partial = path.with_name(path.name + ".partial")
    for old in (partial, path):
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    if n <= ONE_FILE:
        _write_file(partial, _built(client, make, columns, n, ahead, after))
    else:
        partial.mkdir()
        parts = _built(client, _packed, [make, *columns], n, ahead, after)
        for number, part in enumerate(parts):
            part_of(partial, number).write_bytes(part)
    os.replace(partial, path)


def _built(
    client: Any,
    make: Callable[..., Any],
    columns: Sequence[Any],
    n: int,
    ahead: int,
    after: Callable[[int], None],
) -> Iterator[Any]:
    waiting: deque[Any] = deque()
    for at in range(0, n, ahead):
        some = [c[at : at + ahead] if isinstance(c, list) else c for c in columns]
        waiting += submit(client, "table", make, *some)
        del some
        after(min(at + ahead, n))
        while len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _packed(make: Callable[..., Any], *arguments: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(make(*arguments), sink, **_PACKED)
    return bytes(sink.getvalue())


def _write_file(path: Path, tables: Iterator[Any]) -> None:
    import pyarrow.parquet as pq

    writer = None
    try:
        for table in tables:
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema, **_PACKED)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def files_of(path: Path) -> list[Path]:
    """Return the one file, or the parts in the order of the blocks."""
    return sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
