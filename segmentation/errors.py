"""Errors that a user can fix, with the exit status that a job ends with.

A message is one line that says what is wrong, where, and what to do. It speaks of settings by
their field names; ``jobs`` renders the same message with the names of its options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmentation.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

_NO_NAMES: dict[str, str] = {}


def format_error(error: BaseException) -> str:
    r"""Return the message of any error as one line; its type if it has no message.

    Examples
    --------
    >>> format_error(OSError("cut  off\nhere")), format_error(TimeoutError())
    ('cut off here', 'TimeoutError')
    """
    return redact(" ".join(str(error).split())) or type(error).__name__


class SegmentationError(Exception):
    """Base of every error that a user can fix.

    Parameters
    ----------
    message
        One line. Without ``fields`` it is taken as it is; with them it is a format string.
    fields
        The settings that the message speaks of; it holds each one's name in braces.
    values
        What else it holds in braces.

    Examples
    --------
    >>> error = UsageError("{k} {value}: choose from 1 to {limit}", "k", value=99, limit=50)
    >>> str(error)
    'k 99: choose from 1 to 50'
    >>> error.render({"k": "--k"})
    '--k 99: choose from 1 to 50'
    """

    exit_status = 1

    def __init__(self, message: str, *fields: str, **values: object) -> None:
        # The secrets of URLs go no further: neither to a terminal nor to the log of a worker.
        self.message = redact(message)
        super().__init__(self.message, *fields)
        self.fields = fields
        self.values = {
            name: redact(value) if isinstance(value, str) else value
            for name, value in values.items()
        }

    def __str__(self) -> str:
        return self.render()

    def render(self, names: Mapping[str, str] = _NO_NAMES) -> str:
        """Return the message; ``names`` maps a field to what the reader calls it."""
        if not self.fields:
            return self.message
        return self.message.format(
            **{field: names.get(field, field) for field in self.fields}, **self.values
        )


class UsageError(SegmentationError):
    """Settings that contradict each other, or ask for what does not exist."""

    exit_status = 2


class DataError(SegmentationError):
    """Input that can't be used."""

    exit_status = 3


class ClusterError(SegmentationError):
    """A cluster that can't be started, reached or relied on."""

    exit_status = 4
