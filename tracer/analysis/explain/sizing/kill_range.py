"""The range of limits for a cgroup in which something was killed.

The trace cannot show the next requests of a killed process. `low` is the limit that was too small, and the
request that failed at it. `high` adds what the killed processes had mapped and not touched: they cannot touch
more without mapping more. A process that maps little more than it touches (a heap that grows step by step)
has no such bound. The range is then null, and `Sizing.pace` has how fast it grew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import integers, optional, records
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.sizing.margins import Sized, needed_again, with_margin
from tracer.analysis.explain.wording import no_limit
from tracer.analysis.results.conclusions import Sizing
from tracer.analysis.results.memory import Composition
from tracer.units import duration, size

_FULL_PERCENT: Final = 90
_MAPPED_LEAST_PERCENT: Final = 25
_OTHERS_MOST_PERCENT: Final = 20
_THREAD_STACK_BYTES: Final = 8 << 20  # glibc's default, from the usual RLIMIT_STACK
_TOUCH: Final = "handle_mm_fault"  # mm/memory.c: every access to a page that is not there, also by mlock
_INDEX_SHARE: Final = 448
"""An index node (struct xa_node) is for 64 pages, and seven of them are in 4 pages of slab."""

_STEP_BYTES: Final = 100 << 20


@dataclass(frozen=True, slots=True)
class LimitAtKill:
    """The limit that was hit, and the memory that filled it.

    `low_bytes`: the limit with the request that failed. `kept_bytes`: the part of usage that reclaim could
    not free. `grown_bytes`: by how much memory of processes had grown before the kill, and
    `others_grown_bytes` by how much memory that is in no process's mappings.
    """

    limit_bytes: int
    low_bytes: int
    kept_bytes: int
    grown_bytes: int
    others_grown_bytes: int

    @classmethod
    def from_findings(cls, findings: Findings) -> LimitAtKill | None:
        """Return None if no cgroup's limit was hit, or if the composition is not known."""
        kept = _kept_bytes(findings.composition)
        if findings.constraint != "memcg" or no_limit(findings.owner) or kept is None:
            return None
        limit = findings.owner.limit_bytes or 0
        grown = findings.circumstances.grown_bytes
        return cls(
            limit_bytes=limit,
            low_bytes=limit + (findings.page_size << (findings.trigger.order or 0)),
            kept_bytes=kept,
            grown_bytes=grown.get("anon", 0) + grown.get("shmem", 0) + _locked_cache_bytes(findings),
            others_grown_bytes=grown.get("kernel", 0) + grown.get("sock", 0),
        )


def kill_range(subtree: Subtree, rows: pd.DataFrame, findings: Findings) -> Sized:
    """Return the range for the limit that led to a kill; `rows` of `oom` are its victims."""
    kill = LimitAtKill.from_findings(findings)
    if kill is None:
        return Sizing(None), "no cgroup's limit was hit, or the composition of usage is not known"
    if kill.kept_bytes * 100 < kill.limit_bytes * _FULL_PERCENT:
        could = size(kill.limit_bytes - kill.kept_bytes)
        reason = (
            f"with more time, {could} could have been reclaimed: the size of the limit was not the problem"
        )
        return Sizing(None), reason
    pace = _pace(subtree, findings)
    first = f"The limit of {size(kill.limit_bytes)} was too small."
    mapped, why_not = _bounding_mappings(rows, findings, kill)
    if mapped is None:
        return Sizing(None, (first,), pace), why_not
    again = needed_again(subtree)
    if findings.window is not None:
        again = again.within(findings.window.begin, findings.window.end)
    # The page tables, and the index of shared memory.
    untouched = mapped.untouched_bytes + mapped.untouched_bytes * 2 // _INDEX_SHARE
    high = kill.low_bytes + untouched + (again.peak() or 0)
    basis = [
        first,
        f"The killed processes had {size(mapped.untouched_bytes)} mapped that they had not touched: if they "
        "map no more, the work fits below the upper end.",
    ]
    unmapped = _unmapped_shmem_bytes(rows, findings)
    if unmapped * 100 > kill.grown_bytes * _OTHERS_MOST_PERCENT:
        basis.append(f"This assumes that the {size(unmapped)} of shmem that they had not mapped do not grow.")
    if again.peak():
        basis.append(
            f"The upper end has room for {size(again.peak())} of page cache that had been read again."
        )
    return Sizing(with_margin(subtree.whole, kill.low_bytes, high), tuple(basis), pace), None


