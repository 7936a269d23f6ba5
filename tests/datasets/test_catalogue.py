"""The catalogue: repairs, duplicates, joins, and the check against mixed-up ids."""

from __future__ import annotations

import ast
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.datasets import catalogue, categories
from segmentation.datasets.layouts import Layout, detect_layout
from segmentation.datasets.reading import CatalogueOptions
from segmentation.errors import DataError
from segmentation.schema import Catalogue
from tests import oracles
from tests.conftest import write_tiny


def genres_of(movies: Catalogue) -> dict[int, list[str]]:
    bounds = zip(movies.offsets, movies.offsets[1:], strict=False)
    return {
        int(movie): [movies.categories[code] for code in movies.codes[start:stop]]
        for movie, (start, stop) in zip(movies.item_ids, bounds, strict=True)
    }


def load(folder: Path, join: str = "links") -> Catalogue:
    return catalogue.load_catalogue(detect_layout(str(folder)), join)


def test_tiny_by_hand(tiny: Path) -> None:
    movies = load(tiny)
    assert genres_of(movies) == {10: ["Crime", "Drama"], 20: ["Comedy"], 30: []}
    assert movies.titles == ("A", "B", "C")
    assert movies.notes["records"] == 3
    assert movies.notes["without_category"] == 1
    assert movies.notes["links_without_tmdb"] == 1
    assert genres_of(load(tiny, "direct")) == {100: ["Crime", "Drama"], 200: ["Comedy"], 300: []}


def append(folder: Path, text: str) -> None:
    with (folder / "movies_metadata.csv").open("a", encoding="utf-8") as file:
        file.write(text)


def test_a_torn_record_gets_its_title_back_and_no_pseudo_genre(tiny: Path) -> None:
    genres = "\"[{'id': 27, 'name': 'Horror'}]\""
    append(
        tiny,
        f"False,,0,{genres},,400,tt400,en,Torn,It began well\n"
        " - and went on,0.06,/x.jpg,\"[{'name': 'Some Studio', 'id': 1}]\",[],1997-08-20,0,104.0,"
        "[],Released,,Torn Apart,False,6.0,1\n",
    )
    (tiny / "links.csv").write_text("movieId,imdbId,tmdbId\n10,1,100\n50,2,400\n")
    movies = load(tiny)
    assert movies.notes["malformed_repaired"] == 1
    assert movies.notes["malformed_set_aside"] == 0
    assert movies.title_of(50) == "Torn Apart"
    assert genres_of(movies)[50] == ["Horror"]


def test_a_record_that_ends_before_its_genres(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "t")
    (folder / "movies_metadata.csv").write_text(
        "id,title,overview,genres\n100,A\n200,B,,\"[{'id': 35, 'name': 'Comedy'}]\"\n"
    )
    movies = load(folder)
    assert genres_of(movies) == {10: [], 20: ["Comedy"]}
    assert movies.notes["without_category"] == 1


def test_the_genres_of_duplicates_are_joined(tiny: Path) -> None:
    append(
        tiny,
        "False,,0,\"[{'id': 27, 'name': 'Horror'}]\",,100,tt,en,A2,x,1,,[],[],,0,1,[],R,,A2,"
        "F,1,1\n",
    )
    movies = load(tiny)
    assert movies.notes["duplicates"] == 1
    assert movies.title_of(10) == "A"
    assert genres_of(movies)[10] == ["Crime", "Drama", "Horror"]


@pytest.mark.parametrize("genres", ["not a list", "[{'id': 1}]", "[1, 2]", "{'a': 1}", "((((", "3"])
def test_unreadable_genres_cost_the_genres_not_the_movie(tiny: Path, genres: str) -> None:
    append(tiny, f'False,,0,"{genres}",,500,tt,en,E,x,1,,[],[],,0,1,[],R,,E,F,1,1\n')
    (tiny / "links.csv").write_text("movieId,imdbId,tmdbId\n10,1,100\n60,2,500\n")
    movies = load(tiny)
    assert movies.notes["categories_unreadable"] == 1
    assert genres_of(movies)[60] == []


