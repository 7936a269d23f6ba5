"""Plain text, compared with what it looks like on the terminal."""

from __future__ import annotations

import pytest

from segmentation.reporting.text import format_table, join_names


@pytest.mark.parametrize(
    ("names", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_join_names(names: list[str], text: str) -> None:
    assert join_names(names) == text


def test_table() -> None:
    rows = [("#", "segment", "users"), ("0", "Quiet", "1,234"), ("10", "Premium Loyalists", "5")]
    assert format_table(rows, left={1}) == [
        " #  segment            users",
        "──  ─────────────────  ─────",
        " 0  Quiet              1,234",
        "10  Premium Loyalists      5",
    ]


def test_lines_do_not_end_in_blanks() -> None:
    assert format_table([("a", "b"), ("1", "")])[2] == "1"
