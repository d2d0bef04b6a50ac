"""The range of limits for a cgroup in which something was killed.

The trace cannot show the next requests of a killed process. `low` is the limit that was too small, and the
request that failed at it. `high` is known only if what grew has an end (`sizing.bounds`). Memory that a
process had mapped and not touched is no such end, because it may map more: a program that fills one array
after the other has some at any moment. `high` is then null, and `Sizing.pace` has how fast memory grew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import optional, utc_time
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.explain.measure import composition, shared_memory, thrashing
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.sizing.bounds import (
    Ground,
    Range,
    Sized,
    cache_to_spare,
    copies_bytes,
    ground,
    why_elastic,
    why_files_have_no_end,
    why_no_curve,
    why_none_after_kill,
    why_too_far,
    with_margin,
)
from tracer.analysis.results.quality import resolution_s
from tracer.analysis.views import miss_curve
from tracer.schema import UNLIMITED_BYTES
from tracer.units import size

_FULL_PERCENT: Final = 90
_INDEX_DIVISOR: Final = 448
"""An index node (struct xa_node) is for 64 pages, and seven of them are in 4 pages of slab."""

_NO_MAPPINGS: Final = "the mappings of the killed processes were not recorded"


@dataclass(frozen=True, slots=True)
class LimitAtKill:
    """The limit that was hit, and the memory that filled it.

    `low_bytes`: the limit with the request that failed. `kept_bytes`: the part of usage that reclaim could
    not free.
    """

    limit_bytes: int
    low_bytes: int
    kept_bytes: int

    @classmethod
    def from_findings(cls, findings: Findings) -> LimitAtKill | None:
        """Return None if no cgroup's limit was hit, or if the composition is not known."""
        kept = composition.kept_bytes(findings)
        if findings.constraint != "memcg" or not findings.owner.has_limit or kept is None:
            return None
        limit = findings.owner.limit_bytes or 0
        return cls(
            limit_bytes=limit,
            low_bytes=limit + (findings.page_size << (findings.trigger.order or 0)),
            kept_bytes=kept,
        )


def kill_range(subtree: Subtree, rows: Sequence[Mapping[str, Any]], findings: Findings) -> Sized:
    """Return the range for the limit that led to a kill; `rows` of `oom` are its victims."""
    kill = LimitAtKill.from_findings(findings)
    if kill is None:
        return Range(), "no cgroup's limit was hit, or the composition of usage is not known"
    if composition.is_limit_lowered(findings):
        return _limit_before(findings, kill)
    if (why_not := _why_not_the_limit(findings, kill)) is not None:
        return Range(), why_not
    if (elastic := why_elastic(subtree)) is not None:
        return Range(None, (), _pace(subtree, findings)), elastic
    mapped, pace = _Mapped.from_victims(rows, findings), _pace(subtree, findings)
    why_no_end = why_none_after_kill(findings) or _why_no_curve(subtree, findings)
    high, basis = kill.low_bytes, list[Ground]()
    if mapped is None:
        why_no_end = why_no_end or _NO_MAPPINGS
    elif why_no_end is None:
        more, basis = _more_needed(subtree, findings, mapped)
        high += more
        why_no_end = why_too_far(kill.low_bytes, high)
    if why_no_end is not None and mapped is not None:
        basis = [ground("mapped", untouched_bytes=mapped.untouched_bytes)]
    low, high = with_margin(subtree.whole, kill.low_bytes, high)
    return Range((low, high if why_no_end is None else None), tuple(basis), pace), why_no_end


def _more_needed(subtree: Subtree, findings: Findings, mapped: _Mapped) -> tuple[int, list[Ground]]:
    """Return the memory that can still be needed if what grew has an end, in bytes, and its grounds."""
    # The page tables, and the index of shared memory.
    untouched = mapped.untouched_bytes + mapped.untouched_bytes * 2 // _INDEX_DIVISOR
    copies, cache = copies_bytes(findings), _cache_needed(subtree, findings)
    left = shared_memory.left_to_grow_bytes(findings)
    found = (
        ground("files_have_a_size", left_bytes=left) if left else None,
        ground("shared_since_a_fork", shared_bytes=copies) if copies else None,
        ground("room_for_cache", cache_bytes=cache) if cache else None,
    )
    basis = [one for one in found if one is not None]
    return untouched + copies + cache, basis


def _why_not_the_limit(findings: Findings, kill: LimitAtKill) -> str | None:
    """Return the reason why the size of the limit was not the problem; None if it may have been."""
    freeing = composition.freeing_bytes(findings)
    if freeing and findings.previous is not None:
        return (
            f"the victim of kill {findings.previous.kill_id} was still freeing {size(freeing)}, so the size "
            "of the limit was not the problem of this one"
        )
    if kill.kept_bytes * 100 >= kill.limit_bytes * _FULL_PERCENT:
        return None
    could = (findings.composition.total or 0) - kill.kept_bytes
    if could * 100 > kill.limit_bytes * (100 - _FULL_PERCENT) // 2:
        with_time = f"with more time, {size(could)} could have been reclaimed"
        return f"{with_time}: the size of the limit was not the problem"
    room = size(kill.limit_bytes - (findings.composition.total or 0))
    return (
        f"usage was {room} below the limit again at the kill: memory was freed after the request had failed"
    )


