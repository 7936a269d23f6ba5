"""Ratings → user genre means → K-Means → incremental PCA → named segments and a report."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jobs import common

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def make_parser() -> argparse.ArgumentParser:
    """Return the job's options."""
    made = common.parser("segment", __doc__ or "")
    made.add_argument(
        "--data",
        default="synthetic",
        help="kaggle; synthetic or synthetic:ROWS; or a folder or URL in Kaggle's or GroupLens' "
        "layout (default: synthetic)",
    )
    made.add_argument(
        "--ratings", metavar="FILE", help="another ratings file for the same catalogue"
    )
    made.add_argument(
        "--out", metavar="FOLDER", help="the run's folder (default: runs/<date-time>)"
    )
    made.add_argument(
        "--k", type=int, default=5, metavar="K", help="number of segments (default: 5)"
    )
    made.add_argument(
        "--preset",
        default="engagement",
        choices=("engagement", "taste", "original"),
        help="what is clustered: genre means with 0 for unseen (engagement), deviations from the "
        "user's own mean (taste), or the original notebook's matrix (original) "
        "(default: engagement)",
    )
    made.add_argument(
        "--join",
        choices=("links", "direct"),
        help="how a rating's movieId leads to the catalogue; direct reproduces the original's "
        "mistake (default: links)",
    )
    common.add_cluster(made)
    common.add_seed(made)
    made.add_argument(
        "--max-rejected",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="end the run if more than this share of the rows are no ratings (default: 0.01)",
    )
    made.add_argument(
        "--playbook",
        metavar="FILE",
        help="your own names and advice for segments, in the form of "
        "segmentation/insight/playbook.toml",
    )
    made.add_argument(
        "--partition-size",
        metavar="SIZE",
        help="bytes of ratings that one task reads, as in 32MiB; results don't depend on it "
        "(default: 32MiB)",
    )
    again = made.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", help="go on from the finished stages of --out"
    )
    again.add_argument("--overwrite", action="store_true", help="start --out anew")
    return made


def job(arguments: argparse.Namespace) -> None:
    """Run the job as the options say."""
    from segmentation.errors import UsageError
    from segmentation.run.settings import Settings

    if arguments.out is not None and not arguments.out.strip():
        raise UsageError("--out: is empty: name a folder, or leave the option out")
    if arguments.resume and arguments.out is None:
        raise UsageError("--resume needs --out: name the folder of the run to go on with")
    settings = Settings(
        data=arguments.data,
        ratings=arguments.ratings,
        k=arguments.k,
        preset=arguments.preset,
        join=arguments.join,
        seed=arguments.seed,
        max_rejected=arguments.max_rejected,
        playbook=arguments.playbook,
        partition_bytes=common.parse_size("--partition-size", arguments.partition_size),
    )
    from segmentation.insight.report import segment_table
    from segmentation.run.progress import Progress
    from segmentation.run.segment import default_out, run_segment

    out = arguments.out or default_out()
    run = run_segment(
        settings,
        out,
        cluster=arguments.cluster,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        progress=Progress(sys.stderr, quiet=arguments.quiet),
        debug=arguments.debug,
    )
    manifest = run.manifest
    if manifest["data"]["synthetic"]:
        print("\nSynthetic data: these people were made up by a generator.")
    print()
    print(segment_table(run.profiles, run.personas, run.genres))
    rows = manifest["rows"]
    print(
        f"\n{_count(rows['used'], 'rating')} by {_count(manifest['users'], 'user')} of "
        f"{_count(manifest['movies'], 'movie')}; {rows['unmapped']:,} of other movies, "
        f"{rows['rejected']:,} rejected"
        + (f" (see {run.folder}/rejected/ratings.csv)" if rows["rejected"] else "")
    )
    print(f"{manifest['seconds']:.1f} s, {manifest['peak_memory_bytes'] / 1e6:,.0f} MB at the peak")
    print(f"report: {run.folder}/report.html")


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return common.run(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
