"""README and docs are true: options, defaults, outputs, paths and links match the program."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from jobs import cli, entrypoint, options
from segmentation.errors import ClusterError, DataError
from segmentation.reporting import drift
from segmentation.schema import KAGGLE_GENRES
from segmentation.storage.databases import TABLES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
JOBS_PAGE = (ROOT / "docs" / "jobs.md").read_text("utf-8")
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def parser_of(job: str) -> argparse.ArgumentParser:
    return importlib.import_module(f"jobs.{job.replace('-', '_')}").make_parser()


def options_of(job: str) -> dict[str, argparse.Action]:
    return {
        option: action
        for action in parser_of(job)._actions
        for option in action.option_strings
        if len(option) > 2 and option != "--help"
    }


def section(title: str) -> str:
    """The text of one second-level section of docs/jobs.md."""
    return re.split(rf"(?m)^## {re.escape(title)}\n", JOBS_PAGE)[1].split("\n## ")[0]


def option_rows(text: str) -> list[list[str]]:
    """The cells of each table row that begins with an option."""
    lines = re.findall(r"(?m)^\| `--.*\|$", text)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def documented_options(job: str) -> dict[str, str]:
    """Option → default, from the shared table and the job's own section."""
    rows = [
        row[:3]
        for row in option_rows(section("Shared options"))
        if row[3] == "all" or job in row[3].split(", ")
    ] + option_rows(section(f"`{job}`"))
    own = {row[0] for row in option_rows(section(f"`{job}`"))}
    assert len(rows) == len({row[0] for row in rows}), f"{job}: an option is documented twice"
    assert all(row[1] for row in rows)
    assert own <= {f"`{option}`" for option in options_of(job)}
    return {name.strip("`"): default.strip("`") for name, _, default in rows}


def defaults_outside_the_parser() -> dict[str, str]:
    """Defaults that follow from the settings or the machine; the parser has None."""
    from segmentation.datasets.partitions import PARTITION_BYTES
    from segmentation.deploy.memory_budget import DEFAULT_SHARE
    from segmentation.pipeline.settings import Settings

    assert DEFAULT_SHARE == 0.5
    return {
        "--ratings": "the layout's",
        "--out": "runs/<date-time>",
        "--join": Settings().effective_join,
        "--k-range": "{}-{}".format(*Settings().k_range),
        "--partition-size": f"{PARTITION_BYTES >> 20}MiB",
        "--memory-limit": "half of the machine's or its cgroup's",
        "--playbook": "the project's",
        **dict.fromkeys(
            ("--separator", "--decimal", "--encoding", "--category-separator"), "recognized"
        ),
        "--scale": "the layout's, 0.5:5",
        "--catalogue": "the layout's",
        "--top-categories": "all",
        "--peers": "all installed",
        "--copies": "1,10",
    }


def test_the_thresholds_of_drift_are_the_programs() -> None:
    rows = re.findall(r"(?m)^\| (.+) \| ([\d.]+) \| ([\d.]+) \| (.+) \|$", section("`score`"))
    documented = [(float(watch), float(refit)) for _, watch, refit, _ in rows]
    expected = [limits[:2] for name, limits in drift._THRESHOLDS.items() if name != "agreement"]
    assert documented == expected
    watch, refit, _ = drift._THRESHOLDS["agreement"]
    assert f"watch at {watch:g} or lower, refit at {refit:g}" in section("`refresh`")


def test_the_queries_of_the_docs_run() -> None:
    connection = sqlite3.connect(":memory:")
    for table, columns in TABLES.items():
        named = ", ".join(f"{name} {kind.format(id_type='BIGINT')}" for name, kind in columns)
        connection.execute(f"CREATE TABLE {table} ({named})")
    for run, first in (("2026-02", 0), ("2026-03", 1)):
        connection.execute(f"INSERT INTO runs VALUES ('{run}', '', '', '', '', 4, 4)")
        connection.execute(f"INSERT INTO segments VALUES ('{run}', 0, 'Quiet', 1, 1)")
        users = [(run, user, first if user == 1 else 0, 0, 0, 0, user == 3) for user in range(4)]
        connection.executemany("INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?)", users)
    block = re.search(r"(?s)```sql\n(.*?)```", section("`export`"))
    assert block
    answers = [connection.execute(query).fetchall() for query in block[1].split(";")[:3]]
    connection.close()
    assert answers == [
        [(1, 1)],
        [(0, 0, 3), (0, 1, 1)],
        [("2026-02", "Quiet", 0.25), ("2026-03", "Quiet", 0.25)],
    ]


def shown_default(job: str, option: str, action: argparse.Action) -> str:
    own = ("--preset", "--join", "--playbook")
    if job in ("score", "refresh") and option in own:
        return "the run's"
    if job == "export" and option == "--out":
        return "–"
    if action.required:
        return "required"
    if action.default is False:
        return "off"
    if action.default in (None, [], ""):
        return defaults_outside_the_parser().get(option, "–")
    return f"{action.default:g}" if isinstance(action.default, float) else str(action.default)


