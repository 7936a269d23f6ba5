"""FigureRenderer: the same figures whichever process draws, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import psutil
import pytest

from segmentation.pipeline import figure_process
from segmentation.pipeline.figure_process import FigureRenderer
from segmentation.reporting import figures
from segmentation.reporting.figures import FigureData
from segmentation.schema import KAGGLE_GENRES
from tests.conftest import ROOT
from tests.reporting.test_personas import profile


@pytest.fixture(scope="module")
def data() -> FigureData:
    rng = np.random.default_rng(0)
    # More than a pipe's buffer holds, and names that are not ASCII.
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
def pngs(data: FigureData) -> dict[str, bytes]:
    return figures.draw_figures(data)


@contextmanager
def started() -> Iterator[tuple[FigureRenderer, psutil.Process]]:
    with FigureRenderer() as renderer:
        renderer.start()
        assert renderer._executor is not None
        (pid,) = renderer._executor._processes
        yield renderer, psutil.Process(pid)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def has_matplotlib(process: psutil.Process) -> bool:
    return any("matplotlib" in mapping.path for mapping in process.memory_maps())


def is_spawned() -> bool:
    return multiprocessing.parent_process() is not None


def test_the_job_draws_when_no_process_was_started(
    data: FigureData, pngs: dict[str, bytes]
) -> None:
    with FigureRenderer() as renderer:
        renderer.submit(data)
        assert renderer.result() == pngs


def test_the_process_draws_the_same_figures(
    data: FigureData, pngs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "draw_pca_scatter", lambda *_: pytest.fail("drawn by the job"))
    with started() as (renderer, process):
        renderer.submit(data)
        assert renderer.result() == pngs
    assert not process.is_running()


def test_result_without_submit_is_an_error() -> None:
    with FigureRenderer() as renderer, pytest.raises(RuntimeError, match="call submit before"):
        renderer.result()


def test_matplotlib_is_imported_before_there_is_work() -> None:
    with started() as (_, process):
        wait_until(lambda: has_matplotlib(process))


@pytest.mark.parametrize("is_idle", [False, True])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_job_draws_when_the_process_dies_or_hangs(
    data: FigureData,
    pngs: dict[str, bytes],
    number: signal.Signals,
    is_idle: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(figure_process, "TIMEOUT_SECONDS", 1)
    with started() as (renderer, process):
        if is_idle:
            wait_until(lambda: has_matplotlib(process))
        process.send_signal(number)
        if is_idle and number == signal.SIGKILL:
            wait_until(lambda: not is_running(process.pid))
        renderer.submit(data)
        assert renderer.result() == pngs
        assert not process.is_running()


def draw_nowhere_else(data: FigureData) -> dict[str, bytes]:
    if is_spawned():
        raise MemoryError
    return figures.draw_figures(data)


def test_the_job_draws_when_drawing_fails_in_the_process(
    data: FigureData, pngs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure_process, "draw_figures", draw_nowhere_else)
    with started() as (renderer, _):
        renderer.submit(data)
        assert renderer.result() == pngs


@pytest.mark.parametrize("executable", ["", "/nowhere/python", "/bin/true"])
def test_the_job_draws_when_the_interpreter_can_not_be_started(
    data: FigureData, pngs: dict[str, bytes], executable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource_tracker.ensure_running()
    interpreter = multiprocessing.spawn.get_executable()
    monkeypatch.setattr(sys, "executable", executable)
    multiprocessing.set_executable(executable)
    try:
        with FigureRenderer() as renderer:
            renderer.start()
            renderer.submit(data)
            assert renderer.result() == pngs
    finally:
        multiprocessing.set_executable(interpreter)


def test_the_job_draws_where_it_may_not_have_children(
    data: FigureData, pngs: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a worker of multiprocessing.Pool.
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with FigureRenderer() as renderer:
        renderer.start()
        renderer.submit(data)
        assert renderer.result() == pngs


@pytest.mark.parametrize("is_idle", [False, True])
def test_ctrl_c_is_for_the_job_only(
    data: FigureData, pngs: dict[str, bytes], is_idle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    monkeypatch.setattr(figures, "draw_pca_scatter", lambda *_: pytest.fail("drawn by the job"))
    with started() as (renderer, process):
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
        if is_idle:
            wait_until(lambda: has_matplotlib(process))
        process.send_signal(signal.SIGINT)
        renderer.submit(data)
        assert renderer.result() == pngs


def draw_noisily(data: FigureData) -> dict[str, bytes]:
    print("printed")
    os.write(2, b"written")
    return figures.draw_figures(data)


def test_the_process_prints_nothing(
    data: FigureData,
    pngs: dict[str, bytes],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(figure_process, "draw_figures", draw_noisily)
    monkeypatch.setattr(figures, "draw_pca_scatter", lambda *_: pytest.fail("drawn by the job"))
    with started() as (renderer, _):
        renderer.submit(data)
        assert renderer.result() == pngs
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("is_drawing", [False, True])
def test_no_process_is_left_when_the_job_is_interrupted(data: FigureData, is_drawing: bool) -> None:
    with pytest.raises(KeyboardInterrupt), started() as (renderer, process):
        if is_drawing:
            renderer.submit(data)
        raise KeyboardInterrupt
    assert not process.is_running()


#: Neither guarded by ``if __name__ == "__main__"`` nor silent.
SCRIPT = """
import os, pickle, signal, time
from segmentation.pipeline.figure_process import FigureRenderer

with FigureRenderer() as renderer:
    renderer.start()
    print("pid", *renderer._executor._processes, flush=True)
    with open(os.environ["FIGURE_DATA"], "rb") as file:
        renderer.submit(pickle.load(file))
    if "KILL_AFTER" in os.environ:
        time.sleep(float(os.environ["KILL_AFTER"]))
        os.kill(os.getpid(), signal.SIGKILL)
    print("figures", *renderer.result())
"""


@pytest.mark.parametrize("form", ["path", "module", "code", "stdin"])
def test_main_runs_once_however_it_was_started(tmp_path: Path, data: FigureData, form: str) -> None:
    (tmp_path / "data").write_bytes(pickle.dumps(data))
    (tmp_path / "unguarded.py").write_text(SCRIPT)
    arguments = {
        "path": ["unguarded.py"],
        "module": ["-m", "unguarded"],
        "code": ["-c", SCRIPT],
        "stdin": ["-"],
    }
    done = subprocess.run(
        [sys.executable, *arguments[form]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FIGURE_DATA": "data"},
        input=SCRIPT if form == "stdin" else "",
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[1] == "figures pca genres sizes"
    assert done.stderr == ""


@pytest.mark.parametrize("seconds", [0, 0.8])
def test_no_process_is_left_when_the_job_is_killed(
    tmp_path: Path, data: FigureData, seconds: float
) -> None:
    (tmp_path / "data").write_bytes(pickle.dumps(data))
    environment = {"PYTHONPATH": str(ROOT), "FIGURE_DATA": "data", "KILL_AFTER": str(seconds)}
    output = tmp_path / "output"  # A pipe would be held open by a process that is left.
    with output.open("w") as file:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            cwd=tmp_path,
            env={**os.environ, **environment},
            stdout=file,
            stderr=file,
        )
    text = output.read_text()
    assert done.returncode == -signal.SIGKILL, text
    pid = int(text.split()[1])
    wait_until(lambda: not is_running(pid))
    assert "Traceback" not in output.read_text()
