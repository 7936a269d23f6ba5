"""The console script: ``segmentation JOB [options]``."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: job → what it does; the module is the job's name with underscores.
JOBS = {
    "segment": "ratings → named audience segments and a report",
    "choose-k": "how many segments: quality and stability for a range of k",
    "convert": "ratings as text → Parquet, for every job",
    "synthesize": "a MovieLens-shaped data set of any size",
    "certificates": "certificates for a cluster that speaks TLS",
    "benchmark": "the whole job, or the estimators alone, beside their peers",
}


def usage() -> str:
    """Return the help text."""
    lines = [f"  {name:<12} {what}" for name, what in JOBS.items()]
    return "\n".join(
        [
            "usage: segmentation JOB [options]",
            "",
            "jobs:",
            *lines,
            "",
            "segmentation JOB --help shows a job's options.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Hand the arguments to the job they name; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from segmentation import __version__

        print(f"segmentation {__version__}")
        return 0
    name, *rest = arguments
    if name not in JOBS:
        print(f"error: no job {name!r}: choose from {', '.join(JOBS)}", file=sys.stderr)
        return 2
    try:
        module = importlib.import_module(f"jobs.{name.replace('-', '_')}")
        return int(module.main(rest))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
