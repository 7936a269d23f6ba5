"""Ratings → user genre means → K-Means → incremental PCA → named segments and a report."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import TYPE_CHECKING, Literal

from jobs import entrypoint, options

if TYPE_CHECKING:
    from collections.abc import Sequence


def make_parser() -> argparse.ArgumentParser:
    """Return the job's options."""
    made = entrypoint.parser("segment", __doc__ or "")
    options.add_data(made)
    made.add_argument(
        "--k",
        type=_k,
        default=5,
        metavar="K",
        help="number of segments, or auto to choose it (default: 5)",
    )
    options.add_k_range(made, "what --k auto chooses from")
    options.add_cluster(made)
    options.add_standing(made)
    options.add_seed(made)
    options.add_reading(made)
    made.add_argument(
        "--playbook",
        metavar="FILE",
        help="your own names and advice for segments, in the form of "
        "segmentation/reporting/playbook.toml",
    )
    options.add_again(made)
    return made


def _k(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None


def job(arguments: argparse.Namespace) -> None:
    """Run the job as the options say."""
    from segmentation.errors import UsageError
    from segmentation.pipeline.settings import Settings

    if arguments.k_range is not None and arguments.k != "auto":
        raise UsageError("--k-range is what --k auto chooses from: add that, or leave it out")
    out = options.run_folder(arguments)
    settings = Settings(
        **options.data_settings(arguments), k=arguments.k, playbook=arguments.playbook
    )
    from segmentation.pipeline.segment import run_segment
    from segmentation.progress import Progress
    from segmentation.reporting.report import format_segment_table

    run = run_segment(
        settings,
        out,
        options.execution(arguments),
        Progress(sys.stderr, quiet=arguments.quiet),
    )
    manifest = run.manifest
    options.say_synthetic(manifest)
    print()
    print(format_segment_table(run.profiles, run.personas, run.genres))
    if "choose_k" in manifest:
        print()
        print(textwrap.fill(manifest["choose_k"]["reason"], 96))
    rows = manifest["rows"]
    print(
        f"\n{_count(rows['used'], 'rating')} by {_count(manifest['users'], 'user')} of "
        f"{_count(manifest['movies'], 'movie')}; {rows['unmapped']:,} of other movies, "
        f"{rows['rejected']:,} rejected"
        + (f" (see {run.folder}/rejected/ratings.csv)" if rows["rejected"] else "")
    )
    print(options.cost_line(manifest))
    print(f"report: {run.folder}/report.html")


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
