"""The facts about reclaim: the attempts, the pages they could not free, the waiting tasks, memory.high.

Labels, sentences and table cells, with every name escaped by `visible`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracer import units
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.memory import MissPoint, Reclaim, ReclaimAttempt
from tracer.render.words.escape import visible
from tracer.render.words.kill_facts import seconds_before
from tracer.render.words.places import place, place_of_life
from tracer.render.words.prose import Fact
from tracer.render.words.quality_facts import not_known
from tracer.schema import UNLIMITED_BYTES

if TYPE_CHECKING:
    from tracer.analysis.results.survivor import Held, HighOwner

MEMORY_HIGH: Final = "memory.high"
MEMORY_MAX: Final = "memory.max"
KINDS_IN_WORDS: Final = {
    "reclaim": "in reclaim",
    "writeback": "in reclaim waiting for writeback",
    "isolated": "in reclaim because other tasks had isolated too many pages",
    "noprogress": "in reclaim because it freed nothing",
    "congested": "in reclaim for pages that were still under writeback when reclaim reached them again",
    "other": "in reclaim for an unnamed reason",
    "dirty": "as a writer because too much was dirty",
    "swap_in": "for swapped memory to be read back",
    "high": f"above {MEMORY_HIGH}",
}
"""Kind of a wait (`analysis.views.reclaim.KINDS`) -> the words after its duration."""

MORE_MEMORY_TITLES: Final = ("more memory", "page cache that would have stayed", "share")
_MODEL: Final = "on an LRU list; short of all, the kernel's lists keep up to a quarter less of mapped files"
"""Measured with and without the multi-generational LRU (docs/sizing.md)."""

MORE_MEMORY_NOTE: Final = (
    "The page cache that was evicted and read again, and what more memory would have kept of it, by the "
    f"order of evictions and returns {_MODEL}. Nothing is known of less memory, because hits are not traced."
)
_SHARES_NAMED: Final = (0.25, 0.5, 0.8, 0.95)

KEPT_IN_WORDS: Final = {
    "nr_dirty": "dirty",
    "nr_writeback": "under writeback",
    "nr_activate": "in use",
    "nr_ref_keep": "referenced",
    "nr_unmap_fail": "mapped",
}
"""Count of the kernel (`categories.RECLAIM_COUNTS`) -> the reason why reclaim did not free the pages."""

_MOST_WAITERS: Final = 3
_TRANSCRIPT_TITLES: Final = ("before the kill", "by", "scanned", "freed", "freed anon", "priority", "took")
_TRANSCRIPT_NOTE: Final = (
    "scanned, freed: pages. freed anon: process memory, which can only be freed with swap. "
    "priority: 12 is a light scan, 0 scans everything; no scan: there was nothing to scan"
)
_KEPT_NOTE: Final = (
    "kept: the most frequent reason why pages were not freed. dirty: must be written first. "
    "in use, referenced: used recently. mapped: a process has them mapped and keeps them"
)


def _total(report: OomReport, page_size: int) -> Fact:
    it = report.reclaim
    if it.attempts is None or it.reclaimed_pages is None or it.stall_ms is None:
        return "total", not_known(report, "reclaim")
    return (
        "total",
        f"{units.count(it.attempts)} attempts scanned {units.count(it.scanned_pages)} pages and freed "
        f"{units.count(it.reclaimed_pages)} ({units.size(it.reclaimed_pages * page_size)}); "
        f"they delayed tasks by {units.duration(it.stall_ms / 1000)}",
    )


def waits(it: Reclaim, high: str = MEMORY_HIGH) -> Iterator[Fact]:
    """Yield the processes that waited longest for memory, with their kinds of waits. `high`: the file with
    the size above which they were throttled."""
    words = KINDS_IN_WORDS | {"high": f"above {high}"}
    for number, waiter in enumerate(it.waiters[:_MOST_WAITERS]):
        name = visible(waiter.comm) if waiter.comm else "name not known"
        kinds = sorted(waiter.kinds_ms.items(), key=lambda kind: -kind[1])
        parts = ", ".join(f"{units.duration(ms / 1000)} {words[kind]}" for kind, ms in kinds)
        total = f"{units.duration(waiter.stalled_ms / 1000)}: " if len(kinds) > 1 else ""
        yield "" if number else "waited most", f"{name} ({waiter.tgid}) {total}{parts}"


def swapped(it: Reclaim) -> Iterator[Fact]:
    """Yield the amounts written to swap and read from it, with their latency; nothing without traffic."""
    for title, io, done in (("to swap", it.swap_writes, "write"), ("from swap", it.swap_reads, "read")):
        if io is None or not io.count:
            continue
        took = "with unknown latency"
        if io.took_ms:
            median, longest = (units.duration(io.took_ms[name] / 1000) for name in ("median", "longest"))
            took = f"half of them within {median}, the slowest in {longest}"
        plural = "" if io.count == 1 else "s"
        yield title, f"{units.size(io.size_bytes)} in {units.count(io.count)} {done}{plural}, {took}"


def kept(attempts: Sequence[ReclaimAttempt]) -> Iterator[Fact]:
    """Yield the pages of each list that these attempts could not free, if the trace separates the lists."""
    for lru, memory in (("file", "page cache"), ("anon", "process memory")):
        sums: dict[str, int] = {}
        for attempt in attempts:
            for count, pages in (_kept(attempt, lru) or {}).items():
                sums[count] = sums.get(count, 0) + pages
        reasons = ", ".join(_kept_in_words(count, pages, sums) for count, pages in _largest(sums))
        if reasons:
            last = "the last attempt" if len(attempts) == 1 else f"the last {len(attempts)} attempts"
            yield f"kept {lru}", f"pages of {memory} that {last} could not free: {reasons}"


def _kept(attempt: ReclaimAttempt, lru: str) -> Mapping[str, int] | None:
    return attempt.kept_file if lru == "file" else attempt.kept_anon


def _kept_in_words(count: str, pages: int, sums: Mapping[str, int]) -> str:
    words = f"{units.count(pages)} {KEPT_IN_WORDS[count]}"
    unqueued = sums["nr_unqueued_dirty"] if count == "nr_dirty" else 0
    return words + (f" ({units.count(unqueued)} of them not yet queued for writeback)" if unqueued else "")


def _largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the counts that have words and are not zero, largest first."""
    found = [(count, pages) for count, pages in counts.items() if pages and count in KEPT_IN_WORDS]
    return sorted(found, key=lambda kept: -kept[1])


