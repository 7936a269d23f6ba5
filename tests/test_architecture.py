"""The house: one-way imports, nothing done at import, modules that can be read, no pickle."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    path
    for top in ("segmentation", "jobs", "cluster_config")
    for path in (ROOT / top).rglob("*.py")
)
#: room → the rooms of this project that it may import, beside itself.
ARROWS = {
    "schema": set(),
    "errors": set(),
    "datasets": {"schema", "errors"},
    "features": {"schema", "errors"},
    "estimators": {"schema", "errors"},
    "insight": {"schema", "errors"},
    "run": {"schema", "errors", "datasets", "features", "estimators", "insight"},
    "benchmark": {
        "schema",
        "errors",
        "datasets",
        "features",
        "estimators",
        "insight",
        "run",
        "package",
    },
    "jobs": {"schema", "errors", "run", "benchmark", "insight", "datasets.synthetic"},
    "cluster_config": set(),
    "package": {"estimators"},
}


def room_of(module: str) -> str:
    parts = module.split(".")
    if parts[0] in ("jobs", "cluster_config"):
        return parts[0]
    return parts[1] if len(parts) > 1 else "package"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Every module of this project that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            for alias in node.names:
                inner = ROOT.joinpath(*base.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").exists()
                found.add(f"{base}.{alias.name}" if is_module else base)
    return {
        name for name in found if name.split(".")[0] in ("segmentation", "jobs", "cluster_config")
    }


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_arrows_point_one_way(path: Path) -> None:
    room = room_of(name_of(path))
    for name in imports_of(path):
        target = room_of(name)
        inner = ".".join(name.split(".")[1:3])
        allowed = ARROWS[room]
        fine = target == room or target in allowed or inner in allowed
        # The version is the package's own.
        assert fine or name == "segmentation", f"{name_of(path)} imports {name}"


def test_the_arrows_hold_the_wings_apart() -> None:
    """The check itself can fail: a wing that imported its neighbour would be seen."""
    wings = {"datasets", "features", "estimators", "insight"}
    for wing in wings:
        assert not ARROWS[wing] & (wings | {"run", "jobs"})


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_can_be_read_in_one_sitting(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= 350, f"{lines} lines: part it by what belongs together"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_that_is_loaded_can_execute(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    names = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    } | {
        (node.module or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    }
    assert not names & {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
    calls = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"eval", "exec", "compile"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("yaml", "load"), ("np", "save")}


def test_importing_does_nothing(tmp_path: Path) -> None:
    """No file is read or written, no environment or clock looked at, and nothing heavy loaded."""
    code = """
import builtins, os, sys, time
before = set(sys.modules)
import segmentation, segmentation.errors
heavy = {"dask", "distributed", "numpy", "pandas", "sklearn", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
import importlib, pkgutil
names = [m.name for p in ("segmentation", "jobs") for m in pkgutil.walk_packages(
    importlib.import_module(p).__path__, p + ".")]
# What the libraries themselves do at import is theirs: load them first.
for name in names:
    importlib.import_module(name)
for name in names:
    sys.modules.pop(name)
class Watched(dict):
    pass
def refuse(*a, **k):
    raise AssertionError(f"done at import: {a}")
builtins.open = os.environ.get = os.getenv = time.time = time.monotonic = refuse
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30
    assert list(tmp_path.iterdir()) == []
