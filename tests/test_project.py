"""The project's own files: versions agree, the lock names no host, a wheel runs from anywhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.conftest import write_tiny

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TEXTS = sorted(
    path
    for path in (
        [p for p in ROOT.iterdir() if p.is_file()]
        + [
            p
            for top in ("segmentation", "jobs", "cluster_config", "tests", "docs", ".ci")
            for p in (ROOT / top).rglob("*")
            if p.is_file()
        ]
    )
    if path.suffix in {".py", ".md", ".toml", ".yml", ".yaml", ".html", ".lock", ".cfg", ""}
    and "__pycache__" not in path.parts
)


def requirement(text: str) -> tuple[str, str]:
    name, version = re.fullmatch(r"([A-Za-z0-9-]+)(?:\[.*\])?(.*)", text).groups()
    return name.lower(), version


def test_the_packages_that_were_asked_for_are_all_there() -> None:
    declared = {requirement(text)[0] for text in PROJECT["project"]["dependencies"]}
    assert {
        "dask",
        "dask-ml",
        "distributed",
        "scikit-learn",
        "numpy",
        "matplotlib",
        "kagglehub",
        "pyarrow",
    } <= declared
    assert "dask[dataframe]>=2026.8" in PROJECT["project"]["dependencies"]


def test_conda_environment_says_what_pyproject_says() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda, pip = {}, {}
    for entry in environment["dependencies"]:
        if isinstance(entry, dict):
            pip |= dict(requirement(text) for text in entry["pip"] if not text.startswith("-"))
        else:
            name, version = requirement(entry.replace(" ", ""))
            conda[name] = version
    names = {"matplotlib-base": "matplotlib"}
    found = {names.get(name, name): version for name, version in {**conda, **pip}.items()}
    assert found.pop("python") == PROJECT["project"]["requires-python"]
    found.pop("pip", None)
    wanted = dict(requirement(text) for text in PROJECT["project"]["dependencies"])
    wanted |= dict(requirement(t) for t in PROJECT["project"]["optional-dependencies"]["dashboard"])
    assert found == wanted


def test_lock_pins_everything_with_hashes_and_names_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "find-links" not in text
    entries = re.split(r"\n(?=[a-z0-9])", re.sub(r"(?m)^#.*\n", "", text))
    pinned = {}
    for entry in filter(str.strip, entries):
        match = re.match(r"([A-Za-z0-9._-]+)==(\S+)", entry)
        assert match, entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]
        pinned.setdefault(match[1].lower(), set()).add(match[2])
    for text in PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]:
        assert requirement(text)[0] in pinned, text


def test_no_host_of_a_registry_and_no_path_of_a_machine() -> None:
    # In halves, so that this file passes its own check.
    halves = [
        ("py", "pi.org"),
        ("files.python", "hosted"),
        ("registry.npm", "js"),
        ("conda.", "anaconda"),
        ("deb.", "debian"),
        ("/ro", "ot/"),
        ("/wo", "rk/"),
        ("/ho", "me/"),
    ]
    words = [one + other for one, other in halves]
    for path in TEXTS:
        text = path.read_text("utf-8", "replace")
        for word in words:
            assert word not in text, f"{path.relative_to(ROOT)} names {word}"


def test_version_stands_in_the_changelog() -> None:
    from segmentation import __version__

    assert PROJECT["project"]["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="make")
def test_make_lists_what_can_be_made() -> None:
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0
    for target in ("run", "test", "lint", "types", "lock"):
        assert re.search(rf"(?m)^{target} ", shown.stdout)


def test_make_names_the_remedy_where_python_is_missing(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        ["make", "-s", "run", "PYTHON="], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "error: no Python 3.11 or later with venv on the PATH" in done.stderr


def test_a_wheel_holds_all_and_runs_from_elsewhere(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in files:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--disable-pip-version-check",
            "--wheel-dir",
            str(tmp_path),
            str(source),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert not any(name.startswith("tests") for name in names)
    for name in (
        "segmentation/py.typed",
        "segmentation/reporting/playbook.toml",
        "segmentation/reporting/report.html",
        "cluster_config/local.yaml",
        "cluster_config/schema.yaml",
    ):
        assert name in names
    data = write_tiny(tmp_path / "data")
    # The wheel's own copy comes first on the path, and the checkout is far away.
    code = (
        "import sys; sys.path.insert(0, 'site')\n"
        "import segmentation, jobs.cli\n"
        "assert 'site' in segmentation.__file__.split('/'), segmentation.__file__\n"
        f"sys.exit(jobs.cli.main(['segment', '--data', {str(data)!r}, '--k', '2', '--out', 'out']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "complete"
