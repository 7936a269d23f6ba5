"""Write a MovieLens-shaped data set of any size, with each user's planted segment beside it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs import entrypoint, options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def make_parser() -> argparse.ArgumentParser:
    """Return the job's options."""
    made = entrypoint.parser("synthesize", __doc__ or "")
    made.add_argument(
        "--rows",
        type=int,
        required=True,
        help="number of ratings; the real file has 26024289",
    )
    made.add_argument("--out", required=True, metavar="FOLDER", help="where to write it")
    options.add_seed(made)
    options.add_cluster(made)
    made.add_argument("--overwrite", action="store_true", help="replace a data set in --out")
    return made


def job(arguments: argparse.Namespace) -> None:
    """Write the data set as the options say."""
    from pathlib import Path

    from segmentation.errors import UsageError
    from segmentation.pipeline.settings import Settings, validate_synthetic_rows

    validate_synthetic_rows(arguments.rows, f"--rows {arguments.rows}")
    Settings(seed=arguments.seed)
    if not arguments.out.strip():
        raise UsageError("--out: is empty: name a folder")
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file: choose a folder for --out")
    # What a killed attempt left half-written is nobody's.
    rest = [p for p in out.iterdir() if p.suffix != ".partial"] if out.exists() else []
    if rest and not arguments.overwrite:
        raise UsageError(
            f"{out}: is not empty: add --overwrite to replace a data set there, or choose "
            "another --out"
        )
    from segmentation.datasets.synthetic import writer
    from segmentation.deploy.core import load_config, open_cluster
    from segmentation.progress import Progress

    if load_config(arguments.cluster)["kind"] not in ("threads", "local"):
        raise UsageError(
            f"--cluster {arguments.cluster}: data is made on this machine: take threads or local"
        )
    progress = Progress(sys.stderr, quiet=arguments.quiet)
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
    print(f"synthetic data: {out} (planted segments: {out / writer.PLANTED})")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
