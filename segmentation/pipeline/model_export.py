"""A saved model for other programs: as plain SQL, or as JSON for a scikit-learn pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmentation.pipeline.export import check_out, name_unwritable
from segmentation.pipeline.saved_run import MODEL
from segmentation.schema import USER
from segmentation.storage import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from segmentation.pipeline.model import SavedModel
    from segmentation.pipeline.saved_run import SavedRun


def export_model(saved: SavedRun, out: str | Path, kind: str) -> Path:
    """Write the model of a run into a folder, and return the file.

    Parameters
    ----------
    kind
        ``sql``, or ``sklearn`` for the JSON that :func:`segmentation.load_model` reads.

    Raises
    ------
    UsageError
        If the preset of the model needs more than means per category.
    """
    saved.model.check_means()
    out = check_out(out)
    with name_unwritable(out):
        return _write_model(saved, out, kind)


def _write_model(saved: SavedRun, out: Path, kind: str) -> Path:
    if kind == "sql":
        path = out / "assign.sql"
        atomic.write_bytes(path, build_sql(saved.model).encode())
        return path
    path = out / "model.json"
    atomic.write_bytes(path, (saved.folder / MODEL).read_bytes())
    return path


def build_sql(model: SavedModel) -> str:
    """Return a query that assigns users from a table with a column of means per category.

    It is plain SQL, and gives the same segments in SQLite, DuckDB and others.
    """
    distances = [
        f"    {_sum(_square_terms(model.categories, center))} AS d{s}"
        for s, center in enumerate(model.centers.tolist())
    ]
    k = len(distances)
    # The first of equal distances, as in the program.
    cases = [
        f"    WHEN {' AND '.join(f'd{s} <= d{other}' for other in range(k) if other > s)} THEN {s}"
        for s in range(k - 1)
    ]
    segment = "\n".join(["  CASE", *cases, f"    ELSE {k - 1}", "  END"]) if cases else "  0"
    names = "\n".join(
        f"    WHEN {s} THEN {_quote_text(name)}" for s, name in enumerate(model.personas)
    )
    return (
        "-- Assigns each user to the nearest of the centres of a segmentation.\n"
        f'-- user_means: a table or view with the column "{USER}" and one column per '
        f"{model.words.category},\n"
        f"-- the user's mean there, NULL without any {model.words.ratings}, as in "
        "assignments.parquet.\n"
        "WITH distances AS (\n"
        f'  SELECT\n    "{USER}",\n' + ",\n".join(distances) + "\n  FROM user_means\n"
        "), assigned AS (\n"
        f'  SELECT "{USER}",\n{segment} AS segment\n  FROM distances\n'
        ")\n"
        f'SELECT\n  "{USER}",\n  segment,\n  CASE segment\n{names}\n  END AS persona\n'
        "FROM assigned;\n"
    )


def _square_terms(categories: Sequence[str], center: Sequence[float]) -> list[str]:
    terms = []
    for name, value in zip(categories, center, strict=True):
        quoted = '"' + name.replace('"', '""') + '"'
        difference = f"(COALESCE(CAST({quoted} AS DOUBLE), 0.0) - {value!r})".replace("- -", "+ ")
        terms.append(f"{difference} * {difference}")
    return terms


def _sum(terms: Sequence[str]) -> str:
    """Add terms in pairs of pairs: databases limit how deep an expression may be nested."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return f"({_sum(terms[:middle])} + {_sum(terms[middle:])})"


def _quote_text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
