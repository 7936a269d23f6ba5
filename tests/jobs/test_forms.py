"""The same log in the forms that people have it in: read right, or refused with the reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import convert, segment
from segmentation.datasets.catalogue import load_catalogue
from segmentation.datasets.layouts import detect_layout
from segmentation.datasets.partitions import plan_partitions, probe_files
from segmentation.datasets.reading import CatalogueOptions, ReadingOptions
from segmentation.datasets.text_form import TextOptions
from segmentation.errors import DataError
from segmentation.features.partition_reader import aggregate_partition
from segmentation.features.user_statistics import merge

#: 12 users, 6 items, a rating and a time each.
ROWS = [
    (user, 101 + 3 * item, (user * 7 + item * 3) % 10 / 2 + 0.5, 1_100_000_000 + 60 * user + item)
    for user in range(1, 13)
    for item in range(6)
    if (user + item) % 4
]
HEADER = ("userId", "movieId", "rating", "timestamp")
GENRES = {101: "Drama", 104: "Crime|Drama", 107: "", 110: "Comedy", 113: "Action|Crime|Drama"}
MOVIES = "movieId,title,genres\n" + "".join(
    f"{movie},Film {movie},{GENRES.get(movie, 'Western')}\n" for movie in range(101, 117, 3)
)


def text_of(
    rows=ROWS, header=HEADER, separator=",", form=lambda row: [str(value) for value in row]
) -> str:
    lines = [separator.join(header)] if header else []
    return "\n".join([*lines, *(separator.join(form(row)) for row in rows)]) + "\n"


def write(folder: Path, ratings: str | bytes, name: str = "ratings.csv", movies=MOVIES) -> Path:
    folder.mkdir(exist_ok=True)
    target = folder / name
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(ratings if isinstance(ratings, bytes) else ratings.encode())
    if movies is not None:
        (folder / "movies.csv").write_text(movies)
    return folder


def expected_table() -> pd.DataFrame:
    """Each user's items and mean rating, and mean per genre, by plain pandas."""
    rows = pd.DataFrame(ROWS, columns=HEADER)
    users = rows.groupby("userId")["rating"].agg(["size", "mean"])
    for genre in ("Action", "Comedy", "Crime", "Drama", "Western"):
        has = {m for m in range(101, 117, 3) if genre in GENRES.get(m, "Western").split("|")}
        users[genre] = rows[rows["movieId"].isin(has)].groupby("userId")["rating"].mean()
    return users


def check(folder: Path | str, out: Path, *options: str) -> pd.DataFrame:
    arguments = ["--data", str(folder), "--out", str(out), "--k", "2", "--quiet"]
    assert segment.main([*arguments, *options]) == 0
    found = pd.read_parquet(out / "assignments.parquet").set_index("userId")
    expected = expected_table()
    assert found.index.astype(str).str.lstrip("0").astype(int).tolist() == expected.index.tolist()
    np.testing.assert_array_equal(found["items"], expected["size"])
    np.testing.assert_allclose(found["mean_rating"], expected["mean"])
    for genre in expected.columns[2:]:
        np.testing.assert_allclose(found[genre], expected[genre], rtol=1e-6)
    rows = json.loads((out / "run.json").read_text())["rows"]
    assert (rows["used"], rows["unmapped"], rows["rejected"]) == (len(ROWS), 0, 0)
    return found


def zstd_compress(data: bytes) -> bytes:
    return pa.compress(data, "zstd", asbytes=True)


def european(row) -> list[str]:
    return [str(row[0]), str(row[1]), str(row[2]).replace(".", ","), "09/11/2004 14:21"]


