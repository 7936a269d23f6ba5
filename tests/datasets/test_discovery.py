"""Which files a location means, and which ones look like ratings but are not read."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from segmentation.datasets.discovery import (
    has_files,
    ignored_files,
    is_pattern,
    list_files,
    sibling_files,
)
from segmentation.errors import DataError


def touch(folder: Path, *names: str) -> str:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n")
    return str(folder)


def relative(folder: str, paths: tuple[str, ...]) -> list[str]:
    return [path.removeprefix(f"{folder}/") for path in paths]


def test_one_file_is_itself_even_if_it_does_not_exist(tmp_path: Path) -> None:
    path = touch(tmp_path, "a.txt") + "/a.txt"
    assert list_files(path) == (path,)
    assert list_files(f"{tmp_path}/none.csv") == (f"{tmp_path}/none.csv",)


def test_parts_of_a_folder_in_natural_order(tmp_path: Path) -> None:
    folder = touch(
        tmp_path / "log",
        "part-10.csv",
        "part-2.csv",
        "part-1.CSV.GZ",
        "b/part-1.parquet",
        "b/part-0.dat.zst",
        "_SUCCESS",
        "_temporary/part-0.csv",
        ".part-0.csv.crc",
        "notes.txt",
        "part-3.csv.bz2",
    )
    assert relative(folder, list_files(folder)) == [
        "b/part-0.dat.zst",
        "b/part-1.parquet",
        "part-1.CSV.GZ",
        "part-2.csv",
        "part-10.csv",
    ]


def test_a_pattern_takes_files_of_any_name(tmp_path: Path) -> None:
    folder = touch(tmp_path / "log", "b-10.txt", "b-9.txt", "c.txt", "b-1/a.txt")
    assert relative(folder, list_files(f"{folder}/b-*")) == ["b-9.txt", "b-10.txt"]
    assert relative(folder, list_files(f"{folder}/b-?.txt")) == ["b-9.txt"]
    assert relative(folder, list_files(f"{folder}/[bc].txt")) == ["c.txt"]


def test_a_name_that_looks_like_a_pattern(tmp_path: Path) -> None:
    folder = touch(tmp_path / "data [1]*", "ratings[2].csv", "ratings-1.csv", "ratings2.csv")
    assert not is_pattern(f"{folder}/ratings[2].csv")
    assert list_files(f"{folder}/ratings[2].csv") == (f"{folder}/ratings[2].csv",)
    assert sibling_files(folder) == (f"{folder}/ratings-1.csv",)


def test_a_question_mark_in_a_web_address_is_no_pattern() -> None:
    assert not is_pattern("https://example.org/ratings.csv?version=2")


def test_nothing_matches(tmp_path: Path) -> None:
    folder = touch(tmp_path / "log", "notes.txt")
    with pytest.raises(DataError, match=r"b-\*: no file matches this pattern; check the pattern"):
        list_files(f"{folder}/b-*")
    with pytest.raises(DataError, match="log: this folder holds no ratings; name a file, or a"):
        list_files(folder)


def test_has_files(tmp_path: Path) -> None:
    folder = touch(tmp_path / "log", "a.csv")
    assert has_files(folder)
    assert has_files(f"{folder}/a.csv")
    assert has_files(f"{folder}/*.csv")
    assert not has_files(f"{folder}/b.csv")
    assert not has_files(f"{folder}/*.dat")


def test_siblings_are_parts_of_any_format(tmp_path: Path) -> None:
    folder = touch(
        tmp_path,
        "ratings-10.csv",
        "ratings-2.parquet",
        "ratings-3.txt",
        "ratings_small.csv",
        "ratings-4.csv/part.csv",
        "links.csv",
    )
    assert relative(folder, sibling_files(folder)) == ["ratings-2.parquet", "ratings-10.csv"]


@pytest.mark.parametrize(
    ("names", "location", "read", "ignored"),
    [
        (["ratings.csv", "ratings-2.csv"], "ratings.csv", ["ratings.csv"], ["ratings-2.csv"]),
        (
            ["ratings-1.csv", "ratings-2.csv.bz2"],
            "ratings-*",
            ["ratings-1.csv"],
            ["ratings-2.csv.bz2"],
        ),
        (["ratings/1.csv", "ratings/2.csv.xz"], "ratings", ["ratings/1.csv"], ["ratings/2.csv.xz"]),
        (["ratings.csv", "ratings/1.csv"], "ratings.csv", ["ratings.csv"], ["ratings"]),
        (["ratings.csv", "rates-3.csv", "links.csv"], "ratings.csv", ["ratings.csv"], []),
    ],
)
def test_ignored_files(
    tmp_path: Path, names: list[str], location: str, read: list[str], ignored: list[str]
) -> None:
    folder = touch(tmp_path, *names)
    files = tuple(f"{folder}/{name}" for name in read)
    assert relative(folder, ignored_files(folder, f"{folder}/{location}", files)) == ignored


def test_a_folder_that_may_not_be_listed_hides_nothing_that_is_read(monkeypatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/closed/ratings.csv": b"x", "/closed/ratings-2.csv": b"x"})
    files = ("memory:///closed/ratings.csv",)
    try:
        assert ignored_files("memory://closed", files[0], files) == (
            "memory:///closed/ratings-2.csv",
        )

        def deny(*_: object, **__: object) -> None:
            raise PermissionError("ListBucket denied")

        monkeypatch.setattr(type(memory), "glob", deny)
        assert ignored_files("memory://closed", files[0], files) == ()
    finally:
        memory.rm("/closed", recursive=True)


def test_parts_behind_a_url_keep_its_protocol() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/parts/ratings-{i}.csv": b"x" for i in (11, 2)})
    expected = ("memory:///parts/ratings-2.csv", "memory:///parts/ratings-11.csv")
    try:
        assert list_files("memory://parts") == expected
        assert list_files("memory://parts/ratings-*.csv") == expected
        assert sibling_files("memory://parts") == expected
    finally:
        memory.rm("/parts", recursive=True)


def test_what_can_not_be_read_is_listed_all_the_same(tmp_path: Path) -> None:
    folder = touch(tmp_path / "log", "ratings-1.csv")
    Path(folder, "ratings-2.csv").symlink_to("/nonexistent")
    both = (f"{folder}/ratings-1.csv", f"{folder}/ratings-2.csv")
    assert sibling_files(folder) == list_files(f"{folder}/ratings-*") == both


def test_what_a_named_folder_holds_besides_ratings(tmp_path: Path) -> None:
    folder = touch(tmp_path / "log", "1.csv", "2.csv.bz2", "_SUCCESS")
    assert ignored_files(None, folder, list_files(folder)) == (f"{folder}/2.csv.bz2",)