def _limit_before(findings: Findings, kill: LimitAtKill) -> Sized:
    """Return the range for a limit that was lowered below usage: up to the limit before, which was enough."""
    lowered = findings.owner.lowered
    before = None if lowered is None else lowered.limit_bytes
    if before is None or before >= UNLIMITED_BYTES:
        why_not = "the limit before is not known" if before is None else "no limit was set before"
        return Range(None, (ground("limit_before_unknown", kept_bytes=kill.kept_bytes),)), why_not
    enough = ground("limit_before", before_bytes=before, kept_bytes=kill.kept_bytes)
    return Range((kill.kept_bytes, before), (enough,)), None


def _why_no_curve(subtree: Subtree, findings: Findings) -> str | None:
    window = findings.window
    return None if window is None else why_no_curve(subtree, window.begin, window.end)


def _cache_needed(subtree: Subtree, findings: Findings) -> int:
    """Return the most page cache that the refaults before the kill needed: what was there, and what would
    have spared nearly all of them."""
    window = findings.window
    if window is None:
        return 0
    again = miss_curve.reuse_of(subtree).within(window.begin, window.end)
    spared = cache_to_spare(subtree, again)
    if not spared.extra_bytes:
        return 0
    there = ledger.level(subtree, ledger.CACHE)
    most = (there and there.within(window.begin, window.end).peak()) or findings.owner.limit_bytes or 0
    return most + spared.room_bytes()


@dataclass(frozen=True, slots=True)
class _Mapped:
    """Memory that the killed processes had mapped, could write and had not touched."""

    untouched_bytes: int

    @classmethod
    def from_victims(cls, rows: Sequence[Mapping[str, Any]], findings: Findings) -> _Mapped | None:
        """Return None if a size is not known.

        If shared memory grew, the rest of its files counts, where their sizes are known. If not, or if page
        cache is locked, all shared mappings count: all that is neither private nor code. Some of them can
        only be read.
        """
        locked = findings.circumstances.locked_cache_bytes
        left = shared_memory.left_to_grow_bytes(findings)
        grown = findings.circumstances.grown_bytes.get("shmem")
        shared = bool(locked or (grown and left is None))
        # Each process has page tables of its own, of 8 bytes for a page.
        tables = (left or 0) * 8 // findings.page_size * max(len(findings.candidates) - 1, 0)
        untouched = (left or 0) + tables if grown else 0
        for row in rows:
            sizes = {name: optional(row[name]) for name in _MAPPED_COLUMNS}
            if None in sizes.values():
                return None
            total, data, code, stack, anon, shmem, swap = (value or 0 for value in sizes.values())
            untouched += max(data + stack - anon - swap, 0)
            untouched += max(total - data - code - stack - shmem, 0) if shared else 0
        return cls(max(untouched - locked, 0))


_MAPPED_COLUMNS: Final = (
    *("total_vm_bytes", "data_vm_bytes", "exec_vm_bytes", "stack_vm_bytes"),
    *("anon_rss_bytes", "shmem_rss_bytes", "swap_bytes"),
)


def _pace(subtree: Subtree, findings: Findings) -> Ground | None:
    """Return how long a greater limit would have lasted, by the growth since its last minimum; None if
    nothing grew. Time that tasks lost at the limit does not count: a greater limit spares it."""
    if findings.window is None:
        return None
    grown = ledger.change(subtree, ledger.NOT_CACHE).within(findings.window.begin, findings.window.end)
    least, last = grown.least(), grown.at(findings.window.end)
    if least is None or last is None or last <= least:
        return None
    lowest = np.flatnonzero(grown.values == least)
    rises = int(lowest[-1]) + 1 if len(lowest) else 0
    since_ns = subtree.whole.fineness.since(int(grown.times[rises]))
    seconds = (findings.window.end - since_ns) / 1e9
    if seconds <= 0:
        return None
    lost_s = thrashing.lost_ns(subtree, since_ns, findings.window.end) / 1e9
    numbers = {
        "grown_bytes": last - least,
        "span_s": seconds - lost_s,
        "lost_s": lost_s,
        "resolution_s": resolution_s(findings.thinned, utc_time(since_ns)),
    }
    if 2 * findings.circumstances.grown_bytes.get("shmem", 0) > last - least:
        rest = shared_memory.left_to_grow_bytes(findings)
        if why_files_have_no_end(findings) is None:
            return ground("growth_in_files", left_bytes=rest, **numbers)
    return ground("growth", **numbers)
