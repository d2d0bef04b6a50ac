"""The least limit under which the same work would have lived: a range in bytes, and what it rests on.

A limit holds as long as what cannot be given back fits: anonymous memory and shmem (but for what swap takes),
locked page cache, kernel memory but for reclaimable slab, sockets. All other memory, page cache above all,
only has to be read again. So:

* Without a kill `low` is the peak of what could not be given back, by the charge ledger. `high` adds the page
  cache that the work needed: what reclaim had taken and was read again (`refaults.needed_again`) or what was
  on the active list, whichever is more, what had still to be written, and reclaimable slab, of which no
  counter tells what is in use (open files have theirs there); in all at most what usage was at its peak. At
  `high` the work lives and reads nothing again. Where its tasks are stuck at the limit there is no range.
* With a kill what would have been asked for next is not in the trace. `low` is the limit that did not hold
  and the request that failed at it. `high` adds what the killed processes had mapped and not touched: they
  cannot touch more without mapping more. A process that maps little more than it touches (a heap that grows
  step by step) has no such bound. The range is then null, and what is said is how fast it grew.

`high` has room for what the ledger does not see: each CPU may hold 64 pages that are charged in advance, and
does so beyond the kill (mm/memcontrol.c, MEMCG_CHARGE_BATCH, drain_all_stock), and 256 KiB that it has not
handed over (docs/trace-format.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import Bools, integers, known, optional, records, times_ns
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.limits import limit_of
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.wording import no_limit, owner_name
from tracer.analysis.results.conclusions import Cause, Sizing
from tracer.analysis.results.memory import Composition
from tracer.schema import UNLIMITED_BYTES
from tracer.units import duration, size

KEPT: Final[ledger.Weights] = {"anon": 1, "shmem": 1, "kernel": 1, "slab_reclaimable": -1, "sock": 1}
"""What cannot be given back without swap, but for locked page cache."""
_NEVER_SWAPPED: Final[ledger.Weights] = {"kernel": 1, "slab_reclaimable": -1, "sock": 1}

_BATCH_PAGES: Final = 64
_HELD_BACK_BYTES: Final = 256 << 10
_FULL_PERCENT: Final = 90
_MAPPED_LEAST_PERCENT: Final = 25
_OTHERS_MOST_PERCENT: Final = 20
_THREAD_STACK_BYTES: Final = 8 << 20  # what glibc maps for a thread where RLIMIT_STACK is as usual
_TOUCH: Final = "handle_mm_fault"  # mm/memory.c: every touch of a page that is not there, also by mlock
_INDEX_SHARE: Final = 448
"""An index node (struct xa_node) is for 64 pages, and seven are in 4 pages of slab."""

_STEP_BYTES: Final = 100 << 20

Sized = tuple[Sizing, str | None]
"""And why the range is null."""


def of_life(subtree: Subtree, peak_usage_bytes: int | None) -> Sized:
    """The range for a cgroup that lived."""
    kept = _kept(subtree)
    if kept is None or peak_usage_bytes is None:
        return Sizing(None), "what the cgroup held when the trace began, or its usage, is not known"
    swap_bytes = _swap_bytes(subtree)
    if swap_bytes is None:
        return Sizing(None), "how much swap the cgroup could use is not known"
    swapped = ledger.level(subtree, {"swap": 1})
    held = kept if swapped is None else ledger.total([kept, swapped])
    low = kept.peak() or 0
    if swap_bytes:
        fixed = ledger.level(subtree, _NEVER_SWAPPED)
        low = max((held.peak() or 0) - swap_bytes, (fixed and ledger.total([fixed]).peak()) or 0)
    again = _needed(subtree)
    cache = ledger.largest([again, _sampled(subtree, ("active_file_bytes",))])
    unwritten = _unwritten(subtree)
    slab = ledger.level(subtree, {"slab_reclaimable": 1}) or ledger.NOTHING
    wanted = ledger.total([held, cache, unwritten, slab]).peak() or 0
    if not wanted:
        return Sizing(None), "it held nothing"
    bound = max(peak_usage_bytes + (again.peak() or 0), held.peak() or 0)
    limits = _whole_pages(subtree.whole, low, min(wanted, bound) + _unseen_bytes(subtree.whole))
    return Sizing(limits, tuple(_why_of_life(limits, cache, unwritten, slab, swap_bytes))), None


def _why_of_life(
    limits: tuple[int, int], cache: Steps, unwritten: Steps, slab: Steps, swap_bytes: int
) -> Iterator[str]:
    low, high = map(size, limits)
    swap = f" beside {size(swap_bytes)} of swap" if swap_bytes else ""
    yield f"Below {low}, what could not be given back does not fit{swap}."
    needed = [
        f"{size(part.peak())} of {what}"
        for part, what in (
            (cache, "page cache in active use or read again"),
            (unwritten, "page cache to be written"),
            (slab, "reclaimable slab (some may be in use)"),
        )
        if (part.peak() or 0) * 100 > limits[1]
    ]
    room = " and ".join(needed) or "all that was needed"
    yield f"At {high}, {room} fit, too, so that nothing is read again."


def of_kill(subtree: Subtree, rows: pd.DataFrame, findings: Findings) -> Sized:
    """The range for the limit that led to a kill; `rows` are those of `oom` for this decision."""
    kill = _Kill.of(findings)
    if kill is None:
        return Sizing(None), "no cgroup's limit was hit, or what was in use then is not known"
    if kill.kept_bytes * 100 < kill.limit_bytes * _FULL_PERCENT:
        could = size(kill.limit_bytes - kill.kept_bytes)
        return Sizing(None), f"{could} could have been given back, given time: the size is not what failed"
    pace = _pace(subtree, findings)
    first = f"{size(kill.limit_bytes)} did not hold."
    why_not = _why_no_bound(rows, findings, kill)
    mapped = _Mapped.of(rows, findings)
    if why_not is None and mapped is None:
        why_not = "what the killed processes had mapped was not recorded"
    if why_not is None and mapped is not None and mapped.is_step_by_step(kill.grown_bytes):
        why_not = "it had mapped little more than it had touched, so that what it would map next is not known"
    if why_not is not None or mapped is None:
        return Sizing(None, (first,), pace), why_not
    again = _needed(subtree)
    if findings.window is not None:
        again = again.within(findings.window.begin, findings.window.end)
    # Its page tables, and the index of what is shared.
    untouched = mapped.untouched_bytes + mapped.untouched_bytes * 2 // _INDEX_SHARE
    high = kill.low_bytes + untouched + (again.peak() or 0) + _unseen_bytes(subtree.whole)
    basis = [
        first,
        f"What was killed had {size(mapped.untouched_bytes)} mapped that it had not touched: if it maps no "
        "more than that, it fits below the upper end.",
    ]
    unmapped = _unmapped_shmem_bytes(rows, findings)
    if unmapped * 100 > kill.grown_bytes * _OTHERS_MOST_PERCENT:
        basis.append(f"And if the {size(unmapped)} of shmem that it had not mapped grow no more.")
    if again.peak():
        basis.append(f"There, {size(again.peak())} of page cache that had been read again fit, too.")
    return Sizing(_whole_pages(subtree.whole, kill.low_bytes, high), tuple(basis), pace), None


def cures(findings: Findings, cause: Cause) -> Iterator[str]:
    """Settings that are the real cure where the limit's size is not, with the numbers of this kill."""
    kill = _Kill.of(findings)
    if kill is None or findings.window is None:
        return
    shmem, room = findings.composition.shmem or 0, kill.limit_bytes - kill.kept_bytes
    if cause == "shmem" and room + shmem > 0:
        yield (
            f"What {owner_name(findings.owner)} holds besides leaves {size(room + shmem)} for files in "
            "memory: the size= of its tmpfs should be less."
        )
    if cause == "dirty_writeback" and room > 0:
        yield (
            f"{size(room)} are left here for page cache, of which less than half should wait to be written: "
            f"vm.dirty_bytes={room // 2} bounds it for the whole machine, where nothing does for the cgroup."
        )


