"""The commands: exit statuses, one-line errors, resuming, interruption."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import segmentation
from jobs import cli, segment, synthesize
from segmentation.pipeline import stages
from tests.conftest import write_tiny


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def command(*arguments: str, **how) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, **how)


@pytest.mark.parametrize("job", sorted(cli.JOBS))
def test_every_job_has_help_under_both_names(job: str) -> None:
    module = f"jobs.{job.replace('-', '_')}"
    one = command(sys.executable, "-m", module, "--help")
    other = command(str(Path(sys.executable).with_name("segmentation")), job, "--help")
    assert one.returncode == other.returncode == 0
    assert one.stdout == other.stdout
    assert f"usage: segmentation {job}" in one.stdout
    assert "Exit status: 0 done" in " ".join(one.stdout.split())


def test_the_console_script_itself(capsys) -> None:
    assert cli.main([]) == 2
    for option in ("--help", "--version"):
        with pytest.raises(SystemExit) as caught:
            cli.main([option])
        assert caught.value.code == 0
    output = capsys.readouterr().out
    for job, what in cli.JOBS.items():
        assert job in output
        assert what.split()[0] in output
    assert f"segmentation {segmentation.__version__}" in output
    with pytest.raises(SystemExit) as caught:
        cli.main(["segmnt"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ">>>" not in output
    assert line.startswith("error: argument JOB: invalid choice: 'segmnt' (choose from ")
    assert line.endswith("see segmentation --help")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k", "0"], "--k 0: choose from 1 to 50"),
        (["--preset", "original", "--join", "links"], "--preset original uses the direct join"),
        (["--resume"], "--resume needs --out"),
        (["--out", " "], "--out: is empty"),
        (["--data", ""], "--data: is empty"),
        (["--ratings", ""], "--ratings: is empty"),
        (["--partition-size", "1e400"], "--partition-size 1e400: give bytes with a unit"),
        (["--cluster", "thread"], "--cluster thread: choose from"),
        (["--partition-size", "big"], "--partition-size big: give bytes with a unit"),
        (["--playbook", "/no/such.toml"], "/no/such.toml: can't be read as a playbook"),
    ],
)
def test_wrong_usage(capsys, tmp_path, monkeypatch, options: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert segment.main([*options, "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("main", [segment.main, lambda options: cli.main(["segment", *options])])
@pytest.mark.parametrize("options", [["--nonsense"], ["--k", "five"], ["--resume", "--overwrite"]])
def test_unknown_options_are_wrong_usage(main, options: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("see segmentation segment --help")


def test_a_defect_of_ours(capsys, tmp_path: Path, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(stages, "fit_pca", broken)
    out = tmp_path / "out"
    arguments = ["--data", str(write_tiny(tmp_path / "t")), "--out", str(out), "--k", "2"]
    assert segment.main([*arguments, "--quiet"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "a defect of this program: RuntimeError: two lines" in line
    assert "--debug" in line
    assert not (out / "run.json").exists()
    assert segment.main([*arguments, "--overwrite", "--quiet", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_resume_continues_from_the_last_finished_stage(capsys, tmp_path: Path, monkeypatch) -> None:
    data, out = write_tiny(tmp_path / "t"), tmp_path / "out"
    append(data / "ratings.csv", "1,20,9.0,7\n")
    arguments = ["--data", str(data), "--out", str(out), "--k", "2", "--max-rejected", "0.5"]
    whole = tmp_path / "whole"
    assert segment.main([*arguments[:3], str(whole), *arguments[4:]]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(stages, "fit_pca", lambda X: 1 / 0)
        assert segment.main(arguments) == 1
    assert [p.name for p in out.iterdir()] == [".work"], "nothing reads as a result"
    capsys.readouterr()
    assert segment.main(arguments) == 2
    assert "already holds an unfinished run: pass --resume" in capsys.readouterr().err
    assert segment.main([*arguments, "--resume"]) == 0
    log = capsys.readouterr().err
    assert "ratings: taken from the finished stage" in log
    assert "K-Means: taken from the finished stage" in log
    pd.testing.assert_frame_equal(
        pd.read_parquet(out / "assignments.parquet"), pd.read_parquet(whole / "assignments.parquet")
    )
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.iterdir())
    assert (out / "rejected" / "ratings.csv").read_text().count("\n") == 2
    for name in ("rows", "kmeans", "pca", "items"):
        one, other = (json.loads((f / "run.json").read_text())[name] for f in (out, whole))
        assert one == other


def test_resuming_a_finished_run_shows_it_again(capsys, tmp_path: Path) -> None:
    data, out = write_tiny(tmp_path / "t"), tmp_path / "out"
    arguments = ["--data", str(data), "--out", str(out), "--k", "2"]
    assert segment.main(arguments) == 0
    first = capsys.readouterr().out
    stamp = (out / "run.json").stat().st_mtime_ns
    assert segment.main(arguments) == 2
    assert "already holds a finished run: pass --resume" in capsys.readouterr().err
    assert segment.main([*arguments, "--resume"]) == 0
    assert capsys.readouterr().out == first
    assert (out / "run.json").stat().st_mtime_ns == stamp
    assert segment.main([*arguments, "--resume", "--seed", "9"]) == 2
    assert "was run with another --seed" in capsys.readouterr().err
    append(data / "ratings.csv", "1,20,1.0,7\n")
    assert segment.main([*arguments, "--resume"]) == 2
    assert "was run with another --data" in capsys.readouterr().err
    assert segment.main([*arguments, "--overwrite"]) == 0
    assert json.loads((out / "run.json").read_text())["rows"]["read"] == 7


def test_resume_if_parts_of_the_statistics_are_missing(tmp_path: Path, monkeypatch) -> None:
    """As after a death while the results were moved: the ratings are read again."""
    data, out = write_tiny(tmp_path / "t"), tmp_path / "out"
    arguments = ["--data", str(data), "--out", str(out), "--k", "2", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(stages, "fit_pca", lambda *_: 1 / 0)
        assert segment.main(arguments) == 1
    folder = out / ".work" / "products" / "model" / "user_statistics.parquet"
    for part in folder.iterdir():
        part.unlink()
    assert segment.main([*arguments, "--resume"]) == 0
    assert len(pd.read_parquet(out / "assignments.parquet")) == 2


def test_a_finished_run_that_lost_users_is_not_complete(tmp_path: Path, capsys) -> None:
    data, out = write_tiny(tmp_path / "t"), tmp_path / "out"
    arguments = ["--data", str(data), "--out", str(out), "--k", "2", "--quiet"]
    assert segment.main(arguments) == 0
    next((out / "assignments.parquet").iterdir()).unlink()
    assert segment.main([*arguments, "--resume"]) == 2
    error = capsys.readouterr().err
    assert "part-00000.parquet: is missing or differs from what was written: pass --over" in error


@pytest.mark.cluster
@pytest.mark.parametrize("cluster", ["threads", "local"])
def test_interrupted(tmp_path: Path, cluster: str) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    assert synthesize.main(["--rows", "300000", "--out", str(data), "--quiet"]) == 0
    arguments = ["--data", str(data), "--out", str(out), "--partition-size", "8KiB"]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.segment", *arguments, "--cluster", cluster],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while "catalogue:" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        # To the whole process group, as a terminal sends it.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130, log.read_text()
    last = log.read_text().splitlines()[-1]
    assert last.startswith("interrupted: no new result was left"), log.read_text()
    assert not re.search("Traceback", log.read_text())
    assert not out.exists() or not (out / "run.json").exists()


@pytest.mark.cluster
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_terminated_and_resumed(tmp_path: Path, how: str) -> None:
    data, out, log = tmp_path / "data", tmp_path / "out", tmp_path / "log"
    assert synthesize.main(["--rows", "100000", "--out", str(data), "--quiet"]) == 0
    arguments = ["--data", str(data), "--out", str(out)]
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.segment", *arguments], stdout=file, stderr=file
        )
        deadline = time.monotonic() + 120
        while "ratings:" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        process.send_signal(getattr(signal, how))
        assert process.wait(60) == (143 if how == "SIGTERM" else -9)
    assert not (out / "run.json").exists()
    assert segment.main([*arguments, "--resume", "--quiet"]) == 0
    assert json.loads((out / "run.json").read_text())["rows"]["read"] == 100_000


def test_streams_that_can_not_show_or_take_the_output(tmp_path: Path) -> None:
    data = write_tiny(tmp_path / "t")
    base = (
        f"{sys.executable} -m jobs.segment --data {data} --k 2 --overwrite --out {tmp_path / 'o'}"
    )
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = command("bash", "-c", base, env=ascii_only)
    assert (done.returncode, "\\u2265 3" in done.stdout) == (0, True), done.stderr
    for redirect in (">&-", "2>&-", "2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}"):
        done = command("bash", "-c", f"{base} {redirect}")
        assert done.returncode == 0, (redirect, done.stderr)
        assert (tmp_path / "o" / "run.json").exists()


def test_output_into_a_closed_pipe(tmp_path: Path) -> None:
    data = write_tiny(tmp_path / "t")
    line = (
        f"{sys.executable} -m jobs.segment --data {data} --out {tmp_path / 'o'} --k 2 --quiet "
        "| true; exit ${PIPESTATUS[0]}"
    )
    done = command("bash", "-c", line)
    assert done.returncode == 0
    # Even --quiet shows that the tiny catalogue lacks a movie, and that the audience is tiny.
    empty, first, second = done.stderr.splitlines()
    assert empty.startswith("  warning: 1 of 3 movies have no genre that counts")
    assert first.startswith("  warning: 16.7% of the ratings are of movies")
    assert second.startswith("  warning: fewer than 10 users in segments 0 (1), 1 (1): ")


def test_default_out_is_under_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_tiny(tmp_path / "t")
    assert segment.main(["--data", str(data), "--k", "2", "--quiet"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{6}", folder.name)
    assert f"report: runs/{folder.name}/report.html" in capsys.readouterr().out


class TestSynthesize:
    def test_an_interrupt_leaves_the_earlier_data_set(self, tmp_path: Path, monkeypatch) -> None:
        out = tmp_path / "data"
        arguments = ["--rows", "3000", "--out", str(out), "--quiet"]
        assert synthesize.main(arguments) == 0
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        from segmentation.datasets.synthetic import writer

        def stop(*_: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr(writer, "_write_ratings", stop)
        assert synthesize.main([*arguments, "--overwrite", "--seed", "3"]) == 130
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        assert synthesize.main(["--rows", "3000", "--out", str(tmp_path / "n"), "--quiet"]) == 130
        assert not (tmp_path / "n").exists()

    def test_writes_and_refuses(self, tmp_path: Path, capsys) -> None:
        out = tmp_path / "data"
        arguments = ["--rows", "3000", "--out", str(out), "--quiet"]
        assert synthesize.main(arguments) == 0
        assert str(out / "planted.parquet") in capsys.readouterr().out
        assert synthesize.main(arguments) == 2
        assert "is not empty: pass --overwrite" in capsys.readouterr().err
        assert synthesize.main([*arguments, "--overwrite", "--seed", "4"]) == 0

    def test_bad_usage(self, tmp_path: Path, capsys) -> None:
        out = tmp_path / "data"
        assert synthesize.main(["--rows", "3", "--out", str(out), "--quiet"]) == 2
        assert "--rows 3: choose from 1,000 to" in capsys.readouterr().err
        (tmp_path / "file").write_text("")
        assert synthesize.main(["--rows", "3000", "--out", str(tmp_path / "file")]) == 2
        assert "is a file: choose a folder for --out" in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupt_dropped_by_the_garbage_collector_is_repeated(name: str, status: int) -> None:
    """Python drops what a callback of the garbage collector raises; distributed installs one."""
    code = f"""
