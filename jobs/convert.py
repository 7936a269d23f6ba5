"""Ratings as text → Parquet sized for streaming, with the catalogue beside it, for every job."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs import entrypoint, options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def make_parser() -> argparse.ArgumentParser:
    """Return the job's options."""
    made = entrypoint.parser("convert", __doc__ or "")
    options.add_source(made)
    options.add_cluster(made)
    options.add_standing(made)
    options.add_seed(made)
    options.add_limits(made)
    options.add_again(made)
    return made


def job(arguments: argparse.Namespace) -> None:
    """Run the job as the options say."""
    from segmentation.pipeline.convert import run_convert
    from segmentation.pipeline.settings import Settings
    from segmentation.progress import Progress

    out = options.run_folder(arguments)
    settings = Settings(
        data=arguments.data,
        ratings=arguments.ratings,
        seed=arguments.seed,
        max_rejected=arguments.max_rejected,
        partition_bytes=options.parse_size("--partition-size", arguments.partition_size),
        memory_limit=options.parse_size("--memory-limit", arguments.memory_limit),
    )
    run = run_convert(
        settings,
        out,
        options.execution(arguments),
        Progress(sys.stderr, quiet=arguments.quiet),
    )
    options.say_synthetic(run.manifest)
    rows, parquet = run.manifest["rows"], run.manifest["parquet"]
    order = "sorted by user" if parquet["sorted_by_user"] else "not sorted by user"
    print(
        f"\n{rows['used']:,} ratings, {order}, in {parquet['parts']:,} parts of "
        f"{parquet['bytes'] / 1e6:,.1f} MB in all, each read again and compared; "
        f"{rows['rejected']:,} rejected"
        + (f" (see {run.folder}/rejected/ratings.csv)" if rows["rejected"] else "")
    )
    print(options.cost_line(run.manifest))
    print(f"data: {run.folder} (for --data)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
