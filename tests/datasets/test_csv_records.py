"""pyarrow reads the same records as the standard library, however quoted, torn or damaged."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation.datasets import csv_records
from segmentation.errors import DataError

HEADER = ["id", "overview", "title"]
FIELD = st.one_of(
    st.sampled_from(["", "7", "plain", '"a, b"', '"say ""hi"""', '"two\nlines"', "ü", " ", '""']),
    st.text('a,"\n\r ü;', max_size=6),
)
RECORD = st.lists(FIELD, min_size=1, max_size=5).map(",".join)


def expected_of(records: list[list[str]]) -> list[list[str]]:
    """Records as `read_columns` returns them: two columns where the length is the header's."""
    return [
        [record[0], "", record[2]] if len(record) == len(HEADER) and i else record
        for i, record in enumerate(records)
        if record
    ]


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(RECORD, max_size=8),
    newline=st.sampled_from(["\n", "\r\n"]),
    has_bom=st.booleans(),
    ends_with_newline=st.booleans(),
)
def test_both_readers_agree(
    lines: list[str], newline: str, has_bom: bool, ends_with_newline: bool
) -> None:
    text = newline.join([",".join(HEADER), *lines]) + newline * ends_with_newline
    data = ("\ufeff" * has_bom + text).encode()
    records = csv_records._parse_with_arrow(data, ("id", "title"))
    if records is not None:
        expected = list(csv_records._parse_records("x.csv", data, ("id", "title")))
        assert expected_of(list(records)) == expected_of(expected)


def test_torn_records_keep_their_place(tmp_path: Path) -> None:
    path = tmp_path / "movies.csv"
    path.write_text('id,overview,title\n1,"a\nb",A\n2,torn\nhere,B\n3,c,C\n')
    records = list(csv_records.read_columns(str(path), ("id", "title")))
    assert records == [HEADER, ["1", "", "A"], ["2", "torn"], ["here", "B"], ["3", "", "C"]]


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
def test_what_is_left_to_the_standard_library(data: bytes) -> None:
    assert csv_records._parse_with_arrow(data, ("id", "title")) is None


def test_what_pyarrow_refuses_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "movies.csv"
    path.write_bytes(b"id,id,title\n1,2,a\n")
    assert list(csv_records.read_columns(str(path), ("id", "title"))) == [
        ["id", "id", "title"],
        ["1", "2", "a"],
    ]


def test_damage_that_would_join_records(tmp_path: Path) -> None:
    path = tmp_path / "movies.csv"
    path.write_bytes(b"id,title\n1,a\0\0b\n")
    for read in (csv_records.read_records, csv_records.read_columns):
        with pytest.raises(DataError, match=r"movies.csv: holds a NUL byte \(byte 12\), which no"):
            list(read(str(path), ("id", "title")))


def test_a_catalogue_too_large_for_memory(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "movies.csv"
    path.write_bytes(b"id,title\n1,a\n")
    monkeypatch.setattr(csv_records, "_MAX_BYTES", 12)
    with pytest.raises(DataError, match="a catalogue is read as a whole, up to 0 MB; leave out"):
        list(csv_records.read_records(str(path)))


def test_records_of_a_missing_and_of_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "links.csv"
    with pytest.raises(DataError, match="links.csv: no such file"):
        list(csv_records.read_records(str(path)))
    path.write_text("movieId,tmdbId\n1," + "9" * (1 << 25) + "\n")
    with pytest.raises(DataError, match=r"links.csv, line 2: not valid CSV \(field larger than"):
        list(csv_records.read_records(str(path)))


@pytest.mark.real_data
def test_real_metadata(real_data: Path) -> None:
    path = real_data / "kaggle-small" / "movies_metadata.csv"
    names = ("id", "genres", "title", "overview")
    assert csv_records._parse_with_arrow(path.read_bytes(), names) is not None
    with path.open(encoding="utf-8", newline="") as file:
        expected = list(csv.reader(file))
    records = list(csv_records.read_columns(str(path), names))
    indices = [expected[0].index(name) for name in names]
    assert len(records) == len(expected)
    for one, other in zip(records, expected, strict=True):
        if len(other) == len(expected[0]):
            assert [one[at] for at in indices] == [other[at] for at in indices]
        else:
            assert one == other
