"""Counted tasks, and where Dask's report may go: a regular file that is none of the run's own."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
from distributed import Client, wait

from jobs import segment
from segmentation.deploy import diagnostics
from segmentation.errors import UsageError


def test_tasks_and_bytes_of_their_results_are_counted(client: Client) -> None:
    progress = types.SimpleNamespace(counter=None)
    with diagnostics.count_tasks(client, progress):
        before = progress.counter()
        wait(client.map(lambda n: b"x" * 1_000_000, range(5), pure=False))
        after = progress.counter()
    assert after["tasks"] - before["tasks"] == 5
    assert 5_000_000 <= after["bytes"] - before["bytes"] < 5_010_000
    assert progress.counter is None
    name = diagnostics.format_counter_name(client)
    assert client.run_on_scheduler(diagnostics.read_lost_workers, name) == 0


def test_a_workers_end_is_counted_and_a_killed_job_counts_no_more() -> None:
    removed: list[str] = []
    scheduler = types.SimpleNamespace(remove_plugin=removed.append)
    counter = diagnostics.TaskCounter("name", "me")
    counter.remove_worker(scheduler, "tcp://h:1", stimulus_id="s")
    assert counter.n_lost_workers == 1
    counter.remove_client(scheduler, "you")
    assert removed == []
    counter.remove_client(scheduler, "me")
    assert removed == ["name"]


def test_the_report_replaces_an_earlier_one(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("<!DOCTYPE html>earlier")
    with diagnostics.performance_report(str(path)):
        client.submit(sum, [1, 2]).result()
        assert path.read_text() == "<!DOCTYPE html>earlier"
    assert "Dask Performance Report" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_another_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("userId,movieId,rating\n")
    with pytest.raises(UsageError, match=r"ratings.csv: exists and is no report; choose another"):
        diagnostics.resolve_report_path(str(path))


def test_places_where_no_report_can_go(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "other")
    for path, message in (
        ("/dev/full", "is not a regular file; choose another"),
        (str(tmp_path / "link"), "is not a regular file; choose another"),
        (str(tmp_path), "name a file in an existing folder"),
        (str(tmp_path / "none" / "report.html"), "name a file in an existing folder"),
        (str(tmp_path / ("x" * 300)), "can't be written"),
    ):
        with pytest.raises(UsageError, match=f"^performance_report {path}: {message}"):
            diagnostics.resolve_report_path(path)
    assert not Path("/dev/full").is_file()
    path = tmp_path / "report.html"
    assert diagnostics.resolve_report_path(str(path)) == path
    assert list(tmp_path.iterdir()) == [tmp_path / "link"]


@pytest.mark.parametrize("name", ["run.json", "report.html", "figures/mine.html"])
def test_no_report_replaces_one_of_the_runs_own_files(
    tiny: Path, tmp_path: Path, name: str, capsys
) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    options = ["--data", str(tiny), "--out", str(out), "--k", "2", "--quiet"]
    assert segment.main([*options, "--performance-report", str(out / name)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: --performance-report {out / name}: is one of the run's own files; choose another "
        "name"
    )
    assert not (out / name).exists()
