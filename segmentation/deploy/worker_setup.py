"""Install the package on a scheduler and its workers with plugins that don't import it.

The plugins are pickled by value, because the processes that receive them may lack the package. So
this module imports nothing from the package before it is installed. The plugins are sent by
:func:`segmentation.deploy.package_upload.register_by_value`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import logging
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import dask
from distributed import SchedulerPlugin, WorkerPlugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Scheduler, Worker

#: Prefix of the names under which the plugins are registered.
PLUGIN_PREFIX = "segmentation-package-"
#: Suffixes of the files that workers need.
_SUFFIXES = (".py", ".toml", ".html", ".md")


class VersionConflictError(RuntimeError):
    """Another version of the package is in use on this scheduler or worker."""


def read_package_files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield relative path and content of each file that workers need, sorted by path."""
    for path in sorted(root.rglob("*")):
        if path.suffix in _SUFFIXES and "__pycache__" not in path.parts:
            yield path.relative_to(root).as_posix(), path.read_bytes()


def hash_package(root: Path) -> str:
    """Return the SHA-256 of the names and contents of a package's files, in hexadecimal."""
    digest = hashlib.sha256()
    for name, content in read_package_files(root):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def configure_logging() -> None:
    """Give the logger ``segmentation`` the level and the handlers of ``distributed``.

    A logger that Dask's configuration names (``logging: {segmentation: debug}``), or that has
    handlers that ``distributed`` lacks, is left unchanged.
    """
    from segmentation.redaction import redact_logs

    redact_logs(logging.getLogger("distributed"))
    configured = dask.config.get("logging", None) or {}
    if "segmentation" in configured or "segmentation" in configured.get("loggers", {}):
        return
    logger, dask_logger = logging.getLogger("segmentation"), logging.getLogger("distributed")
    if any(handler not in dask_logger.handlers for handler in logger.handlers):
        return
    logger.setLevel(dask_logger.level)
    logger.handlers[:] = dask_logger.handlers
    logger.propagate = dask_logger.propagate


def install_package(archive: bytes, digest: str, fallback: str) -> None:
    """Make this version of the package importable, unless it already is.

    Parameters
    ----------
    archive
        A zip file that holds the folder ``segmentation``.
    digest
        The :func:`hash_package` of that folder.
    fallback
        The folder to unpack into if the user's cache folder can't be written.

    Raises
    ------
    VersionConflictError
        If this process has imported a different version that was not uploaded by a job.
    """
    importlib.invalidate_caches()
    if _importable_digest() == digest:
        return
    _forget_uploaded_package()
    caches = [Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"), Path(fallback)]
    for cache in caches:
        folder = cache / "segmentation" / "uploaded" / digest[:32]
        try:
            if hash_package(folder / "segmentation") != digest:
                _unpack(archive, digest, folder)
            break
        except OSError:
            if cache is caches[-1]:
                raise
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def _importable_digest() -> str | None:
    try:
        spec = importlib.util.find_spec("segmentation")
    except (ImportError, ValueError):
        return None
    return hash_package(Path(spec.origin).parent) if spec and spec.origin else None


def _forget_uploaded_package() -> None:
    """Unload a version that an earlier job uploaded, and remove it from ``sys.path``."""
    uploads = f"{os.sep}segmentation{os.sep}uploaded{os.sep}"
    loaded = sys.modules.get("segmentation")
    if loaded is not None:
        if uploads not in str(loaded.__file__):
            raise VersionConflictError(
                f"another version of segmentation is installed ({loaded.__file__}); install the "
                "job's version there, or none, and restart that process"
            )
        for name in [n for n in sys.modules if n.split(".")[0] == "segmentation"]:
            del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if uploads not in entry + os.sep]


def _unpack(archive: bytes, digest: str, folder: Path) -> None:
    """Unpack next to ``folder`` and rename, so that no process imports an incomplete package."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as zip_file:
            zip_file.extractall(partial / "new")
        if folder.exists():
            # Its files are damaged or incomplete, for example after a cache cleanup.
            os.replace(folder, partial / "old")
        os.replace(partial / "new", folder)
    except OSError:
        # Another worker on this machine may have been faster.
        if hash_package(folder / "segmentation") != digest:
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class WorkerSetup(WorkerPlugin):  # type: ignore[misc]
    """Install the package on a worker, and give its logger the level and handlers of Dask's."""

    idempotent = False

    def __init__(self, archive: bytes, digest: str) -> None:
        self.archive = archive
        self.digest = digest

    def setup(self, worker: Worker) -> None:
        """Set the worker up; Dask calls this before the worker gets a task."""
        install_package(self.archive, self.digest, worker.local_directory)
        configure_logging()


class SchedulerSetup(SchedulerPlugin):  # type: ignore[misc]
    """Install the package on the scheduler, and clean up after a job that was killed.

    Parameters
    ----------
    archive, digest
        As :func:`install_package` takes them.
    name
        The name that this plugin is registered under.
    client
        The id of the job's client.
    """

    idempotent = False

    def __init__(self, archive: bytes, digest: str, name: str, client: str) -> None:
        self.archive = archive
        self.digest = digest
        self.name = name
        self.client = client

    async def start(self, scheduler: Scheduler) -> None:
        """Install the package; raise an error if a running job uses another version."""
        for name, plugin in scheduler.plugins.items():
            if (
                str(name).startswith(PLUGIN_PREFIX)
                and plugin.client in scheduler.clients
                # Another version's plugin may have other attributes.
                and getattr(plugin, "digest", None) != self.digest
            ):
                raise VersionConflictError(
                    "another version of segmentation is in use by a running job "
                    f"({plugin.client}); wait until it ends, or use the same version"
                )
        install_package(self.archive, self.digest, scheduler.local_directory)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Remove the job's plugins when its client is gone, because a killed job can't do so."""
        if client != self.client:
            return
        scheduler.plugins.pop(self.name, None)
        for name in [n for n in scheduler.worker_plugins if str(n).endswith(self.client)]:
            scheduler.loop.add_callback(scheduler.unregister_worker_plugin, None, name)
