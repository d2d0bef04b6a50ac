"""The range of limits for a cgroup in which something was killed, and the parts that all ranges share.

The trace cannot show the next requests of a killed process. `low` is the limit that was too small, and the
request that failed at it. `high` is known only if what grew has an end. Memory that a process had mapped and
not touched is no such end, because it may map more: a program that fills one array after the other has some
at any moment. `high` is then null, and `Sizing.pace` has how fast memory grew.

All ranges have one form, one rounding, the same margins, and the same rule for their upper end. An upper end
is a limit at which the same work lives: another run would confirm it. If the recorded work was not complete,
another run may need more. After a kill, an upper end is known only if what grew has an end that the kernel
knows: shared memory in mapped files of known size, and anonymous memory that processes share since a fork,
each page of which can be copied once. If processes decide by the memory that they find how much they use, not
even the lower end is a demand.

`high` has room for what the ledger does not see. Each CPU may hold 64 pages that are charged in advance, and
it holds them even at a kill (mm/memcontrol.c, MEMCG_CHARGE_BATCH, drain_all_stock). Each CPU may also hold
256 KiB of changes that it has not handed over (docs/trace-format.md).
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import column_times_ns, integers, known, optional
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import CHARGE_BATCH_PAGES, TraceTables, breaks_off, end_ns, page_size
from tracer.analysis.explain.measure import composition, shared_memory
from tracer.analysis.explain.measure.findings import Findings
from tracer.analysis.explain.measure.growth import waits_at_limit
from tracer.analysis.explain.measure.last_looks import heap_bound, library_bounds
from tracer.analysis.explain.measure.window import why_not_followed
from tracer.analysis.explain.sizing.unreclaimable import unwritten
from tracer.analysis.results.outcome import AtLimit
from tracer.analysis.views import miss_curve
from tracer.analysis.views.miss_curve import Reuse
from tracer.schema import UNLIMITED_BYTES
from tracer.trace.recording_ends import COMMAND_ENDED
from tracer.units import size

_PARTS: Final = 6
"""Memory that has a new peak in each of so many equal parts of the time is growing, however slowly: by chance
it has one in 720 times."""
_LAST_PARTS: Final = 2
_GROWN_PERCENT: Final = 2
_GROWN_BYTES: Final = 1 << 20
_GROWN_STEADILY_BYTES: Final = 64 << 10

_LEAST_OUTSIDE_PERCENT: Final = 10

_OTHERS_MOST_PERCENT: Final = 20
_NEW_MOST_PERCENT: Final = 5
"""What is not a copy may be a leak, which goes on when all is copied."""
_LEAST_COPIED_DIVISOR: Final = 64
_MOST_TIMES: Final = 4
_TOUCH: Final = "handle_mm_fault"  # mm/memory.c: every access to a page that is not there, also by mlock


def why_none_after_kill(findings: Findings) -> str | None:
    """Return the reason why no limit is known to be enough after a kill; None if what grew has an end."""
    around = findings.circumstances
    shmem = around.grown_bytes.get("shmem", 0)
    of_processes = around.grown_bytes.get("anon", 0) + around.grown_bytes.get("zswap", 0)
    grown = of_processes + shmem + around.locked_cache_bytes
    others = around.grown_bytes.get("kernel", 0) + around.grown_bytes.get("sock", 0)
    if not grown and not others:
        return "nothing grew before the kill"
    if others * 100 > grown * _OTHERS_MOST_PERCENT:
        return "kernel memory or sockets grew, which no address space bounds"
    stack = findings.trigger.stack
    if stack is not None and not any(frame.partition("+")[0] == _TOUCH for frame in stack):
        return "the request that failed was the kernel's own or a write, not an access to mapped memory"
    if copies_bytes(findings) and _is_copying(findings):
        is_in_files = shmem * 100 > grown * _OTHERS_MOST_PERCENT
        return why_files_have_no_end(findings) if is_in_files else None
    if (grown - shmem) * 100 > grown * _OTHERS_MOST_PERCENT:
        return "memory still grew, to no known end"
    return why_files_have_no_end(findings)


def why_files_have_no_end(findings: Findings) -> str | None:
    """Return the reason why shared memory can grow beyond the files that hold it; None if there is none."""
    if shared_memory.left_to_grow_bytes(findings) is None:
        return "shared memory grew, in files of no known size"
    if shared_memory.full_bytes(findings) * 100 > (findings.composition.shmem or 0) * _OTHERS_MOST_PERCENT:
        return "shared memory grew, in one file after the other"
    return None


def why_too_far(low_bytes: int, high_bytes: int) -> str | None:
    """Return a sentence if a known upper end is so far from the lower one that it is no answer."""
    if high_bytes < _MOST_TIMES * low_bytes:
        return None
    return f"up to {size(high_bytes - low_bytes)} more can be touched, and nothing shows how much of it is"


def copies_bytes(findings: Findings) -> int:
    """Return the memory that processes share since a fork, of which each write copies a page; 0 if it is less
    than a share of the limit, or not known."""
    shared = shared_memory.shared_by_fork_bytes(findings) or 0
    return shared if shared * _LEAST_COPIED_DIVISOR > (findings.owner.limit_bytes or 0) else 0


def _is_copying(findings: Findings) -> bool:
    """Return whether nearly all anonymous memory that processes were charged since a fork is copies."""
    fork = findings.circumstances.fork
    if fork is None:
        return False
    return fork.new_bytes * 100 <= (fork.new_bytes + fork.copied_bytes) * _NEW_MOST_PERCENT


def cut_off(meta: Mapping[str, Any]) -> str | None:
    """Return how the work of a recorded command was cut off: by the end of the recording, or by a signal.

    None if it was not, or if the trace does not show it.
    """
    if not _is_of_command(meta):
        return None
    reason, status = meta.get("end_reason"), meta.get("command_status")
    if reason is not None and reason != COMMAND_ENDED:
        return "the recording ended before its command"
    return f"its command {_end_of(status)}" if status is not None and status < 0 else None


def exit_status(meta: Mapping[str, Any]) -> int | None:
    """Return the status with which a recorded command ended, negative if a signal ended it.

    None if the trace is of no command, or does not have it.
    """
    status: int | None = meta.get("command_status") if _is_of_command(meta) else None
    return status


def why_elastic(subtree: Subtree) -> str | None:
    """Return a sentence if a process of the cgroup, or a library in it, sizes its heap by a bound that is no
    demand."""
    return subtree.once("bounds.why_elastic", lambda: _why_elastic(subtree))


def _why_elastic(subtree: Subtree) -> str | None:
    titles = subtree.whole.processes.titles(subtree.members)
    bounds = [bound for comm, cmdline in titles if (bound := heap_bound(comm, cmdline)) is not None]
    bounds = bounds or library_bounds(subtree.mappings["name"])
    if not bounds:
        return None
    first = bounds[0]
    reason = (
        f"{first.program} lets its heap grow up to its bound ({first.option or 'a part of the limit'}), so "
        "its peak here is no demand"
    )
    held = ledger.level(subtree, ledger.ANON)
    most = (held and held.peak()) or 0
    outside = most - sum(bound.bytes_ or most for bound in bounds)
    if outside * 100 < most * _LEAST_OUTSIDE_PERCENT or not most:
        return reason
    return f"{reason}, and at least {size(outside)} of {size(most)} of anonymous memory was outside that heap"


def why_unfinished(subtree: Subtree, held: Steps, state: str | None) -> str | None:
    """Return the reason why work that lived was not complete, or may not have been; None if there is none.

    `held` is the memory that reclaim cannot free, with what was swapped out. `state` is that of the cgroup.
    """
    meta = subtree.whole.meta
    if breaks_off(subtree.whole):
        return "the recording broke off while the work went on"
    if (cut := cut_off(meta)) is not None:
        return f"{cut}: the work was not complete"
    if (status := exit_status(meta)) is not None:
        return None if status == 0 else f"its command {_end_of(status)}: the work may not have been complete"
    if state in ("thrashing", "throttled"):
        return f"its tasks were {state}, and nothing shows that the work was complete"
    if np.isin(integers(subtree.whole.sigkills["cgroup_id"]), subtree.members).any():
        return "SIGKILL ended a process of it: the work may not have been complete"
    return why_growing(subtree, held)


def stuck_since(subtree: Subtree) -> int | None:
    """Return the moment, in ns, from which every reading found tasks waiting for memory with the OOM killer
    disabled. None: the last reading did not.
    """
    waits = waits_at_limit(subtree)
    free = np.flatnonzero(waits.values == 0)
    first = int(free[-1]) + 1 if len(free) else 0
    return None if first == len(waits.times) else int(waits.times[first])


def _is_of_command(meta: Mapping[str, Any]) -> bool:
    """Return whether the trace is of `record -- CMD`, and of no other cgroup."""
    filters = meta.get("filters") or {}
    return bool(filters.get("command")) and not filters.get("asked")


def _end_of(status: int) -> str:
    if status > 0:
        return f"ended with status {status}"
    numbers = {int(one): one.name for one in signal.Signals}
    return f"was ended by {numbers.get(-status, f'signal {-status}')}"


def why_growing(subtree: Subtree, held: Steps) -> str | None:
    """Return a sentence if memory that reclaim cannot free still grew: it had a notable new peak in the last
    third of the time, or a new one in each sixth of it."""
    rows = subtree.cgroups[integers(subtree.cgroups["cgroup_id"]) == subtree.cgroup_id]
    begin, end = subtree.start_ns, end_ns(subtree.whole)
    begin = max([begin, *column_times_ns(rows["created"][known(rows["created"])]).tolist()])
    end = min([end, *column_times_ns(rows["removed"][known(rows["removed"])]).tolist()])
    edges = np.linspace(begin, end, _PARTS + 1).astype(np.int64).tolist()
    peaks = [held.within(*part).peak() or 0 for part in pairwise(edges)]
    before = max(peaks[:-_LAST_PARTS])
    grown = max(peaks) - before
    is_steady = all(one < other for one, other in pairwise(peaks)) and grown >= _GROWN_STEADILY_BYTES
    if not is_steady and grown <= max(before * _GROWN_PERCENT // 100, _GROWN_BYTES):
        return None
    return (
        f"memory that cannot be reclaimed still grew (by {size(max(grown, 0))} in the last third of the "
        "time), and nothing shows that the work was complete"
    )


_HELD_BACK_BYTES: Final = 256 << 10

_FEW_DIVISOR: Final = 64
_FEW_BYTES: Final = 256 << 10
"""What may be read again at the upper end: a 64th of what was read again, and not less than these bytes."""

LISTS_DIVISOR: Final = 8
"""The kernel keeps two lists of files, and evicts from the inactive one. It needs up to an eighth more extra
memory than an LRU list (measured: docs/sizing.md)."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A fact behind a range, without words: `words.advice` has the sentence of each kind."""

    kind: str
    numbers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Range:
    """The limits of `results.kill.Sizing`, with the grounds that its sentences state, and the outcomes at
    some limits.

    `needs_high`: the upper end holds only if memory.high is no lower. An outcome is one with the memory.high
    of the run, so there is none at such an end.
    """

    limits_bytes: tuple[int, int | None] | None = None
    basis: tuple[Ground, ...] = ()
    pace: Ground | None = None
    outcomes: tuple[AtLimit, ...] = ()
    needs_high: bool = False


