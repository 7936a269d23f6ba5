"""Options that several jobs have, meaning the same in each, and what is made of them."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from segmentation.pipeline.settings import Execution

#: Fields whose option has another name.
_OPTION_NAMES = {"partition_bytes": "--partition-size"}


def option_names(fields: Iterable[str]) -> dict[str, str]:
    """Return the option of each field of the library's settings, for error messages."""
    return {field: _OPTION_NAMES.get(field, "--" + field.replace("_", "-")) for field in fields}


def add_data(made: argparse.ArgumentParser) -> None:
    """Add what is read and what is made of it."""
    add_source(made)
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


def add_source(made: argparse.ArgumentParser) -> None:
    """Add what is read, and where results go."""
    made.add_argument(
        "--data",
        default="synthetic",
        help="kaggle; synthetic or synthetic:ROWS; or a folder or URL in Kaggle's or GroupLens' "
        "layout (default: synthetic)",
    )
    made.add_argument(
        "--ratings",
        metavar="PLACE",
        help="other ratings for the same catalogue: a file, a folder of parts, or a pattern",
    )
    made.add_argument(
        "--out", metavar="FOLDER", help="the run's folder (default: runs/<date-time>)"
    )


def add_k_range(made: argparse.ArgumentParser, what: str) -> None:
    """Add the range that k is chosen from."""
    made.add_argument(
        "--k-range",
        type=_range,
        metavar="LOW-HIGH",
        help=f"{what} (default: 2-10)",
    )


def _range(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,4})-([0-9]{1,4})", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no range: give two numbers, as in 2-10")
    return int(found[1]), int(found[2])


def add_cluster(made: argparse.ArgumentParser) -> None:
    """Add the option that says where the work runs."""
    made.add_argument(
        "--cluster",
        default="threads",
        metavar="NAME",
        help="a file of cluster_config/ by its name, or the path of one (default: threads)",
    )


def add_standing(made: argparse.ArgumentParser) -> None:
    """Add the cluster that stands already, and what is seen of one from outside."""
    made.add_argument(
        "--address",
        metavar="URL",
        help="the scheduler of a cluster that stands already, tcp://HOST:PORT or tls://HOST:PORT",
    )
    made.add_argument(
        "--performance-report",
        metavar="FILE",
        help="where to write Dask's own report of tasks, workers and bandwidth, as HTML",
    )


def execution(arguments: argparse.Namespace) -> Execution:
    """Return how the options say that a job is run.

    Raises
    ------
    UsageError
        If a name is empty.
    """
    from segmentation.errors import UsageError
    from segmentation.pipeline.settings import Execution

    report = arguments.performance_report
    if report is not None and not report.strip():
        raise UsageError("--performance-report: is empty: name a file, or leave the option out")
    return Execution(
        arguments.cluster,
        arguments.address,
        arguments.resume,
        arguments.overwrite,
        report,
        arguments.debug,
    )


def add_seed(made: argparse.ArgumentParser) -> None:
    """Add the one source of randomness."""
    made.add_argument(
        "--seed", type=int, default=0, help="every random choice follows from it (default: 0)"
    )


def add_reading(made: argparse.ArgumentParser) -> None:
    """Add how ratings are read."""
    add_limits(made)
    made.add_argument(
        "--deduplicate",
        action="store_true",
        help="of a user's ratings of one movie keep the latest alone; the others are rejected "
        "rows then (shuffles ratings that are not sorted by user)",
    )


def add_limits(made: argparse.ArgumentParser) -> None:
    """Add how much of the ratings may be wrong, and how much a task reads."""
    made.add_argument(
        "--max-rejected",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="end the run if more than this share of the rows are no ratings (default: 0.01)",
    )
    made.add_argument(
        "--partition-size",
        metavar="SIZE",
        help="bytes of ratings that one task reads, as in 32MiB; results don't depend on it "
        "(default: 32MiB, less under a low --memory-limit)",
    )
    made.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="memory that the whole run may take, all its processes together, as in 2GiB; what "
        "doesn't fit waits on disk (default: half of what the machine or its cgroup has)",
    )


def add_again(made: argparse.ArgumentParser) -> None:
    """Add what becomes of an earlier run in the same folder."""
    again = made.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", help="go on from the finished stages of --out"
    )
    again.add_argument("--overwrite", action="store_true", help="start --out anew")


def run_folder(arguments: argparse.Namespace) -> str | Path:
    """Return the folder that the options name, or a new one.

    Raises
    ------
    UsageError
        If it is empty, or there is nothing to resume in a new one.
    """
    from segmentation.errors import UsageError

    if arguments.out is not None and not arguments.out.strip():
        raise UsageError("--out: is empty: name a folder, or leave the option out")
    if arguments.out is None and getattr(arguments, "resume", False):
        raise UsageError("--resume needs --out: name the folder of the run to go on with")
    if arguments.out is not None:
        return str(arguments.out)
    from segmentation.pipeline.context import default_out

    return default_out()


def data_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that come from the options above."""
    return {
        "data": arguments.data,
        "ratings": arguments.ratings,
        "preset": arguments.preset,
        "join": arguments.join,
        **({} if arguments.k_range is None else {"k_range": arguments.k_range}),
        "seed": arguments.seed,
        "max_rejected": arguments.max_rejected,
        "deduplicate": arguments.deduplicate,
        "partition_bytes": parse_size("--partition-size", arguments.partition_size),
        "memory_limit": parse_size("--memory-limit", arguments.memory_limit),
    }


def parse_size(option: str, text: str | None) -> int | None:
    """Return bytes from a size such as 32MiB; None for None."""
    if text is None:
        return None
    from dask.utils import parse_bytes

    from segmentation.errors import UsageError

    try:
        found = int(parse_bytes(text))
    except (ValueError, OverflowError):
        found = 0
    if found < 1:
        raise UsageError(f"{option} {text}: give bytes with a unit, as in 32MiB")
    return found


def say_synthetic(manifest: Mapping[str, Any]) -> None:
    """Tell where people were made up."""
    if manifest["data"]["synthetic"]:
        print("\nSynthetic data: these people were made up by a generator.")


def cost_line(manifest: Mapping[str, Any]) -> str:
    """Return time and peak memory in a line."""
    return f"{manifest['seconds']:.1f} s, {manifest['peak_memory_bytes'] / 1e6:,.0f} MB at the peak"