import gc, os, signal, sys, time
from jobs import entrypoint

def callback(phase, info):
    gc.callbacks.remove(callback)
    os.kill(os.getpid(), signal.{name})
    time.sleep(0)

def job(arguments):
    gc.callbacks.append(callback)
    gc.collect()
    time.sleep(20)

sys.exit(entrypoint.run_job(entrypoint.new_parser("x", "x"), job, []))
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert time.monotonic() - began < 20
    assert done.stderr.startswith("interrupted: no new result was left")


def test_a_configuration_file(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = "".join(f"{user};{item};{user % 10};x\n" for user in range(1, 40) for item in (1, 2))
    (folder / "log.csv").write_text("who;what;stars;note\n" + rows)
    (folder / "movies.csv").write_text("movieId,title,genres\n1,A,x\n2,B,y\n")
    config = tmp_path / "run.toml"
    config.write_text(
        f'data = "{folder}"\nratings = "log.csv"\nk = 2\nquiet = true\nscale = "1:10"\n'
        "unrated = [0]\nmax_rejected = 0.5\noverwrite = false\n"
        'columns = { user = "who", item = "what", rating = "stars" }\n'
    )
    arguments = ["--config", str(config), "--out", str(tmp_path / "out")]
    assert segment.main(arguments) == 0
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["settings"]["k"] == 2
    assert (manifest["rows"]["used"], manifest["rows"]["unrated"]) == (72, 6)
    again = ["segment", *arguments, "--k", "3", "--overwrite"]
    assert cli.main(again) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["k"] == 3
    capsys.readouterr()
    for text, message in (
        ("k = [", "--config {}: can't be read as TOML: "),
        ("columns = [[1]]", "--config {}: columns: give a text, a number, true, a list or"),
    ):
        config.write_text(text)
        assert segment.main(arguments) == 2
        assert capsys.readouterr().err.startswith(f"error: {message.format(config)}")
    config.write_text("kk = 3")
    with pytest.raises(SystemExit) as caught:
        segment.main(arguments)
    assert caught.value.code == 2
    assert "unrecognized arguments: --kk=3" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is of Linux")
def test_a_full_disk_behind_stdout(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.segment", "--data", str(write_tiny(tmp_path / "data"))]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--k", "2", "--quiet", "--out", str(tmp_path / "out")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 3
    assert done.stderr.endswith(
        "error: stdout: No space left on device: the results are in their files\n"
    )
    assert (tmp_path / "out" / "run.json").exists()
