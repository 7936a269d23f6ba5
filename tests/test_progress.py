"""Progress: one line that is redrawn on a terminal, plain lines in a log."""

from __future__ import annotations

import io

import pytest

from segmentation import progress
from segmentation.progress import Progress, TerminalProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def run(stream: io.StringIO, clock: list[float], *, quiet: bool = False) -> Progress:
    """Report four partitions, 12 seconds each."""
    reporter = TerminalProgress(stream, quiet=quiet)
    with reporter.stage("ratings", "ratings") as stage:
        for done in range(1, 5):
            clock[0] += 12.0
            stage.update(done, 4, "partitions", done * 1_200_000)
        stage.note = "4,800,000 rows"
    return reporter


def test_in_a_log_every_line_is_complete(clock: list[float]) -> None:
    out = io.StringIO()
    reporter = run(out, clock)
    lines = out.getvalue().splitlines()
    assert lines[0] == ("  ratings: 1/4 partitions · 1,200,000 rows · 100 k rows/s · 36 s left")
    assert lines[-1] == "  ratings: 4,800,000 rows (48 s)"
    assert "\r" not in out.getvalue()
    assert [(s.name, s.seconds) for s in reporter.stages] == [("ratings", 48.0)]


def test_a_log_is_not_flooded(clock: list[float]) -> None:
    out = io.StringIO()
    with TerminalProgress(out).stage("a", "a") as stage:
        for done in range(1000):
            clock[0] += 0.1
            stage.update(done, 1000, "partitions", done)
    assert 8 <= len(out.getvalue().splitlines()) <= 12


def test_on_a_terminal_the_line_is_redrawn(clock: list[float]) -> None:
    out = Terminal()
    run(out, clock)
    text = out.getvalue()
    assert text.count("\n") == 1
    # What a terminal shows after carriage returns: the last line covers all before it.
    assert text.split("\r")[-1] == "  ratings: 4,800,000 rows (48 s)\n"


def test_quiet_says_nothing_and_still_counts(clock: list[float]) -> None:
    out = io.StringIO()
    reporter = run(out, clock, quiet=True)
    assert out.getvalue() == ""
    assert len(reporter.stages) == 1
    reporter.warn("  warning: odd")
    assert out.getvalue() == "  warning: odd\n"


def test_a_failed_stage_is_not_recorded(clock: list[float]) -> None:
    reporter = TerminalProgress(Terminal())
    with pytest.raises(KeyError), reporter.stage("a", "a"):
        raise KeyError
    assert reporter.stages == []


def test_without_a_reporter_stages_are_timed_and_counted(clock: list[float]) -> None:
    silent = Progress()
    totals = iter([{"tasks": 3}, {"tasks": 8}])
    silent.counter = lambda: next(totals)
    with silent.stage("a", "a") as stage:
        clock[0] += 2.0
        stage.update(1, 2, "partitions")
    assert [(s.seconds, s.counts) for s in silent.stages] == [(2.0, {"tasks": 5})]


def test_a_closed_stream_does_not_stop_the_work(clock: list[float]) -> None:
    out = Terminal()
    reporter = TerminalProgress(out)
    out.close()
    with reporter.stage("a", "a"):
        reporter.say("lost")
    assert len(reporter.stages) == 1
    assert not reporter.live


def test_no_control_character_and_no_secret_reaches_the_terminal() -> None:
    stream = io.StringIO()
    progress = TerminalProgress(stream)
    progress.warn("\x1b[2J\x9b31m a\rb\x07 \u202e http://me:pw@host/x?token=1")
    progress.say("movies: Amélie, 東京")
    text = stream.getvalue()
    assert text == (
        "\\x1b[2J\\x9b31m a b\\x07 \\u202e http://***@host/x?***\nmovies: Amélie, 東京\n"
    )