@dataclass(frozen=True, slots=True)
class Transcript:
    """A table of attempts, and a note about it."""

    titles: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str


def transcript(report: OomReport, attempts: Sequence[ReclaimAttempt]) -> Transcript:
    """Return the table of attempts. Its last column, if recorded, is the main reason why pages were kept."""
    rows = [_attempt_cells(report, attempt) for attempt in attempts]
    most_kept = [_most_kept(attempt) for attempt in attempts]
    if not any(most_kept):
        return Transcript(_TRANSCRIPT_TITLES, rows, _TRANSCRIPT_NOTE)
    return Transcript(
        (*_TRANSCRIPT_TITLES, "kept"),
        [(*row, kept) for row, kept in zip(rows, most_kept, strict=True)],
        f"{_TRANSCRIPT_NOTE}. {_KEPT_NOTE}",
    )


def _most_kept(attempt: ReclaimAttempt) -> str:
    """Return `300 file, dirty`, or an empty text if nothing was kept."""
    found = [
        (pages, f"{lru}, {KEPT_IN_WORDS[count]}")
        for lru in ("file", "anon")
        for count, pages in _largest(_kept(attempt, lru) or {})
    ]
    if not found:
        return ""
    pages, words = max(found)
    return f"{units.count(pages)} {words}"


def _attempt_cells(report: OomReport, attempt: ReclaimAttempt) -> tuple[str, ...]:
    """Return the cells of an attempt below `_TRANSCRIPT_TITLES`. Counts are in pages."""
    return (
        units.duration(seconds_before(report, attempt.time)),
        f"{visible(attempt.comm)} ({attempt.pid})" if attempt.comm else f"pid {attempt.pid}",
        units.count(attempt.scanned_pages),
        units.count(attempt.reclaimed_pages),
        units.count(attempt.reclaimed_anon_pages),
        "no scan" if attempt.priority is None else str(attempt.priority),
        units.duration(attempt.duration_ms / 1000),
    )


