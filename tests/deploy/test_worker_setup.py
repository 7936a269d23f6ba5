"""What runs on workers that lack the package: plugins by value, the package unpacked, log lines."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import dask
import pytest
from distributed import Client
from distributed.protocol import pickle as dask_pickle

from segmentation.deploy import admission, package_upload, worker_setup

_REQUIREMENTS = admission.Requirements((), "", {}, 1, frozenset())
_PACKAGE = package_upload.build_archive()

#: Reads a plugin from a file in an interpreter that can't import the package.
_LOAD = """
import logging, pickle, sys, types
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "segmentation":
            raise ModuleNotFoundError(name)
blocked = Blocked()
sys.meta_path[:] = [blocked, *(f for f in sys.meta_path if "editable" not in repr(f))]
with open(sys.argv[1], "rb") as file:
    plugin = pickle.load(file)
assert not any(name.split(".")[0] == "segmentation" for name in sys.modules)
sys.meta_path.remove(blocked)
"""


def run_without_package(plugin: object, code: str, folder: Path, **environment: str) -> str:
    """Load a plugin as a worker without the package does, and run code there."""
    (folder / "plugin").write_bytes(dask_pickle.dumps(plugin))
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", _LOAD + code, str(folder / "plugin")],
        cwd=folder,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class FakeClient(Client):
    """A client that keeps plugins in place of registering them."""

    def __init__(self) -> None:
        self.plugins: list[object] = []

    def register_plugin(self, plugin: object, name: str) -> None:
        self.plugins.append(plugin)

    def __del__(self) -> None:
        """Nothing was opened."""


@pytest.mark.parametrize(
    "plugin",
    [
        worker_setup.WorkerSetup(*_PACKAGE),
        worker_setup.SchedulerSetup(*_PACKAGE, "name", "client"),
        admission.WorkerAdmission("topic", _REQUIREMENTS),
    ],
    ids=lambda plugin: type(plugin).__name__,
)
def test_plugins_load_where_the_package_is_missing(plugin: object, tmp_path: Path) -> None:
    package_upload.register_by_value(FakeClient(), plugin, "name")
    output = run_without_package(plugin, "print(type(plugin).__name__)", tmp_path)
    assert output.strip() == type(plugin).__name__


_SET_UP = """
plugin.setup(types.SimpleNamespace(local_directory=sys.argv[1] + "-scratch"))
import segmentation.errors
print(segmentation.__file__)
logger, model = logging.getLogger("segmentation"), logging.getLogger("distributed")
assert (logger.level, logger.handlers) == (model.level, model.handlers)
assert logger.handlers
"""


@pytest.mark.parametrize("damage", ["none", "changed", "deleted", "read-only cache"])
def test_a_worker_unpacks_the_package_and_repairs_it(tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    folder = cache / "segmentation" / "uploaded" / _PACKAGE.digest[:32] / "segmentation"
    if damage == "read-only cache":
        # A file where the cache folder should be refuses root as well.
        cache.write_text("")
        folder = Path(str(folder).replace(str(cache), str(tmp_path / "plugin-scratch")))
    plugin = worker_setup.WorkerSetup(*_PACKAGE)
    package_upload.register_by_value(FakeClient(), plugin, "name")
    for attempt in range(2):
        output = run_without_package(plugin, _SET_UP, tmp_path, XDG_CACHE_HOME=str(cache))
        assert output.strip() == str(folder / "__init__.py")
        original = Path(worker_setup.__file__).parents[1] / "errors.py"
        assert (folder / "errors.py").read_bytes() == original.read_bytes()
        if attempt == 0 and damage == "changed":
            (folder / "errors.py").write_text("x = 1\n")
        elif attempt == 0 and damage == "deleted":
            (folder / "errors.py").unlink()
    # Nothing half-unpacked is left.
    assert [path.name for path in folder.parents[1].iterdir()] == [folder.parent.name]


_CONFLICT = """
import asyncio
class Other:
    client, digest = "first", "0" * 64
