"""Write the users of a run as one list per segment, into a database, or its model as SQL."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from jobs import entrypoint, options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    parser = entrypoint.new_parser("export", __doc__ or "")
    parser.add_argument("--run", metavar="RUN", help="the folder of the run that is exported")
    parser.add_argument("--out", metavar="FOLDER", help="the folder to write to")
    parser.add_argument(
        "--format",
        default="csv",
        choices=("csv", "parquet", "sqlite", "duckdb"),
        help="one file per segment, or a database to which the run is added (default: csv)",
    )
    parser.add_argument(
        "--min-margin",
        type=float,
        default=0.0,
        metavar="DISTANCE",
        help="leave out users whose margin to the next segment is smaller (default: 0)",
    )
    parser.add_argument(
        "--holdout",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="a control group of this share of the users, who are in no list: the same people for "
        "each run with this --salt (default: 0)",
    )
    parser.add_argument("--sample", type=int, metavar="N", help="at most N users per segment")
    parser.add_argument(
        "--min-size",
        type=int,
        default=1,
        metavar="N",
        help="leave out segments with fewer users to list (default: 1)",
    )
    parser.add_argument(
        "--changes-since",
        metavar="RUN",
        help="also write who entered, left or changed the lists since this earlier run",
    )
    parser.add_argument(
        "--hash-ids", choices=("sha256",), help="write the digest of each id in its place"
    )
    parser.add_argument(
        "--salt",
        default="",
        metavar="TEXT",
        help="what digests, control group and sample follow from, besides the id",
    )
    parser.add_argument(
        "--model",
        choices=("sql", "sklearn"),
        help="write the model in place of lists: a query that assigns users from their means, or "
        "JSON for segmentation.load_model",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier export in --out"
    )
    return parser


def job(arguments: argparse.Namespace) -> None:
    """Run the job; print the lists and their lengths."""
    from segmentation.errors import UsageError
    from segmentation.pipeline import export, model_export, saved_run

    for field in ("run", "out"):
        if not getattr(arguments, field):
            raise UsageError(f"{{{field}}}: name a folder", field)
    for field in ("run", "out", "changes_since"):
        if getattr(arguments, field):
            setattr(arguments, field, options.fill_date(getattr(arguments, field)))
    if arguments.model:
        _check_model_alone(arguments)
        saved = saved_run.open_saved_run(arguments.run, "run")
        path = model_export.export_model(saved, arguments.out, arguments.model)
        entrypoint.print_result(f"model: {path}")
        return
    settings = export.ExportSettings(
        format=arguments.format,
        min_margin=arguments.min_margin,
        holdout=arguments.holdout,
        sample=arguments.sample,
        min_size=arguments.min_size,
        hash_ids=arguments.hash_ids,
        salt=arguments.salt,
    )
    saved = saved_run.open_saved_run(arguments.run, "run", "assignments.parquet")
    earlier = None
    if arguments.changes_since:
        earlier = saved_run.open_saved_run(
            arguments.changes_since, "changes_since", "assignments.parquet"
        )
    record = export.export_lists(
        saved,
        arguments.out,
        settings,
        earlier,
        overwrite=arguments.overwrite,
        progress=entrypoint.make_progress(arguments),
    )
    entrypoint.print_result()
    entrypoint.print_result(_format_table(record))
    for name, text in _UNLISTED.items():
        if record["unlisted"][name]:
            entrypoint.print_result(f"{record['unlisted'][name]:,} {text}")
    if "changes" in record:
        numbers = record["changes"]
        entrypoint.print_result(
            f"changes since {record['changes_since']}: {numbers['entered']:,} entered, "
            f"{numbers['left']:,} left, {numbers['moved']:,} moved"
        )
    place = record.get("database") or f"{arguments.out}/"
    entrypoint.print_result(f"written: {place}")


def _check_model_alone(arguments: argparse.Namespace) -> None:
    """Check that no option for lists is passed with ``--model``."""
    from segmentation.errors import UsageError

    parser = make_parser()
    for field in (
        *("format", "min_margin", "holdout", "sample", "min_size"),
        *("changes_since", "hash_ids", "salt", "overwrite"),
    ):
        if getattr(arguments, field) != parser.get_default(field):
            raise UsageError(
                f"{{model}} is written in place of lists: leave {{{field}}} out, or {{model}}",
                "model",
                field,
            )


_UNLISTED = {
    "undecided": "users left out: too close to the next segment (--min-margin)",
    "holdout": "users in the control group (--holdout)",
    "not_sampled": "users left out: beyond --sample",
    "small_segments": "users left out: in a segment below --min-size",
}


def _format_table(record: Mapping[str, Any]) -> str:
    from segmentation.reporting.text import format_table

    rows = [("#", "segment", "users", "listed", "file")]
    for entry in record["segments"]:
        counts = (f"{entry['users']:,}", f"{entry['listed']:,}")
        rows.append((str(entry["segment"]), entry["persona"], *counts, entry["file"] or "–"))
    return "\n".join(format_table(rows, left={1, 4}))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run_job(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
