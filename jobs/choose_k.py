"""Quality and stability for a range of k, with a figure and a recommendation."""

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
    parser = entrypoint.new_parser("choose-k", __doc__ or "")
    options.add_data(parser)
    options.add_k_range(parser, "the numbers of segments to try")
    options.add_cluster(parser)
    options.add_running_cluster(parser)
    options.add_seed(parser)
    options.add_reading(parser)
    options.add_earlier_run(parser)
    return parser


def job(arguments: argparse.Namespace) -> None:
    """Run the job; print the quality of each k, the recommendation and the cost."""
    from segmentation.pipeline.settings import Settings

    out = options.parse_out(arguments)
    settings = Settings(**options.parse_data(arguments))
    from segmentation.pipeline.choose_k import run_choose_k
    from segmentation.reporting import k_selection

    run = run_choose_k(
        settings,
        out,
        options.parse_execution(arguments),
        entrypoint.make_progress(arguments),
    )
    options.print_synthetic(run.manifest)
    entrypoint.print_result()
    entrypoint.print_result(k_selection.format_k_table(run.search))
    entrypoint.print_result()
    entrypoint.print_result(textwrap.fill(k_selection.explain_choice(run.search), 96))
    entrypoint.print_result()
    entrypoint.print_result(options.format_cost(run.manifest))
    entrypoint.print_result(f"figure: {run.folder}/figures/choose_k.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run_job(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
