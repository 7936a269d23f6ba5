"""A running scheduler, and workers that have never seen this package; all real processes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from distributed import Client

import segmentation
from segmentation.deploy import package_upload
from tests.cluster.processes import assert_equal, running_cluster, start_job, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_the_package_comes_with_the_job(
    python: Path, shared_cache: Path, ratings: Path, expected: Path, tmp_path: Path
) -> None:
    with running_cluster(python, tmp_path / "c", cache=shared_cache) as cluster:
        out = tmp_path / "out"
        options = ["--data", str(ratings), "--out", str(out), "--partition-size", "256KiB"]
        config = tmp_path / "two.yaml"
        config.write_text("kind: remote\nworkers: 2\n")
        options += ["--cluster", str(config), "--address", cluster.address]
        run = start_job(tmp_path / "job", *options)
        assert run.wait(300) == 0, run.read_log() + cluster.logs()
        assert_equal(out, expected)
        manifest = json.loads((out / "run.json").read_text())
        assert manifest["cluster"]["kind"] == "remote"
        assert manifest["cluster"]["workers"] == 2
        assert manifest["cluster"]["address"] == cluster.address
        assert manifest["cluster"]["dashboard"].startswith("http://127.0.0.1:")
        # Log lines are for the workers' logs, and for --debug.
        assert "segmentation - INFO" not in run.read_log()
        logs = "".join(worker.read_log() for worker in cluster.workers)
        assert f"ratings: {ratings}/ratings.csv, bytes " in logs
        stages = {stage["name"]: stage for stage in manifest["stages"]}
        assert stages["ratings"]["tasks"] > 3 * 15
        assert stages["ratings"]["bytes"] > 1e6
        assert stages["report"]["tasks"] == 0


def pack_another_version(folder: Path) -> package_upload.Package:
    """Return the package with one more file."""
    other = Path(shutil.copytree(Path(segmentation.__file__).parent, folder / "segmentation"))
    (other / "more.py").write_text("")
    return package_upload.build_archive(other)


def installed_paths(client: Client) -> list[str]:
    """Return where the workers import the package from."""

    def path() -> str:
        import segmentation

        return str(segmentation.__file__)

    return list(client.run(path).values())


def test_two_versions_take_turns(
    python: Path,
    shared_cache: Path,
    ratings: Path,
    expected: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running_cluster(python, tmp_path / "c", 2, shared_cache) as cluster:
        options = ["--data", str(ratings), "--address", cluster.address]
        with Client(cluster.address, set_as_default=False) as other:
            other.wait_for_workers(2, timeout=60)
            package = pack_another_version(tmp_path / "more")
            with monkeypatch.context() as patch:
                patch.setattr(package_upload, "build_archive", lambda: package)
                package_upload.upload_package(other)
            assert all(package.digest[:32] in path for path in installed_paths(other))
            refused = start_job(tmp_path / "first", *options, "--out", str(tmp_path / "out"))
            assert refused.wait(60) == 4, refused.read_log()
            line = refused.read_log().splitlines()[-1]
            assert line == (
                f"error: {cluster.address}: another version of segmentation is in use by a "
                f"running job ({other.id}); wait until it ends, or use the same version"
            )
            assert not (tmp_path / "out").exists()
            assert all(package.digest[:32] in path for path in installed_paths(other))
        # The other job removed nothing itself; its package goes with its client.
        second = start_job(tmp_path / "second", *options, "--out", str(tmp_path / "out"))
        assert second.wait(300) == 0, second.read_log() + cluster.logs()
    assert_equal(tmp_path / "out", expected)


@pytest.mark.parametrize("damage", ["changed", "cleared"])
def test_a_damaged_package_is_unpacked_again(python: Path, tmp_path: Path, damage: str) -> None:
    def read_module() -> str:
        from pathlib import Path

        import segmentation

        return (Path(segmentation.__file__).parent / "errors.py").read_text()

    with running_cluster(python, tmp_path / "c", 1) as cluster:
        with Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            package_upload.upload_package(client)
            (path,) = installed_paths(client)
        uploaded = Path(path).parent / "errors.py"
        original = uploaded.read_text()
        uploaded.write_text(original + "x = 1\n") if damage == "changed" else uploaded.unlink()
        cluster.workers[0].kill()
        cluster.start_worker()
        with Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            package_upload.upload_package(client)
            wait_until(lambda: list(client.run(read_module).values()) == [original], 30)
        assert uploaded.read_text() == original
        assert [p.name for p in uploaded.parents[2].iterdir()] == [uploaded.parents[1].name]
