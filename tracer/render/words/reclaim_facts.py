"""What is said about reclaim before a kill: how much it tried, what it met and could not free, who waited.

As `render.words.kill_facts`, of which this is a part: labels, sentences and table cells that have passed
`visible`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tracer import units
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.reclaim_attempts import Reclaim, ReclaimAttempt
from tracer.render.words.escape import visible
from tracer.render.words.kill_facts import Fact, not_known, seconds_before

KINDS_IN_WORDS: Final = {
    "reclaim": "in reclaim",
    "writeback": "in reclaim for writeback",
    "isolated": "in reclaim for tasks that held too many pages",
    "noprogress": "in reclaim since it freed nothing",
    "congested": "in reclaim for pages that were still being written when they came round again",
    "other": "in reclaim for a reason without a name",
    "dirty": "held back from writing, since too much was dirty",
    "swap_in": "for swapped memory to come back",
    "high": "above memory.high",
}
"""Kind of a wait (`analysis.views.stalls.KINDS`) -> what it was for."""

KEPT_IN_WORDS: Final = {
    "nr_dirty": "dirty",
    "nr_writeback": "under writeback",
    "nr_activate": "in use",
    "nr_ref_keep": "referenced",
    "nr_unmap_fail": "mapped",
}
"""Why reclaim could not free a page that it met, by the kernel's count (`schema.RECLAIM_COUNTS`)."""

_MOST_WAITERS: Final = 3
_TRANSCRIPT_TITLES: Final = ("before the kill", "by", "looked at", "freed", "of it anon", "priority", "took")
_TRANSCRIPT_NOTE: Final = (
    "looked at, freed: pages. anon: process memory, which needs swap to be freed. "
    "priority: 12 is a light scan, 0 looks at everything; no scan: there was nothing to try"
)
_KEPT_NOTE: Final = (
    "kept: most of what could not be freed. dirty: to be written first. in use, referenced: used lately. "
    "mapped: a process has it mapped and keeps it"
)


def _in_all(report: OomReport, page_size: int) -> Fact:
    it = report.reclaim
    if it.attempts is None or it.reclaimed_pages is None or it.stall_ms is None:
        return "in all", not_known(report, "reclaim")
    return (
        "in all",
        f"{units.count(it.attempts)} attempts looked at {units.count(it.scanned_pages)} pages and freed "
        f"{units.count(it.reclaimed_pages)} ({units.size(it.reclaimed_pages * page_size)}); "
        f"tasks were held up {units.duration(it.stall_ms / 1000)} by them",
    )


def waits(it: Reclaim) -> Iterator[Fact]:
    """Which processes waited for memory, the longest first, and for what."""
    for number, waiter in enumerate(it.waiters[:_MOST_WAITERS]):
        name = visible(waiter.comm) if waiter.comm else "name not known"
        kinds = sorted(waiter.kinds_ms.items(), key=lambda kind: -kind[1])
        parts = ", ".join(f"{units.duration(ms / 1000)} {KINDS_IN_WORDS[kind]}" for kind, ms in kinds)
        total = f"{units.duration(waiter.stalled_ms / 1000)}: " if len(kinds) > 1 else ""
        yield "" if number else "waited most", f"{name} ({waiter.tgid}) {total}{parts}"


def swapped(it: Reclaim) -> Iterator[Fact]:
    """How much was written to swap and read from it, and how long that took; nothing where nothing was, or is
    known.
    """
    for title, io, done in (("to swap", it.swap_writes, "write"), ("from swap", it.swap_reads, "read")):
        if io is None or not io.count:
            continue
        took = "how long that took was not seen"
        if io.took_ms:
            median, longest = (units.duration(io.took_ms[name] / 1000) for name in ("median", "longest"))
            took = f"half of them within {median}, the slowest in {longest}"
        plural = "" if io.count == 1 else "s"
        yield title, f"{units.size(io.size_bytes)} in {units.count(io.count)} {done}{plural}, {took}"


def kept(attempts: Sequence[ReclaimAttempt]) -> Iterator[Fact]:
    """What these attempts met on the lists and could not free; nothing where the lists are not told apart."""
    for lru, of_list in (("file", "page cache"), ("anon", "process memory")):
        sums: dict[str, int] = {}
        for attempt in attempts:
            for count, pages in (_kept(attempt, lru) or {}).items():
                sums[count] = sums.get(count, 0) + pages
        said = ", ".join(_kept_in_words(count, pages, sums) for count, pages in _largest(sums))
        if said:
            last = "the last attempt" if len(attempts) == 1 else f"the last {len(attempts)} attempts"
            yield f"kept {lru}", f"pages of {of_list} that {last} could not free: {said}"


def _kept(attempt: ReclaimAttempt, lru: str) -> Mapping[str, int] | None:
    return attempt.kept_file if lru == "file" else attempt.kept_anon


def _kept_in_words(count: str, pages: int, sums: Mapping[str, int]) -> str:
    words = f"{units.count(pages)} {KEPT_IN_WORDS[count]}"
    unqueued = sums["nr_unqueued_dirty"] if count == "nr_dirty" else 0
    return words + (f" ({units.count(unqueued)} of them not even queued to be written)" if unqueued else "")


def _largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Those that have words and are not zero, the largest first."""
    found = [(count, pages) for count, pages in counts.items() if pages and count in KEPT_IN_WORDS]
    return sorted(found, key=lambda kept: -kept[1])


@dataclass(frozen=True, slots=True)
class Transcript:
    """Attempts as a table, and a note on it."""

    titles: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str


def transcript(report: OomReport, attempts: Sequence[ReclaimAttempt]) -> Transcript:
    """Where attempts say what they could not free, the last column has the most of it."""
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
    """`300 dirty file`; empty where nothing was kept."""
    found = [
        (pages, f"{KEPT_IN_WORDS[count]} {lru}")
        for lru in ("file", "anon")
        for count, pages in _largest(_kept(attempt, lru) or {})
    ]
    if not found:
        return ""
    pages, words = max(found)
    return f"{units.count(pages)} {words}"


def _attempt_cells(report: OomReport, attempt: ReclaimAttempt) -> tuple[str, ...]:
    """Cells under `_TRANSCRIPT_TITLES`; counts are pages."""
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
    """All of it but the table of attempts: how much in all, who waited, what went to swap and came back, and
    what stayed.
    """
    yield _in_all(report, page_size)
    yield from waits(report.reclaim)
    yield from swapped(report.reclaim)
    yield from kept(report.reclaim.transcript)
