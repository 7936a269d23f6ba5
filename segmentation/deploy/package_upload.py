"""Send the package to a scheduler and workers that lack it, and to workers that join later."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

# Not for unpickling: this function marks modules whose classes are pickled by value.
from cloudpickle import register_pickle_by_value

from segmentation.deploy.worker_setup import (
    PLUGIN_PREFIX,
    SchedulerSetup,
    VersionConflictError,
    WorkerSetup,
    hash_package,
    read_package_files,
)
from segmentation.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client, SchedulerPlugin, WorkerPlugin

_ROOT = Path(__file__).parents[1]


class Package(NamedTuple):
    """The package's files as a zip archive, and the digest of their names and contents."""

    archive: bytes
    digest: str


def build_archive(root: Path = _ROOT) -> Package:
    """Pack the files of a package that workers need; the same files give the same bytes.

    Examples
    --------
    >>> build_archive().digest == build_archive().digest
    True
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in read_package_files(root):
            # ZipInfo's default date keeps the bytes independent of the time.
            archive.writestr(zipfile.ZipInfo(f"segmentation/{name}"), content)
    return Package(buffer.getvalue(), hash_package(root))


def register_by_value(client: Client, plugin: WorkerPlugin | SchedulerPlugin, name: str) -> None:
    """Register a plugin whose class the receivers may be unable to import.

    The plugin's module must not have module-level imports from this package.
    """
    register_pickle_by_value(sys.modules[type(plugin).__module__])
    client.register_plugin(plugin, name=name)


def upload_package(client: Client) -> None:
    """Make the package importable on the scheduler and on all workers, present and future.

    Each machine unpacks it into the user's cache folder, once per version, so that numba compiles
    once per machine. Processes that can import the same version already don't unpack it. A process
    can import only one version of a package, so jobs with different versions can't share a cluster
    at the same time.

    Raises
    ------
    ClusterError
        If the cluster uses another version, installed or uploaded by a running job.
    """
    name = _plugin_name(client)
    archive, digest = build_archive()
    try:
        register_by_value(client, SchedulerSetup(archive, digest, name, client.id), name)
        register_by_value(client, WorkerSetup(archive, digest), name)
    except VersionConflictError as error:
        raise ClusterError(f"{client.scheduler.address}: {error}") from error


def remove_package(client: Client) -> None:
    """Remove the job's plugins, so that workers that join no longer get the package."""
    client.unregister_worker_plugin(_plugin_name(client))
    client.unregister_scheduler_plugin(_plugin_name(client))


def _plugin_name(client: Client) -> str:
    # Unique per job, because jobs may share a cluster.
    return f"{PLUGIN_PREFIX}{client.id}"
