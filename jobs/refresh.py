"""Add new ratings to an earlier run, and fit its segments again under their numbers and names."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

from jobs import entrypoint, options
from jobs.segment import print_run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    parser = entrypoint.new_parser("refresh", __doc__ or "")
    parser.add_argument(
        "--from",
        dest="from_run",
        metavar="RUN",
        help="the folder of the earlier run; latest is the last by name of the finished runs next "
        "to --out",
    )
    options.add_later_run(parser)
    options.add_playbook(parser)
    return parser


def job(arguments: argparse.Namespace) -> int:
    """Run the job; print the segments and the verdict; return the exit status."""
    from segmentation.errors import UsageError
    from segmentation.pipeline import saved_run
    from segmentation.pipeline.settings import RefreshSettings

    if not arguments.from_run:
        raise UsageError("{from_run}: name the folder of the earlier run, or latest", "from_run")
    out = options.parse_out(arguments)
    path = arguments.from_run
    if path == saved_run.LATEST:
        path = saved_run.find_latest(out)
    saved = saved_run.open_saved_run(path, "from_run", *saved_run.REFRESHED_FILES)
    inherited = saved.inherit_settings(
        {**options.parse_new_data(arguments), "playbook": arguments.playbook},
        ("playbook", "min_ratings"),
    )
    settings = RefreshSettings(
        **inherited,
        k=len(saved.model.centers),
        from_run=str(saved.folder),
        from_sha256=saved.manifest_sha256,
    )
    from segmentation.pipeline.refresh import run_refresh

    run = run_refresh(
        saved,
        settings,
        out,
        options.parse_execution(arguments),
        entrypoint.make_progress(arguments),
    )
    print_run(run.segments)
    entrypoint.print_result()
    verdict = run.drift["verdict"]
    entrypoint.print_result(textwrap.fill(f"{verdict}: {run.drift['reason']}", 96))
    entrypoint.print_result(f"what has changed: {run.segments.folder}/drift.html")
    return options.drift_status(arguments.fail_on, verdict)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run_job(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
