"""Time this program next to other libraries, on the same data.

It times the whole job or, with --estimators, K-Means and PCA alone. With --scaling it fits a cost
model of the job instead.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from jobs import entrypoint, options

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Option → the modes that read it, for options that only some modes read.
_MODES = {
    "sizes": ("job", "scaling"),
    "peers": ("job", "estimators"),
    "copies": ("estimators",),
    "ratings": ("estimators",),
    "preset": ("estimators",),
    "join": ("estimators",),
}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the job's options."""
    parser = entrypoint.new_parser("benchmark", __doc__ or "")
    options.add_data(parser)
    options.add_seed(parser)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--estimators",
        action="store_true",
        help="time K-Means and PCA alone, on the user features of --data",
    )
    mode.add_argument(
        "--scaling",
        action="store_true",
        help="fit a cost model to runs on synthetic data of every size in --sizes but the last, "
        "and compare its prediction with a run on the last",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        metavar="N",
        help="runs or fits of each; the median is reported (default: 5)",
    )
    parser.add_argument(
        "--peers",
        type=_parse_names,
        metavar="NAME,NAME",
        help="what to time, without --scaling: a wrong name lists the names that the mode has "
        "(default: all; those that are not installed are listed as such)",
    )
    parser.add_argument(
        "--sizes",
        type=_parse_numbers,
        metavar="ROWS,ROWS",
        help="without --estimators: use synthetic ratings of these sizes in place of --data",
    )
    parser.add_argument(
        "--copies",
        type=_parse_numbers,
        metavar="N,N",
        help="with --estimators: sizes of the matrix, as multiples of the number of users "
        "(default: 1,10)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a benchmark in --out")
    return parser


def _parse_names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _parse_numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of numbers: give them as in 1,10"
        ) from None


def job(arguments: argparse.Namespace) -> None:
    """Run the benchmark that the options choose; print its table and the paths of its files."""
    from segmentation import benchmark
    from segmentation.pipeline.settings import Settings

    _check_options(arguments)
    out = options.parse_out(arguments)
    progress = entrypoint.make_progress(arguments)
    shared = {"rounds": arguments.rounds, "overwrite": arguments.overwrite}
    if arguments.sizes is not None:
        shared["sizes"] = arguments.sizes
    if arguments.scaling:
        results = benchmark.benchmark_scaling(out, progress, seed=arguments.seed, **shared)
    elif arguments.estimators:
        settings = Settings(
            data=arguments.data,
            ratings=arguments.ratings,
            preset=arguments.preset,
            join=arguments.join,
            seed=arguments.seed,
        )
        if arguments.copies is not None:
            shared["copies"] = arguments.copies
        results = benchmark.benchmark_estimators(
            settings, out, progress, peers=arguments.peers, **shared
        )
    else:
        results = benchmark.benchmark_job(
            arguments.data, out, progress, seed=arguments.seed, peers=arguments.peers, **shared
        )
    entrypoint.print_result(results.table)
    entrypoint.print_result(f"written: {', '.join(str(path) for path in results.files)}")


def _check_options(arguments: argparse.Namespace) -> None:
    """Reject options that have no effect in the chosen mode.

    Raises
    ------
    UsageError
        If an option has no effect; the message names it and says what to do.
    """
    from segmentation.errors import UsageError

    parser = make_parser()
    mode = "scaling" if arguments.scaling else "estimators" if arguments.estimators else "job"
    for name, modes in _MODES.items():
        if mode in modes or getattr(arguments, name) == parser.get_default(name):
            continue
        if mode == "job":
            raise UsageError(f"--{name} needs --estimators: add it, or leave out --{name}")
        raise UsageError(f"--{name} has no effect with --{mode}: leave one of them out")
    if arguments.data != parser.get_default("data"):
        if mode == "scaling":
            raise UsageError("--data has no effect with --scaling: pass --sizes instead")
        if arguments.sizes is not None:
            raise UsageError("--sizes generates its own data: leave out --data or --sizes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run_job(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