Sized = tuple[Range, str | None]
"""A range, and the reason if it is null."""


def ground(kind: str, **numbers: Any) -> Ground:
    """Return a ground of a kind in `words.advice`, with the numbers of its sentence."""
    return Ground(kind, numbers)


@dataclass(frozen=True, slots=True)
class Spared:
    """Page cache that was read again (`again_bytes`), and the extra memory that would have kept nearly all.

    `extra_bytes` by the miss curve, and `late_bytes`: the greatest amount of dirty and writeback cache, whose
    pages may have been evicted late. `lists_bytes` because the kernel's lists differ from the curve over all
    of this memory, and because the curve knows a distance to the size of a run of evictions (`run_bytes`: the
    largest one).
    """

    again_bytes: int
    extra_bytes: int
    lists_bytes: int
    late_bytes: int
    run_bytes: int

    def room_bytes(self) -> int:
        """Return the extra memory with the room for the kernel's lists and for late evictions."""
        return self.extra_bytes + self.lists_bytes + self.late_bytes


def with_margin(trace: TraceTables, low: int, high: int) -> tuple[int, int]:
    """Return the range in whole pages, `high` with room for what the ledger does not see."""
    page = page_size(trace)
    high += unseen_bytes(trace)
    return low // page * page, -(-high // page) * page


