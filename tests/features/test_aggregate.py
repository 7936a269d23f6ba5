"""Aggregation on anyone's client: against pandas, by each method, and when it can't go on."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import Client, KilledWorker, LocalCluster
from distributed.scheduler import WorkerState

from segmentation import tasks
from segmentation.datasets import catalogue, layouts, partitions
from segmentation.errors import ClusterError, DataError
from segmentation.features import aggregate, presets
from segmentation.features.aggregate import aggregate_ratings, choose_method
from segmentation.features.worker_memory import WorkerMemory
from segmentation.progress import TerminalProgress
from tests import oracles
from tests.conftest import write_tiny
from tests.features.helpers import split, summarize, write_file

#: Genres of the movies in `tests.conftest.write_tiny`; movie 40 is not in the catalogue.
GENRES = {10: ["Drama", "Crime"], 20: ["Comedy"], 30: []}
HEADER = "userId,movieId,rating,timestamp\n"
#: Partitions of a few hundred bytes, and no memory for partial sums that overlap.
NO_MEMORY = WorkerMemory(0, 2_000, 2_000, 4_000, 100)


@pytest.fixture(scope="module")
def plain_client() -> Iterator[Client]:
    """A client that nothing of this package has started or configured."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def make_ratings(n: int, *, is_sorted: bool) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    ratings = pd.DataFrame(
        {
            "userId": rng.integers(100, size=n),
            "movieId": rng.choice([10, 20, 30, 40], n),
            "rating": rng.integers(1, 11, n) / 2,
            "timestamp": rng.permutation(n),
        }
    )
    return ratings.sort_values("userId", kind="stable") if is_sorted else ratings


def load(folder: Path):
    layout = layouts.detect_layout(str(folder))
    return layout, catalogue.load_catalogue(layout, "links")


