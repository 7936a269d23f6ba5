"""A scheduler that stands and workers that have never seen this package; real processes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from distributed import Client

import segmentation
from segmentation.deploy import package_upload
from tests.cluster.processes import assert_equal, job, standing, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_the_package_comes_with_the_job(
    python: Path, shared_cache: Path, ratings: Path, expected: Path, tmp_path: Path
) -> None:
    with standing(python, tmp_path / "c", cache=shared_cache) as cluster:
        out = tmp_path / "out"
        options = ["--data", str(ratings), "--out", str(out), "--partition-size", "256KiB"]
        config = tmp_path / "two.yaml"
        config.write_text("kind: remote\nworkers: 2\n")
        options += ["--cluster", str(config), "--address", cluster.address]
        run = job(tmp_path / "job", *options)
        assert run.wait(300) == 0, run.text() + cluster.logs()
        assert_equal(out, expected)
        manifest = json.loads((out / "run.json").read_text())
        assert manifest["cluster"]["kind"] == "remote"
        assert manifest["cluster"]["workers"] == 2
        assert manifest["cluster"]["address"] == cluster.address
        assert manifest["cluster"]["dashboard"].startswith("http://127.0.0.1:")
        assert "distributed.segmentation" not in run.text()
        logs = "".join(worker.text() for worker in cluster.workers)
        assert f"ratings: {ratings}/ratings.csv, bytes " in logs
        stages = {stage["name"]: stage for stage in manifest["stages"]}
        assert stages["ratings"]["tasks"] > 3 * 15
        assert stages["ratings"]["bytes"] > 1e6
        assert stages["report"]["tasks"] == 0


def another_version(folder: Path) -> package_upload.Package:
    """The package with one file more."""
    other = folder / "segmentation"
    shutil.copytree(Path(segmentation.__file__).parent, other)
    (other / "more.py").write_text("")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(segmentation, "__file__", str(other / "__init__.py"))
        return package_upload.build_archive()


def places(client: Client) -> list[str]:
    """Where the workers have the package from."""

    def where() -> str:
        import segmentation

        return str(segmentation.__file__)

    return list(client.run(where).values())


def test_two_versions_take_turns(
    python: Path,
    shared_cache: Path,
    ratings: Path,
    expected: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with standing(python, tmp_path / "c", 2, shared_cache) as cluster:
        options = ["--data", str(ratings), "--address", cluster.address]
        with Client(cluster.address, set_as_default=False) as other:
            other.wait_for_workers(2, timeout=60)
            more = another_version(tmp_path / "more")
            with monkeypatch.context() as patched:
                patched.setattr(package_upload, "build_archive", lambda: more)
                package_upload.upload_package(other)
            assert all(more.digest[:32] in place for place in places(other))
            refused = job(tmp_path / "first", *options, "--out", str(tmp_path / "out"))
            assert refused.wait(60) == 4, refused.text()
            told = refused.text().splitlines()[-1]
            assert told == (
                f"error: {cluster.address}: another version of segmentation is in use there by a "
                f"job that runs now ({other.id}): wait for its end, or take the same version"
            )
            assert not (tmp_path / "out").exists()
            assert all(more.digest[:32] in place for place in places(other))
        # It withdrew nothing; with its client all of it is gone.
        taken = job(tmp_path / "second", *options, "--out", str(tmp_path / "out"))
        assert taken.wait(300) == 0, taken.text() + cluster.logs()
    assert_equal(tmp_path / "out", expected)


@pytest.mark.parametrize("damage", ["changed", "cleared"])
def test_a_package_that_was_damaged_is_unpacked_anew(
    python: Path, tmp_path: Path, damage: str
) -> None:
    def look() -> str:
        from pathlib import Path

        import segmentation

        return (Path(segmentation.__file__).parent / "features" / "statistics.py").read_text()

    with standing(python, tmp_path / "c", 1) as cluster:
        with Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            package_upload.upload_package(client)
            (place,) = places(client)
        shipped = Path(place).parent / "features" / "statistics.py"
        original = shipped.read_text()
        shipped.write_text(original + "x = 1\n") if damage == "changed" else shipped.unlink()
        cluster.workers[0].kill()
        cluster.start_worker()
        with Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            package_upload.upload_package(client)
            until(lambda: list(client.run(look).values()) == [original], 30)
        assert shipped.read_text() == original
        assert [p.name for p in shipped.parents[3].iterdir()] == [shipped.parents[2].name]
