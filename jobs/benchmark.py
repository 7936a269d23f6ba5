"""Time the whole job, or the estimators alone, beside their peers, in one run, on one file."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from jobs import entrypoint, options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from segmentation.progress import Progress

    #: Measures, and returns what is to be written: file name → its bytes or what JSON makes of it.
    Measure = Callable[[], dict[str, Any]]


def make_parser() -> argparse.ArgumentParser:
    """Return the job's options."""
    made = entrypoint.parser("benchmark", __doc__ or "")
    options.add_data(made)
    options.add_seed(made)
    made.add_argument(
        "--rounds",
        type=int,
        default=5,
        metavar="N",
        help="runs or fits of each; the median counts (default: 5)",
    )
    made.add_argument(
        "--peers",
        metavar="NAME,NAME",
        help="whom to time (default: everyone whose library is installed)",
    )
    made.add_argument(
        "--sizes",
        metavar="ROWS,ROWS",
        help="the whole job on synthetic ratings of several sizes, in place of --data",
    )
    made.add_argument(
        "--estimators",
        action="store_true",
        help="time K-Means and PCA alone, on the user features of --data",
    )
    made.add_argument(
        "--copies",
        metavar="N,N",
        help="with --estimators: matrix sizes, as multiples of the audience (default: 1,10)",
    )
    made.add_argument(
        "--scaling",
        action="store_true",
        help="fit what a run costs to synthetic ratings of the --sizes but the last, and check it "
        "on that one",
    )
    made.add_argument("--overwrite", action="store_true", help="replace a benchmark in --out")
    return made


def job(arguments: argparse.Namespace) -> None:
    """Run the job as the options say."""
    from segmentation.errors import UsageError
    from segmentation.pipeline.error_messages import translate_errors
    from segmentation.progress import Progress
    from segmentation.storage import atomic

    if not 1 <= arguments.rounds <= 1_000:
        raise UsageError(f"--rounds {arguments.rounds}: from 1 to 1000")
    _refuse_mixed(arguments)
    progress = Progress(sys.stderr, quiet=arguments.quiet)
    if arguments.scaling:
        measure = _scaling(arguments, progress)
    else:
        measure = (_estimators if arguments.estimators else _whole_job)(arguments, progress)
    out = _folder(arguments)
    written = []
    with translate_errors(out), _made(out):
        for name, content in measure().items():
            if isinstance(content, bytes):
                atomic.write_bytes(out / name, content)
            else:
                atomic.write_json(out / name, content)
            written.append(str(out / name))
    print((out / "benchmark.md").read_text("utf-8"))
    print(f"written: {', '.join(written)}")


def _whole_job(arguments: argparse.Namespace, progress: Progress) -> Measure:
    from segmentation.benchmark import job_report, job_runner
    from segmentation.pipeline.settings import Settings

    named = [Settings(data=arguments.data, seed=arguments.seed).data]
    if arguments.sizes is not None:
        rows = _numbers("--sizes", arguments.sizes, 1_000, 10**10)
        named = [f"synthetic:{number}" for number in rows]
    names = _names(arguments.peers, job_runner.NAMES)

    def measure() -> dict[str, Any]:
        record = job_report.run_whole(named, arguments.seed, arguments.rounds, names, progress)
        return {
            "benchmark.md": job_report.table(record).encode("utf-8"),
            "benchmark.png": job_report.figure(record),
            "benchmark.json": record,
        }

    return measure


def _scaling(arguments: argparse.Namespace, progress: Progress) -> Measure:
    from segmentation.benchmark import cost_model

    sizes = _numbers("--sizes", arguments.sizes or "2600000,26024289,104097156", 1_000, 10**10)
    if len(sizes) < 3:
        raise _usage("--scaling needs three --sizes at least: the last checks what is fitted")

    def measure() -> dict[str, Any]:
        record = cost_model.measure(
            sizes[:-1], sizes[-1], arguments.rounds, arguments.seed, progress
        )
        return {"benchmark.md": cost_model.table(record).encode("utf-8"), "benchmark.json": record}

    return measure