scheduler = types.SimpleNamespace(
    plugins={"segmentation-package-first": Other()}, clients={"first": None}, local_directory="."
)
try:
    asyncio.run(plugin.start(scheduler))
except Exception as error:
    from distributed.protocol.pickle import dumps
    with open("error", "wb") as file:
        file.write(dumps(error))
"""


def test_a_conflict_comes_back_as_the_jobs_own_exception(tmp_path: Path) -> None:
    """A scheduler that lacks the package sends an exception which the job can catch by type."""
    plugin = worker_setup.SchedulerSetup(*_PACKAGE, "name", "second")
    package_upload.register_by_value(FakeClient(), plugin, "name")
    run_without_package(plugin, _CONFLICT, tmp_path)
    error = pickle.loads((tmp_path / "error").read_bytes())
    assert isinstance(error, worker_setup.VersionConflictError)
    assert "is in use by a running job (first); wait until it ends" in str(error)


@pytest.fixture
def loggers(monkeypatch: pytest.MonkeyPatch) -> tuple[logging.Logger, logging.Logger]:
    """Loggers of their own in place of the two real ones, whose state other tests share."""
    pair = {name: logging.Logger(name) for name in ("segmentation", "distributed")}
    stub = types.SimpleNamespace(getLogger=pair.__getitem__)
    monkeypatch.setattr(worker_setup, "logging", stub)
    return pair["segmentation"], pair["distributed"]


def test_the_packages_logger_writes_where_dasks_does(
    loggers: tuple[logging.Logger, logging.Logger],
) -> None:
    logger, model = loggers
    handler = logging.NullHandler()
    model.setLevel(logging.INFO)
    model.addHandler(handler)
    model.propagate = False
    worker_setup.configure_logging()
    assert (logger.level, logger.handlers, logger.propagate) == (logging.INFO, [handler], False)


def test_a_later_job_changes_the_level(loggers: tuple[logging.Logger, logging.Logger]) -> None:
    logger, model = loggers
    for level in (logging.INFO, logging.CRITICAL):
        model.setLevel(level)
        worker_setup.configure_logging()
        assert logger.level == level


@pytest.mark.parametrize("own", ["old style", "new style", "handler"])
def test_a_logger_that_is_configured_stays_as_it_is(
    loggers: tuple[logging.Logger, logging.Logger], own: str
) -> None:
    logger, model = loggers
    logger.setLevel(logging.DEBUG)
    model.addHandler(logging.NullHandler())
    handlers = [logging.NullHandler()] if own == "handler" else []
    logger.handlers[:] = handlers
    configurations = {
        "old style": {"segmentation": "debug"},
        "new style": {"version": 1, "loggers": {"segmentation": {"level": "DEBUG"}}},
    }
    with dask.config.set({"logging": configurations.get(own, {})}):
        worker_setup.configure_logging()
    assert (logger.level, logger.handlers) == (logging.DEBUG, handlers)


def test_a_killed_jobs_plugins_go_with_its_client() -> None:
    plugin = worker_setup.SchedulerSetup(b"", "", "segmentation-package-me", "me")
    removed: list[str] = []
    scheduler = types.SimpleNamespace(
        plugins={"segmentation-package-me": plugin, "segmentation-package-you": object()},
        worker_plugins={"segmentation-package-me": b"", "segmentation-admission-me": b"", "x": b""},
        unregister_worker_plugin=None,
        loop=types.SimpleNamespace(add_callback=lambda f, comm, name: removed.append(name)),
    )
    plugin.remove_client(scheduler, "you")
    assert len(scheduler.plugins) == 2
    plugin.remove_client(scheduler, "me")
    assert list(scheduler.plugins) == ["segmentation-package-you"]
    assert removed == ["segmentation-package-me", "segmentation-admission-me"]