@pytest.mark.parametrize("job", sorted(cli.JOBS))
def test_each_job_documents_exactly_its_options(job: str) -> None:
    assert documented_options(job).keys() == options_of(job).keys()


@pytest.mark.parametrize("job", sorted(cli.JOBS))
def test_each_default_is_the_parsers(job: str) -> None:
    actions = options_of(job)
    for option, default in documented_options(job).items():
        assert default == shown_default(job, option, actions[option]), option


def test_shared_options_name_real_jobs() -> None:
    for row in option_rows(section("Shared options")):
        assert row[3] == "all" or set(row[3].split(", ")) <= set(cli.JOBS), row


def test_the_size_of_synthetic_data_is_the_programs() -> None:
    from segmentation.pipeline.settings import SYNTHETIC_ROWS

    meanings = {row[0]: row[1] for row in option_rows(section("Shared options"))}
    assert f"`synthetic` ({SYNTHETIC_ROWS:,} ratings)" in meanings["`--data`"]


@pytest.mark.parametrize("text", [README, JOBS_PAGE], ids=["README.md", "jobs.md"])
def test_no_option_is_mentioned_that_does_not_exist(text: str) -> None:
    known = set().union(*(options_of(job) for job in cli.JOBS))
    # pip's own, in the README, and what every parser has.
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--no-deps", "--help"}
    assert mentioned <= known


def test_every_exit_status_is_documented() -> None:
    statuses = re.findall(r"(?m)^\| (\d+) \|", section("Exit status"))
    assert list(map(int, statuses)) == sorted(
        {
            0,
            entrypoint.DEFECT,
            entrypoint.WRONG_USAGE,
            DataError.exit_status,
            ClusterError.exit_status,
            options.DRIFTED,
            entrypoint.INTERRUPTED,
            entrypoint.TERMINATED,
        }
    )


def shown_outputs() -> list[tuple[str, str]]:
    """Each command whose console block goes on with its output, and that output."""
    captured = []
    for page in (README, JOBS_PAGE):
        for block in re.findall(r"```console\n(.*?)```", page, re.S):
            match = re.search(r"(?m)^\$ ([^\n]*)\n(?!\$)(.+)\Z", block, re.S)
            if match:
                captured.append((match[1], match[2]))
    return captured


@pytest.mark.parametrize(
    ("command", "output"), shown_outputs(), ids=[command for command, _ in shown_outputs()]
)
def test_the_output_shown_is_the_output(command: str, output: str, tmp_path: Path, capsys) -> None:
    # `make run` runs the job without arguments: see the Makefile.
    words = shlex.split(command.replace("make run", "segmentation segment"))
    assert words[0] == "segmentation"
    assert cli.main([*words[1:], "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert output in capsys.readouterr().out
    for path in (tmp_path / "out").iterdir():
        assert is_described(path.name, is_folder=path.is_dir()), path.name
    if (tmp_path / "out" / "assignments.parquet").exists():
        columns = pd.read_parquet(tmp_path / "out" / "assignments.parquet").columns
        for column in set(columns) - set(KAGGLE_GENRES):
            assert f"`{column}`" in section("The run's folder"), column


def is_described(name: str, *, is_folder: bool) -> bool:
    """Whether the table of the run's folder names a file, or a folder with a slash."""
    text = section("The run's folder")
    # A Parquet data set is a folder of parts and named like a file.
    return f"`{name}`" in text or (is_folder and f"`{name}/`" in text)


def test_both_outputs_are_shown() -> None:
    jobs = [command for command, _ in shown_outputs()]
    assert len(jobs) == 2
    assert jobs[0] == "make run"
    assert jobs[1].startswith("segmentation choose-k")


def test_the_run_folder_is_described() -> None:
    from segmentation.pipeline.context import RESULT_FILES
    from segmentation.storage.run_folder import MANIFEST

    for name in (MANIFEST, *RESULT_FILES):
        top, slash, _ = name.partition("/")
        assert is_described(top, is_folder=bool(slash)), name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", path.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        page = path.parent / target if target else path
        assert page.exists(), target
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", page.read_text("utf-8"))
            slugs = {re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings}
            assert anchor in slugs, f"{target}#{anchor}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_paths_that_are_named_exist(path: Path) -> None:
    pattern = r"`((?:segmentation|tests|docs|cluster_config|jobs)/[\w./]+)`"
    for name in re.findall(pattern, path.read_text("utf-8")):
        assert (ROOT / name).exists(), name


def test_the_python_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    smaller = code.replace("1_000_000", "10_000").replace("100_000", "3_000")
    assert smaller != code
    scope: dict[str, object] = {}
    exec(smaller, scope)
    assert scope["model"].labels_.shape == (10_000,)
    assert scope["plane"].angle_to_exact_degrees_ < 1e-6