@dataclass(frozen=True, slots=True)
class _Kill:
    """`kept_bytes`: of usage at the kill, what could not be given back. `grown_bytes`: by how much memory of
    processes, and `others_grown_bytes`: by how much what is in nobody's mappings, had grown before."""

    limit_bytes: int
    low_bytes: int
    kept_bytes: int
    grown_bytes: int
    others_grown_bytes: int

    @classmethod
    def of(cls, findings: Findings) -> _Kill | None:
        kept = _kept_at_kill(findings.composition)
        if findings.constraint != "memcg" or no_limit(findings.owner) or kept is None:
            return None
        limit = findings.owner.limit_bytes or 0
        grown = findings.circumstances.grown_bytes
        return cls(
            limit_bytes=limit,
            low_bytes=limit + (findings.page_size << (findings.trigger.order or 0)),
            kept_bytes=kept,
            grown_bytes=grown.get("anon", 0) + grown.get("shmem", 0) + _locked_cache(findings),
            others_grown_bytes=grown.get("kernel", 0) + grown.get("sock", 0),
        )


def _kept_at_kill(made_of: Composition) -> int | None:
    if made_of.total is None or made_of.file_clean is None:
        return None
    given_back = (made_of.file_clean, made_of.file_dirty, made_of.writeback, made_of.slab_reclaimable)
    return made_of.total - sum(part or 0 for part in given_back)


