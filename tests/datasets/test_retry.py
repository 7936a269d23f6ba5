"""Which failures are retried, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from segmentation.datasets import retry
from segmentation.datasets.retry import AccessDeniedError, describe_error, with_retries
from segmentation.errors import DataError

PATH = "https://example.org/ratings.csv"


class HttpError(Exception):
    """As aiohttp's ClientResponseError: a status and a reason phrase."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(f"{status}, message={message!r}")
        self.status = status
        self.message = message


def caused(error: Exception, cause: Exception) -> Exception:
    """As fsspec wraps the errors of HTTP requests."""
    error.__cause__ = cause
    return error


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, without making them."""
    generated: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", generated.append)
    return generated


def failing(*errors: Exception) -> Callable[[], str]:
    """An action that raises these errors, one per call, and then returns."""
    remaining = list(errors)

    def action() -> str:
        if remaining:
            raise remaining.pop(0)
        return "content"

    return action


@pytest.mark.parametrize(
    "error",
    [
        HttpError(500),
        HttpError(503),
        HttpError(429),
        HttpError(408),
        ConnectionResetError(),
        TimeoutError(),
        caused(FileNotFoundError(PATH), ConnectionRefusedError()),
        caused(FileNotFoundError(PATH), HttpError(502)),
    ],
)
def test_transient_failures_are_retried(pauses: list[float], error: Exception) -> None:
    assert with_retries(PATH, failing(error, error)) == "content"
    assert pauses == [0.2, 0.5]


def test_aiohttps_connection_errors_are_retried(pauses: list[float]) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    errors = [aiohttp.ClientPayloadError("cut off"), aiohttp.ServerDisconnectedError()]
    assert with_retries(PATH, failing(*errors)) == "content"
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (HttpError(500, "Internal Server Error"), "500 Internal Server Error"),
        (HttpError(503), "503 no reason given"),
        (ConnectionResetError("reset\nby peer"), "reset by peer"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_retries_end(pauses: list[float], error: Exception, answer: str) -> None:
    with pytest.raises(DataError) as caught:
        with_retries(PATH, failing(*[error] * 5))
    assert str(caught.value) == (
        f"{PATH}: can't be read ({answer}, 5 attempts); check the address, or try again later"
    )
    assert pauses == [0.2, 0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("error", "answer"),
    [(HttpError(418, "I'm a Teapot"), "418 I'm a Teapot"), (ValueError("bad range"), "bad range")],
)
def test_other_failures_are_not_retried(pauses: list[float], error: Exception, answer: str) -> None:
    with pytest.raises(DataError) as caught:
        with_retries(PATH, failing(error))
    assert str(caught.value) == (
        f"{PATH}: can't be read ({answer}); check the address, or try again later"
    )
    assert caught.value.__cause__ is error
    assert pauses == []


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("gone"),
        HttpError(404),
        HttpError(410),
        caused(FileNotFoundError(PATH), HttpError(404)),
    ],
)
def test_missing_files(pauses: list[float], error: Exception) -> None:
    with pytest.raises(FileNotFoundError):
        with_retries(PATH, failing(error))
    with pytest.raises(DataError, match="no such file; check its name and folder"):
        with_retries(PATH, failing(error), must_exist=True)
    assert pauses == []


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (HttpError(401, "Unauthorized"), "401 Unauthorized"),
        (caused(FileNotFoundError(PATH), HttpError(403, "Forbidden")), "403 Forbidden"),
        (PermissionError("Access Denied"), "Access Denied"),
    ],
)
def test_denied_access(pauses: list[float], error: Exception, answer: str) -> None:
    with pytest.raises(AccessDeniedError) as caught:
        with_retries(PATH, failing(error))
    assert str(caught.value) == (
        f"{PATH}: access denied ({answer}); check the address, the permissions and whether the "
        "link has expired"
    )
    assert pauses == []


def test_errors_of_the_data_pass_unchanged(pauses: list[float]) -> None:
    error = DataError("a.csv: is empty")
    with pytest.raises(DataError) as caught:
        with_retries(PATH, failing(error))
    assert caught.value is error


def test_describe_error_names_the_root_cause() -> None:
    error = caused(RuntimeError("outer"), caused(OSError("middle"), ValueError(" the\n cause ")))
    assert describe_error(error) == "the cause"
    assert describe_error(KeyError()) == "KeyError"


def test_advice_on_a_local_path_names_no_address() -> None:
    def fail() -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(AccessDeniedError, match="check its permissions and those of its folder"):
        with_retries("data/ratings.csv", fail)