def test_genres_are_data_never_code(tiny: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    append(
        tiny,
        f"False,,0,\"__import__('pathlib').Path('{mark}').touch()\",,500,tt,en,E,x,1,,[],[],,0,1,"
        "[],R,,E,F,1,1\n",
    )
    load(tiny)
    assert not mark.exists()


def test_links_written_by_pandas_as_floats(tiny: Path) -> None:
    (tiny / "links.csv").write_text(
        "movieId,imdbId,tmdbId\n10,1,100.0\n20,2,200.0\n40,4,\nx,5,300\n70,6,abc\n"
    )
    movies = load(tiny)
    assert genres_of(movies) == {10: ["Crime", "Drama"], 20: ["Comedy"]}
    assert movies.notes["links_malformed"] == 2


def test_links_of_another_catalogue(tiny: Path) -> None:
    (tiny / "links.csv").write_text("movieId,imdbId,tmdbId\n10,1,999\n")
    with pytest.raises(
        DataError, match="none of its tmdbId values is an id in .*; use the links file of this"
    ):
        load(tiny)


def test_missing_columns_and_cut_downloads(tiny: Path) -> None:
    (tiny / "links.csv").write_text("movieId,imdbId\n10,1\n")
    with pytest.raises(
        DataError,
        match="links.csv, line 1: no column tmdbId .*; the header must name movieId, tmdbId",
    ):
        load(tiny)
    header = (tiny / "movies_metadata.csv").read_text().split("\n")[0]
    (tiny / "movies_metadata.csv").write_text(header + "\n")
    with pytest.raises(DataError, match="movies_metadata.csv: holds no movies; download it again"):
        load(tiny)
    (tiny / "movies_metadata.csv").write_text("<html>Not movies</html>\n")
    with pytest.raises(DataError, match="movies_metadata.csv: is a web page, perhaps of a login"):
        load(tiny)
    (tiny / "movies_metadata.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="line 1: no column id and no genres and no title"):
        load(tiny)


def pulp_fiction(folder: Path, tmdb_of_296: int) -> Path:
    write_tiny(folder)
    drama = "[{{'id': 18, 'name': 'Drama'}}]"
    row = f'False,,0,"{drama}",,{{0}},tt,en,{{1}},x,1,,[],[],,0,1,[],R,,{{1}},F,1,1\n'
    append(folder, row.format(680, "Pulp Fiction") + row.format(296, "Terminator 3"))
    (folder / "links.csv").write_text(f"movieId,imdbId,tmdbId\n296,1,{tmdb_of_296}\n10,2,100\n")
    return folder


def test_mixed_up_ids_are_an_error(tmp_path: Path) -> None:
    right = pulp_fiction(tmp_path / "right", 680)
    assert load(right).title_of(296) == "Pulp Fiction"
    assert catalogue.find_wrong_anchors(load(right)) == {}
    wrong = pulp_fiction(tmp_path / "wrong", 296)
    with pytest.raises(
        DataError, match=r"movieId 296 maps to 'Terminator 3', but in MovieLens it is 'Pulp"
    ):
        load(wrong)
    direct = load(right, "direct")
    assert catalogue.find_wrong_anchors(direct) == {296: "Terminator 3"}
    assert (
        "(movieId 296 (Pulp Fiction) counts as 'Terminator 3'); join through the links file"
        in catalogue.direct_join_warning(direct)
    )


def test_grouplens_csv_and_dat(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    folder.mkdir()
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,5,1\n")
    (folder / "movies.csv").write_bytes(
        b'movieId,title,genres\r\n1,"Comma, The (1990)",Drama|Film-Noir\r\n'
        b"2,Plain (1991),(no genres listed)\r\n3,Kids,Children|Puppets\r\n"
        b"1,Again,War\r\nx,Bad,War\r\n"
    )
    movies = load(folder)
    assert movies.categories == ("Children", "Drama", "Film-Noir", "War", "Puppets")
    assert genres_of(movies) == {
        1: ["Drama", "Film-Noir", "War"],
        2: [],
        3: ["Children", "Puppets"],
    }
    assert movies.titles[0] == "Comma, The (1990)"
    assert movies.notes == {
        "records": 5,
        "malformed_set_aside": 1,
        "duplicates": 1,
        "without_category": 1,
        "categories_unreadable": 0,
        "categories_unsplit": 0,
    }
    dat = tmp_path / "d"
    dat.mkdir()
    (dat / "ratings.dat").write_text("1::1::5::1\n")
    (dat / "movies.dat").write_bytes(
        "1::Misérables, Les (1995)::Drama|Musical\n2::X\x85Y::Children's\n".encode("latin-1")
    )
    movies = load(dat)
    assert movies.titles == ("Misérables, Les (1995)", "X\x85Y")
    assert genres_of(movies) == {1: ["Drama", "Musical"], 2: ["Children"]}


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("join", "n_items", "without_category"), [("links", 9_082, 35), ("direct", 45_433, 2_442)]
)
def test_real_kaggle_catalogue(
    real_data: Path, join: str, n_items: int, without_category: int
) -> None:
    folder = real_data / "kaggle-small"
    movies = load(folder, join)
    assert len(movies.item_ids) == n_items
    assert movies.notes["records"] == 45_466
    assert movies.notes["malformed_repaired"] == 3
    assert movies.notes["duplicates"] == 30
    assert movies.notes["without_category"] == without_category
    assert movies.notes["categories_unreadable"] == 0
    expected = oracles.kaggle_movies(folder, join)
    assert {m: sorted(g) for m, g in genres_of(movies).items()} == {
        m: sorted(g) for m, g in expected.items()
    }
    titles = {296: "Pulp Fiction", 318: "The Shawshank Redemption"}
    if join == "direct":
        titles = {296: "Terminator 3: Rise of the Machines", 318: "The Million Dollar Hotel"}
    assert {movie: movies.title_of(movie) for movie in titles} == titles


@pytest.mark.real_data
def test_real_grouplens_catalogue(real_data: Path) -> None:
    folder = real_data / "ml-latest-small"
    movies = load(folder)
    expected = oracles.grouplens_movies(folder)
    assert {m: sorted(g) for m, g in genres_of(movies).items()} == {
        m: sorted(g) for m, g in expected.items()
    }
    assert movies.title_of(296) == "Pulp Fiction (1994)"


def test_types_and_order(tiny: Path) -> None:
    movies = load(tiny)
    assert movies.item_ids.dtype == np.int64
    assert (np.diff(movies.item_ids) > 0).all()
    assert movies.offsets.dtype == movies.codes.dtype == np.int32
    with pytest.raises(ValueError, match="3 items need 4 offsets"):
        Catalogue(movies.item_ids, movies.categories, movies.offsets[:-1], movies.codes)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**20) | st.sampled_from(["007", "-1", "1.5", "None"]),
            st.text("ab é'\"\\{}[],:\n\r\t", max_size=6) | st.sampled_from(["Drama", "War"]),
        ),
        max_size=4,
    ),
    st.sampled_from(["[{}]", "[{},]", " [{}]", "[{}] ", "({})", "[{}", "[{}]]"]),
    st.booleans(),
)
def test_genres_as_python_reads_them(entries: list[tuple], form: str, quoted: bool) -> None:
    text = form.format(
        ", ".join(
            f"{{'id': {number}, 'name': {name!r}}}"
            if quoted
            else f"{{'id': {number}, 'name': '{name}'}}"
            for number, name in entries
        )
    )
    try:
        read = ast.literal_eval(text.strip())
        assert isinstance(read, list)
        expected = [" ".join(entry["name"].split()) for entry in read]
        expected = [name for name in expected if name]
    except (ValueError, SyntaxError, TypeError, KeyError, AssertionError):
        expected = None
    lists = categories.CategoryForm(has_lists=True, separator=None)
    if expected is None:
        with pytest.raises(categories.UnreadableError):
            categories.parse_names(text, lists)
    else:
        assert categories.parse_names(text, lists) == expected