def assert_as_pandas(client: Client, blocks, genres: tuple[str, ...], used: pd.DataFrame) -> None:
    expected = used.groupby("userId")["rating"].agg(["size", "sum"])
    statistics = client.gather(blocks.statistics)
    users = np.concatenate([block.users for block in statistics])
    assert users.tolist() == expected.index.tolist()
    assert np.concatenate([b.items for b in statistics]).tolist() == expected["size"].tolist()
    assert np.concatenate([b.rating_sum for b in statistics]).tolist() == expected["sum"].tolist()
    means = np.concatenate([presets.category_means(block) for block in statistics])
    expected_means = oracles.user_genre_means(used, GENRES).reindex(columns=list(genres))
    np.testing.assert_allclose(means, expected_means, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize("deduplicate", [False, True])
@pytest.mark.parametrize("memory", [None, NO_MEMORY])
def test_on_a_plain_client(
    plain_client: Client, tmp_path: Path, is_sorted: bool, deduplicate: bool, memory
) -> None:
    ratings = make_ratings(2_000, is_sorted=is_sorted)
    folder = write_tiny(tmp_path / "data", HEADER + "1,1.5,3.0,1\n")
    with (folder / "ratings.csv").open("a") as file:
        ratings.to_csv(file, index=False, header=False)
    layout, movies = load(folder)
    out = io.StringIO()
    blocks, counts = aggregate_ratings(
        plain_client,
        layout,
        movies,
        deduplicate=deduplicate,
        max_rejected=0.9,
        partition_bytes=3_000,
        memory=memory,
        progress=TerminalProgress(out),
    )
    used = ratings[ratings["movieId"] != 40]
    latest = used.sort_values("timestamp").drop_duplicates(["userId", "movieId"], keep="last")
    assert_as_pandas(plain_client, blocks, movies.categories, latest if deduplicate else used)
    superseded = len(used) - len(latest) if deduplicate else 0
    assert counts.record() == {
        "read": 2_001 - superseded,
        "used": len(used) - superseded,
        "unmapped": 2_000 - len(used),
        "rejected": 1,
        **({"superseded": superseded} if superseded else {}),
    }
    assert counts.items == 3
    assert (counts.rejected[0].line, counts.rejected[0].text) == (2, "1,1.5,3.0,1")
    must_shuffle = not is_sorted and (deduplicate or memory is not None)
    assert ("they are shuffled first" in out.getvalue()) == must_shuffle


@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize("deduplicate", [False, True])
@pytest.mark.parametrize("memory", [None, NO_MEMORY])
def test_users_of_other_items_only_are_kept(
    plain_client: Client, tmp_path: Path, is_sorted: bool, deduplicate: bool, memory
) -> None:
    """They count as users without a rating, by each method; all else stays the same."""
    ratings = make_ratings(2_000, is_sorted=is_sorted)
    ratings.loc[ratings["userId"] % 3 == 0, "movieId"] = 40
    folder = write_tiny(tmp_path / "data")
    ratings.to_csv(folder / "ratings.csv", index=False)
    layout, movies = load(folder)
    options = {"deduplicate": deduplicate, "partition_bytes": 3_000, "memory": memory}
    rated, counts = aggregate_ratings(plain_client, layout, movies, **options)
    everyone, all_counts = aggregate_ratings(
        plain_client, layout, movies, keep_all_users=True, **options
    )
    assert all_counts.record() == counts.record()
    merged, expected = (
        [np.concatenate(column) for column in zip(*plain_client.gather(blocks), strict=True)]
        for blocks in (everyone.statistics, rated.statistics)
    )
    assert merged[0].tolist() == sorted(ratings["userId"].unique())
    is_rated = merged[1] > 0
    assert set(merged[0][~is_rated]) == set(ratings["userId"][ratings["userId"] % 3 == 0])
    for column, rated_column in zip(merged, expected, strict=True):
        np.testing.assert_array_equal(column[is_rated], rated_column)
        assert (column[~is_rated] == 0).all() or column is merged[0]


def test_defaults(plain_client: Client, tiny: Path) -> None:
    layout, movies = load(tiny)
    result = aggregate_ratings(plain_client, layout, movies)
    ratings = pd.read_csv(tiny / "ratings.csv")
    used = ratings[ratings["movieId"] != 40]
    assert_as_pandas(plain_client, result.blocks, movies.categories, used)
    assert result.counts.record() == {"read": 6, "used": 5, "unmapped": 1, "rejected": 0}


def test_a_shuffle_is_checked_first(plain_client: Client, tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "data")
    make_ratings(2_000, is_sorted=False).to_csv(folder / "ratings.csv", index=False)
    layout, movies = load(folder)
    calls = []

    def refuse(n_bytes: int) -> None:
        calls.append(n_bytes)
        raise ClusterError("too small")

    options = {"memory": NO_MEMORY, "check_shuffle": refuse, "trim_memory": lambda: calls.append(0)}
    with pytest.raises(ClusterError, match="too small"):
        aggregate_ratings(plain_client, layout, movies, **options)
    # 20 bytes per row, one row per 24 bytes of text.
    assert calls == [pytest.approx((folder / "ratings.csv").stat().st_size / 24 * 20, rel=0.01)]
    calls.clear()
    options["check_shuffle"] = calls.append
    aggregate_ratings(plain_client, layout, movies, **options)
    assert calls[1:] == [0]


def test_no_rating_is_in_the_catalogue(plain_client: Client, tmp_path: Path) -> None:
    layout, movies = load(write_tiny(tmp_path / "data", HEADER + "1,77,3.0,1\n"))
    with pytest.raises(DataError, match=r"none of its 1 ratings is of an item in .*movies_meta"):
        aggregate_ratings(plain_client, layout, movies)


def test_too_many_rejected(plain_client: Client, tmp_path: Path) -> None:
    layout, movies = load(write_tiny(tmp_path / "data", HEADER + "1,10,3.0,1\n1,10,9.0,1\n"))
    with pytest.raises(DataError, match=r"1 of 2 rows \(50.0%\) .* more than max_rejected 0.01"):
        aggregate_ratings(plain_client, layout, movies)


def test_deduplication_needs_timestamps(plain_client: Client, tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "data", "userId,movieId,rating\n1,10,3.0\n")
    layout, movies = load(folder)
    with pytest.raises(DataError) as caught:
        aggregate_ratings(plain_client, layout, movies, deduplicate=True)
    assert str(caught.value) == (
        f"{folder}/ratings.csv: has no column timestamp, which deduplicate needs to find the "
        "latest rating: add it, name it with columns time=NAME, or leave deduplicate out"
    )


def test_choose_method() -> None:
    rng = np.random.default_rng(0)
    shared = [summarize(rng.integers(0, 5_000, 5_000)) for _ in range(4)]
    apart = [summarize(np.arange(start, start + 100)) for start in (0, 99, 200)]
    # 264 bytes per user; about 3,160 of 5,000 users are in each of 10 partitions.
    sums = 10 * 3_160 * 264
    assert choose_method(shared, 10, 20, 7 * sums) == "shuffle"
    assert choose_method(shared, 10, 20, 9 * sums) == "map-reduce"
    assert choose_method(apart, 10, 20, 0) == "map-reduce"
    # Deduplication needs each user in one partition, whatever the memory, but for the edges.
    assert choose_method(shared, 10, 20, 9 * sums, deduplicate=True) == "shuffle"
    assert choose_method([shared[0]], 10, 20, 0, deduplicate=True) == "map-reduce"
    apart[1] = summarize(np.arange(99, 202))
    assert choose_method(apart, 10, 20, 0, deduplicate=True) == "shuffle"
    apart[1] = summarize(np.arange(99, 201))
    assert choose_method(apart, 10, 20, 0, deduplicate=True) == "map-reduce"


def test_users_in_several_partitions_are_counted_once() -> None:
    rng = np.random.default_rng(0)
    shared = [summarize(rng.integers(0, 64_000, 50_000)) for _ in range(10)]
    assert sum(summary.n_users for summary in shared) > 300_000
    # About 1,000 users in the sample: five standard deviations are 16 %.
    assert aggregate._estimate_users(shared) == pytest.approx(64_000, rel=0.16)
    # If partitions share no users, it is never more than their sum.
    apart = [summarize(users) for users in np.split(np.arange(64_000), 10)]
    assert 64_000 * 0.84 < aggregate._estimate_users(apart) <= 64_000
    assert aggregate._estimate_users([summarize(np.empty(0, np.int64))]) == 0


def test_a_copy_of_a_part_does_not_keep_the_whole_in_memory() -> None:
    whole = np.arange(1_000)
    view = whole[:10]
    copied = tasks.copy_item((None, view), 1)
    assert copied.tolist() == list(range(10))
    assert not np.shares_memory(copied, whole)


class _Failed:
    """An aggregation in which two partitions were read."""

    def __init__(self, folder: Path) -> None:
        file = write_file(folder / "r.csv", b"1,10,3.0,1\n" * 10)
        self.partitions = [[fragment] for fragment in split(file, 44)]


@pytest.mark.parametrize("key", ["read-ratings-ab12-1", "read-latest-ab12-1", "read-rows-ab12-1"])
def test_the_partition_that_killed_workers_is_named(tmp_path: Path, key: str) -> None:
    worker = WorkerState.__new__(WorkerState)
    with pytest.raises(ClusterError) as caught, aggregate._name_failed_partition(_Failed(tmp_path)):
        raise KilledWorker(key, worker, 3)
    assert str(caught.value) == (
        f"workers died 4 times while they read {tmp_path}/r.csv, bytes 44 to 110: see a worker's "
        "log; if memory ran out, lower partition_bytes or start workers with more memory; then "
        "run again with resume"
    )


def test_other_tasks_that_kill_workers_are_not_renamed(tmp_path: Path) -> None:
    worker = WorkerState.__new__(WorkerState)
    for key in ("slice-ab12-1", "read-ratings"):
        with pytest.raises(KilledWorker), aggregate._name_failed_partition(_Failed(tmp_path)):
            raise KilledWorker(key, worker, 3)


def test_a_compressed_file_leaves_threads_idle(tmp_path: Path) -> None:
    import gzip

    folder = write_tiny(tmp_path / "data")
    path = folder / "ratings.csv"
    (folder / "ratings.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    files = partitions.probe_files(layouts.detect_layout(str(folder)))
    for n_threads, is_noted in ((1, False), (2, True)):
        out = io.StringIO()
        aggregate._note_unsplittable(files, n_threads, TerminalProgress(out))
        assert ("ratings.csv.gz is gzip, which only one task" in out.getvalue()) == is_noted
