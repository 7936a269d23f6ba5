"""Layouts: which files a folder holds, and the error where one is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import fsspec
import pytest

from segmentation.datasets.layouts import (
    Layout,
    absolute_layout,
    detect_layout,
    fingerprint,
    require_file,
)
from segmentation.errors import DataError
from segmentation.schema import GROUPLENS_GENRES, KAGGLE_GENRES
from tests.web_server import WebServer, serve


def touch(folder: Path, *names: str) -> str:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n")
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def test_kaggle_prefers_the_full_files(tmp_path: Path) -> None:
    folder = touch(
        tmp_path,
        "movies_metadata.csv",
        "links.csv",
        "links_small.csv",
        "ratings.csv",
        "ratings_small.csv",
        "movies.csv",
    )
    assert detect_layout(folder) == Layout(
        "kaggle",
        folder,
        f"{folder}/ratings.csv",
        f"{folder}/movies_metadata.csv",
        f"{folder}/links.csv",
        KAGGLE_GENRES,
        (0.5, 5.0),
        parts=(f"{folder}/ratings.csv",),
    )


def test_kaggle_small(tmp_path: Path) -> None:
    folder = touch(tmp_path, "movies_metadata.csv", "links_small.csv", "ratings_small.csv")
    layout = detect_layout(f"{folder}/")
    assert [Path(path).name for path in layout.files] == [
        "ratings_small.csv",
        "movies_metadata.csv",
        "links_small.csv",
    ]


def test_both_forms_of_grouplens(tmp_path: Path) -> None:
    csv = detect_layout(touch(tmp_path / "a", "movies.csv", "ratings.csv", "links.csv"))
    assert (csv.name, csv.links, csv.categories) == ("grouplens-csv", None, GROUPLENS_GENRES)
    dat = detect_layout(touch(tmp_path / "b", "movies.dat", "ratings.dat", "users.dat"))
    assert dat.name == "grouplens-dat"
    assert dat.ratings == f"{tmp_path}/b/ratings.dat"


@pytest.mark.parametrize(
    ("names", "ratings", "files"),
    [
        (["ratings.csv.gz", "ratings.csv.zst"], "ratings.csv.gz", ["ratings.csv.gz"]),
        (["ratings.csv.zst", "ratings.parquet"], "ratings.csv.zst", ["ratings.csv.zst"]),
        (["ratings.parquet", "ratings-1.csv"], "ratings.parquet", ["ratings.parquet"]),
        (
            ["ratings-10.csv", "ratings-2.csv.gz", "ratings/1.csv"],
            "ratings-*",
            ["ratings-2.csv.gz", "ratings-10.csv"],
        ),
        (["ratings/1.csv", "ratings/_SUCCESS"], "ratings", ["ratings/1.csv"]),
        (["ratings.parquet/part.0.parquet"], "ratings.parquet", ["ratings.parquet/part.0.parquet"]),
    ],
)
def test_where_ratings_are_looked_for(
    tmp_path: Path, names: list[str], ratings: str, files: list[str]
) -> None:
    folder = touch(tmp_path, "movies.csv", *names)
    layout = detect_layout(folder)
    assert layout.ratings == f"{folder}/{ratings}"
    assert layout.ratings_files == tuple(f"{folder}/{name}" for name in files)


def test_ignored_files_are_listed_unless_ratings_are_named(tmp_path: Path) -> None:
    folder = touch(tmp_path, "movies.csv", "ratings.csv", "ratings-2.csv")
    assert detect_layout(folder).ignored_files == (f"{folder}/ratings-2.csv",)
    assert detect_layout(folder, "ratings.csv").ignored_files == ()


def test_other_ratings_by_path_name_or_pattern(tmp_path: Path) -> None:
    folder = touch(tmp_path / "d", "movies.csv", "ratings.csv", "more-1.csv", "more-2.csv")
    other = touch(tmp_path / "e", "new.csv") + "/new.csv"
    assert detect_layout(folder, other).ratings == other
    assert detect_layout(folder, "more-1.csv").ratings == f"{folder}/more-1.csv"
    layout = detect_layout(folder, "more-*.csv")
    assert layout.ratings_files == (f"{folder}/more-1.csv", f"{folder}/more-2.csv")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            (),
            "holds none of movies_metadata.csv, movie.csv (Kaggle), movies.csv, movies.dat or "
            "u.item (GroupLens); set data to a folder in one of these layouts, or name your own "
            "table of items with catalogue",
        ),
        (("ratings.csv",), "holds none of movies_metadata.csv"),
        (
            ("movies_metadata.csv", "ratings.csv"),
            "holds movies_metadata.csv but neither links.csv nor links_small.csv; add one of them",
        ),
        (
            ("movies_metadata.csv", "links.csv"),
            "holds no ratings.csv or ratings_small.csv; add it, or set ratings to another file",
        ),
        (("movies.csv",), "holds no ratings.csv; add it"),
        (("movies.dat", "ratings.csv"), "holds no ratings.dat; add it"),
    ],
)
def test_missing_files_are_named(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError) as caught:
        detect_layout(touch(tmp_path, *names))
    assert str(caught.value).startswith(f"{tmp_path}: {message}")


def test_a_missing_folder_and_a_file_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        detect_layout(f"{tmp_path}/nowhere {{x}}")
    assert caught.value.render({"data": "--data"}) == (
        f"{tmp_path}/nowhere {{x}}: no such folder; set --data to a folder that holds ratings"
    )
    touch(tmp_path, "ratings.csv")
    with pytest.raises(DataError, match="is a file, not a folder; set data to the folder that"):
        detect_layout(f"{tmp_path}/ratings.csv")


def test_an_unknown_protocol_is_an_error_of_the_data() -> None:
    with pytest.raises(DataError, match="nosuch"):
        detect_layout("nosuch://bucket/folder")


@pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("movies_metadata.csv", "holds none of movies_metadata.csv, movie.csv (Kaggle)"),
        ("links.csv", "holds movies_metadata.csv but neither links.csv nor links_small.csv"),
        ("ratings.csv", "holds no ratings.csv or ratings_small.csv"),
    ],
)
def test_a_file_that_may_not_be_read_is_told_from_a_missing_one(
    tiny: Path, name: str, message: str
) -> None:
    with serve(WebServer(tiny, statuses={name: 403})) as web:
        with pytest.raises(DataError) as caught:
            detect_layout(web.url)
    fsspec.AbstractFileSystem.clear_instance_cache()
    assert str(caught.value).startswith(f"{web.url}: {message}")
    assert f"({web.url}/{name}: access denied (403 Forbidden); check the" in str(caught.value)


def test_a_url_is_a_folder_too(tiny: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(tiny), "/lake", recursive=True)
    try:
        layout = detect_layout("memory://lake")
        assert layout.name == "kaggle"
        assert fingerprint(layout.files) == fingerprint(detect_layout(str(tiny)).files)
    finally:
        memory.rm("/lake", recursive=True)


def test_absolute_paths(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.parent)
    layout = absolute_layout(detect_layout(tiny.name))
    assert layout.files == [
        f"{tiny}/ratings.csv",
        f"{tiny}/movies_metadata.csv",
        f"{tiny}/links.csv",
    ]
    assert (layout.folder, layout.ratings) == (str(tiny), f"{tiny}/ratings.csv")
    remote = Layout("kaggle", "s3://b", "s3://b/r.csv", "s3://b/m.csv", None, ())
    assert absolute_layout(remote) == remote


def test_require_file(tmp_path: Path) -> None:
    path = tmp_path / "links.csv"
    path.write_bytes(b"12345")
    assert require_file(str(path)) == 5
    path.write_bytes(b"")
    with pytest.raises(DataError, match="links.csv: is empty; replace it with a complete file"):
        require_file(str(path))
    with pytest.raises(DataError, match="is a folder, not a file; name a file"):
        require_file(str(tmp_path))
    with pytest.raises(DataError, match="none.csv: no such file; check its name and folder"):
        require_file(str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match=r"x: can't be read \(.*Not a directory.*\); make it read"):
        require_file(f"{path}/x")


def test_the_fingerprint_depends_on_content_and_not_on_names(tiny: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    os.rename(copy / "links.csv", copy / "links_small.csv")
    digest = fingerprint(detect_layout(str(tiny)).files)
    assert fingerprint(detect_layout(str(copy)).files) == digest
    with (copy / "ratings.csv").open("a") as file:
        file.write("9,10,5.0,9\n")
    assert fingerprint(detect_layout(str(copy)).files) != digest


def test_the_fingerprint_samples_a_file_evenly(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    content = bytearray(20 << 20)
    path.write_bytes(content)
    digest = fingerprint([str(path)])
    # 64 probes of 64 KiB read a fifth of it: the first and the last byte, and not the gaps.
    for place in (0, len(content) - 1):
        content[place] = 1
        path.write_bytes(content)
        assert fingerprint([str(path)]) != digest
        content[place] = 0
    content[100_000] = 1
    path.write_bytes(content)
    assert fingerprint([str(path)]) == digest
    path.write_bytes(content[:-1])
    assert fingerprint([str(path)]) != digest
