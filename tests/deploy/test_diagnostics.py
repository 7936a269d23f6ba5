"""Where Dask's report may go: to a plain file that is none of the run's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import segment
from segmentation.deploy import diagnostics
from segmentation.errors import UsageError


def test_places_that_are_no_place_for_a_report(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "other")
    for place, told in (
        ("/dev/full", "is no plain file"),
        (str(tmp_path / "link"), "is no plain file"),
        (str(tmp_path), "name a file in a folder"),
        (str(tmp_path / "none" / "report.html"), "name a file in a folder"),
        (str(tmp_path / ("x" * 300)), "can't be written"),
    ):
        with pytest.raises(UsageError, match=told):
            diagnostics.resolve_report_path(place)
    assert not Path("/dev/full").is_file()
    assert (
        diagnostics.resolve_report_path(str(tmp_path / "report.html")) == tmp_path / "report.html"
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "link"]


@pytest.mark.parametrize("name", ["run.json", "report.html", "figures/mine.html"])
def test_a_runs_own_files_are_no_place_for_it(
    tiny: Path, tmp_path: Path, name: str, capsys
) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    options = ["--data", str(tiny), "--out", str(out), "--k", "2", "--quiet"]
    assert segment.main([*options, "--performance-report", str(out / name)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("is a file of the run's own: choose another name")
    assert not (out / name).exists()
