"""Put the users of new ratings into the segments of an earlier run, and measure drift."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

from jobs import entrypoint, options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    parser = entrypoint.new_parser("score", __doc__ or "")
    parser.add_argument(
        "--model", metavar="RUN", help="the folder of the run whose segments are used"
    )
    options.add_later_run(parser)
    return parser


def job(arguments: argparse.Namespace) -> int:
    """Run the job; print the segments' sizes and the verdict; return the exit status."""
    from segmentation.errors import UsageError
    from segmentation.pipeline.saved_run import open_saved_run
    from segmentation.pipeline.settings import ScoreSettings

    if not arguments.model:
        raise UsageError("{model}: name the folder of the run whose segments are used", "model")
    out = options.parse_out(arguments)
    saved = open_saved_run(arguments.model, "model")
    settings = ScoreSettings(
        **saved.inherit_settings(options.parse_new_data(arguments)),
        model=str(saved.folder),
        model_sha256=saved.model_sha256,
    )
    from segmentation.pipeline.score import run_score
    from segmentation.reporting.drift import format_drift_table

    run = run_score(
        saved,
        settings,
        out,
        options.parse_execution(arguments),
        entrypoint.make_progress(arguments),
    )
    options.print_synthetic(run.manifest)
    entrypoint.print_result()
    entrypoint.print_result(format_drift_table(run.drift, run.personas))
    entrypoint.print_result()
    entrypoint.print_result(textwrap.fill(f"{run.drift['verdict']}: {run.drift['reason']}", 96))
    rows, words = run.manifest.rows, saved.model.words
    unscored = (run.manifest.scored or {})["unscored"]
    n_few = unscored.get("few_ratings", 0)
    n_raters = (run.manifest.users or 0) + n_few
    entrypoint.print_result(
        f"\n{rows['used']:,} {words.ratings} by {n_raters:,} user{'s' if n_raters != 1 else ''}; "
        f"{rows['unmapped']:,} of other {words.items}, "
        f"{options.format_rejected(rows, run.folder)}"
    )
    if unscored:
        entrypoint.print_result(
            f"without a segment: {unscored['no_known_item']:,} users without a known {words.item}, "
            f"{n_few:,} with too few {words.ratings}: see {run.folder}/unscored.parquet"
        )
    entrypoint.print_result(options.format_cost(run.manifest))
    entrypoint.print_result(f"report: {run.folder}/report.html")
    return options.drift_status(arguments.fail_on, run.drift["verdict"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run_job(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
