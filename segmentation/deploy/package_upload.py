"""The package, shipped to a scheduler and workers that lack it, and to those that join later.

Whatever unpacks it there can't be imported there yet. So it is made of classes within a function,
which Dask pickles by value, and which import what they need where they need it.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import segmentation
from segmentation.errors import ClusterError

#: What of the package workers need, by ending.
_SUFFIXES = (".py", ".toml", ".html", ".md")
_PREFIX = "segmentation-package-"
_OTHER = "another version of segmentation is in use"


class Package(NamedTuple):
    """The package's files in a zip archive, and a digest of what they hold."""

    archive: bytes
    digest: str


def build_archive() -> Package:
    """Pack the package that this process runs; the same bytes for the same files."""
    root = Path(segmentation.__file__).parent
    buffer = io.BytesIO()
    whole = hashlib.sha256()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            if path.suffix not in _SUFFIXES or "__pycache__" in path.parts:
                continue
            name, content = path.relative_to(root).as_posix(), path.read_bytes()
            whole.update(f"{name}\0{len(content)}\0".encode() + content)
            archive.writestr(zipfile.ZipInfo(f"segmentation/{name}"), content)
    return Package(buffer.getvalue(), whole.hexdigest())


def upload_package(client: Any) -> None:
    """Make the package importable on the scheduler and all workers, now and later.

    It is unpacked into the cache folder of whoever runs there, once a version, so that compiled
    loops are compiled once a machine. Where the same version is installed nothing is unpacked.
    A process holds one version of a package: jobs of two don't share a cluster at one time.

    Raises
    ------
    ClusterError
        If another version of it is in use there, installed or sent by another job.
    """
    name = _name(client)
    on_worker, on_scheduler = _plugins(*build_archive(), name, client.id)
    try:
        client.register_plugin(on_scheduler, name=name)
        client.register_plugin(on_worker, name=name)
    except RuntimeError as error:
        if not str(error).startswith(_OTHER):
            raise
        raise ClusterError(f"{client.scheduler.address}: {error}") from error


def remove_package(client: Any) -> None:
    """Let workers that join from now on do without."""
    client.unregister_worker_plugin(_name(client))
    client.unregister_scheduler_plugin(_name(client))


def _name(client: Any) -> str:
    # Another job on the same cluster has its own.
    return f"{_PREFIX}{client.id}"


def _plugins(  # noqa: PLR0915 - see above
    archive: bytes, digest: str, own_name: str, own_client: str
) -> tuple[Any, Any]:
    from distributed import SchedulerPlugin, WorkerPlugin

    other_version, prefix = _OTHER, _PREFIX

    def arrive(fallback: str) -> None:  # noqa: PLR0912, PLR0915
        """Unpack the package if need be, and put it first on the path."""
        import hashlib
        import importlib
        import importlib.util
        import io
        import os
        import shutil
        import sys
        import tempfile
        import zipfile
        from pathlib import Path

        def digest_of(root: Path) -> str:
            whole = hashlib.sha256()
            for path in sorted(root.rglob("*")):
                if path.suffix not in (".py", ".toml", ".html", ".md"):
                    continue
                if "__pycache__" in path.parts:
                    continue
                name, content = path.relative_to(root).as_posix(), path.read_bytes()
                whole.update(f"{name}\0{len(content)}\0".encode() + content)
            return whole.hexdigest()

        importlib.invalidate_caches()
        loaded = sys.modules.get("segmentation")
        try:
            spec = importlib.util.find_spec("segmentation")
        except (ImportError, ValueError):
            spec = None
        if spec is not None and spec.origin and digest_of(Path(spec.origin).parent) == digest:
            return
        shipped = f"{os.sep}segmentation{os.sep}shipped{os.sep}"
        if loaded is not None:
            if shipped not in str(loaded.__file__):
                raise RuntimeError(
                    f"{other_version} there ({loaded.__file__}): install the job's version, or "
                    "none, and start that process anew"
                )
            for name in [n for n in sys.modules if n.split(".")[0] == "segmentation"]:
                del sys.modules[name]
        sys.path[:] = [place for place in sys.path if shipped not in place + os.sep]
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        for above in (base, Path(fallback)):
            place = above / "segmentation" / "shipped" / digest[:32]
            try:
                if digest_of(place / "segmentation") != digest:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    made = Path(tempfile.mkdtemp(dir=place.parent))
                    try:
                        with zipfile.ZipFile(io.BytesIO(archive)) as packed:
                            packed.extractall(made / "new")
                        if place.exists():
                            # What was there is damaged, as by whoever clears caches.
                            os.replace(place, made / "old")
                        os.replace(made / "new", place)
                    except OSError:
                        # Another worker of this machine was quicker.
                        if digest_of(place / "segmentation") != digest:
                            raise
                    finally:
                        shutil.rmtree(made, ignore_errors=True)
                break
            except OSError:
                if above == Path(fallback):
                    raise
        sys.path.insert(0, str(place))
        importlib.invalidate_caches()

    class OnWorker(WorkerPlugin):  # type: ignore[misc]
        idempotent = False

        def setup(self, worker: Any) -> None:
            arrive(worker.local_directory)

    class OnScheduler(SchedulerPlugin):  # type: ignore[misc]
        idempotent = False

        def __init__(self) -> None:
            self.version = digest
            self.client = own_client

        async def start(self, scheduler: Any) -> None:
            for name, other in scheduler.plugins.items():
                if (
                    str(name).startswith(prefix)
                    and other.client in scheduler.clients
                    and other.version != digest
                ):
                    raise RuntimeError(
                        f"{other_version} there by a job that runs now ({other.client}): wait for "
                        "its end, or take the same version"
                    )
            arrive(scheduler.local_directory)

        def remove_client(self, scheduler: Any, client: str) -> None:
            # A job that was killed can't withdraw what it has sent.
            if client != own_client:
                return
            scheduler.plugins.pop(own_name, None)
            for name in [n for n in scheduler.worker_plugins if str(n).endswith(own_client)]:
                scheduler.loop.add_callback(scheduler.unregister_worker_plugin, None, name)

    return OnWorker(), OnScheduler()