def _locked_cache(findings: Findings) -> int:
    """Page cache that composition has in `unevictable`: what is left of all of it without its other parts."""
    made_of, cache = findings.composition, findings.cushion.cache_end_bytes
    if not made_of.unevictable or cache is None:
        return 0
    parts = (made_of.file_clean, made_of.file_dirty, made_of.writeback)
    return max(cache - sum(part or 0 for part in parts), 0)


def _why_no_bound(rows: pd.DataFrame, findings: Findings, kill: _Kill) -> str | None:
    """Why what the killed processes had mapped does not bound what would have been asked for."""
    if not kill.grown_bytes and not kill.others_grown_bytes:
        return "what grew is not known"
    if kill.others_grown_bytes * 100 > kill.grown_bytes * _OTHERS_MOST_PERCENT:
        return "kernel memory or sockets grew, which no process's address space bounds"
    stack = findings.trigger.stack
    if stack is not None and not any(frame.partition("+")[0] == _TOUCH for frame in stack):
        return "what failed was a request of the kernel's own or a write, not a touch of what was mapped"
    unmapped = _unmapped_shmem_bytes(rows, findings)
    if stack is None and unmapped * 100 > kill.grown_bytes * _OTHERS_MOST_PERCENT:
        return f"{size(unmapped)} of shmem are in files that the killed processes had not mapped"
    charged = {one.tgid: one.charged_bytes for one in findings.allocators}
    others = sum(bytes_ for tgid, bytes_ in charged.items() if tgid not in findings.victim_tgids)
    further = findings.further_allocators.charged_bytes if findings.further_allocators is not None else 0
    if (others + further) * 100 > (sum(charged.values()) + further) * _OTHERS_MOST_PERCENT:
        return "others grew, too, and lived: what they had mapped was not recorded"
    return None


def _unmapped_shmem_bytes(rows: pd.DataFrame, findings: Findings) -> int:
    mapped = int(integers(rows["shmem_rss_bytes"], missing=0).sum())
    return max((findings.composition.shmem or 0) - mapped, 0)


@dataclass(frozen=True, slots=True)
class _Mapped:
    """What the killed processes had mapped and could write, and of that not touched; their threads."""

    untouched_bytes: int
    threads: int

    @classmethod
    def of(cls, rows: pd.DataFrame, findings: Findings) -> _Mapped | None:
        """None: not known. Where shared memory grew, or cache is locked, what is neither private nor code
        counts, too: shared mappings, beside those that can only be read."""
        locked = _locked_cache(findings)
        shared = bool(locked or findings.circumstances.grown_bytes.get("shmem"))
        untouched = threads = 0
        for row in records(rows[list(_MAPPED_COLUMNS)]):
            sizes = {name: optional(row[name]) for name in _MAPPED_COLUMNS}
            if None in sizes.values():
                return None
            total, data, code, stack, anon, shmem, swap, count = (value or 0 for value in sizes.values())
            untouched += max(data + stack - anon - swap, 0)
            untouched += max(total - data - code - stack - shmem, 0) if shared else 0
            threads += count
        return cls(max(untouched - locked, 0), threads)

    def is_step_by_step(self, grown_bytes: int) -> bool:
        """Whether too little is left untouched, beside stacks of threads, to tell a mapping that was being
        filled from what any process leaves unused."""
        stacks = max(self.threads - 1, 0) * _THREAD_STACK_BYTES
        return (self.untouched_bytes - stacks) * 100 < grown_bytes * _MAPPED_LEAST_PERCENT


_MAPPED_COLUMNS: Final = (
    *("total_vm_bytes", "data_vm_bytes", "exec_vm_bytes", "stack_vm_bytes"),
    *("anon_rss_bytes", "shmem_rss_bytes", "swap_bytes", "threads"),
)


def _pace(subtree: Subtree, findings: Findings) -> str:
    """What a greater limit would have bought, from the growth since it last was at its least."""
    if findings.window is None:
        return ""
    grown = ledger.change(subtree, ledger.NOT_CACHE).within(findings.window.begin, findings.window.end)
    least, last = grown.least(), grown.at(findings.window.end)
    if least is None or last is None or last <= least:
        return ""
    lowest = np.flatnonzero(grown.values == least)
    rises = int(lowest[-1]) + 1 if len(lowest) else 0
    seconds = (findings.window.end - int(grown.times[rises])) / 1e9
    if seconds <= 0:
        return ""
    buys = duration(_STEP_BYTES / (last - least) * seconds)
    return (
        f"Memory that cannot be reclaimed grew by {size(last - least)} in {duration(seconds)}: at this rate, "
        f"each extra {size(_STEP_BYTES)} of limit buys {buys}."
    )


