"""The architecture: one-way imports, nothing done at import, nothing loaded that can execute."""

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
#: The modules that every room may import.
GROUND = {"schema", "errors", "tasks", "progress", "redaction"}
TRADES = {"datasets", "estimators", "storage", "features", "deploy", "reporting"}
#: room → the rooms that it may import besides itself; all of them come before it.
ARROWS = {
    "schema": set(),
    "redaction": set(),
    "errors": {"redaction"},
    "progress": {"errors", "redaction"},
    "tasks": set(),
    "cluster_config": set(),
    "datasets": GROUND,
    # Nothing but the ground, so that anyone can use it on any Dask array.
    "estimators": GROUND,
    "storage": GROUND,
    "features": GROUND | {"datasets", "storage"},
    # The fingerprint of the input, which each worker compares.
    "deploy": GROUND | {"datasets", "package"},
    "reporting": GROUND | {"storage"},
    "pipeline": GROUND
    | {"datasets", "estimators", "storage", "features", "deploy", "reporting", "package"},
    "benchmark": GROUND
    | {
        "datasets",
        "estimators",
        "storage",
        "features",
        "deploy",
        "reporting",
        "pipeline",
        "package",
    },
    "jobs": GROUND | TRADES - {"estimators", "features"} | {"benchmark", "pipeline", "package"},
    # The public API: `segmentation/__init__.py`.
    "package": {"estimators", "pipeline"},
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
    actual: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            actual |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            for alias in node.names:
                inner = ROOT.joinpath(*base.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").exists()
                actual.add(f"{base}.{alias.name}" if is_module else base)
    return {
        name for name in actual if name.split(".")[0] in ("segmentation", "jobs", "cluster_config")
    }


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    room = room_of(name_of(path))
    for name in imports_of(path):
        target = room_of(name)
        assert target == room or target in ARROWS[room], f"{name_of(path)} imports {name}"


def test_the_arrows_have_no_cycle() -> None:
    """A room may import only rooms that come before it in :data:`ARROWS`, and the package's API."""
    rooms = [room for room in ARROWS if room != "package"]
    for place, room in enumerate(rooms):
        assert ARROWS[room] - {"package"} <= set(rooms[:place]), room


def test_every_room_has_its_arrows() -> None:
    assert {room_of(name_of(path)) for path in MODULES} == set(ARROWS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_that_is_loaded_can_execute(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    imported: set[tuple[str, str]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {(node.module or "", alias.name) for alias in node.names}
    if room_of(name_of(path)) == "deploy":
        # It loads nothing: it marks modules whose classes go by value to workers without them.
        imported.discard(("cloudpickle", "register_pickle_by_value"))
    names = {name.split(".")[0] for pair in imported for name in pair}
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
