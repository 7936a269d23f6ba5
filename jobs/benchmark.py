"""Time the estimators beside their peers, in one run, on the user features of one data set."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from jobs import common, options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def make_parser() -> argparse.ArgumentParser:
    """Return the job's options."""
    made = common.parser("benchmark", __doc__ or "")
    options.add_data(made)
    options.add_seed(made)
    made.add_argument(
        "--rounds", type=int, default=5, metavar="N",
        help="fits of each; the median counts (default: 5)",
    )  # fmt: skip
    made.add_argument(
        "--copies", default="1,10", metavar="N,N",
        help="matrix sizes, as multiples of the audience (default: 1,10)",
    )  # fmt: skip
    made.add_argument(
        "--peers", metavar="NAME,NAME",
        help="whom to time (default: everyone whose library is installed)",
    )  # fmt: skip
    made.add_argument("--overwrite", action="store_true", help="replace a benchmark in --out")
    return made


def job(arguments: argparse.Namespace) -> None:
    """Run the job as the options say."""
    from pathlib import Path

    from segmentation.benchmark import contestants, suite
    from segmentation.errors import UsageError
    from segmentation.run import files, store
    from segmentation.run.failures import explained
    from segmentation.run.progress import Progress
    from segmentation.run.settings import Settings

    settings = Settings(
        data=arguments.data, ratings=arguments.ratings, preset=arguments.preset,
        join=arguments.join, seed=arguments.seed,
    )  # fmt: skip
    if not 1 <= arguments.rounds <= 1_000:
        raise UsageError(f"--rounds {arguments.rounds}: from 1 to 1000")
    copies = _numbers(arguments.copies)
    names = list(contestants.ALL)
    if arguments.peers is not None:
        names = list(dict.fromkeys(name.strip() for name in arguments.peers.split(",")))
        for name in names:
            if name not in contestants.ALL:
                raise UsageError(f"--peers {name}: choose from {', '.join(contestants.ALL)}")
    out = Path(options.run_folder(arguments))
    place, words = out / "benchmark.json", out / "benchmark.md"
    if (found := store.existing_run(out)) is not None:
        raise UsageError(f"{out}: holds {found} of another job: choose another --out")
    if place.exists() and not arguments.overwrite:
        raise UsageError(
            f"{out}: holds a benchmark already: add --overwrite, or choose another --out"
        )
    if words.exists() and not place.exists():
        raise UsageError(f"{words}: is there without a benchmark of ours: choose another --out")
    progress = Progress(sys.stderr, quiet=arguments.quiet)
    with explained(out):
        # Before hours of measuring, rather than after.
        made = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
        try:
            record = suite.run_estimators(settings, copies, arguments.rounds, names, progress)
        except BaseException:
            if made:
                with contextlib.suppress(OSError):
                    out.rmdir()
            raise
        text = suite.table(record)
        files.write_bytes(words, text.encode("utf-8"))
        files.write_json(place, record)
    print(text)
    print(f"written: {place}, {words}")


def _numbers(text: str) -> list[int]:
    from segmentation.errors import UsageError

    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(1 <= number <= 1_000 for number in found):
        raise UsageError(f"--copies {text}: give numbers from 1 to 1000, as in 1,10")
    return list(dict.fromkeys(found))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return common.run(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
