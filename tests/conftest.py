"""Shared fixtures: the real data, one in-process cluster, and small made-up data sets."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# No deadline: the first example compiles or imports, and these machines are shared.
# 60 examples in place of 100, for the time that they take; they are others each time.
settings.register_profile(
    "default",
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")

# A shell that starts the tests in the background ignores SIGINT, and their processes would inherit
# that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


def _data_folder() -> Path | None:
    named = os.environ.get("SEGMENTATION_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {
        "real_data": None
        if _data_folder()
        else "no real MovieLens data: set SEGMENTATION_TEST_DATA to a folder that holds "
        "kaggle-small/ and ml-latest-small/",
        "browser": None
        if shutil.which("chromium")
        else "no chromium on the PATH to render the report in",
    }
    for item in items:
        for mark, reason in reasons.items():
            if reason and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True, scope="session")
def _test_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep synthetic data of tests out of the user's cache, but share it among tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = _data_folder()
    assert folder is not None
    return folder


@pytest.fixture(scope="session")
def client() -> Iterator[object]:
    """An in-process cluster of two threads, as the embedded default."""
    from segmentation.deploy.core import open_cluster

    with open_cluster("threads") as cluster:
        yield cluster.client


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder in Kaggle's layout with four films and six ratings, worked out by hand.

    MovieLens 10 → TMDB 100 (Drama, Crime), 20 → 200 (Comedy), 30 → 300 (no genre),
    40 → no link.
    """
    return write_tiny(tmp_path / "tiny")


def write_tiny(folder: Path, ratings: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    header = (
        "adult,belongs_to_collection,budget,genres,homepage,id,imdb_id,original_language,"
        "original_title,overview,popularity,poster_path,production_companies,"
        "production_countries,release_date,revenue,runtime,spoken_languages,status,tagline,"
        "title,video,vote_average,vote_count"
    )

    def record(tmdb: int, genres: str, title: str) -> str:
        return (
            f'False,,0,"{genres}",,{tmdb},tt{tmdb},en,{title},"Text, with ""quotes""\nand a '
            f'second line.",1.0,,[],[],2000-01-01,0,90.0,[],Released,,{title},False,5.0,1.0'
        )

    drama = "[{'id': 18, 'name': 'Drama'}, {'id': 80, 'name': 'Crime'}]"
    comedy = "[{'id': 35, 'name': 'Comedy'}]"
    (folder / "movies_metadata.csv").write_text(
        "\n".join(
            [header, record(100, drama, "A"), record(200, comedy, "B"), record(300, "[]", "C")]
        )
        + "\n",
        encoding="utf-8",
    )
    (folder / "links.csv").write_text(
        "movieId,imdbId,tmdbId\n10,0000100,100\n20,0000200,200\n30,0000300,300\n40,0000400,\n"
    )
    (folder / "ratings.csv").write_text(
        ratings
        or "userId,movieId,rating,timestamp\n"
        "1,10,4.0,1\n1,20,2.0,2\n2,10,3.0,3\n2,10,5.0,4\n2,30,1.0,5\n3,40,5.0,6\n"
    )
    return folder
