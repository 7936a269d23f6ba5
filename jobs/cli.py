"""The console script: ``segmentation JOB [options]``."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import segmentation
from jobs import entrypoint

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

#: Job → its help. The module of a job has the same name, with underscores.
JOBS = {
    "segment": "ratings → named audience segments and a report",
    "choose-k": "how many segments: quality and stability for a range of k",
    "score": "the users of new ratings → the segments of an earlier run, and whether these hold",
    "refresh": "new ratings added to an earlier run, its segments fitted again under their names",
    "export": "a run → one list of users per segment, a database, or the model as SQL",
    "convert": "ratings as text → Parquet, for every job",
    "synthesize": "a MovieLens-shaped data set of any size",
    "certificates": "certificates for a cluster that speaks TLS",
    "benchmark": "the whole job, or the estimators alone, next to their peers",
}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the console script, with one subparser per job."""
    parser = entrypoint.OneLineParser(
        prog="segmentation",
        description="Out-of-core audience segmentation of ratings logs on Dask.",
        epilog="segmentation JOB --help shows the options of a job.",
    )
    parser.add_argument(
        "--version", action="version", version=f"segmentation {segmentation.__version__}"
    )
    jobs = parser.add_subparsers(title="jobs", metavar="JOB", required=True)
    for name, help_text in JOBS.items():
        module = importlib.import_module(f"jobs.{name.replace('-', '_')}")
        options = module.make_parser()
        job = jobs.add_parser(
            name,
            parents=[options],
            add_help=False,
            help=help_text,
            prog=options.prog,
            description=options.description,
            epilog=options.epilog,
            allow_abbrev=False,
        )
        job.set_defaults(job=module.job, parser=job)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job that the arguments name; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser()
    if not arguments:
        parser.print_help()
        return entrypoint.WRONG_USAGE
    return entrypoint.run_job(parser, lambda parsed: parsed.job(parsed), arguments)


if __name__ == "__main__":
    sys.exit(main())
