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
    """Return the job's options."""
    made = entrypoint.parser("choose-k", __doc__ or "")
    options.add_data(made)
    options.add_k_range(made, "the numbers of segments to try")
    options.add_cluster(made)
    options.add_standing(made)
    options.add_seed(made)
    options.add_reading(made)
    options.add_again(made)
    return made


def job(arguments: argparse.Namespace) -> None:
    """Run the job as the options say."""
    from segmentation.pipeline.settings import Settings

    out = options.run_folder(arguments)
    settings = Settings(**options.data_settings(arguments))
    from segmentation.pipeline.choose_k import run_choose_k
    from segmentation.progress import Progress
    from segmentation.reporting import k_selection

    run = run_choose_k(
        settings,
        out,
        options.execution(arguments),
        Progress(sys.stderr, quiet=arguments.quiet),
    )
    options.say_synthetic(run.manifest)
    print()
    print(k_selection.format_k_table(run.search))
    print()
    print(textwrap.fill(k_selection.explain_choice(run.search), 96))
    print()
    print(options.cost_line(run.manifest))
    print(f"figure: {run.folder}/figures/choose_k.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
