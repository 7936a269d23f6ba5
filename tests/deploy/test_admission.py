"""Workers that join during a run: who is checked, who is turned away, and how."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from distributed.core import Status

from segmentation.deploy import admission, preflight


class FakeWorker:
    """What a plugin uses of a worker."""

    def __init__(self, name: str = "new") -> None:
        self.name, self.address, self.status = name, "tcp://h:1", Status.running
        self.events: list[tuple[str, str]] = []
        self.callbacks: list[tuple[Callable, dict]] = []
        self.loop = self

    def log_event(self, topic: str, message: str) -> None:
        self.events.append((topic, message))

    def add_callback(self, callback: Callable, **keywords: object) -> None:
        self.callbacks.append((callback, keywords))

    def close(self) -> None:
        raise AssertionError("only the event loop may close it")


REQUIREMENTS = admission.Requirements(
    files=("a.csv",),
    digest="d",
    versions={},
    partition_bytes=1,
    known_workers=frozenset({"old", "tcp://h:2"}),
)


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the check of the worker finds."""
    results: list[str] = []
    monkeypatch.setattr(preflight, "check_new_worker", lambda worker, requirements: list(results))
    return results


def set_up(worker: FakeWorker) -> FakeWorker:
    admission.WorkerAdmission("topic", REQUIREMENTS).setup(worker)
    return worker


def test_a_worker_that_passes_is_admitted(findings: list[str]) -> None:
    worker = set_up(FakeWorker())
    assert (worker.status, worker.events, worker.callbacks) == (Status.running, [], [])


def test_a_worker_that_does_not_pass_is_paused_reported_and_closed(findings: list[str]) -> None:
    findings += ["too old", "too small"]
    worker = set_up(FakeWorker())
    assert worker.status == Status.paused
    assert worker.events == [("topic", "too old; too small")]
    ((callback, keywords),) = worker.callbacks
    assert callback == worker.close
    assert keywords["nanny"] is True


def test_a_restarted_worker_is_not_checked_again(findings: list[str]) -> None:
    findings.append("too old")
    assert set_up(FakeWorker("old")).status == Status.running


def test_a_worker_that_cannot_be_checked_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(worker: object, requirements: object) -> list[str]:
        raise OSError("disk on fire")

    monkeypatch.setattr(preflight, "check_new_worker", fail)
    worker = set_up(FakeWorker())
    assert worker.status == Status.paused
    ((_, message),) = worker.events
    assert "could not be checked (OSError('disk on fire')); see its log" in message
