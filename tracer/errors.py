"""The exceptions that the command line turns into a line on stderr and an exit status."""

from __future__ import annotations


class TracerError(Exception):
    """An operation failed for a reason that the user can act on.

    The message is one line that says what to do next; `exit_code` is the exit status of the process.
    """

    exit_code = 1


class UsageError(TracerError):
    """The arguments make no sense on any machine."""

    exit_code = 2


class TraceError(TracerError):
    """A trace cannot be opened, read or written."""