def _usage(message: str) -> Exception:
    from segmentation.errors import UsageError

    return UsageError(message)


def _estimators(arguments: argparse.Namespace, progress: Progress) -> Measure:
    from segmentation.benchmark import estimator_peers, estimator_report
    from segmentation.pipeline.settings import Settings

    settings = Settings(
        data=arguments.data,
        ratings=arguments.ratings,
        preset=arguments.preset,
        join=arguments.join,
        seed=arguments.seed,
    )
    copies = _numbers("--copies", arguments.copies or "1,10", 1, 1_000)
    names = _names(arguments.peers, tuple(estimator_peers.ALL))

    def measure() -> dict[str, Any]:
        record = estimator_report.run_estimators(
            settings, copies, arguments.rounds, names, progress
        )
        return {
            "benchmark.md": estimator_report.table(record).encode("utf-8"),
            "benchmark.json": record,
        }

    return measure


def _folder(arguments: argparse.Namespace) -> Path:
    """Return where the figures go, which may hold nothing of anybody else's."""
    from pathlib import Path

    from segmentation.errors import UsageError
    from segmentation.storage import run_folder

    out = Path(options.run_folder(arguments))
    place = out / "benchmark.json"
    if (found := run_folder.find_run(out)) is not None:
        raise UsageError(f"{out}: holds {found} of another job: choose another --out")
    if place.exists() and not arguments.overwrite:
        raise UsageError(
            f"{out}: holds a benchmark already: add --overwrite, or choose another --out"
        )
    for other in (out / "benchmark.md", out / "benchmark.png"):
        if other.exists() and not place.exists():
            raise UsageError(f"{other}: is there without a benchmark of ours: choose another --out")
    return out


@contextlib.contextmanager
def _made(out: Path) -> Iterator[None]:
    """Make a folder before hours of measuring, not after; leave none without figures."""
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


def _names(peers: str | None, known: Sequence[str]) -> list[str]:
    from segmentation.errors import UsageError

    if peers is None:
        return list(known)
    names = list(dict.fromkeys(name.strip() for name in peers.split(",")))
    for name in names:
        if name not in known:
            raise UsageError(f"--peers {name}: choose from {', '.join(known)}")
    return names


def _refuse_mixed(arguments: argparse.Namespace) -> None:
    """Refuse options of the one benchmark that were given to the other."""
    from segmentation.errors import UsageError

    if arguments.scaling and (arguments.estimators or arguments.peers is not None):
        raise UsageError("--scaling times this program alone: leave out --estimators and --peers")
    if arguments.sizes is not None and arguments.data != "synthetic":
        raise UsageError("--sizes makes its own data: leave out --data or --sizes")
    if arguments.estimators:
        if arguments.sizes is not None:
            raise UsageError("--sizes is of the whole job: leave out --estimators or --sizes")
        return
    if arguments.copies is not None:
        raise UsageError("--copies needs --estimators: add it, or leave --copies out")
    for option, given in (
        ("--ratings", arguments.ratings is not None),
        ("--preset", arguments.preset != "engagement"),
        ("--join", arguments.join is not None),
    ):
        if given:
            raise UsageError(
                f"{option} needs --estimators: the peers' whole job reads ratings.csv, through "
                "links, for engagement"
            )


def _numbers(option: str, text: str, low: int, high: int) -> list[int]:
    from segmentation.errors import UsageError

    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(low <= number <= high for number in found):
        raise UsageError(
            f"{option} {text}: give numbers from {low} to {high}, as in {low},{10 * low}"
        )
    return list(dict.fromkeys(found))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit status."""
    return entrypoint.run(make_parser(), job, argv)


if __name__ == "__main__":
    sys.exit(main())