def _kept_bytes(made_of: Composition) -> int | None:
    if made_of.total is None or made_of.file_clean is None:
        return None
    given_back = (made_of.file_clean, made_of.file_dirty, made_of.writeback, made_of.slab_reclaimable)
    return made_of.total - sum(part or 0 for part in given_back)


def _locked_cache_bytes(findings: Findings) -> int:
    """Return the page cache inside the class `unevictable`: all page cache without its other classes."""
    made_of, cache = findings.composition, findings.cushion.cache_end_bytes
    if not made_of.unevictable or cache is None:
        return 0
    parts = (made_of.file_clean, made_of.file_dirty, made_of.writeback)
    return max(cache - sum(part or 0 for part in parts), 0)


def _bounding_mappings(
    rows: pd.DataFrame, findings: Findings, kill: LimitAtKill
) -> tuple[_Mapped, None] | tuple[None, str]:
    """Return what the killed processes had mapped if it bounds their demand, else the reason why not."""
    if (why_not := _why_no_bound(rows, findings, kill)) is not None:
        return None, why_not
    mapped = _Mapped.from_victims(rows, findings)
    if mapped is None:
        return None, "the mappings of the killed processes were not recorded"
    if mapped.is_step_by_step(kill.grown_bytes):
        return (
            None,
            "it had mapped little more than it had touched, so its next mappings are not known",
        )
    return mapped, None


def _why_no_bound(rows: pd.DataFrame, findings: Findings, kill: LimitAtKill) -> str | None:
    """Return the reason why mappings of the killed processes do not bound the demand; None if they may."""
    if not kill.grown_bytes and not kill.others_grown_bytes:
        return "the growth is not known"
    if kill.others_grown_bytes * 100 > kill.grown_bytes * _OTHERS_MOST_PERCENT:
        return "kernel memory or sockets grew, which no process's address space bounds"
    stack = findings.trigger.stack
    if stack is not None and not any(frame.partition("+")[0] == _TOUCH for frame in stack):
        return "the request that failed was the kernel's own or a write, not an access to mapped memory"
    unmapped = _unmapped_shmem_bytes(rows, findings)
    if stack is None and unmapped * 100 > kill.grown_bytes * _OTHERS_MOST_PERCENT:
        return f"{size(unmapped)} of shmem are in files that the killed processes had not mapped"
    charged = {one.tgid: one.charged_bytes for one in findings.allocators}
    others = sum(bytes_ for tgid, bytes_ in charged.items() if tgid not in findings.victim_tgids)
    further = findings.further_allocators.charged_bytes if findings.further_allocators is not None else 0
    if (others + further) * 100 > (sum(charged.values()) + further) * _OTHERS_MOST_PERCENT:
        return "other processes grew as well, and lived: their mappings were not recorded"
    return None


def _unmapped_shmem_bytes(rows: pd.DataFrame, findings: Findings) -> int:
    mapped = int(integers(rows["shmem_rss_bytes"], missing=0).sum())
    return max((findings.composition.shmem or 0) - mapped, 0)


@dataclass(frozen=True, slots=True)
class _Mapped:
    """Memory that the killed processes had mapped, could write and had not touched; their threads."""

    untouched_bytes: int
    threads: int

    @classmethod
    def from_victims(cls, rows: pd.DataFrame, findings: Findings) -> _Mapped | None:
        """Return None if a size is not known.

        Shared mappings count if shared memory grew or page cache is locked: all that is neither private nor
        code. Some of them can only be read.
        """
        locked = _locked_cache_bytes(findings)
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
        """Return True if the untouched rest is too small to show a mapping that was being filled.

        Any process leaves some of its mappings unused, and most of each thread's stack.
        """
        stacks = max(self.threads - 1, 0) * _THREAD_STACK_BYTES
        return (self.untouched_bytes - stacks) * 100 < grown_bytes * _MAPPED_LEAST_PERCENT


_MAPPED_COLUMNS: Final = (
    *("total_vm_bytes", "data_vm_bytes", "exec_vm_bytes", "stack_vm_bytes"),
    *("anon_rss_bytes", "shmem_rss_bytes", "swap_bytes", "threads"),
)


def _pace(subtree: Subtree, findings: Findings) -> str:
    """Return a sentence on how long a greater limit would have lasted, by the growth since its last minimum;
    empty if nothing grew."""
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