def test_all_ids_decide_whether_they_are_strings(tmp_path: Path) -> None:
    """Some catalogues begin with ids that look like integers."""
    ids = [f"{n:07d}" for n in range(1, 1_501)] + [f"tt{n}" for n in range(6_000)]
    rows = "".join(f"{movie},Film,Drama\n" for movie in ids)
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + rows)
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,tt5,4.0,1\n")
    movies = load(tmp_path)
    assert movies.has_text_ids
    assert len(movies.item_ids) == len(ids)


def test_a_torn_duplicate_repairs_nothing_that_is_used(tiny: Path) -> None:
    append(tiny, "False,,0,[],,100,tt,en,A2,It began\n and,1,x,[],[],d,0,1,[],R,,Other,F,1,1\n")
    movies = load(tiny)
    assert movies.title_of(10) == "A"
    assert (movies.notes["duplicates"], movies.notes["malformed_repaired"]) == (1, 1)


def test_a_layout_without_links_offers_the_direct_join(tiny: Path) -> None:
    layout = dataclasses.replace(detect_layout(str(tiny)), links=None)
    with pytest.raises(DataError) as caught:
        catalogue.load_catalogue(layout)
    assert caught.value.render({"join": "--join"}) == (
        f"{tiny}: holds no links file; add one, or set --join to direct"
    )