def unseen_bytes(trace: TraceTables) -> int:
    """Return the most memory that the CPUs hold and that the ledger does not see, in bytes."""
    return int(trace.meta["cpus"]) * (CHARGE_BATCH_PAGES * page_size(trace) + _HELD_BACK_BYTES)


def why_no_curve(subtree: Subtree, begin_ns: int, end_ns: int) -> str | None:
    """Return the reason why refaults may be missing in an interval, or evictions between them."""
    if subtree.whole.losses.near("pagecache", begin_ns, end_ns) and subtree.evicted.pages_between(
        begin_ns, end_ns
    ):
        return "events of the page cache were lost: which of it was read again is not known"
    return why_not_followed(subtree, begin_ns, end_ns)


def cache_to_spare(subtree: Subtree, reuse: Reuse, begin_ns: int, end_ns: int) -> Spared:
    """Return the extra memory with which nearly all of these refaults would not have happened.

    What was evicted at a time, or was not written, counts from `begin_ns` to `end_ns`.
    """
    page = page_size(subtree.whole)
    again = reuse.total_pages() * page
    extra = reuse.extra_to_spare(few_bytes(again) // page) * page
    if not extra:
        return Spared(again, 0, 0, 0, 0)
    first, last = np.searchsorted(subtree.evicted.time, [begin_ns, end_ns + 1])
    run = int(subtree.evicted.pages[first:last].max(initial=0)) * page
    late = unwritten(subtree).within(begin_ns, end_ns).peak() or 0
    return Spared(again, extra, (extra + late) // LISTS_DIVISOR + run, late, run)


def turn_ns(subtree: Subtree, reuse: Reuse) -> int:
    """Return the earliest moment at which reclaim can have come to the pages of these refaults for the last
    time before their eviction: it comes to a page again before it has evicted as much as there was.

    There must be refaults.
    """
    gone_ns = int(reuse.gone_ns.min())
    time, pages = subtree.evicted.time, subtree.evicted.pages
    cache = ledger.level(subtree, ledger.CACHE)
    most = UNLIMITED_BYTES if cache is None else cache.peak() or 0
    gone = np.append(0, np.cumsum(pages, dtype=np.int64))
    before = gone[np.searchsorted(time, gone_ns)] - most // page_size(subtree.whole)
    first = int(np.searchsorted(gone[1:], before, side="right"))
    return min(int(time[first]), gone_ns) if first < len(time) else gone_ns


def few_bytes(again_bytes: int) -> int:
    """Return how much of what is read again counts as (nearly) nothing, in bytes."""
    return max(again_bytes // _FEW_DIVISOR, _FEW_BYTES)


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
        return Range(None, (), _pace(findings)), elastic
    mapped, pace = _Mapped.from_victims(rows, findings), _pace(findings)
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
    if not len(again.pages):
        return 0
    spared = cache_to_spare(subtree, again, turn_ns(subtree, again), window.end)
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


def _pace(findings: Findings) -> Ground | None:
    """Return how long a greater limit would have lasted; None if nothing grew."""
    pace = findings.circumstances.pace
    if pace is None:
        return None
    numbers = {name: value for name, value in asdict(pace).items() if name != "is_all"}
    if 2 * findings.circumstances.grown_bytes.get("shmem", 0) > pace.grown_bytes:
        rest = shared_memory.left_to_grow_bytes(findings)
        if why_files_have_no_end(findings) is None:
            return ground("growth_in_files", left_bytes=rest, **numbers)
    return ground("growth", **numbers)
