"""The package in an archive: what it holds, and that a cluster has one version of it."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

import segmentation
from segmentation.deploy import package_upload
from segmentation.errors import ClusterError

ROOT = Path(segmentation.__file__).parent


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT, tmp_path / "segmentation"))


def test_the_archive_holds_the_files_that_workers_need(copy: Path) -> None:
    (copy / "notes.txt").write_text("not needed")
    archive = zipfile.ZipFile(io.BytesIO(package_upload.build_archive(copy).archive))
    content = {name: archive.read(name) for name in archive.namelist()}
    needed = [path for ending in ("py", "toml", "html", "md") for path in ROOT.rglob(f"*.{ending}")]
    assert content == {
        f"segmentation/{path.relative_to(ROOT)}": path.read_bytes() for path in needed
    }


def test_the_same_files_give_the_same_archive_whatever_their_dates(copy: Path) -> None:
    for path in copy.rglob("*.py"):
        path.touch()
    (copy / "__pycache__").mkdir(exist_ok=True)
    (copy / "__pycache__" / "cached.py").write_text("x = 1")
    assert package_upload.build_archive(copy) == package_upload.build_archive(ROOT)


@pytest.mark.parametrize("change", ["content", "name", "new file"])
def test_any_change_changes_the_digest(copy: Path, change: str) -> None:
    before = package_upload.build_archive(copy).digest
    path = copy / "errors.py"
    if change == "content":
        path.write_text(path.read_text() + "\n")
    elif change == "name":
        path.rename(copy / "error.py")
    else:
        (copy / "more.py").write_text("")
    assert package_upload.build_archive(copy).digest != before


@pytest.fixture
def client() -> Iterator[Client]:
    """A client of a scheduler and a worker in this process, which have the package."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_nothing_is_unpacked_where_the_package_is_installed(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package_upload.upload_package(client)
    assert not (tmp_path / "cache").exists()
    package_upload.remove_package(client)


def test_another_version_that_is_installed_is_refused(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = package_upload.Package(b"", "0" * 64)
    monkeypatch.setattr(package_upload, "build_archive", lambda: other)
    with pytest.raises(ClusterError) as error:
        package_upload.upload_package(client)
    assert str(error.value) == (
        f"{client.scheduler.address}: another version of segmentation is installed "
        f"({segmentation.__file__}); install the job's version there, or none, and restart that "
        "process"
    )


def test_another_version_of_a_running_job_is_refused(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_upload.upload_package(client)
    other = package_upload.Package(b"", "0" * 64)
    monkeypatch.setattr(package_upload, "build_archive", lambda: other)
    with Client(client.cluster, set_as_default=False) as second:
        with pytest.raises(ClusterError) as error:
            package_upload.upload_package(second)
    assert f"is in use by a running job ({client.id}); wait until it ends" in str(error.value)
