"""What held memory, in words: the page cache by file, processes by mapping, and their runtimes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pandas as pd

from tracer import units
from tracer.analysis.explain import runtimes
from tracer.analysis.explain.words.sentence_parts import process
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import CacheContents, CachedFile, MappedPart, ProcessMemory, Runtime
from tracer.render.words.escape import visible
from tracer.render.words.prose import Fact

_LEAST_OF_ALL: Final = 0.05
_LEAST_SHARE: Final = 0.03
_MOST_FILES: Final = 3
_AT_ONCE_S: Final = 0.2
"""The longest look whose duration is not said."""


def cache_at_kill(report: OomReport) -> Iterator[Fact]:
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
    yield "in cache", ", ".join([*map(_file, large), *more])
    yield "", f"{units.size(found.bytes)} in all, {_when_looked(found, until)}"


def _file(file: CachedFile) -> str:
    """Return `3.1 GiB of /var/log/app.log (0.2 GiB not written)`."""
    name = "a file whose name is not known" if file.path is None else visible(file.path)
    notes = []
    if file.kind == "shmem":
        notes.append("in memory only")
    if file.dirty_bytes:
        notes.append(f"{units.size(file.dirty_bytes)} not written yet")
    beside = f" ({', '.join(notes)})" if notes else ""
    return f"{units.size(file.bytes)} of {name}{beside}"


def _when_looked(found: CacheContents, until: pd.Timestamp | None) -> str:
    took_s = found.duration_ns / 1e9
    slowly = (
        f", in a look of {units.duration(took_s)}: cache may have changed meanwhile"
        if took_s > _AT_ONCE_S
        else ""
    )
    if until is None:
        return f"at {found.time:%H:%M:%S}{slowly}"
    return f"{units.duration((until - found.time).total_seconds())} before the kill{slowly}"


_MOST_PARTS: Final = 6


def by_mapping(
    listed: Sequence[ProcessMemory], moment: pd.Timestamp | None, event: str = "the kill"
) -> Iterator[Fact]:
    """Yield the largest parts of the first process of a look, and when that was.

    `moment`: when `event` was; None: not known.
    """
    for one in listed[:1]:
        least = _LEAST_SHARE * one.rss_bytes
        large = [part for part in one.parts if part.rss_bytes + part.swap_bytes >= least][:_MOST_PARTS]
        rest = one.rss_bytes - sum(part.rss_bytes for part in large)
        more = [f"{units.size(rest)} of other mappings"] if rest >= least else []
        yield "by mapping", ", ".join([*map(part_words, large), *more]) + _shared(one)
        yield "", _process(one, moment, event)


def every_part(
    listed: Sequence[ProcessMemory], moment: pd.Timestamp | None, event: str = "the kill"
) -> Iterator[Fact]:
    """Yield every process of a look, and below it each of its parts."""
    for number, one in enumerate(listed):
        yield "" if number else "by mapping", f"{_process(one, moment, event)}{_shared(one)}:"
        yield from (("", f"  {part_words(part)}") for part in one.parts)


def _process(one: ProcessMemory, moment: pd.Timestamp | None, event: str) -> str:
    return f"{visible(process(one.comm, one.pid))}, {units.size(one.rss_bytes)}, {_when(one, moment, event)}"


def part_words(part: MappedPart) -> str:
    """Return `35 MiB in 174 thread stacks`."""
    swapped = f" (and {units.size(part.swap_bytes)} in swap)" if part.swap_bytes else ""
    return f"{units.size(part.rss_bytes)} {_PARTS[part.kind](part)}{swapped}"


def _shared(one: ProcessMemory) -> str:
    if one.shared_bytes < _LEAST_SHARE * one.rss_bytes:
        return ""
    return f"; {units.size(one.shared_bytes)} of it is shared with other processes since a fork"


def _when(one: ProcessMemory, moment: pd.Timestamp | None, event: str) -> str:
    if moment is None:
        return "near the limit"
    seconds = (moment - one.time).total_seconds()
    return f"{units.duration(abs(seconds))} {'before' if seconds >= 0 else 'after'} {event}"


def _in(noun: str, nouns: str) -> Callable[[MappedPart], str]:
    return lambda part: f"in {units.count(part.count)} {noun if part.count == 1 else nouns}"


def _of(words: str) -> Callable[[MappedPart], str]:
    """Return words for the pages of a file, which is known by the last part of its path."""

    def words_of(part: MappedPart) -> str:
        file = part.name.rpartition("/")[2]
        return f"{words} of {visible(file)}" if file else f"{words} of several files"

    return words_of


def _stack(part: MappedPart) -> str:
    return "of the first stack" if part.name else _in("thread stack", "thread stacks")(part)


def _anonymous(part: MappedPart) -> str:
    named = f" named {visible(part.name)}" if part.name else ""
    return f"anonymous{named} in {units.count(part.count)} mapping{'' if part.count == 1 else 's'}"


_PARTS: Final[dict[str, Callable[[MappedPart], str]]] = {
    "heap": lambda _: "heap",
    "arena": _in("malloc arena", "malloc arenas"),
    "stack": _stack,
    "go heap": lambda _: "Go heap",
    "java heap": lambda _: "Java heap",
    "v8 heap": lambda _: "V8 heap",
    "code": lambda _: "code without a file (JIT)",
    "bss": _of("zeroed data"),
    "anonymous": _anonymous,
    "file copy": _of("private copies"),
    "file": _of("page cache"),
    "shared": lambda part: f"shared: {visible(part.name)}" if part.name else "in shared mappings",
    "other": lambda _: "of the kernel",
    "unread": lambda part: f"not read ({visible(part.name)})",
}


def of_runtimes(listed: Sequence[Runtime], looked_at: Sequence[ProcessMemory]) -> Iterator[Fact]:
    """Yield lines on the runtimes of the first process of a look."""
    for label, words in runtimes.lines(listed, looked_at):
        yield label, visible(words)
