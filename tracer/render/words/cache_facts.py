"""The page cache of a cgroup by file, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from tracer import units
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import CacheContents, CachedFile
from tracer.render.words.escape import visible
from tracer.render.words.prose import Fact

_LEAST_OF_ALL: Final = 0.05
_LEAST_SHARE: Final = 0.03
_MOST_FILES: Final = 3


def of_kill(report: OomReport) -> Iterator[Fact]:
    """Yield `by_file` for a kill."""
    yield from by_file(report.cached, report.composition.total, report.time)


def by_file(
    found: CacheContents | None, usage_bytes: int | None, until: pd.Timestamp | None
) -> Iterator[Fact]:
    """Yield the files with most page cache at a look, and when that was, if it was a notable part of usage.

    `until`: the moment of the kill; None: the cgroup lived.
    """
    if found is None or not found.files or found.bytes < _LEAST_OF_ALL * (usage_bytes or 0):
        return
    least = _LEAST_SHARE * found.bytes
    large = [file for file in found.files if file.bytes >= least][:_MOST_FILES]
    if not large:
        large = list(found.files[:1])
    rest, further = found.bytes, len(found.files) + found.further_files - len(large)
    rest -= sum(file.bytes for file in large)
    more = []
    if further and rest >= least:
        more = [f"{units.size(rest)} of {units.count(further)} other file{'' if further == 1 else 's'}"]
    yield "in cache", ", ".join([*map(_words, large), *more])
    yield "", f"{units.size(found.bytes)} in all, {_when(found, until)}"


def _words(file: CachedFile) -> str:
    """Return `3.1 GiB of /var/log/app.log (0.2 GiB not written)`."""
    name = "a file whose name is not known" if file.path is None else visible(file.path)
    notes = []
    if file.kind == "shmem":
        notes.append("in memory only")
    if file.dirty_bytes:
        notes.append(f"{units.size(file.dirty_bytes)} not written yet")
    beside = f" ({', '.join(notes)})" if notes else ""
    return f"{units.size(file.bytes)} of {name}{beside}"


def _when(found: CacheContents, until: pd.Timestamp | None) -> str:
    if until is None:
        return f"at {found.time:%H:%M:%S}"
    return f"{units.duration((until - found.time).total_seconds())} before the kill"
