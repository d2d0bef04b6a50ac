"""What the kernel counts of cgroups (memory.stat) before and after a pass over the pages.

A pass is not of one moment: a page that is freed and charged again meanwhile, or moved to another frame, may
be met twice or not at all. The kernel's counters have no such error, but a reader sees them late: it flushes
those of a cgroup only if more than 64 pages for each CPU have changed (memcg_vmstats_needs_flush() in
mm/memcontrol.c). So both readings may contain page cache that was evicted before the pass. They have no
files either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple

from tracer.capture.contents.held import CountedBetween
from tracer.kernel.cgroups.cgroupfs import Hierarchy, walk
from tracer.kernel.cgroups.memory_files import Reading, read_stat

_MOST_CGROUPS: Final = 1000
"""The cgroups that are read: each takes 0.1 ms, twice."""


class CountedCgroup(NamedTuple):
    """The counters of a cgroup without cgroups below it: those of others contain the cgroups below."""

    path: str
    reading: Reading


def count(hierarchy: Hierarchy, below: Sequence[str] | None) -> dict[int, CountedCgroup]:
    """Return cgroup id -> the counters of the cgroups at or below these paths; None: of all cgroups.

    {} if they are too many.
    """
    walked = {
        one.id: one
        for path in (("/",) if below is None else below)
        for one in islice(walk(hierarchy, path), _MOST_CGROUPS + 1)
    }
    if len(walked) > _MOST_CGROUPS:
        return {}
    parents = {one.parent_id for one in walked.values()}
    return {
        number: CountedCgroup(one.path, reading)
        for number, one in walked.items()
        if number not in parents and (reading := _read(hierarchy, one.path))
    }


def between(hierarchy: Hierarchy, before: Mapping[int, CountedCgroup]) -> dict[int, CountedBetween]:
    """Read the counters again, and return cgroup id -> the least and the most of both readings."""
    return {
        number: CountedBetween(
            *(
                (min(one.reading[column], reading[column]), max(one.reading[column], reading[column]))
                for column in ("anon_bytes", "shmem_bytes", "file_bytes")
            )
        )
        for number, one in before.items()
        if (reading := _read(hierarchy, one.path))
    }


def _read(hierarchy: Hierarchy, path: str) -> Reading:
    """Return the counters of a cgroup; {} if it was removed meanwhile, or cannot be read."""
    with suppress(OSError):
        return read_stat(hierarchy.directory(path), hierarchy.version)
    return {}
