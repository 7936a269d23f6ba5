"""What can go wrong that is not a defect of ours.

Each error carries the exit status that a job ends with, and a message of one line that says what
is wrong, where, and what to do about it.
"""

from __future__ import annotations


class SegmentationError(Exception):
    """Base of every error that a person can mend; ``exit_status`` is what a job ends with."""

    exit_status = 1


class UsageError(SegmentationError):
    """Options that contradict each other, or ask for what does not exist."""

    exit_status = 2


class DataError(SegmentationError):
    """Input that can't be used."""

    exit_status = 3


class ClusterError(SegmentationError):
    """A cluster that can't be started, reached or relied on."""

    exit_status = 4
