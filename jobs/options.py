"""Options that several jobs share, and their conversion to the library's settings."""

from __future__ import annotations

import argparse
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from segmentation.pipeline.manifest import RunManifest
    from segmentation.pipeline.settings import Execution

_PRESETS = ("engagement", "taste", "original")
#: The exit status where drift is beyond what --fail-on allows.
DRIFTED = 5
#: Field → its option, where the names differ.
_OPTION_NAMES = {
    "partition_bytes": "--partition-size",
    "has_header": "--no-header",
    "from_run": "--from",
}


def option_names(fields: Iterable[str]) -> dict[str, str]:
    """Map fields of the library's settings to their options, for error messages."""
    return {field: _OPTION_NAMES.get(field, "--" + field.replace("_", "-")) for field in fields}


def read_config(path: str) -> list[str]:
    """Return the options in a TOML file as arguments.

    Keys are the options without the first hyphens, with hyphens or underscores. A list stands for
    values with commas between them, a table for pairs such as ``user=id``.

    Raises
    ------
    UsageError
        If the file can't be read, or holds a value that no option has.
    """
    import tomllib

    from segmentation.errors import UsageError

    try:
        values = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            "{config} {path}: can't be read as TOML: {reason}", "config", path=path, reason=reason
        ) from error
    arguments = []
    for key, value in values.items():
        option = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            arguments += [option] if value else []
        else:
            arguments.append(f"{option}={_format_value(path, key, value)}")
    return arguments