def _kept(subtree: Subtree) -> Steps | None:
    kept = ledger.level(subtree, KEPT)
    return None if kept is None else ledger.total([kept, _locked_files(subtree)])


def _locked_files(subtree: Subtree) -> Steps:
    """Unevictable page cache, as sampled: what is unevictable without what anon and shmem have on no list."""
    rows = _samples(subtree, ("unevictable_bytes", *_LISTS))
    unevictable = integers(rows["unevictable_bytes"])
    anon, shmem, inactive, active = (integers(rows[name]) for name in _LISTS)
    of_processes = np.clip(anon + shmem - inactive - active, 0, unevictable)
    return Steps(times_ns(rows), unevictable - of_processes, 0)


_LISTS: Final = ("anon_bytes", "shmem_bytes", "inactive_anon_bytes", "active_anon_bytes")


def _sampled(subtree: Subtree, columns: tuple[str, ...]) -> Steps:
    """The sum of columns of the cgroup's samples, 0 where they do not tell."""
    rows = _samples(subtree, columns)
    return Steps(
        times_ns(rows), sum((integers(rows[name]) for name in columns), np.zeros(len(rows), np.int64)), 0
    )


def _unwritten(subtree: Subtree) -> Steps:
    """Page cache that is dirty or being written: what is being swapped out counts as under writeback, too."""
    rows = _samples(subtree, ("file_dirty_bytes", "file_writeback_bytes"))
    unwritten = integers(rows["file_dirty_bytes"]) + integers(rows["file_writeback_bytes"])
    cache = integers(rows["file_bytes"]) - integers(rows["shmem_bytes"], missing=0)
    is_told = known(rows["file_bytes"])
    return Steps(times_ns(rows), np.where(is_told, np.minimum(unwritten, cache), unwritten), 0)


def _samples(subtree: Subtree, columns: tuple[str, ...]) -> pd.DataFrame:
    """The cgroup's own samples that tell all of these."""

    def find() -> pd.DataFrame:
        samples = subtree.samples
        own: pd.DataFrame = samples.loc[integers(samples["cgroup_id"]) == subtree.cgroup_id, list(_READ)]
        return own

    samples = subtree.once("sizing.samples", find)
    is_told: Bools = np.logical_and.reduce([known(samples[name]) for name in columns])
    found: pd.DataFrame = samples[is_told]
    return found


_READ: Final = (
    *("unevictable_bytes", *_LISTS, "active_file_bytes", "file_dirty_bytes", "file_writeback_bytes"),
    *("file_bytes", "swap_limit_bytes", "limit_bytes", "is_swap_limited", "is_limited"),
)


def _needed(subtree: Subtree) -> Steps:
    """Page cache of these cgroups that was evicted and came back, for as long as it went and came."""

    def find() -> Steps:
        needed = subtree.needed_again
        bytes_ = integers(needed["bytes"])
        times = np.concatenate([integers(needed["begin_ns"]), integers(needed["end_ns"])])
        order = np.argsort(times, kind="stable")
        return Steps(times[order], np.cumsum(np.concatenate([bytes_, -bytes_])[order]), 0)

    return subtree.once("sizing.needed", find)


def _swap_bytes(subtree: Subtree) -> int | None:
    """How much swap the cgroup could use beside a limit: what the machine has, and what it is allowed."""
    machine = (subtree.whole.meta.get("memory") or {}).get("swap_total_bytes")
    samples = _samples(subtree, ("is_swap_limited", "is_limited"))
    allowed = limit_of(samples.iloc[-1], "swap_limit_bytes") if len(samples) else None
    if allowed is not None and allowed < UNLIMITED_BYTES and subtree.whole.meta.get("cgroup_version") == 1:
        allowed = max(allowed - (limit_of(samples.iloc[-1]) or 0), 0)  # memory and swap together
    bounds = [bound for bound in (machine, allowed) if bound is not None]
    return min(bounds) if 0 in bounds or len(bounds) == 2 else machine


def _unseen_bytes(trace: TraceTables) -> int:
    return int(trace.meta["cpus"]) * (_BATCH_PAGES * page_size(trace) + _HELD_BACK_BYTES)


def _whole_pages(trace: TraceTables, low: int, high: int) -> tuple[int, int]:
    page = page_size(trace)
    return low // page * page, -(-high // page) * page
