"""Questions to servers: asked again where one stumbles, and told in a line where it fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from segmentation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds before each further attempt at what a server or the way to it failed at.
_PAUSES = (0.2, 0.5, 1.0, 2.0)
#: Answers that may be others the next time (RFC 9110 and RFC 6585).
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class RefusedError(DataError):
    """A place that its server or system doesn't let us read."""


def with_retries(path: str, action: Callable[[], Any]) -> Any:
    """Ask a server for something, again where it stumbles.

    Raises
    ------
    FileNotFoundError
        If it isn't there.
    DataError
        If the server or the way to it fails for good; its kind :class:`RefusedError` where access
        is denied.
    """
    for pause in (*_PAUSES, None):
        try:
            return action()
        # Each file system has errors of its own, and not all are OSErrors.
        except Exception as error:
            if isinstance(error, DataError):
                raise
            status = _status(error)
            if status in (404, 410) or (status is None and _is_missing(error)):
                raise FileNotFoundError(path) from error
            if status in (401, 403) or isinstance(error, PermissionError):
                answer = f"{status} {_reason(error)}" if status else one_line(error)
                raise RefusedError(
                    f"{path}: its server refuses it ({answer}): check the address, the rights and "
                    "that the link has not expired"
                ) from error
            passing = status in _PASSING or (status is None and _is_of_the_way(error))
            if pause is None or not passing:
                answer = f"{status} {_reason(error)}" if status else one_line(error)
                raise DataError(
                    f"{path}: can't be read ({answer}"
                    f"{f', {len(_PAUSES) + 1} times' if passing else ''}): check the address, or "
                    "try again later"
                ) from error
        time.sleep(pause)
    raise AssertionError


def known(path: str, action: Callable[[], Any]) -> Any:
    """Do as :func:`asked` does for a file that was there a moment ago.

    Raises
    ------
    DataError
        If it isn't there any more, or can't be read.
    """
    try:
        return with_retries(path, action)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file: check its name and folder") from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    while True:
        yield error
        if error.__cause__ is None:
            return
        error = error.__cause__


def _status(error: BaseException) -> int | None:
    """Return the status that a web server answered with, if it is that."""
    found = (getattr(cause, "status", None) for cause in _chain(error))
    return next((status for status in found if isinstance(status, int)), None)


def _reason(error: BaseException) -> str:
    found = (getattr(cause, "message", None) for cause in _chain(error))
    return next((text for text in found if isinstance(text, str)), "") or "no reason given"


def _is_missing(error: BaseException) -> bool:
    # fsspec calls whatever goes wrong with a question to a web server a missing file.
    return isinstance(error, FileNotFoundError) and error.__cause__ is None


def _is_of_the_way(error: BaseException) -> bool:
    """Tell whether a connection failed, by itself or within fsspec's error."""
    kinds: tuple[type[BaseException], ...] = (ConnectionError, TimeoutError)
    try:
        import aiohttp
    except ImportError:
        pass
    else:
        kinds += (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)
    return any(isinstance(cause, kinds) for cause in _chain(error))


def one_line(error: BaseException) -> str:
    """Return an error's message as one line."""
    for cause in _chain(error):
        last = cause
    return " ".join(str(last).split()) or type(last).__name__
