"""Write a planned data set in Kaggle's layout, its ratings in partitions made by Dask."""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.datasets.synthetic import calibration as real
from segmentation.datasets.synthetic import kernels
from segmentation.datasets.synthetic.catalogue import links_csv, metadata_csv
from segmentation.datasets.synthetic.model import FilmTables, Plan, make_plan
from segmentation.errors import DataError
from segmentation.schema import MOVIE, RATING, TIMESTAMP, USER

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

#: Written last; a folder without it is not finished.
MARKER = "synthetic.json"
PLANTED = "planted.parquet"
#: All files of a data set, in the order in which they are put in place.
FILES = ("links.csv", "movies_metadata.csv", PLANTED, "ratings.csv", MARKER)
#: Raised whenever the bytes change, so that a cached data set is never taken for a newer one.
VERSION = 1

_BYTES_PER_ROW = 27
_HEADER = f"{USER},{MOVIE},{RATING},{TIMESTAMP}\n".encode()


def write_dataset(
    rows: int,
    seed: int,
    folder: str | Path,
    client: Any,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Write ``rows`` ratings and their catalogue to ``folder``, byte for byte by the seed.

    A window of partitions is in flight at a time and each is appended in order, so memory does
    not grow with the rows.

    Parameters
    ----------
    rows
        Number of ratings; 26,024,289 is the size of the real file.
    seed
        Every byte follows from it and ``rows``.
    folder
        Made if need be; files there are replaced only when the new ones are whole.
    client
        A ``distributed.Client``.
    progress
        Called with (rows written, rows in all).

    Raises
    ------
    DataError
        If the folder can't be written or the disk is too small.
    """
    folder = Path(folder)
    made = not folder.exists()
    done = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        need, free = rows * _BYTES_PER_ROW, shutil.disk_usage(folder).free
        if need > free:
            raise DataError(
                f"{folder}: {rows:,} ratings take about {need / 1e6:,.1f} MB and "
                f"{free / 1e6:,.1f} MB are free: make room, ask for fewer rows, or go elsewhere"
            )
        plan = make_plan(rows, seed)
        _partial(folder / "links.csv").write_bytes(links_csv(plan.films))
        _partial(folder / "movies_metadata.csv").write_bytes(metadata_csv(plan.films, seed))
        _write_planted(plan, _partial(folder / PLANTED))
        size = _write_ratings(plan, _partial(folder / "ratings.csv"), client, progress)
        _partial(folder / MARKER).write_text(json.dumps(_marker(rows, seed, size)))
        # Ratings go first and come last: files of two data sets are never taken for one.
        for name in reversed(FILES):
            (folder / name).unlink(missing_ok=True)
        for name in FILES:
            os.replace(_partial(folder / name), folder / name)
        done = True
    except OSError as error:
        raise DataError(
            f"{folder}: can't be written ({error.strerror or error}): choose another folder"
        ) from error
    finally:
        if not done:
            for name in FILES:
                _partial(folder / name).unlink(missing_ok=True)
            if made and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    return plan


def is_written(rows: int, seed: int, folder: str | Path) -> bool:
    """Tell whether ``folder`` holds exactly this data set, finished."""
    folder = Path(folder)
    try:
        marker = json.loads((folder / MARKER).read_text())
        size = (folder / "ratings.csv").stat().st_size
    except (OSError, ValueError):
        return False
    return bool(marker == _marker(rows, seed, size))


def group_bytes(
    tables: FilmTables,
    seed: int,
    first_user: int,
    segments: NDArray[np.int8],
    counts: NDArray[np.int64],
    quota: NDArray[np.int64],
) -> bytes:
    """Return the lines of one group of users, by user and movie.

    ``quota`` says how many ratings of 0.5, 1, … 5 stars the group holds: the lowest scores get
    the lowest stars, so the histogram is met exactly.
    """
    n = int(counts.sum())
    key = np.uint64(np.random.SeedSequence([seed, 4]).generate_state(1, np.uint64)[0])
    films = np.empty(n, np.int32)
    kernels.draw_films(
        key,
        first_user,
        segments,
        counts,
        tables.alias_share,
        tables.alias_other,
        tables.weights,
        films,
    )
    users = np.repeat(np.arange(len(counts)), counts)
    films = films[np.lexsort((tables.movie_ids[films], users))]
    scores = np.empty(n)
    kernels.judge(
        key,
        first_user,
        segments,
        counts,
        films,
        tables.appeal,
        tables.offsets,
        tables.codes,
        len(real.GENRES),
        scores,
    )
    half_stars = np.empty(n, np.int8)
    half_stars[np.argsort(scores, kind="stable")] = np.repeat(np.arange(1, 11), quota)
    stamps = np.empty(n, np.int64)
    kernels.stamp(key, first_user, counts, np.array(real.TIMESTAMPS), stamps)
    out = np.empty(n * kernels.LINE_BYTES, np.uint8)
    size = kernels.write_rows(first_user, counts, tables.movie_ids[films], half_stars, stamps, out)
    return out[:size].tobytes()


def quotas(plan: Plan) -> NDArray[np.int64]:
    """Return how many ratings of each half-star a group holds; (n_groups, 10).

    The cumulative histogram is rounded at each group's end, so that the groups add up to the
    real histogram exactly at full size, and to its nearest below and above.
    """
    cumulative = np.cumsum(real.HALF_STARS).tolist()
    ends = [
        [rows * total // real.ROWS for total in cumulative[:-1]] + [rows]
        for rows in plan.first_rows.tolist()
    ]
    return np.diff(np.diff(np.array(ends), axis=0), axis=1, prepend=0)


def _write_ratings(
    plan: Plan, path: Path, client: Any, progress: Callable[[int, int], None]
) -> int:
    tables = client.scatter(plan.tables, broadcast=True, hash=False)
    shares = quotas(plan)
    threads = sum(client.nthreads().values()) or 1
    window: deque[tuple[int, Any]] = deque()
    todo = iter(range(plan.groups))
    size = 0
    try:
        with path.open("wb") as file:
            size += file.write(_HEADER)
            while True:
                for group in todo:
                    first, stop = plan.first_users[group : group + 2].tolist()
                    task = client.submit(
                        group_bytes,
                        tables,
                        plan.seed,
                        first,
                        plan.segments[first:stop],
                        plan.counts[first:stop],
                        shares[group],
                        pure=False,
                        key=f"synthesize-{plan.seed}-{plan.rows}-{group}",
                    )
                    window.append((group, task))
                    if len(window) >= 2 * threads:
                        break
                if not window:
                    break
                group, task = window.popleft()
                size += file.write(task.result())
                progress(int(plan.first_rows[group + 1]), plan.rows)
    finally:
        for _, task in window:
            task.cancel()
    return size


def _write_planted(plan: Plan, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array([segment.name for segment in real.SEGMENTS])
    table = pa.table(
        {
            USER: np.arange(1, plan.users + 1),
            "segment": plan.segments,
            "persona": pa.DictionaryArray.from_arrays(pa.array(plan.segments), names),
            "movies": plan.counts,
        }
    )
    pq.write_table(table, path, compression="zstd")


def _marker(rows: int, seed: int, size: int) -> dict[str, int | bool]:
    return {"synthetic": True, "version": VERSION, "rows": rows, "seed": seed, "bytes": size}


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")
