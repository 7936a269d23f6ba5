"""Write a planned data set in Kaggle's layout; Dask tasks generate the ratings."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segmentation.datasets.synthetic import MARKER, PLANTED, calibration, kernels
from segmentation.datasets.synthetic.catalogue import format_links, format_metadata
from segmentation.datasets.synthetic.model import MovieTables, Plan, make_plan
from segmentation.errors import DataError, UsageError
from segmentation.schema import ITEM, RATING, TIMESTAMP, USER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distributed import Client, Future
    from numpy.typing import NDArray

#: All files of a data set, in the order in which they are moved into place.
FILES = ("links.csv", "movies_metadata.csv", PLANTED, "ratings.csv", MARKER)
#: Increase it whenever the output changes, so that cached data sets of older versions are not used.
VERSION = 1

#: Average size of a row, to check the free disk space.
_BYTES_PER_ROW = 27
_PARTIAL = ".partial"
_HEADER = f"{USER},{ITEM},{RATING},{TIMESTAMP}\n".encode()


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Reject a folder that is not empty, unless its files may be overwritten.

    Raises
    ------
    UsageError
        If ``folder`` is a file, or is not empty and ``overwrite`` is False.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError("{path}: is a file: choose a folder for {out}", "out", path=folder)
    # An interrupted run leaves partial files, which are always overwritten.
    files = [p for p in folder.iterdir() if p.suffix != _PARTIAL] if folder.exists() else []
    if files and not overwrite:
        raise UsageError(
            "{path}: is not empty: pass {overwrite} to replace a data set there, or choose another "
            "{out}",
            "overwrite",
            "out",
            path=folder,
        )


def write_dataset(
    rows: int,
    seed: int,
    folder: str | Path,
    client: Client,
    progress: Callable[[int, int], None] = lambda done, total: None,
    remedy: str = "choose another folder",
) -> Plan:
    """Write ``rows`` ratings and their catalogue to ``folder``.

    A bounded number of groups of users is in flight, and their lines are appended in order, so the
    memory for ratings does not grow with ``rows``.

    Parameters
    ----------
    rows
        Number of ratings; 26,024,289 as in The Movies Dataset.
    seed
        With ``rows``, it determines every byte.
    folder
        Created if it does not exist; files in it are replaced once the new ones are complete.
    client
        Its workers generate the ratings; this process writes them.
    progress
        Called with the number of rows written so far and the total.
    remedy
        What an error advises if the folder can't be used.

    Returns
    -------
    Plan
        The plan of the data set.

    Raises
    ------
    DataError
        If the folder can't be written or the disk has too little space.

    Examples
    --------
    >>> import tempfile
    >>> from distributed import Client
    >>> options = {"processes": False, "dashboard_address": None}
    >>> with tempfile.TemporaryDirectory() as folder, Client(**options) as client:
    ...     plan = write_dataset(2_000, seed=0, folder=folder, client=client)
    >>> plan.rows, plan.users
    (2000, 21)
    """
    folder = Path(folder)
    is_new = not folder.exists()
    is_complete = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        need, free = rows * _BYTES_PER_ROW, shutil.disk_usage(folder).free
        if need > free:
            raise DataError(
                f"{folder}: {rows:,} ratings take about {need / 1e6:,.1f} MB, and only "
                f"{free / 1e6:,.1f} MB are free: free some space, write fewer rows, or {remedy}"
            )
        plan = make_plan(rows, seed)
        _check_replaceable(folder)
        _make_partial_path(folder / "links.csv").write_bytes(format_links(plan.movies))
        _make_partial_path(folder / "movies_metadata.csv").write_bytes(
            format_metadata(plan.movies, seed)
        )
        _write_planted(plan, _make_partial_path(folder / PLANTED))
        _write_ratings(plan, _make_partial_path(folder / "ratings.csv"), client, progress)
        # The marker lists no files until all are in place, so that a mix of files of two data
        # sets is never taken for a complete one.
        _write_marker(folder, {"synthetic": True})
        for name in FILES[:-1]:
            os.replace(_make_partial_path(folder / name), folder / name)
        _write_marker(folder, _make_marker(rows, seed, folder))
        is_complete = True
    except OSError as error:
        raise DataError(
            f"{folder}: can't be written ({error.strerror or error}): {remedy}"
        ) from error
    finally:
        if not is_complete:
            # An error here would hide the one that says why nothing was written.
            with contextlib.suppress(OSError):
                for name in FILES:
                    _make_partial_path(folder / name).unlink(missing_ok=True)
                if is_new and folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
    return plan


def is_written(rows: int, seed: int, folder: str | Path) -> bool:
    """Return whether ``folder`` holds this data set, unchanged since it was written.

    The sizes of its files tell, and that the marker was written last.
    """
    folder = Path(folder)
    try:
        marker = json.loads((folder / MARKER).read_text())
        changed = max((folder / name).stat().st_mtime_ns for name in FILES[:-1])
        is_last = changed <= (folder / MARKER).stat().st_mtime_ns
        return is_last and bool(marker == _make_marker(rows, seed, folder))
    except (OSError, ValueError, RecursionError):
        return False


def generate_group(
    tables: MovieTables,
    seed: int,
    first_user: int,
    segments: NDArray[np.int8],
    counts: NDArray[np.int64],
    rating_counts: NDArray[np.int64],
) -> bytes:
    """Draw the movies, ratings and timestamps of one group of users; return them as CSV lines.

    The lines are sorted by user and movie.

    Parameters
    ----------
    tables
        The movies.
    seed
        The seed of the data set.
    first_user
        Index of the group's first user in the data set.
    segments, counts
        Planted segment and number of ratings of each user, both of shape (n_users,).
    rating_counts
        Numbers of ratings with 0.5, 1, …, 5 stars in the group, of shape (10,). Ratings are
        drawn as scores, and the lowest scores get the fewest stars, so the group matches this
        histogram exactly.
    """
    n = int(counts.sum())
    key = np.uint64(np.random.SeedSequence([seed, 4]).generate_state(1, np.uint64)[0])
    movies = np.empty(n, np.int32)
    kernels.draw_movies(
        key,
        first_user,
        segments,
        counts,
        tables.alias_share,
        tables.alias_other,
        tables.weights,
        movies,
    )
    users = np.repeat(np.arange(len(counts)), counts)
    movies = movies[np.lexsort((tables.movie_ids[movies], users))]
    scores = np.empty(n)
    kernels.score_ratings(
        key,
        first_user,
        segments,
        counts,
        movies,
        tables.appeal,
        tables.offsets,
        tables.codes,
        len(calibration.GENRES),
        scores,
    )
    half_stars = np.empty(n, np.int8)
    half_stars[np.argsort(scores, kind="stable")] = np.repeat(np.arange(1, 11), rating_counts)
    stamps = np.empty(n, np.int64)
    kernels.draw_timestamps(key, first_user, counts, np.array(calibration.TIMESTAMPS), stamps)
    out = np.empty(n * kernels.LINE_BYTES, np.uint8)
    size = kernels.format_rows(
        first_user, counts, tables.movie_ids[movies], half_stars, stamps, out
    )
    return out[:size].tobytes()


def count_ratings_per_group(plan: Plan) -> NDArray[np.int64]:
    """Return each group's numbers of ratings with 0.5, 1, …, 5 stars, of shape (n_groups, 10).

    The cumulative histogram is rounded at the end of each group, so the groups add up to the
    histogram of The Movies Dataset at its size, and to within one rating of its shares at any
    other size.
    """
    cumulative = np.cumsum(calibration.HALF_STARS).tolist()
    ends = [
        [rows * total // calibration.ROWS for total in cumulative[:-1]] + [rows]
        for rows in plan.first_rows.tolist()
    ]
    return np.diff(np.diff(np.array(ends), axis=0), axis=1, prepend=0)


def _write_ratings(
    plan: Plan, path: Path, client: Client, progress: Callable[[int, int], None]
) -> None:
    """Write ``ratings.csv`` with two groups in flight per thread."""
    tables = client.scatter(plan.tables, broadcast=True, hash=False)
    rating_counts = count_ratings_per_group(plan)
    threads = sum(client.nthreads().values()) or 1
    window: deque[tuple[int, Future]] = deque()
    groups = iter(range(plan.groups))
    try:
        with path.open("wb") as file:
            file.write(_HEADER)
            while True:
                for group in groups:
                    first, stop = plan.first_users[group : group + 2].tolist()
                    future = client.submit(
                        generate_group,
                        tables,
                        plan.seed,
                        first,
                        plan.segments[first:stop],
                        plan.counts[first:stop],
                        rating_counts[group],
                        pure=False,
                        key=f"synthesize-{plan.seed}-{plan.rows}-{group}",
                    )
                    window.append((group, future))
                    if len(window) >= 2 * threads:
                        break
                if not window:
                    break
                group, future = window.popleft()
                file.write(future.result())
                progress(int(plan.first_rows[group + 1]), plan.rows)
    finally:
        for _, future in window:
            future.cancel()


def _write_planted(plan: Plan, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array([segment.name for segment in calibration.SEGMENTS])
    table = pa.table(
        {
            USER: np.arange(1, plan.users + 1),
            "segment": plan.segments,
            "persona": pa.DictionaryArray.from_arrays(pa.array(plan.segments), names),
            "movies": plan.counts,
        }
    )
    pq.write_table(table, path, compression="zstd")


def _make_marker(rows: int, seed: int, folder: Path) -> dict[str, Any]:
    files = {name: (folder / name).stat().st_size for name in FILES[:-1]}
    return {"synthetic": True, "version": VERSION, "rows": rows, "seed": seed, "files": files}


def _write_marker(folder: Path, marker: Mapping[str, Any]) -> None:
    path = _make_partial_path(folder / MARKER)
    path.write_text(json.dumps(marker))
    os.replace(path, folder / MARKER)


def _check_replaceable(folder: Path) -> None:
    """Check that only an earlier synthetic data set is replaced, and nothing through a link."""
    for name in FILES:
        for path in (folder / name, _make_partial_path(folder / name)):
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise DataError(
                    f"{path}: is no regular file: move it away, or choose another folder"
                )
    first = next((name for name in FILES if (folder / name).exists()), None)
    if first is not None and not (folder / MARKER).exists():
        raise DataError(
            f"{folder}: holds {first} but no {MARKER}, so it may be data that was not generated: "
            "choose another folder"
        )


def _make_partial_path(path: Path) -> Path:
    return path.with_name(path.name + _PARTIAL)