FORMS = {
    "ids as floats": text_of(form=lambda r: [f"{r[0]}.0", f"{r[1]}.0", str(r[2]), f"{r[3]}.0"]),
    "users as floats": text_of(form=lambda r: [f"{r[0]}.0", str(r[1]), str(r[2]), str(r[3])]),
    "floats in part": text_of(
        form=lambda r: [f"{r[0]}{'.0' * (r[1] % 2)}", str(r[1]), str(r[2]), str(r[3])]
    ),
    "semicolons": text_of(separator=";"),
    "European Excel": "\ufeff" + text_of(separator=";", form=european),
    "decimal commas in quotes": text_of(
        form=lambda r: [str(r[0]), str(r[1]), f'"{str(r[2]).replace(".", ",")}"', str(r[3])]
    ),
    "tabs": text_of(separator="\t"),
    "bars": text_of(separator="|"),
    "UTF-16": text_of().encode("utf-16"),
    "UTF-16, big end first, tabs": b"\xfe\xff" + text_of(separator="\t").encode("utf-16-be"),
    "UTF-16 without a mark": text_of().encode("utf-16-le"),
    "sep= for Excel": "sep=;\n" + text_of(separator=";"),
    "trailing commas": text_of(header=(*HEADER, "", ""), form=lambda r: [*map(str, r), "", ""]),
    "trailing commas in rows": text_of(form=lambda r: [*map(str, r), ""]),
    "trailing commas in some rows": text_of(form=lambda r: [*map(str, r), *[""] * (r[0] % 3)]),
    "blank rows": text_of().replace("\n", "\n,,,\n\n ,,\t,\n"),
    "quoted": text_of(form=lambda r: [f'"{value}"' for value in r]),
    "row names of R": text_of(form=lambda r: [f'"{r[0]}-{r[1]}"', *map(str, r)]),
    "an index without a name": text_of(header=("", *HEADER), form=lambda r: ["7", *map(str, r)]),
    "a review with commas": text_of(
        header=(*HEADER, "review"), form=lambda r: [*map(str, r), '"good, ""really"" good"']
    ),
    "dates": text_of(form=lambda r: [str(r[0]), str(r[1]), str(r[2]), "2005-04-02 23:53:47"]),
    "Latin-1 in another column": text_of(
        header=(*HEADER, "city"), form=lambda r: [*map(str, r), "Málaga"]
    ).encode("latin-1"),
    "other order": text_of(
        header=("rating", "timestamp", "movieId", "userId"),
        form=lambda r: [str(r[2]), str(r[3]), str(r[1]), str(r[0])],
    ),
    "whole numbers of R": text_of(
        form=lambda r: [
            f"{r[0] // 10 or r[0]}e+0{r[0] // 10}" if r[0] in (1, 10) else str(r[0]),
            str(r[1]),
            str(r[2]),
            str(r[3]),
        ]
    ),
    "Windows line ends": text_of().replace("\n", "\r\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_are_recognized(tmp_path: Path, form: str) -> None:
    check(write(tmp_path / "data", FORMS[form]), tmp_path / "out")


def test_zero_padded_ids_come_back_as_written(tmp_path: Path) -> None:
    text = text_of(form=lambda r: [f"{r[0]:06d}", *map(str, r[1:])])
    found = check(write(tmp_path / "data", text), tmp_path / "out")
    assert found.index.tolist() == [f"{user:06d}" for user in range(1, 13)]
    out = tmp_path / "integers"
    found = check(tmp_path / "data", out, "--ids", "integer")
    assert found.index.tolist() == list(range(1, 13))


def test_ids_that_differ_by_zeros_alone(tmp_path: Path) -> None:
    text = text_of() + text_of(header=(), form=lambda r: [f"0{r[0]}", *map(str, r[1:])])
    folder, out = write(tmp_path / "data", text), tmp_path / "out"
    assert segment.main(["--data", str(folder), "--out", str(out), "--k", "2", "--quiet"]) == 0
    users = pd.read_parquet(out / "assignments.parquet")["userId"].tolist()
    assert sorted(users) == sorted([str(n) for n in range(1, 13)] + [f"0{n}" for n in range(1, 13)])


def test_parts_that_write_ids_in_two_forms(tmp_path: Path) -> None:
    floats = text_of(ROWS[20:], form=lambda r: [f"{r[0]}.0", *map(str, r[1:])])
    write(tmp_path / "data", text_of(ROWS[:20]), "ratings-1.csv")
    check(write(tmp_path / "data", floats, "ratings-2.csv"), tmp_path / "out")


def test_parts_of_spark_and_dask(tmp_path: Path, capsys) -> None:
    write(tmp_path / "data", text_of(ROWS[:20]), "ratings/0.part")
    write(tmp_path / "data", "", "ratings/1.part")
    write(tmp_path / "data", "", "ratings/_SUCCESS")
    write(tmp_path / "data", text_of(ROWS[20:], header=()), "ratings/2.part")
    arguments = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--k", "2"]
    assert segment.main(arguments) == 0
    assert "note: 1 empty part left out, the first is " in capsys.readouterr().err
    check(tmp_path / "data", tmp_path / "again")


def test_an_archive_as_downloaded(tmp_path: Path, capsys) -> None:
    folder = write(tmp_path / "ml-invented", text_of())
    archive = tmp_path / "ml-invented.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in folder.iterdir():
            file.write(path, f"ml-invented/{path.name}")
    check(archive, tmp_path / "out")
    check(f"zip://ml-invented::{archive}", tmp_path / "chained")
    (tmp_path / "deep").mkdir()
    folder.rename(tmp_path / "deep" / "inner")
    arguments = ["--data", str(tmp_path / "deep"), "--out", str(tmp_path / "no"), "--quiet"]
    assert segment.main(arguments) == 3
    assert f"one folder deeper: set --data to {tmp_path}/deep/inner" in capsys.readouterr().err


def test_movielens_100k(tmp_path: Path, capsys) -> None:
    names = ["unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"]
    names += ["Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"]
    names += ["Romance", "Sci-Fi", "Thriller", "War", "Western"]
    items = ""
    for movie in range(101, 117, 3):
        held = GENRES.get(movie, "Western").split("|")
        flags = "|".join("1" if name in held else "0" for name in names)
        items += f"{movie}|Film é {movie}|01-Jan-1995||http://example.org/|{flags}\n"
    folder = write(tmp_path / "data", text_of(separator="\t", header=()), "u.data", movies=None)
    (folder / "u.item").write_bytes(items.encode("latin-1"))
    check(folder, tmp_path / "out")
    (folder / "u.genre").write_text("".join(f"{name}|{i}\n" for i, name in enumerate(names)))
    check(folder, tmp_path / "with names")
    (folder / "u.item").rename(folder / "movies.csv")
    (folder / "u.data").rename(folder / "ratings.csv")
    assert segment.main(["--data", str(folder), "--out", str(tmp_path / "no"), "--quiet"]) == 3
    assert "movies.csv: is u.item of MovieLens 100K; name it u.item" in capsys.readouterr().err


def test_kaggles_names_of_movielens_20m(tmp_path: Path) -> None:
    text = text_of(form=lambda r: [*map(str, r[:3]), "2005-04-02 23:53:47"])
    folder = write(tmp_path / "data", text, "rating.csv")
    (folder / "movies.csv").rename(folder / "movie.csv")
    check(folder, tmp_path / "out")


def test_own_columns(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", text_of(header=()), "log.csv")
    numbers = ["--no-header", "--columns", "user=1,item=2,rating=3,time=4"]
    check(folder, tmp_path / "numbers", "--ratings", "log.csv", *numbers)
    header = ("reviewer id", "asin", "overall", "unix time")
    write(folder, text_of(header=header, separator=";"), "log.csv")
    names = ["--columns", "user=reviewer id,item=asin,rating=overall"]
    check(folder, tmp_path / "names", "--ratings", "log.csv", *names, "--separator", ";")
    pd.DataFrame(ROWS, columns=header).astype(
        {"reviewer id": float, "asin": float, "overall": np.float32}
    ).to_parquet(folder / "log.parquet")
    check(folder, tmp_path / "parquet", "--ratings", "log.parquet", *names)


def test_decimals_in_parquet(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", "", movies=MOVIES)
    (folder / "ratings.csv").unlink()
    columns = list(zip(*ROWS, strict=True))
    pq.write_table(
        pa.table(
            {
                "userId": pa.array(columns[0]).cast(pa.decimal128(22, 2)),
                "movieId": pa.array(columns[1]).cast(pa.float64()),
                "rating": pa.array(columns[2]).cast(pa.decimal128(20, 1)),
            }
        ),
        folder / "ratings.parquet",
    )
    check(folder, tmp_path / "out")


def test_another_scale_and_ratings_that_are_none(tmp_path: Path, capsys) -> None:
    rows = [(user, movie, int(2 * stars), time) for user, movie, stars, time in ROWS]
    rows += [(user, 101, 0, 1) for user in range(1, 13)]
    folder = write(tmp_path / "data", text_of(rows))
    arguments = ["--data", str(folder), "--k", "2", "--quiet", "--out", str(tmp_path / "out")]
    assert segment.main(arguments) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith(
        "ratings reach 10, and the scale is 0.5 to 5: pass --scale 0:10, or --scale 1:10 and "
        "--unrated 0 if 0 stands for 'not rated'"
    )
    assert "raise" not in error
    assert segment.main([*arguments, "--scale", "1:10", "--unrated", "0"]) == 0
    assert "0 rejected, 12 unrated" in capsys.readouterr().out
    found = pd.read_parquet(tmp_path / "out" / "assignments.parquet").set_index("userId")
    np.testing.assert_allclose(found["mean_rating"], 2 * expected_table()["mean"])
    assert segment.main([*arguments, "--scale", "0:10", "--overwrite"]) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["rows"]["used"] == len(rows)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("ratings.csv", b"version https://git-lfs.github.com/spec/v1\n", "run git lfs pull"),
        ("movies.csv", b"version https://git-lfs.github.com/spec/v1\n", "run git lfs pull"),
        ("ratings.csv", b"PK\x03\x04\x14[Content_Types].xml", "is an Excel workbook; save it as"),
        ("ratings.csv", b"\x00" * 257 + b"ustar", "is a tar archive; unpack it"),
        ("ratings.csv", b'{"user": 1, "item": 2}\n', "holds JSON; write it as CSV or Parquet"),
        ("ratings.csv", b"1:\n30878,4,2005-12-26\n", "is in Netflix' form, a block of ratings per"),
        ("movies.csv", b"<!DOCTYPE html><html>", "is a web page, perhaps of a login; download"),
        (
            "ratings.csv",
            ",".join(["", *(f"item{i}" for i in range(60))]).encode() + b"\n" + b"1," * 60 + b"1\n",
            "if it has one column per item, write one row per user, item and rating instead",
        ),
        (
            "ratings.csv",
            b"1,101,4.0,99\n2,101,3.5,98\n",
            "no header, pass --no-header and --columns",
        ),
        ("ratings.csv", b"user,book,stars\n1,101,4\n", "name its columns with --columns user="),
        (
            "ratings.csv",
            b"user_id,item_id,score\n1,101,4\n",
            "if these are the ones, pass --columns user=user_id,item=item_id,rating=score",
        ),
        (
            "ratings.csv",
            text_of().encode() + b'1,101,4.0,"a review\nof two lines"\n' * 9,
            "a quoted field spans lines, or its quote is not closed: write each rating in one line",
        ),
        (
            "movies.csv",
            b"movieId,title,genres\n101,A,\"['Drama'\"\n104,B,\"['Drama'\"\n107,C,['Drama']\n",
            "the categories of 2 of 3 items can't be read, such as \"['Drama'\"",
        ),
        (
            "movies.csv",
            b'movieId,title,genres\n101,"A,Drama\n104,B",Drama\n',
            "record 2: a quoted field spans lines; close its quote",
        ),
    ],
)
@pytest.mark.parametrize("job", [segment, convert])
def test_refused_by_name(
    tmp_path: Path, capsys, name: str, content: bytes, reason: str, job
) -> None:
    if job is convert and name == "movies.csv":
        pytest.skip("convert copies the catalogue as it is")
    folder = write(tmp_path / "data", text_of())
    (folder / name).write_bytes(content)
    status = job.main(["--data", str(folder), "--out", str(tmp_path / "out"), "--quiet"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert status == 3, error
    assert reason in error
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_file_that_ends_in_mid_line(tmp_path: Path, capsys) -> None:
    folder = write(tmp_path / "data", text_of()[:-4])
    arguments = ["--data", str(folder), "--out", str(tmp_path / "out"), "--k", "2", "--quiet"]
    assert segment.main(arguments) == 0
    assert "ratings.csv: its last line has no end, as after a download" in capsys.readouterr().err


CATALOGUES = {
    "commas": lambda held: f'"{", ".join(held)}"',
    "semicolons": ";".join,
    "spaced bars": " | ".join,
    "lower case": lambda held: "|".join(held).lower(),
    "a list of Python": lambda held: '"' + str(held) + '"',
    "a list of JSON": lambda held: '"' + json.dumps(held).replace('"', '""') + '"',
    "objects": lambda held: '"' + str([{"id": 1, "name": name} for name in held]) + '"',
}


@pytest.mark.parametrize("form", CATALOGUES)
def test_forms_of_categories(tmp_path: Path, form: str) -> None:
    held = {m: [g for g in GENRES.get(m, "Western").split("|") if g] for m in range(101, 117, 3)}
    movies = "movieId,title,genres\n" + "".join(
        f"{movie},Film,{CATALOGUES[form](genres)}\n" for movie, genres in held.items()
    )
    check(write(tmp_path / "data", text_of(), movies=movies), tmp_path / "out")


@pytest.mark.parametrize("form", ["long", "flags", "delimited"])
def test_an_own_catalogue(tmp_path: Path, form: str) -> None:
    folder = write(tmp_path / "data", text_of(), "log.csv", movies=None)
    held = {m: [g for g in GENRES.get(m, "Western").split("|") if g] for m in range(101, 117, 3)}
    names = ["Western", "Drama", "Crime", "Comedy", "Action"]
    table = io.StringIO()
    writer = csv.writer(table, delimiter=";")
    category = "tag"
    if form == "long":
        writer.writerow(["tag", "key"])
        writer.writerows((g, m) for m, genres in held.items() for g in genres or [""])
    elif form == "flags":
        category = ",".join(names)
        writer.writerow(["key", *names])
        writer.writerows([m, *(int(n in genres) for n in names)] for m, genres in held.items())
    else:
        writer.writerow(["key", "tag"])
        writer.writerows([m, "/".join(genres)] for m, genres in held.items())
    (folder / "items.csv").write_text(table.getvalue())
    options = ["--catalogue", "items.csv", "--item", "key", "--category", category]
    options += ["--category-separator", "/"] if form == "delimited" else []
    check(folder, tmp_path / "out", "--ratings", "log.csv", *options)
    check(folder / "log.csv", tmp_path / "file", *options)
    arguments = ["--ratings", str(folder / "log.csv"), *options, "--k", "2", "--quiet"]
    arguments[3] = str(folder / "items.csv")
    assert segment.main([*arguments, "--out", str(tmp_path / "without data")]) == 0


def test_categories_of_ones_own(tmp_path: Path) -> None:
    movies = "movieId,title,genres\n" + "".join(
        f"{movie},Film,{'Segment|Rowing' if movie % 2 else 'segment|Drama'}\n"
        for movie in range(101, 117, 3)
    )
    movies = movies.replace("Segment", "segment")
    folder, out = write(tmp_path / "data", text_of(), movies=movies), tmp_path / "out"
    assert segment.main(["--data", str(folder), "--out", str(out), "--k", "2", "--quiet"]) == 0
    columns = pd.read_parquet(out / "assignments.parquet").columns.tolist()
    assert columns[-3:] == ["Drama", "Rowing", "segment (category)"]
    assert columns[1] == "segment"


LOGS = st.lists(
    st.tuples(
        st.integers(1, 30),
        st.sampled_from([1, 2, 5, 9]),
        st.integers(1, 10).map(lambda halves: halves / 2),
        st.integers(0, 2**31),
    ),
    min_size=12,
    max_size=60,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=LOGS,
    separator=st.sampled_from([",", ";", "\t", "|"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "utf-16"]),
    has_header=st.booleans(),
    ids=st.sampled_from(["integer", "float", "padded"]),
    decimal=st.sampled_from([".", ","]),
    n_parts=st.integers(1, 3),
    compress=st.booleans(),
    order=st.permutations([0, 1, 2, 3]),
    newline=st.sampled_from(["\n", "\r\n"]),
    partition_bytes=st.sampled_from([64, 1 << 20]),
)
def test_one_log_in_any_form(
    tmp_path_factory: pytest.TempPathFactory,
    rows,
    separator,
    quoting,
    encoding,
    has_header,
    ids,
    decimal,
    n_parts,
    compress,
    order,
    newline,
    partition_bytes,
) -> None:
    folder = tmp_path_factory.mktemp("forms")
    (folder / "movies.csv").write_text("movieId,title,genres\n1,A,a\n2,B,b\n5,C,a|c\n9,D,\n")
    (folder / "ratings").mkdir()
    names = ["userId", "movieId", "rating", "timestamp"]

    def write_user(user: int) -> str:
        return {"integer": f"{user}", "float": f"{user}.0", "padded": f"{user:04d}"}[ids]

    size = -(-len(rows) // n_parts)
    for number, start in enumerate(range(0, len(rows), size)):
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=newline)
        if has_header:
            writer.writerow([names[i] for i in order])
        for user, movie, stars, time in rows[start : start + size]:
            fields = [write_user(user), movie, str(stars).replace(".", decimal), time]
            writer.writerow([fields[i] for i in order])
        data = text.getvalue().encode(encoding)
        path = folder / "ratings" / f"{number}.csv"
        if compress:
            path = path.with_name(path.name + ".gz")
            data = gzip.compress(data, mtime=0)
        path.write_bytes(data)
    columns = {
        role: str(order.index(i) + 1) for i, role in enumerate(["user", "item", "rating", "time"])
    }
    reading = ReadingOptions(
        {} if has_header else columns, TextOptions(has_header=has_header), None, (), "auto"
    )
    layout = detect_layout(str(folder), reading=reading)
    catalogue = load_catalogue(layout)
    files = probe_files(layout, string_item_ids=False)
    parts = [
        aggregate_partition(fragments, catalogue.table())
        for fragments in plan_partitions(files, partition_bytes)
    ]
    assert sum(summary.rejected for _, summary in parts) == 0
    found = merge([statistics for statistics, _ in parts])
    table = pd.DataFrame(rows, columns=names)
    expected = table.groupby("userId")["rating"].agg(["size", "sum"])
    users = [int(user) for user in found.users]
    assert users == expected.index.tolist()
    assert found.items.tolist() == expected["size"].tolist()
    assert found.rating_sum.tolist() == expected["sum"].tolist()
    for genre, held in {"a": [1, 5], "b": [2], "c": [5]}.items():
        code = catalogue.categories.index(genre)
        sums = table[table["movieId"].isin(held)].groupby("userId")["rating"].sum()
        wanted = sums.reindex(expected.index, fill_value=0.0)
        assert found.sums[:, code].tolist() == wanted.tolist()


def test_a_form_that_the_options_contradict(tmp_path: Path) -> None:
    layout = detect_layout(
        str(write(tmp_path / "data", text_of())),
        reading=ReadingOptions(text=TextOptions(encoding="utf-16")),
    )
    with pytest.raises(DataError, match="is not in utf-16 at byte|no column userId"):
        probe_files(layout)


def test_users_with_few_ratings_do_not_shape_the_segments(tmp_path: Path, capsys) -> None:
    """The centres are those of a log without them, and everybody is assigned."""
    rng = np.random.default_rng(0)
    rows = [
        (user, 101 + 3 * item, int(rng.integers(1, 11)) / 2, 7)
        for user in range(1, 121)
        for item in rng.choice(6, 1 if user % 4 else 5, replace=False)
    ]
    many = [row for row in rows if row[0] % 4 == 0]
    outs = {}
    for name, log, options in (("all", rows, ["--min-ratings", "2"]), ("many", many, [])):
        outs[name] = tmp_path / name
        folder = write(tmp_path / f"data {name}", text_of(log))
        arguments = ["--data", str(folder), "--out", str(outs[name]), "--k", "3"]
        assert segment.main([*arguments, *options]) == 0
    error = capsys.readouterr().err
    assert "users: 90 of 120 have fewer than 2 ratings: they are assigned to segments" in error
    models = [json.loads((out / "model" / "model.json").read_text()) for out in outs.values()]
    centers = [np.array([s["center"] for s in model["segments"]]) for model in models]
    order = [np.lexsort(each.T) for each in centers]
    np.testing.assert_allclose(centers[0][order[0]], centers[1][order[1]], atol=1e-6)
    users = pd.read_parquet(outs["all"] / "assignments.parquet")
    assert len(users) == 120
    assert json.loads((outs["all"] / "run.json").read_text())["kmeans"]["users"] == 30
    folder = tmp_path / "data all"
    arguments = ["--data", str(folder), "--out", str(tmp_path / "no"), "--k", "3", "--quiet"]
    assert segment.main([*arguments, "--min-ratings", "6"]) == 3
    assert "--min-ratings 6: none of 120 users has so many ratings: lower it" in (
        capsys.readouterr().err
    )
    assert segment.main([*arguments, "--overwrite"]) == 0
    error = capsys.readouterr().err
    assert "warning: 75% of the users have a single rating, which says little about them" in error


@pytest.mark.parametrize("n_profiles", [1, 3])
def test_fewer_distinct_users_than_segments(tmp_path: Path, n_profiles: int, capsys) -> None:
    """Users who are alike are one segment, and the report says why."""
    movies = [101, 110, 116][:n_profiles]
    rows = [(user, movies[user % n_profiles], 4.0, user) for user in range(60)]
    folder = write(tmp_path / "data", text_of(rows))
    assert segment.main(["--data", str(folder), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    plural = "s" if n_profiles > 1 else ""
    warning = f"{n_profiles} segment{plural} in place of 5: no more users differ from each other"
    assert warning in capsys.readouterr().err
    assert warning in (tmp_path / "out/report.md").read_text()
    manifest = json.loads((tmp_path / "out/run.json").read_text())
    assert manifest["kmeans"]["n_clusters"] == n_profiles
    users = pd.read_parquet(tmp_path / "out/assignments.parquet")
    assert users.groupby(users["userId"] % n_profiles)["segment"].nunique().tolist() == (
        [1] * n_profiles
    )


def test_a_segment_of_a_few_people_is_called_small(tmp_path: Path, capsys) -> None:
    folder = write(tmp_path / "data", text_of())
    arguments = ["--data", str(folder), "--out", str(tmp_path / "out"), "--k", "2", "--quiet"]
    assert segment.main(arguments) == 0
    assert "warning: fewer than 10 users in segments 0 (" in (capsys.readouterr().err)
    assert "fewer than 10 users in segments 0 (" in (tmp_path / "out" / "report.md").read_text()


def run(
    tmp_path: Path, log: str, *options: str, table: str | None = None, item: str = "movieId"
) -> int:
    """Run the job on an own log and an own table of items."""
    (tmp_path / "log.csv").write_text(log)
    (tmp_path / "items.csv").write_text(MOVIES if table is None else table)
    catalogue = ["--catalogue", str(tmp_path / "items.csv"), "--item", item]
    category = [] if "--category" in options else ["--category", "genres"]
    arguments = ["--ratings", str(tmp_path / "log.csv"), "--out", str(tmp_path / "out"), "--k", "2"]
    return segment.main([*arguments, *catalogue, *category, "--quiet", *options])


@pytest.mark.parametrize("true", ["1", "TRUE", "yes", "1.0", "2"])
@pytest.mark.parametrize("false", ["0", "0.00", "N/A", "-", "NULL", "0,0", "No", ""])
def test_flags_in_any_form(tmp_path: Path, true: str, false: str) -> None:
    names = ("Action", "Comedy", "Crime", "Drama", "Western")
    lines = [";".join(("movieId", *names))]
    for movie in range(101, 117, 3):
        own = GENRES.get(movie, "Western").split("|")
        lines.append(";".join((str(movie), *(true if name in own else false for name in names))))
    table = "\n".join(lines) + "\n"
    (tmp_path / "items.csv").write_text(table)
    layout = detect_layout(
        str(tmp_path),
        str(tmp_path / "items.csv"),
        catalogue=CatalogueOptions(str(tmp_path / "items.csv"), "movieId", ",".join(names)),
    )
    catalogue = load_catalogue(layout)
    for row, movie in enumerate(catalogue.item_ids):
        codes = catalogue.codes[catalogue.offsets[row] : catalogue.offsets[row + 1]]
        found = {catalogue.categories[code] for code in codes}
        assert found == {*GENRES.get(int(movie), "Western").split("|")} - {""}


@pytest.mark.parametrize(
    ("log", "options", "message"),
    [
        (
            text_of(
                form=lambda r: [
                    f"{r[0]}{'.0' * (r[1] % 2)}" if r[0] > 1 else "007",
                    *map(str, r[1:]),
                ]
            ),
            (),
            "its users are texts, and some numbers among them end in .0 and others don't",
        ),
        (
            text_of() + "77-0,101,4.0,1\n",
            (),
            "userId '77-0' is text, and the ids before are numbers: pass --ids text",
        ),
        (
            text_of() + f"{'9' * 26},101,4.0,1\n",
            (),
            "does not fit in 64 bits, and the ids before are numbers: pass --ids text",
        ),
        (
            text_of(),
            ("--no-header", "--columns", "user=1,item=2,rating=3"),
            "line 1: looks like a header (it reads 'userId, movieId, rating, timestamp')",
        ),
        (
            text_of(header=("who", "what", "stars", "when")),
            ("--no-header", "--columns", "user=1,item=2,rating=3"),
            "looks like a header (it reads 'who, what, stars, when'): leave out --no-header",
        ),
        (
            text_of(header=()),
            ("--columns", "user=1,item=2,rating=3"),
            "line 1: is no header (it reads '1, 101, 4.0, 1100000060'), and --columns has numbers: "
            "pass --no-header",
        ),
        (
            text_of(header=()),
            ("--no-header", "--columns", "user=1,item=2,rating=9"),
            "no column 9; its rows have 4 columns: give --columns their numbers, from 1",
        ),
        (
            text_of(form=lambda r: [str(r[0]), f"000{r[1]}", str(r[2]), str(r[3])]),
            (),
            "ids have leading zeros, and those of the catalogue have none: pass --ids integer",
        ),
        (
            text_of(header=("who", "what", "stars", "when")) + "A5,101,4.0,1\n",
            ("--columns", "user=who,item=what,rating=stars"),
            "who 'A5' is text, and the ids before are numbers",
        ),
        (
            text_of(header=()) + "A5,101,4.0,1\n",
            ("--no-header", "--columns", "user=1,item=2,rating=3"),
            "column 1 'A5' is text, and the ids before are numbers",
        ),
        (
            text_of(header=("who", "what", "stars", "when")),
            ("--columns", "user=who,item=what,rating=stars", "--scale", "1:3"),
            "the first is line 2: stars is outside 1 to 3",
        ),
        (text_of(), ("--encoding", "utf-16"), "is not in utf-16 at byte 1,178: set --encoding"),
    ],
)
def test_what_can_not_be_meant(
    tmp_path: Path, log: str, options: tuple[str, ...], message: str, capsys
) -> None:
    assert run(tmp_path, log, *options) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out/run.json").exists()


def test_rejected_rows_name_the_columns_of_the_log(tmp_path: Path) -> None:
    log = text_of(header=("who", "what", "stars", "when")) + "7,101,five,1\n"
    columns = ("--columns", "user=who,item=what,rating=stars", "--max-rejected", "0.1")
    assert run(tmp_path, log, *columns) == 0
    rejected = pd.read_csv(tmp_path / "out/rejected/ratings.csv")
    assert rejected["reason"].tolist() == ["stars is not a number"]


def test_the_advice_helps(tmp_path: Path, capsys) -> None:
    """Options whose values begin with a minus sign, and ids without their zeros."""
    log = text_of(rows=[*ROWS, *((user, 101, value, 5) for user in (1, 2) for value in (-1, 0))])
    assert run(tmp_path, log, "--unrated", "-1,0") == 0
    log = text_of(form=lambda r: [str(r[0]), f"000{r[1]}", str(r[2] - 3), str(r[3])])
    assert run(tmp_path, log, "--ids", "integer", "--scale", "-3:3", "--overwrite") == 0
    manifest = json.loads((tmp_path / "out/run.json").read_text())
    assert manifest["rows"]["used"] == len(ROWS)
    assert manifest["data"]["source"] == str(tmp_path / "log.csv")
    assert "synthetic" not in (tmp_path / "out/report.md").read_text().lower()


def test_texts_that_look_like_numbers_come_back(tmp_path: Path) -> None:
    log = text_of(form=lambda r: [f"{r[0]}E{r[0] % 3}", *map(str, r[1:])])
    assert run(tmp_path, log) == 0
    users = pd.read_parquet(tmp_path / "out/assignments.parquet")["userId"]
    assert sorted(users) == sorted(f"{user}E{user % 3}" for user in {row[0] for row in ROWS})


def test_ratings_without_a_catalogue(capsys, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(text_of())
    assert segment.main(["--ratings", str(tmp_path / "log.csv"), "--out", str(tmp_path / "o")]) == 2
    assert "--ratings: synthetic data have no catalogue for it" in capsys.readouterr().err


def test_what_has_no_category_is_told(tmp_path: Path, capsys) -> None:
    table = MOVIES.replace("Western", "").replace("Comedy", "")
    assert run(tmp_path, text_of(), table=table) == 0
    error = capsys.readouterr().err
    assert "3 of 6 items have no category that counts\n" in error
    rows = [row for row in ROWS if row[0] > 6 or row[1] in (107, 110, 116)]
    assert run(tmp_path, text_of(rows=rows), "--overwrite", table=table) == 0
    error = capsys.readouterr().err
    n_users = len({row[0] for row in rows})
    n_empty = n_users - len({row[0] for row in rows if row[1] not in (107, 110, 116)})
    assert f"{n_empty / n_users:.0%} of the users have nothing in any: their profiles" in error


def test_names_that_are_not_divided_are_told(tmp_path: Path, capsys) -> None:
    table = "movieId,genres\n" + "".join(f"{m},Tag {m} / More {m}\n" for m in range(101, 117, 3))
    assert run(tmp_path, text_of(), table=table) == 0
    assert "6 categories hold a comma, semicolon or slash and were not divided" in (
        capsys.readouterr().err
    )
    assert run(tmp_path, text_of(), "--category-separator", "/", "--overwrite", table=table) == 0
    assert "were not divided" not in capsys.readouterr().err


@pytest.mark.parametrize("compress", [gzip.compress, zstd_compress])
def test_a_compressed_catalogue(tmp_path: Path, compress) -> None:
    (tmp_path / "log.csv").write_text(text_of())
    (tmp_path / "items.csv.z").write_bytes(compress(MOVIES.encode()))
    options = ["--catalogue", str(tmp_path / "items.csv.z"), "--item", "movieId"]
    check(tmp_path / "log.csv", tmp_path / "out", *options, "--category", "genres")


def test_weights_of_categories(tmp_path: Path, capsys) -> None:
    """Tags that few people gave an item don't count; several rows of a tag are added."""
    tags = {101: {"Drama": 9, "Crime": 1, "Polka": 0.5}, 104: {"Crime": 2}, 107: {"Polka": 0}}
    rows = [(m, name, weight) for m, by in tags.items() for name, weight in by.items()]
    rows += [(101, "Drama", 1), (110, "Comedy", 3), (110, "Polka", 0.2), (110, "Polka", 0.2)]
    table = "movieId,tag,n\n" + "".join(f"{m},{name},{weight}\n" for m, name, weight in rows)
    (tmp_path / "items.csv").write_text(table)
    place = str(tmp_path / "items.csv")
    options = CatalogueOptions(place, "movieId", "tag", weight="n")
    catalogue = load_catalogue(detect_layout(str(tmp_path), place, catalogue=options))
    found = {
        int(movie): {catalogue.categories[code] for code in catalogue.codes[start:stop]}
        for movie, start, stop in zip(
            catalogue.item_ids, catalogue.offsets[:-1], catalogue.offsets[1:], strict=True
        )
    }
    # 110: Polka has 0.4 of 3, which is more than a tenth.
    assert found == {101: {"Drama", "Crime"}, 104: {"Crime"}, 107: set(), 110: {"Comedy", "Polka"}}
    weight = ("--category", "tag", "--category-weight", "n")
    assert run(tmp_path, text_of(), *weight, table=table) == 0
    capsys.readouterr()
    for bad in ("x", "-1", "nan", "inf"):
        assert (
            run(tmp_path, text_of(), *weight, "--overwrite", table=f"{table}113,Drama,{bad}\n") == 3
        )
        message = f"items.csv, record 11: the weight {bad!r} is no number from 0 on"
        assert message in capsys.readouterr().err
    assert (
        segment.main(["--data", "x", "--category-weight", "n", "--out", str(tmp_path / "o")]) == 2
    )
    assert "--category-weight" in capsys.readouterr().err


def test_weights_whatever_the_columns_are_called(tmp_path: Path) -> None:
    """A column that could hold titles next to the weights, and commas between thousands."""
    table = 'movieId,name,n\n101,Drama,"1,000"\n101,Polka,50\n104,Crime,150\n'
    (tmp_path / "items.csv").write_text(table)
    place = str(tmp_path / "items.csv")
    options = CatalogueOptions(place, "movieId", "name", weight="n")
    catalogue = load_catalogue(detect_layout(str(tmp_path), place, catalogue=options))
    assert catalogue.categories == ("Crime", "Drama")


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (
            "movieId,A,B\n101,1,-1\n",
            ("--category", "A,B"),
            "record 2: column B holds '-1', which is neither true nor false; write 1 or 0",
        ),
        (
            "movieId,A,B,n\n101,1,1,5\n",
            ("--category", "A,B", "--category-weight", "n"),
            "--category-weight is for a table with one row per item and category",
        ),
        (
            "movieId,tag,n\n101,A,0\n",
            ("--category", "tag", "--category-weight", "n"),
            "no item has a readable category with a weight above 0",
        ),
        ("101,A\n104,B\n", ("--item", "1", "--category", "3"), "no column 3; its 2 columns are"),
        ("101,A\n104,B\n", ("--category", "tag"), "without a header, number the columns"),
    ],
)
def test_tables_that_can_not_be_meant(
    tmp_path: Path, table: str, options: tuple[str, ...], message: str, capsys
) -> None:
    assert run(tmp_path, text_of(), *options, table=table) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_flags_keep_their_names(tmp_path: Path) -> None:
    table = "movieId,Unknown,[Rock],R&B/Soul\n" + "".join(f"{m},1,on,0\n" for m in GENRES)
    assert run(tmp_path, text_of(), "--category", "Unknown,[Rock],R&B/Soul", table=table) == 0
    users = pd.read_parquet(tmp_path / "out/assignments.parquet")
    assert users["Unknown"].notna().all()
    assert users["[Rock]"].notna().all()


def test_empty_ratings_are_called_so(tmp_path: Path, capsys) -> None:
    log = text_of(form=lambda r: [*map(str, r[:2]), "" if r[1] == 101 else str(r[2]), str(r[3])])
    assert run(tmp_path, log) == 3
    message = capsys.readouterr().err
    assert "their field for it is empty: fill it in, or leave such rows out" in message
