"""README and docs are true: options, outputs, paths and links are held to the program."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from jobs import cli, segment

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCS += sorted((ROOT / "docs").glob("*.md"))


def options_of(job: str) -> set[str]:
    parser = importlib.import_module(f"jobs.{job.replace('-', '_')}").make_parser()
    return {
        option for action in parser._actions for option in action.option_strings if len(option) > 2
    }


@pytest.mark.parametrize("job", sorted(cli.JOBS))
def test_every_option_of_every_job_is_documented(job: str) -> None:
    assert f"`{job}`" in README
    for option in options_of(job) - {"--help"}:
        assert f"`{option}`" in README, f"{job} {option}"


def test_no_option_is_documented_that_is_not_there() -> None:
    known = set().union(*(options_of(job) for job in cli.JOBS))
    done = README.split("## Not done yet")
    text = done[0] + done[1].split("\n## ", 1)[1]
    # pip's own, in the set-up.
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--no-deps"} <= known


def test_defaults_stand_as_they_are() -> None:
    from segmentation.datasets.partitions import PARTITION_BYTES
    from segmentation.deploy.memory_budget import DEFAULT_SHARE
    from segmentation.pipeline.settings import Settings

    parser = segment.make_parser()
    rows = dict(re.findall(r"(?m)^\| `(--[a-z-]+)` \| .* \| `?([^`|]+?)`? \|$", README))
    for option, shown in rows.items():
        if option in (
            "--ratings",
            "--out",
            "--playbook",
            "--partition-size",
            "--join",
            "--memory-limit",
            "--address",
            "--performance-report",
        ):
            continue
        value = parser.get_default(option.removeprefix("--").replace("-", "_"))
        default = "off" if value is False else str(value)
        if option == "--k-range":
            # It is no default of the parser's, which tells a range that was asked for.
            default = "{}-{}".format(*Settings().k_range)
        assert shown.split(" (")[0].strip("`") == default, option
    assert rows["--join"] == Settings().effective_join

    assert DEFAULT_SHARE == 0.5
    assert rows["--memory-limit"].startswith("half of")
    assert rows["--partition-size"] == f"{PARTITION_BYTES >> 20}MiB"


@pytest.mark.parametrize("job", ["segment", "choose-k"])
def test_the_output_shown_is_the_output(job: str, tmp_path: Path, capsys) -> None:
    mark = f"<!-- output of: segmentation {job} -->"
    block = re.search(mark + r"\n```\n(.*?)\n```", README, re.S)
    assert block
    assert cli.main([job, "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert block[1] in capsys.readouterr().out


def test_the_run_folder_is_described(tmp_path: Path) -> None:
    from segmentation.storage.run_folder import PRODUCTS

    for name in PRODUCTS:
        top = f"`{name.partition('/')[0]}"
        assert f"{top}/`" in README or f"{top}`" in README, name


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text("utf-8")):
        if not target.startswith("https://"):
            assert (path.parent / target).exists(), target


def test_paths_that_are_named_exist() -> None:
    for path in DOCS:
        for name in re.findall(
            r"`((?:segmentation|tests|docs|cluster_config|jobs)/[\w./]+)`", path.read_text("utf-8")
        ):
            assert (ROOT / name).exists(), f"{path.name}: {name}"


def test_the_python_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    smaller = code.replace("1_000_000", "10_000").replace("100_000", "3_000")
    assert smaller != code
    scope: dict[str, object] = {}
    exec(smaller, scope)
    assert scope["model"].labels_.shape == (10_000,)
    assert scope["plane"].angle_to_exact_degrees_ < 1e-6
