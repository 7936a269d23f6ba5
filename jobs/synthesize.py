"""Write a MovieLens-shaped data set of any size, with the planted segment of each user."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs import entrypoint, options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    parser = entrypoint.new_parser("synthesize", __doc__ or "")
    parser.add_argument(
        "--rows",
        type=int,
        required=True,
        help="number of ratings; the real file has 26024289",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where to write the files")
    options.add_seed(parser)
    options.add_cluster(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a data set in --out")
    return parser


def job(arguments: argparse.Namespace) -> None:
    """Write the data set; print its path and that of the planted segments."""
    from pathlib import Path

    from segmentation.datasets.synthetic import PLANTED, writer
    from segmentation.deploy.core import LOCAL_KINDS, load_config, open_cluster
    from segmentation.errors import UsageError
    from segmentation.pipeline.settings import Settings, validate_synthetic_rows

    validate_synthetic_rows(arguments.rows, "rows", arguments.rows)
    Settings(seed=arguments.seed)
    if not arguments.out.strip():
        raise UsageError("{out}: is empty: name a folder", "out")
    out = Path(arguments.out)
    writer.check_folder(out, overwrite=arguments.overwrite)
    if load_config(arguments.cluster)["kind"] not in LOCAL_KINDS:
        raise UsageError(
            "{cluster} {name} runs on other machines, and the data is written on this one: choose "
            "threads or local",
            "cluster",
            name=arguments.cluster,
        )
    progress = entrypoint.make_progress(arguments)
    with (
        open_cluster(arguments.cluster, debug=arguments.debug) as cluster,
        progress.stage("synthesize", "synthetic data") as stage,
    ):
        plan = writer.write_dataset(
            arguments.rows,
            arguments.seed,
            out,
            cluster.client,
            lambda done, total: stage.update(done, total, "rows"),
        )
        stage.note = f"{plan.rows:,} ratings by {plan.users:,} users"
    entrypoint.print_result(f"synthetic data: {out} (planted segments: {out / PLANTED})")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run_job(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
