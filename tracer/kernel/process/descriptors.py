"""How many files this process may have open, and may go on to open."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

Limits = tuple[int, int]
"""The soft and the hard limit (getrlimit(2))."""


@contextmanager
def as_many_as_allowed() -> Iterator[Limits]:
    """Raise RLIMIT_NOFILE to its hard limit for a while.

    Yield what it was before, which a command started meanwhile is to have: programs that use select(2) break
    on descriptors above 1023, and are protected by the usual soft limit.
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
    """Give another process of ours these limits."""
    with suppress(OSError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
