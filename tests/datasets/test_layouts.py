"""Which files a folder holds, and what is said where one is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import pytest

from segmentation.datasets import layouts
from segmentation.errors import DataError
from segmentation.schema import GROUPLENS_GENRES, KAGGLE_GENRES


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("x\n")
    return folder


def test_kaggle_prefers_the_full_files(tmp_path: Path) -> None:
    names = (
        "movies_metadata.csv",
        "links.csv",
        "links_small.csv",
        "ratings.csv",
        "ratings_small.csv",
    )
    found = layouts.detect_layout(str(touch(tmp_path / "d", *names)))
    assert found.name == "kaggle"
    assert found.ratings.endswith("/ratings.csv")
    assert found.links is not None
    assert found.links.endswith("/links.csv")
    assert found.genres == KAGGLE_GENRES
    assert found.scale == (0.5, 5.0)


def test_kaggle_small(tmp_path: Path) -> None:
    folder = touch(tmp_path / "d", "movies_metadata.csv", "links_small.csv", "ratings_small.csv")
    found = layouts.detect_layout(f"{folder}/")
    assert [Path(p).name for p in found.files] == [
        "ratings_small.csv",
        "movies_metadata.csv",
        "links_small.csv",
    ]


def test_grouplens_both_forms(tmp_path: Path) -> None:
    csv = layouts.detect_layout(
        str(touch(tmp_path / "a", "movies.csv", "ratings.csv", "links.csv"))
    )
    assert (csv.name, csv.links, csv.genres) == ("grouplens-csv", None, GROUPLENS_GENRES)
    dat = layouts.detect_layout(
        str(touch(tmp_path / "b", "movies.dat", "ratings.dat", "users.dat"))
    )
    assert dat.name == "grouplens-dat"
    assert dat.ratings.endswith("ratings.dat")


def test_another_ratings_file_by_path_or_by_name(tmp_path: Path) -> None:
    folder = touch(tmp_path / "d", "movies.csv", "ratings.csv", "more.csv")
    other = touch(tmp_path / "e", "new.csv") / "new.csv"
    assert layouts.detect_layout(str(folder), str(other)).ratings == str(other)
    assert layouts.detect_layout(str(folder), "more.csv").ratings == f"{folder}/more.csv"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "holds none of movies_metadata.csv (Kaggle), movies.csv or movies.dat (GroupLens)"),
        (("ratings.csv",), "holds none of"),
        (("movies_metadata.csv", "ratings.csv"), "neither links.csv nor links_small.csv"),
        (("movies_metadata.csv", "links.csv"), "holds no ratings.csv or ratings_small.csv"),
        (("movies.csv",), "holds no ratings.csv: add it, or name another with --ratings"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError) as caught:
        layouts.detect_layout(str(touch(tmp_path / "d", *names)))
    assert message in str(caught.value)


def test_no_such_folder_and_a_file_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        layouts.detect_layout(str(tmp_path / "nowhere"))
    touch(tmp_path, "ratings.csv")
    with pytest.raises(DataError, match="is a file, and --data takes the folder"):
        layouts.detect_layout(str(tmp_path / "ratings.csv"))


def test_unknown_protocol_is_bad_data_not_a_crash() -> None:
    with pytest.raises(DataError, match="nosuch"):
        layouts.detect_layout("nosuch://bucket/folder")


def test_a_url_is_a_folder_too(tiny: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(tiny), "/lake", recursive=True)
    try:
        found = layouts.detect_layout("memory://lake")
        assert found.name == "kaggle"
        assert layouts.fingerprint(found.files) == layouts.fingerprint(
            layouts.detect_layout(str(tiny)).files
        )
    finally:
        memory.rm("/lake", recursive=True)


def test_fingerprint_follows_content_not_names(tiny: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    first = layouts.fingerprint(layouts.detect_layout(str(tiny)).files)
    assert layouts.fingerprint(layouts.detect_layout(str(copy)).files) == first
    with (copy / "ratings.csv").open("a") as file:
        file.write("9,10,5.0,9\n")
    assert layouts.fingerprint(layouts.detect_layout(str(copy)).files) != first
