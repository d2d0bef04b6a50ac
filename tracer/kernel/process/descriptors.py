"""The limit of open files of this process, and of the commands that it starts."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

Limits = tuple[int, int]
"""The soft and the hard limit (getrlimit(2))."""


@contextmanager
def as_many_as_allowed() -> Iterator[Limits]:
    """Raise RLIMIT_NOFILE to its hard limit for a while, and yield the limits from before.

    A command that is started meanwhile should get the limits from before: programs that use select(2) break
    on descriptors above 1023, from which the usual soft limit protects them.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # fs.nr_open was lowered below the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield before
    finally:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def restore(pid: int, limits: Limits) -> None:
    """Set the limits of another process of ours."""
    with suppress(OSError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
