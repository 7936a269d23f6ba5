"""Format lists of names, and plain-text tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


def join_names(names: Sequence[str]) -> str:
    """Join names with commas and "and".

    Examples
    --------
    >>> join_names(["Drama", "Crime", "War"])
    'Drama, Crime and War'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def format_table(rows: Sequence[Sequence[str]], left: Collection[int] = ()) -> list[str]:
    """Return the lines of a table, with a rule below its first row.

    Parameters
    ----------
    rows
        The cells of each row; the first row is the header.
    left
        Indices of the columns to align left; all others are aligned right.

    Examples
    --------
    >>> for line in format_table([("k", "inertia"), ("2", "1,234")]):
    ...     print(line)
    k  inertia
    ─  ───────
    2    1,234
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if c in left else cell.rjust(width)
            for c, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return lines
