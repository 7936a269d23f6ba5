"""Cluster users by their ratings per category, and report named segments."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import TYPE_CHECKING, Literal

from jobs import entrypoint, options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segmentation.pipeline.segment import SegmentRun


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    parser = entrypoint.new_parser("segment", __doc__ or "")
    options.add_data(parser)
    parser.add_argument(
        "--k",
        type=_parse_k,
        default=5,
        metavar="K",
        help="number of segments, or auto to choose it (default: 5)",
    )
    options.add_k_range(parser, "what --k auto chooses from")
    options.add_cluster(parser)
    options.add_running_cluster(parser)
    options.add_seed(parser)
    options.add_reading(parser)
    options.add_playbook(parser)
    options.add_earlier_run(parser)
    return parser


def _parse_k(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None


def job(arguments: argparse.Namespace) -> None:
    """Run the job; print the segments, the row counts and the cost."""
    from segmentation.errors import UsageError
    from segmentation.pipeline.settings import Settings

    if arguments.k_range is not None and arguments.k != "auto":
        raise UsageError(
            "{k_range} is what {k} auto chooses from: pass both, or leave it out", "k_range", "k"
        )
    out = options.parse_out(arguments)
    settings = Settings(**options.parse_data(arguments), k=arguments.k, playbook=arguments.playbook)
    # Imported after validation, so that a bad option fails at once.
    from segmentation.pipeline.segment import run_segment

    run = run_segment(
        settings,
        out,
        options.parse_execution(arguments),
        entrypoint.make_progress(arguments),
    )
    print_run(run)


def print_run(run: SegmentRun) -> None:
    """Print the segments, the row counts and the cost of a finished run."""
    from segmentation.reporting.report import format_segment_table

    manifest = run.manifest
    options.print_synthetic(manifest)
    entrypoint.print_result()
    entrypoint.print_result(format_segment_table(run.profiles, run.personas, run.categories))
    if manifest.choose_k is not None:
        entrypoint.print_result()
        entrypoint.print_result(textwrap.fill(manifest.choose_k["reason"], 96))
    rows, words = manifest.rows, run.profiles[0].words
    entrypoint.print_result(
        f"\n{rows['used']:,} {words.ratings} by {_count(manifest.users, 'user', 'users')} of "
        f"{_count(manifest.items, words.item, words.items)}; "
        f"{rows['unmapped']:,} of other {words.items}, "
        f"{options.format_rejected(rows, run.folder)}"
    )
    entrypoint.print_result(options.format_cost(manifest))
    entrypoint.print_result(f"report: {run.folder}/report.html")


def _count(n: int | None, one: str, several: str) -> str:
    return f"{n or 0:,} {one if n == 1 else several}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run_job(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
