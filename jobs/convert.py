"""Ratings as text → Parquet sized for streaming, with the catalogue next to it, for every job."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs import entrypoint, options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    parser = entrypoint.new_parser("convert", __doc__ or "")
    options.add_source(parser)
    options.add_cluster(parser)
    options.add_running_cluster(parser)
    options.add_seed(parser)
    options.add_limits(parser)
    options.add_earlier_run(parser)
    return parser


def job(arguments: argparse.Namespace) -> None:
    """Run the job; print a summary of the converted ratings, and the cost."""
    from segmentation.pipeline.convert import run_convert
    from segmentation.pipeline.settings import Settings

    out = options.parse_out(arguments)
    run = run_convert(
        Settings(**options.parse_source(arguments), seed=arguments.seed),
        out,
        options.parse_execution(arguments),
        entrypoint.make_progress(arguments),
    )
    options.print_synthetic(run.manifest)
    rows, parquet = run.manifest.rows, run.manifest.parquet or {}
    order = "sorted by user" if parquet["sorted_by_user"] else "not sorted by user"
    entrypoint.print_result(
        f"\n{rows['used']:,} ratings, {order}, in {parquet['parts']:,} parts of "
        f"{parquet['bytes'] / 1e6:,.1f} MB in all, each read again and compared; "
        f"{options.format_rejected(rows, run.folder)}"
    )
    entrypoint.print_result(options.format_cost(run.manifest))
    if run.manifest.data["layout"] == "own":
        copied = f"ratings: {run.folder}/ratings.parquet (for --ratings; name the same table again)"
    else:
        copied = f"data: {run.folder} (for --data)"
    entrypoint.print_result(copied)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run_job(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