def _format_value(path: str, key: str, value: object) -> str:
    from segmentation.errors import UsageError

    if isinstance(value, (str, int, float)):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, (str, int, float)) for item in value):
        return ",".join(map(str, value))
    if isinstance(value, dict) and all(isinstance(item, (str, int)) for item in value.values()):
        return ",".join(f"{name}={item}" for name, item in value.items())
    raise UsageError(
        "{config} {path}: {key}: give a text, a number, true, a list or a table of texts",
        "config",
        path=path,
        key=key,
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options for the data, the output folder and the feature matrix."""
    add_source(parser)
    parser.add_argument(
        "--preset",
        default="engagement",
        choices=_PRESETS,
        help="what is clustered: means per category with 0 for none (engagement), deviations "
        "from the user's own mean (taste), or the original notebook's matrix (original) "
        "(default: engagement)",
    )
    parser.add_argument(
        "--join",
        choices=("links", "direct"),
        help="how a rating's movieId leads to the catalogue; direct reproduces the original's "
        "mistake (default: links)",
    )


def add_later_run(parser: argparse.ArgumentParser) -> None:
    """Add the options that the jobs share which go on from an earlier run."""
    _add_new_data(parser)
    add_cluster(parser)
    add_running_cluster(parser)
    add_reading(parser)
    _add_fail_on(parser)
    add_earlier_run(parser)


def _add_new_data(parser: argparse.ArgumentParser) -> None:
    """Add the options for data that are read as those of an earlier run were."""
    add_source(parser, default=None)
    parser.add_argument("--preset", choices=_PRESETS, help="that of the earlier run, or an error")
    parser.add_argument(
        "--join", choices=("links", "direct"), help="that of the earlier run, or an error"
    )


def parse_new_data(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that the user chose; what was left out is missing, or None.

    An option with its default counts as left out: the earlier run's holds then.
    """
    from segmentation.pipeline.settings import Settings

    chosen = {
        **parse_reading(arguments),
        "preset": arguments.preset,
        "join": arguments.join,
    }
    fixed = ("data", "ratings", "preset", "join")
    defaults = Settings.__dataclass_fields__
    return {
        field: value
        for field, value in chosen.items()
        if field in fixed or value != defaults[field].default
    }


def _add_fail_on(parser: argparse.ArgumentParser) -> None:
    """Add the option for the exit status on drift."""
    parser.add_argument(
        "--fail-on",
        choices=("watch", "refit"),
        help="end with status 5, after everything is written, if the verdict is this or worse",
    )


def drift_status(fail_on: str | None, verdict: str) -> int:
    """Return the exit status for a verdict."""
    from segmentation.reporting.drift import LEVELS

    return DRIFTED if fail_on and LEVELS.index(verdict) >= LEVELS.index(fail_on) else 0


def add_source(parser: argparse.ArgumentParser, default: str | None = "synthetic") -> None:
    """Add the options for the data and the output folder."""
    parser.add_argument(
        "--data",
        default=default,
        help="kaggle; synthetic or synthetic:ROWS; or a folder, zip archive or URL in Kaggle's or "
        f"GroupLens' layout (default: {default or 'the catalogue of the earlier run'})",
    )
    parser.add_argument(
        "--ratings",
        metavar="PLACE",
        help="other ratings for the same catalogue: a file, a folder of parts, or a pattern",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="the run's folder; {date} in it is today's (default: runs/<date-time>)",
    )


def add_form(parser: argparse.ArgumentParser) -> None:
    """Add the options for the form of one's own data."""
    group = parser.add_argument_group("the form of your own data")
    group.add_argument(
        "--columns",
        metavar="LIST",
        help="user=NAME,item=NAME[,rating=NAME][,time=NAME]; with --no-header, numbers from 1",
    )
    group.add_argument("--no-header", action="store_true", help="the first line is a rating")
    group.add_argument(
        "--separator", metavar="TEXT", help="what separates fields, as in ';' or tab"
    )
    group.add_argument("--decimal", choices=(".", ","), help="the decimal mark of ratings")
    group.add_argument("--encoding", metavar="NAME", help="as in latin-1 or utf-16")
    group.add_argument(
        "--scale", metavar="LOW:HIGH", help="the lowest and the highest rating, as in 1:10"
    )
    group.add_argument(
        "--unrated",
        metavar="LIST",
        help="ratings that stand for 'not rated', as in 0,-1; their rows are left out",
    )
    group.add_argument(
        "--ids",
        choices=("auto", "integer", "text"),
        default="auto",
        help="whether ids are numbers, or texts to keep as written (default: auto)",
    )
    group.add_argument(
        "--catalogue",
        metavar="FILE",
        help="your own table of items; --item and --category name its columns, or number them from "
        "1 if it has no header",
    )
    group.add_argument("--item", metavar="COLUMN", help="the column with the item's id")
    group.add_argument(
        "--category",
        metavar="COLUMN",
        help="the column with the item's categories, or with one per row; or several columns of "
        "flags, with commas between them",
    )
    group.add_argument(
        "--category-separator", metavar="TEXT", help="what separates categories, as in '|'"
    )
    group.add_argument(
        "--category-weight",
        metavar="COLUMN",
        help="the column of weights in a table with one row per item and category: those below a "
        "tenth of the item's largest don't count",
    )
    group.add_argument(
        "--top-categories",
        type=int,
        metavar="N",
        help="keep the N categories of the most items",
    )


def _parse_scale(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    from segmentation.errors import UsageError

    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise UsageError(
            "{scale} {value}: give the lowest and the highest rating, as in 1:10",
            "scale",
            value=text,
        ) from None


def _parse_unrated(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    from segmentation.errors import UsageError

    try:
        return tuple(float(value) for value in text.split(","))
    except ValueError:
        raise UsageError(
            "{unrated} {value}: give numbers with commas between them, as in 0,-1",
            "unrated",
            value=text,
        ) from None


def parse_form(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of :func:`add_form`.

    Raises
    ------
    UsageError
        If a value can't be read.
    """
    from segmentation.datasets.reading import parse_columns
    from segmentation.datasets.text_form import parse_encoding, parse_separator

    columns, separator, encoding = arguments.columns, arguments.separator, arguments.encoding
    return {
        "columns": None if columns is None else parse_columns(columns),
        "separator": None if separator is None else parse_separator(separator),
        "decimal": arguments.decimal,
        "encoding": None if encoding is None else parse_encoding(encoding),
        "has_header": not arguments.no_header,
        "scale": _parse_scale(arguments.scale),
        "unrated": _parse_unrated(arguments.unrated),
        "ids": arguments.ids,
        "catalogue": arguments.catalogue,
        "item": arguments.item,
        "category": arguments.category,
        "category_separator": arguments.category_separator,
        "category_weight": arguments.category_weight,
        "top_categories": arguments.top_categories,
    }


def add_k_range(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add the option for the range of k; its help starts with ``purpose``."""
    parser.add_argument(
        "--k-range", type=_parse_range, metavar="LOW-HIGH", help=f"{purpose} (default: 2-10)"
    )


def _parse_range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,4})-([0-9]{1,4})", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range: give two numbers, as in 2-10")
    return int(match[1]), int(match[2])


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add the option for the cluster configuration."""
    parser.add_argument(
        "--cluster",
        default="threads",
        metavar="NAME",
        help="the name of a file in cluster_config/, or a path to one (default: threads)",
    )


def add_running_cluster(parser: argparse.ArgumentParser) -> None:
    """Add the options for the address of a running cluster and for Dask's performance report."""
    parser.add_argument(
        "--address",
        metavar="URL",
        help="the scheduler of a running cluster, tcp://HOST:PORT or tls://HOST:PORT",
    )
    parser.add_argument(
        "--performance-report",
        metavar="FILE",
        help="where to write Dask's report of tasks, workers and bandwidth, as HTML",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the option for the seed of all random choices."""
    parser.add_argument(
        "--seed", type=int, default=0, help="every random choice follows from it (default: 0)"
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the options for reading ratings: the limits, deduplication, and users with few."""
    add_limits(parser)
    parser.add_argument(
        "--min-ratings",
        type=int,
        default=1,
        metavar="N",
        help="users with fewer ratings are assigned to segments, and don't shape them; score lists "
        "them without a segment (default: 1)",
    )
    parser.add_argument(
        "--implicit",
        action="store_true",
        help="the rows are no ratings but plays, visits or purchases: each counts one, or "
        "--columns names a column of counts as rating=NAME",
    )
    parser.add_argument(
        "--deduplicate",
        action="store_true",
        help="keep only the latest rating of each item by each user; the others are "
        "left out and listed (shuffles ratings that are not sorted by user)",
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the form of the data, and the limits on rejected rows, a task's bytes, and memory."""
    add_form(parser)
    parser.add_argument(
        "--max-rejected",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="fail if more than this share of the rows are not ratings (default: 0.01)",
    )
    parser.add_argument(
        "--partition-size",
        metavar="SIZE",
        help="bytes of ratings that one task reads, as in 32MiB; results do not depend on it "
        "(default: 32MiB, less under a low --memory-limit)",
    )
    parser.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="memory that the whole run may take, all its processes together, as in 2GiB; what "
        "does not fit is spilled to disk (default: half of what the machine or its cgroup has)",
    )


def add_playbook(parser: argparse.ArgumentParser) -> None:
    """Add the option for names and advice."""
    parser.add_argument(
        "--playbook",
        metavar="FILE",
        help="your own names and advice for segments, in the form of "
        "segmentation/reporting/playbook.toml",
    )


def add_earlier_run(parser: argparse.ArgumentParser) -> None:
    """Add the options that resume or overwrite an earlier run in the output folder."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--resume", action="store_true", help="continue from the finished stages of --out"
    )
    group.add_argument("--overwrite", action="store_true", help="replace the run in --out")


def parse_out(arguments: argparse.Namespace) -> Path:
    """Return the output folder: that of ``--out``, or by default a new one.

    ``{date}`` in its name is the date of today. The folder is also left in ``arguments.out``.

    Raises
    ------
    UsageError
        If ``--out`` is empty or a URL, or ``--resume`` is passed without it.
    """
    from segmentation.errors import UsageError
    from segmentation.storage.run_folder import check_is_local, default_out

    if arguments.out is None:
        if getattr(arguments, "resume", False):
            raise UsageError(
                "{resume} needs {out}: name the folder of the run to continue", "resume", "out"
            )
        arguments.out = str(default_out())
        return Path(arguments.out)
    check_is_local(arguments.out)
    if not arguments.out.strip():
        raise UsageError("{out}: is empty: name a folder, or leave the option out", "out")
    arguments.out = fill_date(arguments.out)
    return Path(arguments.out)


def fill_date(text: str) -> str:
    """Return a path with the date of today, as in 2026-01-31, in the place of ``{date}``."""
    return text.replace("{date}", date.today().isoformat())


def parse_execution(arguments: argparse.Namespace) -> Execution:
    """Return the execution settings: the cluster, what to do with an earlier run, and debugging.

    Raises
    ------
    UsageError
        If ``--performance-report`` is empty.
    """
    from segmentation.errors import UsageError
    from segmentation.pipeline.settings import Execution

    report = arguments.performance_report
    if report is not None and not report.strip():
        raise UsageError(
            "{performance_report}: is empty: name a file, or leave the option out",
            "performance_report",
        )
    return Execution(
        cluster=arguments.cluster,
        address=arguments.address,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        performance_report=report,
        debug=arguments.debug,
    )


def parse_source(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the options for the data, its form and the limits."""
    return {
        **parse_form(arguments),
        "data": arguments.data,
        "ratings": arguments.ratings and fill_date(arguments.ratings),
        "max_rejected": arguments.max_rejected,
        "partition_bytes": parse_size("partition_bytes", arguments.partition_size),
        "memory_limit": parse_size("memory_limit", arguments.memory_limit),
    }


def parse_reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a job that aggregates ratings."""
    return {
        **parse_source(arguments),
        "deduplicate": arguments.deduplicate,
        "implicit": arguments.implicit,
        "min_ratings": arguments.min_ratings,
    }


def parse_data(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a job that computes features: those of the data, features and k."""
    return {
        **parse_reading(arguments),
        "seed": arguments.seed,
        "preset": arguments.preset,
        "join": arguments.join,
        **({} if arguments.k_range is None else {"k_range": arguments.k_range}),
    }


def parse_size(field: str, text: str | None) -> int | None:
    """Convert a size such as 32MiB to bytes; return None for None.

    Raises
    ------
    UsageError
        If ``text`` is not a size, or is less than one byte.
    """
    if text is None:
        return None
    from segmentation.deploy.config import parse_memory
    from segmentation.errors import UsageError

    size = parse_memory(text)
    if size is None:
        raise UsageError(
            f"{{{field}}} {{value}}: give bytes with a unit, as in 32MiB", field, value=text
        )
    return size


def print_synthetic(manifest: RunManifest) -> None:
    """Print a notice if the data is synthetic."""
    if manifest.data["synthetic"]:
        print("\nSynthetic data: these people were made up by a generator.")


def format_rejected(rows: Mapping[str, int], folder: Path) -> str:
    """Format the number of rows that don't count, and the path of the file that has them."""
    counts = [f"{rows['rejected']:,} rejected"]
    counts += [f"{rows[name]:,} {name}" for name in ("superseded", "unrated") if rows.get(name)]
    is_listed = rows["rejected"] or rows.get("superseded")
    where = f" (see {folder}/rejected/ratings.csv)" if is_listed else ""
    return ", ".join(counts) + where


def format_cost(manifest: RunManifest) -> str:
    """Format the seconds and the peak memory of a run."""
    return f"{manifest.seconds:.1f} s, {manifest.peak_memory_bytes / 1e6:,.0f} MB at the peak"