def test_an_unclosed_quote_in_the_links(tiny: Path) -> None:
    (tiny / "links.csv").write_text('movieId,imdbId,tmdbId\n10,"1,100\n20,2,200\n')
    with pytest.raises(DataError, match="links.csv, record 2: a quoted field spans lines; close"):
        load(tiny)


def test_a_catalogue_without_readable_genres(tmp_path: Path) -> None:
    path = tmp_path / "movies.csv"
    path.write_text("movieId,title,genres\n1,A,(no genres listed)\n2,B,\n")
    with pytest.raises(DataError, match="movies.csv: no item has a readable category; fix its col"):
        catalogue.load_catalogue(
            Layout("grouplens-csv", str(tmp_path), "", str(path), None, ("Drama",))
        )


def test_warnings_count_the_damage(tiny: Path) -> None:
    append(tiny, 'False,,0,"[{",,500,tt,en,E,x,1,,[],[],,0,1,[],R,,E,F,1,1\n')
    (tiny / "links.csv").write_text(
        "movieId,imdbId,tmdbId\n10,1,100\n20,1,200\n30,1,300\nx,2,200\n70,3,z\n80,4,500\n"
    )
    assert catalogue.catalogue_warnings(load(tiny)) == [
        "1 catalogue records have unreadable categories",
        "2 malformed records of the links file were skipped",
    ]


PARQUET_TABLES = {
    "text": ({"item": [1, 2, 3], "tags": ["A|B", "B", None]}, "tags", {}),
    "lists": ({"item": [1, 2, 3], "tags": [["A", "B"], ["B"], []]}, "tags", {}),
    "structs": (
        {"item": [1, 2, 3], "tags": [[{"name": "A"}, {"name": "B"}], [{"name": "B"}], None]},
        "tags",
        {},
    ),
    "floats": ({"item": [1.0, 2.0, 3.0], "tags": ["A|B", "B", ""]}, "tags", {}),
    "flags": ({"item": [1, 2, 3], "A": [True, False, False], "B": [True, True, False]}, "A,B", {}),
    "long": (
        {"item": [1, 1, 2, 3], "tags": ["A", "B", "B", "C"], "n": [5, 9, 2, 0]},
        "tags",
        {"weight": "n"},
    ),
}


@pytest.mark.parametrize("form", PARQUET_TABLES)
def test_a_table_in_parquet(tmp_path: Path, form: str) -> None:
    """Ids as numbers, categories as text, lists, structs or flags, and nulls."""
    columns, category, options = PARQUET_TABLES[form]
    path = tmp_path / "items.parquet"
    pd.DataFrame(columns).to_parquet(path)
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\n1,1,4.0\n")
    layout = detect_layout(
        str(tmp_path), catalogue=CatalogueOptions(str(path), "item", category, **options)
    )
    items = catalogue.load_catalogue(layout)
    names = [
        [items.categories[code] for code in items.codes[start:stop]]
        for start, stop in itertools.pairwise(items.offsets)
    ]
    assert items.item_ids.tolist() == [1, 2, 3]
    assert names == [["A", "B"], ["B"], []]


def test_a_damaged_table_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    path.write_bytes(b"PAR1" + b"x" * 100)
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\n1,1,4.0\n")
    layout = detect_layout(str(tmp_path), catalogue=CatalogueOptions(str(path), "item", "tags"))
    with pytest.raises(DataError, match=r"items.parquet: can't be read as Parquet"):
        catalogue.load_catalogue(layout)
