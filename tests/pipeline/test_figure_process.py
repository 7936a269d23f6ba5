"""Figures drawn beside the job: the same whoever draws, whatever becomes of who draws."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from segmentation.pipeline import figure_process
from segmentation.reporting.figure_data import FigureData
from segmentation.schema import KAGGLE_GENRES
from tests.reporting.test_personas import profile


@pytest.fixture(scope="module")
def wanted() -> FigureData:
    rng = np.random.default_rng(0)
    # More than a pipe holds, and names that are not ASCII.
    return FigureData(
        rng.normal(size=(20_000, 2)),
        rng.integers(2, size=20_000).astype(np.int32),
        31_415,
        ("Zuschauer, stille", "Ωκ 5 $"),
        KAGGLE_GENRES,
        (0.4, 0.1),
        (profile(0, 12.5, 3), profile(1, 90.0, 11)),
        7,
    )


@pytest.fixture(scope="module")
def figures(wanted: FigureData) -> dict[str, bytes]:
    return wanted.draw()


@contextmanager
def artist(wanted: FigureData, *, alone: bool = False) -> Iterator[figure_process.FigureRenderer]:
    with figure_process.FigureRenderer() as found:
        if not alone:
            found.start()
        found.begin(wanted)
        yield found


def children() -> list[psutil.Process]:
    """Of those that are there, who draws: other tests' clusters have their own."""
    found = psutil.Process().children()
    return [child for child in found if any("figure_process" in part for part in child.cmdline())]


def test_a_request_survives_as_bytes(wanted: FigureData) -> None:
    again = FigureData.from_bytes(wanted.to_bytes())
    np.testing.assert_array_equal(again.points, wanted.points)
    np.testing.assert_array_equal(again.labels, wanted.labels)
    for name in ("users", "names", "genres", "explained", "seed"):
        assert getattr(again, name) == getattr(wanted, name)
    for ours, theirs in zip(again.profiles, wanted.profiles, strict=True):
        for field, value in vars(theirs).items():
            np.testing.assert_array_equal(getattr(ours, field), value)
            assert isinstance(getattr(ours, field), type(value))


def test_a_request_that_could_run_is_refused() -> None:
    out = io.BytesIO()
    np.savez(out, points=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        FigureData.from_bytes(out.getvalue())


@pytest.mark.parametrize("alone", [True, False])
def test_the_figures_are_the_same_whoever_draws(
    wanted: FigureData, figures: dict[str, bytes], alone: bool
) -> None:
    with artist(wanted, alone=alone) as drawing:
        assert len(children()) == (not alone)
        assert drawing.figures() == figures
    assert not children()


def test_it_is_the_other_process_that_draws(
    wanted: FigureData, figures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FigureData, "draw", lambda self: pytest.fail("drawn here"))
    with artist(wanted) as drawing:
        assert drawing.figures() == figures


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_killed_or_hangs_costs_no_figure(
    wanted: FigureData,
    figures: dict[str, bytes],
    end: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(figure_process, "PATIENCE_SECONDS", 1)
    with artist(wanted) as drawing:
        children()[0].send_signal(end)
        assert drawing.figures() == figures
    assert not children()


@pytest.mark.parametrize("executable", ["", "/nowhere/python", "/bin/true", "/bin/cat"])
def test_an_interpreter_that_is_none_costs_no_figure(
    wanted: FigureData, figures: dict[str, bytes], executable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with artist(wanted) as drawing:
        assert drawing.figures() == figures


def test_nobody_is_left_when_the_job_fails_or_is_interrupted(wanted: FigureData) -> None:
    with pytest.raises(KeyboardInterrupt), artist(wanted):
        (child,) = children()
        raise KeyboardInterrupt
    assert not child.is_running()
    assert not children()


def test_nobody_is_left_when_nothing_was_asked_for() -> None:
    with figure_process.FigureRenderer() as found:
        found.start()
        (child,) = children()
    assert not child.is_running()


def test_nobody_is_left_when_the_job_is_killed(tmp_path: Path, wanted: FigureData) -> None:
    (tmp_path / "wanted").write_bytes(wanted.to_bytes())
    code = (
        "import os, pathlib, signal, psutil\n"
        "from segmentation.reporting.figure_data import Gallery\n"
        "from segmentation.pipeline import figure_process\n"
        f"wanted = Gallery.from_bytes(pathlib.Path({str(tmp_path / 'wanted')!r}).read_bytes())\n"
        "with figure_process.Artist() as artist:\n"
        "    artist.start()\n"
        "    artist.begin(wanted)\n"
        "    print(psutil.Process().children()[0].pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)
    limit = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < limit, "still there"
        time.sleep(0.1)


@pytest.mark.parametrize("cut", [0, 100, -100])
def test_an_answer_that_is_cut_off_costs_no_figure(
    wanted: FigureData, figures: dict[str, bytes], cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = figure_process._CODE.replace(
        "figure_process.draw_what_is_asked_for()",
        f"import io; real = sys.stdout; sys.stdout = io.TextIOWrapper(io.BytesIO()); "
        "figure_process.draw_what_is_asked_for(); "
        f"real.buffer.write(sys.stdout.buffer.getvalue()[:{cut}])",
    )
    monkeypatch.setattr(figure_process, "_CODE", code)
    with artist(wanted) as drawing:
        assert drawing.figures() == figures
