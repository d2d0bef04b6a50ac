"""The limits below which a recorded run is killed, and from which it is not.

A limit holds as long as the memory that reclaim cannot free fits (`sizing.unreclaimable`). The run
is killed below the peak of this memory, and not above it. Between both ends lies what the trace cannot
decide:

* The ledger sums charges over up to 10 ms for each CPU, and a charge and an uncharge may reach it in another
  order. So only a level that lasted for 20 ms is a demand, and what must fit is the highest level at any
  moment (`_lasting_peak`). Each CPU may hold memory that the ledger does not see (`kill_range.unseen_bytes`).
* Memory that came and went within one sum was never seen (`_fleeting`). A process that filled 30.5 MiB and
  freed them at once had 26.6 MiB of them in its trace. Page faults count such memory. If it came in huge
  pages, or was written to a file of shmem, only its pace has a bound (`_without_faults`).
* Memory that a program gave back by MADV_FREE still counts as anonymous, but reclaim frees it. The kernel
  keeps it in the inactive list of files (lru_lazyfree in mm/swap.c), which is then larger than the page
  cache.
* Huge pages (or large folios) are refused or split below a tight limit, and then only their touched parts
  count. Each small page takes a page fault, so anonymous memory beyond the page faults came in huge pages.
* Dirty pages must be written before they can be freed, and a charge does not wait for that without end.
* Page cache that is being read cannot be freed either: its folios are locked until the disk answers
  (shrink_folio_list in mm/vmscan.c), and a charge does not wait for that. Some disks read ahead many MiB.
* Kernel objects that reclaim drops (slab) are freed after a grace period of RCU, for which a charge does not
  wait (dentry_free in fs/dcache.c), and only if nothing on their page is in use. A program that looked for a
  million missing files lived at 60 and 16 MiB, and was killed at 8, with 7.8 MiB of such objects.
* Mapped files may be the text of the program: without room for them it is not killed, but may crawl. As for
  dirty pages, a limit at which the run was recorded is proof.
* Processes that ran at the same time may overlap in another way, and threads may hold more or less
  (`sizing.overlap`).
* Anonymous memory may have to be swapped out. The trace does not show how idle it was.

A killed run needed more than it had. If what grew has an end, it is known from which limit that fits
(`sizing.kill_range`). No limit is known to be enough: a program of several parts that was killed in a shared
mapping of known size (35 MiB, at 30) would have filled a file after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import Int64s
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import end_ns, page_size
from tracer.analysis.explain.measure import allocators
from tracer.analysis.explain.sizing import kill_range, unreclaimable
from tracer.analysis.explain.sizing.overlap import Overlap
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.outcome import Outcome
from tracer.schema import UNLIMITED_BYTES
from tracer.units import duration, size

_LASTING_NS: Final = 20_000_000
_FAULTED: Final[ledger.Weights] = {"anon": 1, "shmem": 1}
_WRITTEN: Final[ledger.Weights] = {"shmem": 1}
_FILLED: Final[ledger.Weights] = {"anon": 1, "file": 1}
"""Memory whose pages are filled one by one; `file` has shmem as well."""
_ROOM_DIVISOR: Final = 64
_ROOM_BYTES: Final = 1 << 20
"""Room beside the peak for the few pages of files that any work needs: a 64th of the peak, and this."""

_NOT_FLUSHED_PAGES: Final = 64
"""Fewer counts of one CPU may not be in memory.stat yet (memcg_vmstats_needs_flush in mm/memcontrol.c)."""

MOST_KILLS: Final = 8
"""Of so many kills or more in one life of a cgroup, no end of the growth is assumed."""

_STUCK: Final = "its tasks wait at the limit: the work did not go on"
_START_NOT_KNOWN: Final = "the memory that the cgroup held when the trace began is not known"
_SUMS_LOST: Final = "sums of charges were lost, so the level of memory is not known"
_CHARGES_LOST: Final = "records of charges were lost, so the peak may have been higher"
_THINNED: Final = "older rows of the trace are sums over time, so the peak may have been higher"


@dataclass(frozen=True, slots=True)
class Demand:
    """The limits, in bytes, below which a run is killed, and from which it survives; None: not known.

    Both are whole pages.

    `killed`, `survives` and `between` are the reasons, as clauses: for a limit below `killed_below_bytes`,
    for one from `survives_from_bytes` on, and for any other one.

    After a kill, what grew before it fits from `grown_fits_from_bytes` on, but what the work would have asked
    for next is not known. `why_open` is the reason why both ends are not known; None if one is.
    """

    killed_below_bytes: int | None
    survives_from_bytes: int | None
    killed: str
    survives: str
    between: str
    why_open: str | None = None
    grown_fits_from_bytes: int | None = None

    def at(self, limit_bytes: int) -> tuple[Outcome, str]:
        """Return the outcome at a limit, and its reason."""
        if self.killed_below_bytes is not None and limit_bytes < self.killed_below_bytes:
            return "killed", self.killed
        if self.survives_from_bytes is not None and limit_bytes >= self.survives_from_bytes:
            return "survives", self.survives
        return "unknown", self.between


def unknown(reason: str) -> Demand:
    """Return the demand of a run for which no limit is known to be too small or enough."""
    return Demand(None, None, "", "", reason, reason)


def of_life(subtree: Subtree, swap_bytes: int | None, state: str | None) -> Demand:
    """Return the demand of a run in which nothing was killed.

    `swap_bytes`: the swap beside the limit; None: not known. `state`: whether its work went on
    (`explain.slowed`).
    """
    if kill_range.stuck_since(subtree) is not None:
        return unknown(_STUCK)
    kept, usage = unreclaimable.unreclaimable(subtree), ledger.peak_usage(subtree)
    if kept is None or usage is None:
        return unknown(_START_NOT_KNOWN)
    if swap_bytes is None:
        return unknown(unreclaimable.SWAP_ROOM_NOT_KNOWN)
    if (why_not := _why_no_demand(subtree, usage)) is not None:
        return unknown(why_not)
    held = unreclaimable.with_swapped(subtree, kept)
    peak = _Peak.of(subtree, kept, usage)
    overlap = Overlap.of(subtree)
    apart = overlap.apart_bytes
    faulted = _Faulted.of(subtree)
    huge = _in_huge_pages(subtree, faulted)
    fleeting = _fleeting(subtree, kept, faulted, usage, by_huge_pages=huge > 0)
    needs = _Needs.of(subtree, held, peak, apart, fleeting)
    lasting = _lasting_peak(ledger.total([held, overlap.less]))
    lasting = lasting - swap_bytes if swap_bytes else min(lasting, usage)
    if swap_bytes:
        lasting = max(lasting, unreclaimable.never_swapped_bytes(subtree))
    freed = ledger.lazily_freed(subtree).peak() or 0
    below = lasting - kill_range.unseen_bytes(subtree.whole) - freed - huge - overlap.by_threads_bytes
    all_held = max(usage, held.peak() or 0) + apart + kill_range.unseen_bytes(subtree.whole)
    why_not = _why_not_whole(subtree) or kill_range.why_unfinished(subtree, held, state)
    swapped = f" with {size(swap_bytes)} of swap" if swap_bytes else ""
    page = page_size(subtree.whole)
    return Demand(
        killed_below_bytes=max(below, 0) // page * page,
        survives_from_bytes=-(-min(needs.proven_bytes, all_held) // page) * page if why_not is None else None,
        killed=f"{peak.phrase()} does not fit{swapped}",
        survives=f"{peak.phrase()} fits",
        between=f"{peak.phrase()}: " + (why_not or needs.why_between(huge, apart, swap_bytes)),
        why_open=why_not,
    )


def of_kills(subtree: Subtree, kills: Sequence[OomReport], why_open: str | None = None) -> Demand:
    """Return the demand of a run in which something was killed: `kills` concern the cgroup, by time.

    Less memory than at a kill for the cgroup's own limit leads to a kill as well, if the kill shows that the
    limit was too small and memory does not grow by the limit (`kill_range`). `why_open`: the reason if no
    limit can be known to be enough.
    """
    foreign = next((kill for kill in kills if kill.limit_owner.cgroup_id != subtree.cgroup_id), None)
    if foreign is not None:
        whose = foreign.limit_owner.cgroup or "the whole machine"
        return unknown(f"a kill for the limit of {whose} cut the work off")
    if any(kill.limit_owner.lowered is not None for kill in kills):
        why_open = "its limit was lowered below usage, and the kill cut the work off"
    ranges = [(kill, found) for kill in kills if (found := kill.sizing.min_limit_bytes) is not None]
    reasons = [why_open, *(kill.quality.unknown.get("sizing.min_limit_bytes") for kill in kills)]
    reason = next((one for one in reasons if one is not None), "its growth has no known end")
    if not ranges:
        return unknown(reason)
    worst, (low, _) = max(ranges, key=lambda one: (one[1][0], one[0].limit_owner.limit_bytes or 0))
    highs = [high for _, (_, high) in ranges if high is not None]
    is_known = why_open is None and len(highs) == len(kills) < MOST_KILLS
    high = max(highs) if is_known else None
    limit = size(worst.limit_owner.limit_bytes)
    at = "" if worst.time is None else _at(subtree, worst.time.as_unit("ns").value)
    kept = "" if worst.limit_owner.lowered is None else f", with {size(low)} that reclaim could not free"
    return Demand(
        killed_below_bytes=low,
        survives_from_bytes=None,
        killed=f"the run was killed at {limit}{at}{kept}",
        survives="",
        between=f"nothing shows how much more it needs than {limit}: {reason}"
        if high is None
        else f"what grew before the kill fits from {size(high)} on, and what comes after it is not known",
        why_open=reason if high is None else None,
        grown_fits_from_bytes=high,
    )


def _why_no_demand(subtree: Subtree, usage_bytes: int) -> str | None:
    """Return the reason why the peak of the run says nothing about another limit; None if there is none."""
    if subtree.whole.losses.near("residue", 0, end_ns(subtree.whole)):
        return _SUMS_LOST
    return kill_range.why_elastic(subtree) if usage_bytes else "it held nothing"


def _why_not_whole(subtree: Subtree) -> str | None:
    """Return the reason why the peak may be too low; None if the trace has all of it."""
    if subtree.whole.losses.near("charge", subtree.start_ns, end_ns(subtree.whole)):
        return _CHARGES_LOST
    return _THINNED if subtree.whole.fineness.is_thinned else None


@dataclass(frozen=True, slots=True)
class _Peak:
    """The peak of what reclaim cannot free: its size, its moment in ns, and the process that held most."""

    bytes_: int
    time_ns: int
    since_start: str
    comm: str | None

    @classmethod
    def of(cls, subtree: Subtree, kept: Steps, usage_bytes: int) -> _Peak:
        is_later = len(kept.values) > 0 and int(kept.values.max()) >= (kept.before or 0)
        moment = int(kept.times[kept.values.argmax()]) if is_later else subtree.start_ns
        most, _ = allocators.between(subtree, subtree.start_ns, moment)
        holder = max(most, key=lambda one: one.charged_bytes - one.file_bytes, default=None)
        comm = None if holder is None or holder.charged_bytes <= holder.file_bytes else holder.comm
        return cls(min(kept.peak() or 0, usage_bytes), moment, _at(subtree, moment), comm)

    def phrase(self) -> str:
        """Return `the peak of what reclaim cannot free (163.4 MiB at 12.3 s, by sort)`."""
        whose = "" if self.comm is None else f", by {self.comm}"
        return f"the peak of what reclaim cannot free ({size(self.bytes_)}{self.since_start}{whose})"


def _at(subtree: Subtree, moment_ns: int) -> str:
    """Return " at 12.3 s" for a moment, since the start of the cgroup or the trace."""
    seconds = (moment_ns - subtree.start_ns) / 1e9
    return f" at {duration(seconds)}" if seconds > 0 else ""


@dataclass(frozen=True, slots=True)
class _Needs:
    """The limit from which all that must fit is known to fit, in bytes, and what it has at its peak beside
    the memory that reclaim cannot free; `in_reading_bytes` may come at any moment."""

    proven_bytes: int
    fleeting_bytes: int
    unwritten_bytes: int
    mapped_bytes: int
    slab_bytes: int
    swapped_bytes: int
    in_reading_bytes: int

    @classmethod
    def of(cls, subtree: Subtree, held: Steps, peak: _Peak, apart_bytes: int, fleeting: Steps) -> _Needs:
        unwritten = unreclaimable.unwritten(subtree)
        mapped = ledger.sampled(subtree, ("file_mapped_bytes",), ("shmem_bytes",))
        slab = unreclaimable.reclaimable_slab(subtree)
        held_at_most = ledger.total([held, fleeting])
        all_ = ledger.total([held_at_most, unwritten, mapped, slab])
        moment = int(all_.times[all_.values.argmax()]) if len(all_.values) else peak.time_ns
        in_reading = unreclaimable.in_reading_bytes(subtree)
        return cls(
            proven_bytes=_proven(subtree, held_at_most, all_, apart_bytes, in_reading),
            fleeting_bytes=(held_at_most.peak() or 0) - (held.peak() or 0),
            unwritten_bytes=unwritten.at(moment) or 0,
            mapped_bytes=mapped.at(moment) or 0,
            slab_bytes=slab.at(moment) or 0,
            swapped_bytes=max((held.peak() or 0) - peak.bytes_, 0),
            in_reading_bytes=in_reading,
        )

    def why_between(self, huge_bytes: int, apart_bytes: int, swap_bytes: int) -> str:
        """Return the greatest reason why a limit near the peak is neither known to be enough nor too low."""
        reasons = (
            (self.fleeting_bytes, "may have come and gone within 10 ms, unseen"),
            (self.unwritten_bytes, "of page cache was not yet written, and cannot be freed at once"),
            (self.mapped_bytes, "of page cache was mapped, and work that has to read it again crawls"),
            (self.slab_bytes, "of kernel objects (slab) may be in use, or freed late"),
            (self.in_reading_bytes, "of page cache may be in reading, and cannot be freed meanwhile"),
            (huge_bytes, "may be untouched parts of huge pages, which a tight limit does without"),
            (apart_bytes, "more is needed if peaks of processes or threads fall together"),
            (max(swap_bytes, self.swapped_bytes), "may have to be swapped out, and may be in use"),
        )
        amount, reason = max(reasons)
        return f"{size(amount)} {reason}" if amount >= _ROOM_BYTES else "the limit is too close to it"


@dataclass(frozen=True, slots=True)
class _Faulted:
    """The page faults between two readings of their count (pgfault of memory.stat), as bytes of small pages,
    and the moments of both readings in ns. `late_bytes` of each may be missing (`_NOT_FLUSHED_PAGES`)."""

    begins: Int64s
    ends: Int64s
    bytes_: Int64s
    late_bytes: int

    @classmethod
    def of(cls, subtree: Subtree) -> _Faulted | None:
        """Return None if they were not counted."""
        count = ledger.count(subtree, "pgfault")
        if not len(count.values):
            return None
        page = page_size(subtree.whole)
        # Of a cgroup that was made in the trace, all that was charged is since the count began.
        first_ns = subtree.start_ns - (0 if count.before is None else _LASTING_NS)
        begins = np.append(first_ns, count.times[:-1])
        faults = np.diff(count.values, prepend=count.values[0] if count.before is None else count.before)
        late = int(subtree.whole.meta["cpus"]) * _NOT_FLUSHED_PAGES
        return cls(begins, count.times, faults * page, late * page)


def _charged(subtree: Subtree, weights: ledger.Weights) -> Steps:
    """Return all that was charged so far, in bytes, whatever was freed."""
    picked, bytes_ = subtree.charges.weighted(weights)
    return Steps(subtree.charges.time[picked], np.maximum(bytes_[picked], 0).cumsum(dtype=np.int64), 0)


def _in_huge_pages(subtree: Subtree, faulted: _Faulted | None) -> int:
    """Return the most anonymous memory that huge pages may have brought, in bytes.

    Each small page takes a page fault, but faults on files count as well, so their number says nothing
    on the size of memory. So if more was charged between two readings of the count than its faults explain
    in small pages, all of that may be huge. It is all anonymous memory if the faults were not counted.
    """
    peak = (steps.peak() or 0) if (steps := ledger.level(subtree, ledger.ANON)) is not None else 0
    if faulted is None:
        return peak
    charged = _charged(subtree, ledger.ANON)
    until, sent = charged.at_each(faulted.ends), charged.at_each(faulted.ends + _LASTING_NS)
    seen = until - charged.at_each(faulted.begins + _LASTING_NS)
    is_beyond = seen > faulted.bytes_ + faulted.late_bytes
    whole = np.where(is_beyond, sent - charged.at_each(faulted.begins), 0)
    return min(max(int(whole.sum()), int(until[-1]) - int(faulted.bytes_.sum())), peak)


def _fleeting(
    subtree: Subtree, kept: Steps, faulted: _Faulted | None, usage_bytes: int, *, by_huge_pages: bool
) -> Steps:
    """Return the most memory that there may have been beside `kept`, the level by the ledger, in bytes, over
    time: both together at most `usage_bytes`, the peak of usage.

    A row of the ledger has the sum of what was charged and freed, so memory that came and went within one row
    is in none. Each of its small pages took a page fault. So between two readings of the count, it was no
    more than the page faults explain beyond the charges that the ledger has. And the charges of a row may
    have come up to `ledger.SUMMED_NS` before it, when rows of other CPUs had not yet freed anything.
    """
    grown = np.maximum(np.diff(kept.values, prepend=kept.before or 0), 0).cumsum()
    parts = [Steps(kept.times - ledger.SUMMED_NS, grown, 0), Steps(kept.times, -grown, 0)]
    if faulted is None:
        parts.append(Steps(kept.times[:0], kept.values[:0], usage_bytes))
    else:
        by_faults = _charged(subtree, _FAULTED)
        firsts = np.minimum(faulted.begins + ledger.SUMMED_NS, faulted.ends)
        seen = by_faults.at_each(faulted.ends) - by_faults.at_each(firsts)
        parts.append(Steps(faulted.begins, np.maximum(faulted.bytes_ - seen, 0), 0))
        parts.append(_without_faults(subtree, _FAULTED if by_huge_pages else _WRITTEN))
    all_ = ledger.total(parts)
    room = np.maximum(usage_bytes - kept.at_each(all_.times), 0)
    return Steps(all_.times, np.minimum(all_.values, room), 0)


def _without_faults(subtree: Subtree, weights: ledger.Weights) -> Steps:
    """Return the most memory of some kinds that may have come without page faults, unseen by the ledger, in
    bytes, over time: before a fall of `_ROOM_BYTES`, what the cgroup charged in its fastest 10 ms."""
    charged = _charged(subtree, _FILLED)
    pace = int((charged.values - charged.at_each(charged.times - ledger.SUMMED_NS)).max(initial=0))
    picked, bytes_ = subtree.charges.weighted(weights)
    times, freed = subtree.charges.time[picked], np.minimum(bytes_[picked], 0).cumsum(dtype=np.int64)
    soon = ledger.total([Steps(times - _LASTING_NS, -freed, 0), Steps(times, freed, 0)])
    return Steps(soon.times, np.where(soon.values >= _ROOM_BYTES, pace, 0), 0)


def _lasting_peak(level: Steps) -> int:
    """Return the highest level that lasted for a whole cell of 20 ms."""
    if not len(level.times):
        return level.before or 0
    cell = level.times // _LASTING_NS
    firsts = np.flatnonzero(np.diff(cell, prepend=cell[0] - 1))
    lasts = np.append(firsts[1:], len(cell)) - 1
    carried = np.append(level.before or 0, level.values)[firsts]
    lowest = np.minimum(np.minimum.reduceat(level.values, firsts), carried)
    is_apart = np.diff(cell[firsts], append=cell[-1] + 2) > 1
    return int(max(lowest.max(), level.values[lasts[is_apart]].max(initial=0), level.before or 0))


def _proven(subtree: Subtree, held: Steps, all_: Steps, apart_bytes: int, in_reading: int) -> int:
    """Return the limit, in bytes, from which the run survives: with room for `held`, and for `all_` and
    what is in reading (bytes) at each moment at which it did not survive with less."""
    limits = ledger.counter(subtree, "limit_bytes").at_each(all_.times, UNLIMITED_BYTES)
    room = apart_bytes + _room(subtree, all_.peak() or 0) + in_reading
    most = (held.peak() or 0) + apart_bytes
    return max(int(np.minimum(all_.values + room, limits).max(initial=0)), most + _room(subtree, most))


def _room(subtree: Subtree, peak_bytes: int) -> int:
    return kill_range.unseen_bytes(subtree.whole) + peak_bytes // _ROOM_DIVISOR + _ROOM_BYTES
