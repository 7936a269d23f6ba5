"""Ids: 64-bit integers or strings, one by one and by column."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation.datasets import identifiers

FIELDS = st.one_of(
    st.integers(-(2**66), 2**66).map(str),
    st.text(" \t\0-+_.x09٣é\r", max_size=6),
    st.sampled_from(["9223372036854775807", "9223372036854775808", "-9223372036854775808"]),
)


def integer_of(field: str) -> int | None:
    """The integer that Python reads, without what Python's grammar adds to the contract's."""
    digits = field.strip(" \t")
    digits = re.sub(r"\.0*$", "", digits)
    if not re.fullmatch("-?(0|[1-9][0-9]*)", digits):
        return None
    return int(digits) if -(2**63) <= int(digits) < 2**63 else None


@given(FIELDS)
def test_integers_as_python_reads_them(field: str) -> None:
    value = identifiers.parse_integer(field.encode())
    assert (None if isinstance(value, str) else value) == integer_of(field)


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (b"", "is not an integer"),
        (b"1.5", "is not an integer"),
        (b"007", "has leading zeros"),
        (b"anna", "is text"),
        (b"NaN", "is not an integer"),
        (b"12e-1", "is not an integer"),
        (b"1\n", "is not an integer"),
        (b"9" * 26, "does not fit in 64 bits"),
        (b" -" + b"9" * 100, "does not fit in 64 bits"),
        (b"9223372036854775808", "does not fit in 64 bits"),
    ],
)
def test_why_a_field_is_not_an_integer(field: bytes, reason: str) -> None:
    assert identifiers.parse_integer(field) == reason


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b" \tanna\t", b"anna"),
        ("é".encode() * 128, "é".encode() * 128),
        (b"", "is empty"),
        (b" \t ", "is empty"),
        (b"a" * 257, "is longer than 256 bytes"),
        (b"a\0b", "contains a NUL byte"),
        (b"b\xffd", "is not valid UTF-8"),
    ],
)
def test_strings(field: bytes, value: bytes | str) -> None:
    assert identifiers.parse_string(field) == value


def test_a_few_broken_numbers_do_not_make_a_string_column() -> None:
    numbers = [str(number).encode() for number in range(200)]
    wide = str(2**64).encode()
    assert not identifiers.is_string_column([*numbers, wide, b"anna"])
    assert identifiers.is_string_column([*numbers, *[wide] * 10])
    assert not identifiers.is_string_column([])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([b"1"] * 98 + [b"anna"] * 2, False),
        ([b"1"] * 97 + [b"anna"] * 3, True),
        ([b"1"] * 2 + [b"anna"], False),
        ([b"anna"], True),
        ([b"1"] * 99 + [b"007"], True),
        ([b"0", b"10", b"2.0", b"1e+05"], False),
        ([b"1"] * 5 + [b"", b"NaN", b"null", b"NULL"], False),
    ],
)
def test_what_makes_a_string_column(fields: list[bytes], expected: bool) -> None:
    assert identifiers.is_string_column(fields) == expected


def test_whole_numbers_in_other_forms() -> None:
    forms = [b"42.0", b"42.", b" 42.000", b"4.2e+1", b"4.2E+01"]
    assert {identifiers.parse_integer(form) for form in forms} == {42}
    assert identifiers.parse_integer(b"0042", allow_padding=True) == 42


@given(st.lists(FIELDS | st.none() | st.just("a" * 257), max_size=8))
def test_columns_of_strings_as_one_by_one(fields: list[str | None]) -> None:
    strings, is_id = identifiers.strip_strings(pa.array(fields, pa.string()))
    expected = [
        None if field is None else identifiers.parse_string(field.encode()) for field in fields
    ]
    ids = [value.encode() for value in strings.filter(pa.array(is_id)).to_pylist()]
    assert is_id.tolist() == [isinstance(value, bytes) for value in expected]
    assert ids == [value for value in expected if isinstance(value, bytes)]


@given(st.lists(FIELDS, max_size=4))
def test_columns_of_integers_as_one_by_one(fields: list[str]) -> None:
    column = identifiers.cast_integers(pa.array(fields, pa.string()))
    expected = [integer_of(field) for field in fields]
    if None in expected:
        assert column is None
    else:
        assert column.type == pa.int64()
        assert column.to_pylist() == expected


def test_concat_columns() -> None:
    numbers = identifiers.concat_columns([np.array([1, 2]), np.array([3])])
    assert numbers.tolist() == [1, 2, 3]
    chunked = pa.chunked_array([["b"], ["c", "d"]])
    strings = identifiers.concat_columns([pa.array(["a"]), chunked])
    assert strings.to_pylist() == ["a", "b", "c", "d"]


def test_to_frame_keeps_types() -> None:
    frame = identifiers.to_frame(
        {"userId": pa.array(["anna", "bo"]), "movieId": np.array([1, 2]), "rating": np.ones(2)}
    )
    assert [str(dtype) for dtype in frame.dtypes] == ["string", "int64", "float64"]
    assert frame["userId"].dtype == identifiers.STRING_DTYPE
    assert frame["userId"].tolist() == ["anna", "bo"]


@given(st.lists(st.sampled_from(["a", " b ", "", "ü", "x" * 257, None]), max_size=8))
def test_dictionaries_of_strings_as_strings(fields: list[str | None]) -> None:
    plain, is_id = identifiers.strip_strings(pa.array(fields, pa.string()))
    column = pa.array(fields, pa.string()).dictionary_encode()
    strings, is_encoded_id = identifiers.strip_strings(column)
    assert is_encoded_id.tolist() == is_id.tolist()
    assert strings.filter(pa.array(is_id)).to_pylist() == plain.filter(pa.array(is_id)).to_pylist()


def test_a_long_string_that_repeats_is_not_written_out() -> None:
    indices = pa.array(np.zeros(100_000, np.int32))
    column = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 100_000]))
    before = pa.total_allocated_bytes()
    strings, is_id = identifiers.strip_strings(column)
    assert pa.total_allocated_bytes() - before < 10_000_000
    assert (len(strings), is_id.any()) == (100_000, False)
