"""Text for people and files: without the secrets of URLs, and without control characters."""

from __future__ import annotations

import logging
import re
import traceback
from typing import Any

#: Replaces a secret.
_HIDDEN = "***"

#: The parts of a URL in a text. pathlib leaves one of the slashes after a scheme, and a scheme of
#: one letter is a drive of Windows. Rather too much is hidden than too little: passwords may hold
#: spaces, slashes and quotes, and a query ends at white space only.
_SCHEME = r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+:/{1,3})"
_USER = r"(?P<user>[^\s/?#@]*:(?:(?!://)[^\n])*@|[^\s/?#]*@)?"
_URL = re.compile(
    _SCHEME
    + _USER
    # A quote belongs to the path if a query follows, and a blank to the query if a field follows.
    + r"""(?P<path>(?:[^\s?#'"<>]|['"<>](?=[^\s?#]*[?#]))*)"""
    + r"""(?P<query>[?#](?:\S*(?:[ \t][^\s=&]*&\S*)*[^\s'"<>:;,.)\]}])?)?"""
)
#: The same between tags and in attributes, which must stay whole.
_URL_IN_HTML = re.compile(
    _SCHEME
    + r"""(?P<user>[^\s/?#@"<>]*:[^\s?#"<>]*@|[^\s/?#"<>]*@)?(?P<path>[^\s?#'"<>]*)"""
    + r"""(?P<query>[?#](?:[^\s"<>]*[^\s'"<>:;,.)])?)?"""
)


#: A user and a password after slashes without a scheme.
_USER_WITHOUT_SCHEME = re.compile(r"""(?<![:/])//[^\s/?#@"'<>]*:[^\s@"'<>]*@""")


def redact(text: str) -> str:
    """Hide the user, the password, the query and the fragment of every URL in a text.

    A signed link carries its signature in the query, so all of it is hidden. Without a scheme, only
    a user with a password is.

    Examples
    --------
    >>> redact("https://me:secret@host/ratings.csv?token=abc: no such file")
    'https://***@host/ratings.csv?***: no such file'
    >>> redact("zip://ratings.csv::s3://bucket/ml.zip")
    'zip://ratings.csv::s3://bucket/ml.zip'
    """
    if "//" in text and "@" in text:
        text = _USER_WITHOUT_SCHEME.sub(f"//{_HIDDEN}@", text)
    return _URL.sub(_hide, text) if ":/" in text else text


def redact_html(text: str) -> str:
    """Redact the URLs of an HTML page, and leave its tags whole."""
    text = _USER_WITHOUT_SCHEME.sub(f"//{_HIDDEN}@", text)
    return _URL_IN_HTML.sub(_hide, text)


def _hide(match: re.Match[str]) -> str:
    user = f"{_HIDDEN}@" if match["user"] else ""
    query = f"{match['query'][0]}{_HIDDEN}" if match["query"] else ""
    return f"{match['scheme']}{user}{match['path']}{query}"


def redact_values(value: Any) -> Any:
    """Return nested dicts, lists and tuples with every string redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: redact_values(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_values(item) for item in value]
    return value


def make_printable(text: str) -> str:
    r"""Return redacted text for a terminal: control characters, which could steer it, are escaped.

    Line ends and what is no control character stay.

    Examples
    --------
    >>> make_printable("\x1b[2Jratings\n")
    '\\x1b[2Jratings\n'
    """
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in redact(text))


def _escape(character: str) -> str:
    return " " if character.isspace() else character.encode("unicode_escape").decode("ascii")


class RedactingFilter(logging.Filter):
    """Redact log records, with their tracebacks: Dask logs the arguments of a failed task."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a record; let all of them through."""
        record.msg, record.args = redact(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = redact("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return True


def redact_logs(logger: logging.Logger) -> None:
    """Redact what the handlers of a logger write from now on."""
    for handler in logger.handlers:
        if not any(isinstance(entry, RedactingFilter) for entry in handler.filters):
            handler.addFilter(RedactingFilter())
