"""Retry remote reads; turn failures into one-line errors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from segmentation.errors import DataError, format_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Result = TypeVar("_Result")

#: Seconds to wait before each retry.
_PAUSES = (0.2, 0.5, 1.0, 2.0)
#: HTTP statuses that a retry may change (RFC 9110 and RFC 6585).
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class AccessDeniedError(DataError):
    """The server or the operating system denies access to a path or URL."""


def with_retries(path: str, action: Callable[[], _Result], *, must_exist: bool = False) -> _Result:
    """Call a function that reads from a file system, and retry transient failures.

    Parameters
    ----------
    path
        The path or URL, for error messages.
    action
        The function. It is called again after a connection error, a timeout or a transient HTTP
        status.
    must_exist
        Report a missing file as a :class:`DataError`.

    Raises
    ------
    FileNotFoundError
        If the file does not exist and ``must_exist`` is false.
    AccessDeniedError
        If the server or the operating system denies access.
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
        # Each file system raises its own errors, and not all of them derive from OSError.
        except Exception as error:
            status = _find_http_status(error)
            if _is_missing(error, status):
                if must_exist:
                    raise DataError(f"{path}: no such file; check its name and folder") from error
                raise FileNotFoundError(path) from error
            reason = f"{status} {_find_reason_phrase(error)}" if status else describe_error(error)
            is_url = "://" in path
            if status in (401, 403) or isinstance(error, PermissionError):
                advice = (
                    "check the address, the permissions and whether the link has expired"
                    if is_url
                    else "check its permissions and those of its folder"
                )
                raise AccessDeniedError(f"{path}: access denied ({reason}); {advice}") from error
            is_transient = status in _TRANSIENT_STATUSES or (
                status is None and _is_connection_error(error)
            )
            if pause is None or not is_transient:
                attempts = f", {len(_PAUSES) + 1} attempts" if is_transient else ""
                raise DataError(
                    f"{path}: can't be read ({reason}{attempts}); check the "
                    f"{'address' if is_url else 'path'}, or try again later"
                ) from error
        time.sleep(pause)
    raise AssertionError


def describe_error(error: BaseException) -> str:
    r"""Return the message of an error's root cause as one line; its type if it has no message.

    Examples
    --------
    >>> describe_error(OSError("cut  off\nhere"))
    'cut off here'
    """
    *_, root = _iterate_causes(error)
    return format_error(root)


def _iterate_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _find_http_status(error: BaseException) -> int | None:
    """Return the HTTP status of an error or of its causes; None if none of them has one."""
    statuses = (getattr(cause, "status", None) for cause in _iterate_causes(error))
    return next((status for status in statuses if isinstance(status, int)), None)


def _find_reason_phrase(error: BaseException) -> str:
    phrases = (getattr(cause, "message", None) for cause in _iterate_causes(error))
    return next((text for text in phrases if isinstance(text, str)), "") or "no reason given"


def _is_missing(error: BaseException, status: int | None) -> bool:
    if status is not None:
        return status in (404, 410)
    # fsspec's info() over HTTP raises FileNotFoundError for any failure, caused by the real error.
    return isinstance(error, FileNotFoundError) and error.__cause__ is None


def _is_connection_error(error: BaseException) -> bool:
    """Return whether an error or one of its causes is a failed connection or a timeout."""
    kinds: tuple[type[BaseException], ...] = (ConnectionError, TimeoutError)
    try:
        import aiohttp
    except ImportError:
        pass
    else:
        kinds += (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)
    return any(isinstance(cause, kinds) for cause in _iterate_causes(error))
