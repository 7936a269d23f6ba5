"""Passwords and signed links stay out of everything that a job prints, logs or writes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import write_tiny
from tests.web_server import WebServer, serve

ROOT = Path(__file__).parents[2]
SECRETS = ("t0psecret", "s1gnature", "us3rname")
QUERY = "?X-Amz-Signature=s1gnature%2Fs1gnature&X-Amz-Expires=300"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    write_tiny(tmp_path / "data")
    with serve(WebServer(tmp_path / "data")) as server:
        yield server


def run_job(tmp_path: Path, url: str, job: str, *options: str) -> tuple[int, str]:
    """Run a job in a process of its own; check what it leaves; return its status and output."""
    arguments = ["--data", str(tmp_path / "data"), "--ratings", url, "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", f"jobs.{job}", *arguments, *options]
    process = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    check_no_secrets(process.stdout)
    for path in (tmp_path / "out").rglob("*"):
        check_no_secrets(str(path))
        if path.is_file():
            check_no_secrets(path.read_bytes().decode("latin-1"))
    return process.returncode, process.stdout


def check_no_secrets(text: str) -> None:
    for secret in SECRETS:
        place = text.find(secret)
        assert place < 0, text[max(0, place - 300) : place + 300]


def sign(web: WebServer, name: str = "ratings.csv") -> str:
    return web.url.replace("http://", "http://us3rname:t0psecret@") + f"/{name}{QUERY}"


@pytest.mark.parametrize("job", ["segment", "convert", "choose_k"])
def test_a_run(web: WebServer, tmp_path: Path, job: str) -> None:
    with (tmp_path / "data" / "ratings.csv").open("a") as file:
        for user in range(3, 60):
            file.write(f"{user},10,{user % 9 / 2 + 0.5},1\n{user},20,3.0,1\n")
        file.write("no rating\n")
    options = {
        "segment": ["--k", "2", "--performance-report", str(tmp_path / "out.html")],
        "convert": [],
        "choose_k": ["--k-range", "2-3"],
    }[job]
    status, output = run_job(tmp_path, sign(web), job, "--debug", "--max-rejected", "0.5", *options)
    assert status == 0, output
    manifest = (tmp_path / "out" / "run.json").read_text()
    assert "http://***@127.0.0.1" in manifest
    assert "ratings.csv?***" in manifest
    assert "/ratings.csv?***" in (tmp_path / "out" / "rejected" / "ratings.csv").read_text()
    if job == "segment":
        check_no_secrets((tmp_path / "out.html").read_text())
        # A link that was signed again leads to the same run.
        again = sign(web).replace("s1gnature", "s1gnature2")
        assert run_job(tmp_path, again, job, "--max-rejected", "0.5", *options[:2], "--resume")[
            0
        ] in (0, 2)


@pytest.mark.parametrize("kind", ["missing", "forbidden", "failing", "broken", "gone", "junk"])
@pytest.mark.parametrize("cluster", ["threads", "local"])
def test_a_failure(web: WebServer, tmp_path: Path, kind: str, cluster: str) -> None:
    """With ``--debug`` come tracebacks, and what Dask logs of a failed task with its arguments."""
    name = "none.csv" if kind == "missing" else "ratings.csv"
    if kind == "forbidden":
        web.statuses["ratings.csv"] = 403
    elif kind == "failing":
        web.failures["ratings.csv"] = 100
    elif kind == "gone":
        # The tasks are the first to notice.
        web.gone_after["ratings.csv"] = 12
    elif kind == "broken":
        web.ranges = "no"
        web.broken_off = Counter({"ratings.csv": 100})
    elif kind == "junk":
        (tmp_path / "data" / "ratings.csv").write_text("userId,movieId,rating\nno rating\n")
    options = ["--debug", "--cluster", cluster, "--k", "2"]
    status, output = run_job(tmp_path, sign(web, name), "segment", *options)
    assert status in (0, 3) if kind == "gone" else status == 3
    if status == 3:
        error = output.splitlines()[-1]
        assert error.startswith("error: http://***@127.0.0.1")
        assert "Traceback" in output


@pytest.mark.parametrize(
    "options",
    [
        ["--rating", "http://us3rname:t0psecret@host/x?token=s1gnature"],
        ["--seed", "http://us3rname:t0psecret@host/x?token=s1gnature"],
        ["--data", "http://us3rname:t0psecret@host:none/x?token=s1gnature"],
        ["--data", "nosuch://us3rname:t0psecret@host/x?token=s1gnature"],
        ["--playbook", "http://us3rname:t0psecret@host/x?token=s1gnature"],
        ["--address", "tcp://us3rname:t0psecret@host:1?token=s1gnature"],
        ["--cluster", "http://us3rname:t0psecret@host/x?token=s1gnature"],
        ["--out", "http://us3rname:t0psecret@host/x?token=s1gnature"],
        ["--performance-report", "http://us3rname:t0psecret@host/x?token=s1gnature"],
    ],
)
def test_wrong_usage(web: WebServer, tmp_path: Path, options: list[str]) -> None:
    status, output = run_job(tmp_path, web.url + "/ratings.csv", "segment", *options, "--debug")
    assert status in (2, 3, 4), output