def tried(report: OomReport, page_size: int) -> Iterator[Fact]:
    """Yield the total, the waits, the traffic to and from swap, and the pages that were kept."""
    yield _total(report, page_size)
    yield from waits(report.reclaim)
    yield from swapped(report.reclaim)
    yield from kept(report.reclaim.transcript)


def more_memory(curve: Sequence[MissPoint] | None) -> Iterator[Fact]:
    """Yield a line about the refaults that more memory would have avoided; nothing without refaults."""
    if not curve:
        return
    points = [next(point for point in curve if point.spared_share >= share) for share in _SHARES_NAMED]
    shares = {units.size(point.extra_bytes): f"{100 * point.spared_share:.0f} %" for point in points}
    shares[units.size(curve[-1].extra_bytes)] = "all"
    (least, share), *others = [(f"+{size}", share) for size, share in shares.items()]
    rest = "".join(f", {more} {share}" for more, share in others)
    yield (
        "more memory",
        f"{least} would have spared {share} of what was read again{rest}, {_MODEL}. Nothing is known of "
        "less memory, because hits are not traced",
    )


def more_memory_rows(curve: Sequence[MissPoint] | None) -> list[tuple[str, ...]]:
    """Return the cells below `MORE_MEMORY_TITLES` for each point of the curve."""
    return [
        (
            f"+{units.size(point.extra_bytes)}",
            units.size(point.spared_bytes),
            f"{100 * point.spared_share:.0f} %",
        )
        for point in curve or ()
    ]


def memory_high(one: Held) -> Iterator[Fact]:
    """Yield the memory.high that was exceeded, else the least one; nothing if none is set or known."""
    owner = one.high_owner
    if owner is None:
        return
    size = "a value that is not known" if owner.high_bytes is None else units.size(owner.high_bytes)
    whose = "" if owner.cgroup == one.cgroup else f" of {_owner_name(owner)}"
    how = "" if whose else lowered(one, owner.file)
    times = f", {how}" if how else ""
    times += "" if owner.high_events is None else f", exceeded {units.times(owner.high_events)}"
    yield owner.file, f"{size}{whose}{times}: above it, tasks are throttled, never killed"


def lowered(one: Held, file: str) -> str:
    """Return `lowered from 64 MiB while 41 MiB was in use`; empty if that was not seen of this limit."""
    for it in one.lowered:
        if it.file == file:
            did = "set" if it.limit_bytes >= UNLIMITED_BYTES else f"lowered from {units.size(it.limit_bytes)}"
            return f"{did} while {units.size(it.usage_bytes)} was in use"
    return ""


def above_high(one: Held) -> str:
    """Return the clause that names the cgroup: `/a was above its memory.high of 9 MiB`."""
    owner, this = one.high_owner, place_of_life(one)
    if owner is None:
        return f"{this} was above a memory.high that is not known"
    size = " (its value is not known)" if owner.high_bytes is None else f" of {units.size(owner.high_bytes)}"
    if owner.cgroup == one.cgroup:
        return f"{this} was above its {owner.file}{size}"
    relation = "an ancestor" if owner.is_ancestor else "a descendant"
    return f"{_owner_name(owner)}, {relation} of {this}, was above its {owner.file}{size}"


def bound(one: Held) -> str | None:
    """Return the smaller of the limit and memory.high, as `its limit of 9 MiB`; None if neither is set."""
    limit, owner = one.limit_bytes, one.high_owner
    is_bound = owner is not None and (owner.is_ancestor or owner.cgroup == one.cgroup)
    high = owner.high_bytes if owner is not None and is_bound and owner.file == MEMORY_HIGH else None
    least = min((size for size in (limit, high) if size is not None), default=UNLIMITED_BYTES)
    if least >= UNLIMITED_BYTES:
        return None
    if least == limit or owner is None:
        return f"its limit of {units.size(least)}"
    if owner.is_ancestor:
        return f"the memory.high of {units.size(least)} of {_owner_name(owner)}"
    return f"its memory.high of {units.size(least)}"


def _owner_name(owner: HighOwner) -> str:
    if owner.cgroup is None:
        return "a cgroup that was not traced"
    return place(owner.cgroup, owner.container, run=None, runs=None)
