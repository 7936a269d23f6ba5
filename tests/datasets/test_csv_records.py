"""Records by pyarrow are the standard library's, however they are quoted, torn or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation.datasets import csv_records

HEADER = ["id", "overview", "title"]
FIELD = st.one_of(
    st.sampled_from(["", "7", "plain", '"a, b"', '"say ""hi"""', '"two\nlines"', "ü", " ", '""']),
    st.text('a,"\n\r ü;', max_size=6),
)
RECORD = st.lists(FIELD, min_size=1, max_size=5).map(",".join)


def filled(rows: list[list[str]]) -> list[list[str]]:
    """What is wanted of both ways: records as long as the header with two columns, others whole."""
    return [
        [row[0], "", row[2]] if len(row) == len(HEADER) and i else row
        for i, row in enumerate(rows)
        if row
    ]


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(RECORD, max_size=8),
    newline=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
    end=st.booleans(),
)
def test_both_ways_agree(lines: list[str], newline: str, mark: bool, end: bool) -> None:
    text = newline.join([",".join(HEADER), *lines]) + newline * end
    data = ("\ufeff" * mark + text).encode()
    quick = csv_records._by_arrow(data, ("id", "title"))
    if quick is not None:
        assert filled(list(quick)) == filled(list(csv_records._parsed("x.csv", data, "utf-8-sig")))


def test_torn_records_stand_where_they_stood(tmp_path: Path) -> None:
    path = tmp_path / "movies.csv"
    path.write_text('id,overview,title\n1,"a\nb",A\n2,torn\nhere,B\n3,c,C\n')
    found = list(csv_records.read(str(path), ("id", "title")))
    assert found == [HEADER, ["1", "", "A"], ["2", "torn"], ["here", "B"], ["3", "", "C"]]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"id,overview,title",
        b"id,id,title\n1,2,3\n",
        b"id,overview\n1,2\n",
        b"id,title\n\xff,a\n",
        b"id,title\n1,a\0b\n",
        b'id,title\n1,"a\n',
    ],
)
def test_what_pyarrow_is_not_asked_for(data: bytes) -> None:
    assert csv_records._by_arrow(data, ("id", "title")) is None


@pytest.mark.real_data
def test_real_metadata(real_data: Path) -> None:
    data = (real_data / "kaggle-small" / "movies_metadata.csv").read_bytes()
    names = ("id", "genres", "title", "overview")
    quick = csv_records._by_arrow(data, names)
    assert quick is not None
    slow = list(csv_records._parsed("x.csv", data, "utf-8-sig"))
    places = [slow[0].index(name) for name in names]
    found = list(quick)
    assert len(found) == len(slow)
    for one, other in zip(found, slow, strict=True):
        if len(other) == len(slow[0]):
            assert [one[at] for at in places] == [other[at] for at in places]
        else:
            assert one == other
