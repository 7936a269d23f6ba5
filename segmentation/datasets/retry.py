"""Retry remote reads; turn failures into one-line errors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from segmentation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Result = TypeVar("_Result")

#: Seconds to wait before each retry.
_PAUSES = (0.2, 0.5, 1.0, 2.0)
#: HTTP statuses that a retry may change (RFC 9110 and RFC 6585).
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class AccessDeniedError(DataError):
    """A path or URL that the server or the system does not let us read."""


def with_retries(path: str, action: Callable[[], _Result], *, must_exist: bool = False) -> _Result:
    """Call a function that reads from a file system, and retry transient failures.

    Parameters
    ----------
    path
        The path or URL, for error messages.
    action
        The call. It runs again after a connection error, a timeout or an HTTP status that may pass.
    must_exist
        Report a missing file as a :class:`DataError`.

    Raises
    ------
    FileNotFoundError
        If the file does not exist and ``must_exist`` is false.
    AccessDeniedError
        If the server or the system denies access.
    DataError
        If the read fails for any other reason, or on every attempt.

    Examples
    --------
    >>> with_retries("memory://a.csv", lambda: b"userId")
    b'userId'
    """
    for pause in (*_PAUSES, None):
        try:
            return action()
        except DataError:
            raise
        # Each file system raises errors of its own, and not all of them derive from OSError.
        except Exception as error:
            status = _http_status(error)
            if _is_missing(error, status):
                if must_exist:
                    raise DataError(f"{path}: no such file; check its name and folder") from error
                raise FileNotFoundError(path) from error
            answer = f"{status} {_reason_phrase(error)}" if status else describe_error(error)
            if status in (401, 403) or isinstance(error, PermissionError):
                raise AccessDeniedError(
                    f"{path}: access denied ({answer}); check the address, the permissions and "
                    "whether the link has expired"
                ) from error
            is_transient = status in _TRANSIENT_STATUSES or (
                status is None and _is_connection_error(error)
            )
            if pause is None or not is_transient:
                attempts = f", {len(_PAUSES) + 1} attempts" if is_transient else ""
                raise DataError(
                    f"{path}: can't be read ({answer}{attempts}); check the address, or try again "
                    "later"
                ) from error
        time.sleep(pause)
    raise AssertionError


def describe_error(error: BaseException) -> str:
    r"""Return the message of an error's root cause as one line; its type where it has none.

    Examples
    --------
    >>> describe_error(OSError("cut  off\nhere"))
    'cut off here'
    """
    *_, root = _cause_chain(error)
    return " ".join(str(root).split()) or type(root).__name__


def _cause_chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _http_status(error: BaseException) -> int | None:
    """Return the status that an HTTP server answered with, None if it did not answer."""
    statuses = (getattr(cause, "status", None) for cause in _cause_chain(error))
    return next((status for status in statuses if isinstance(status, int)), None)


def _reason_phrase(error: BaseException) -> str:
    phrases = (getattr(cause, "message", None) for cause in _cause_chain(error))
    return next((text for text in phrases if isinstance(text, str)), "") or "no reason given"


def _is_missing(error: BaseException, status: int | None) -> bool:
    if status is not None:
        return status in (404, 410)
    # fsspec raises FileNotFoundError for every failed HTTP request; the real error is its cause.
    return isinstance(error, FileNotFoundError) and error.__cause__ is None


def _is_connection_error(error: BaseException) -> bool:
    """Return whether a connection failed, directly or as the cause of fsspec's error."""
    kinds: tuple[type[BaseException], ...] = (ConnectionError, TimeoutError)
    try:
        import aiohttp
    except ImportError:
        pass
    else:
        kinds += (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)
    return any(isinstance(cause, kinds) for cause in _cause_chain(error))
