"""The page cache that a run would read again at another limit, and the time that it would lose.

The miss curve (`views.miss_curve`) says which refaults more memory would have spared. Hits are not traced, so
nothing says what less memory would have cost: below the recorded limit, only the lower end is known. A limit
above the peak of usage changes nothing.

The kernel's lists of files differ from the LRU list of the curve by up to an eighth of the additional memory,
and for pages that are read by page faults, by up to a quarter of what was read again (docs/sizing.md). A row
of evictions sums up to 10 ms, so a distance is known to the size of such a row. Runs of the same work differ
a little. The range has room for all of these. Its lower end counts pages that are sure to be missing, however
many reclaim takes at a time (`Reuse.least_pages`). With room for all that the run ever held, nothing is
evicted.

A page that was evicted and came back before another MiB was evicted was usually read ahead and evicted before
its use. A disk that reads ahead more at a time does so over that distance (`unreclaimable.in_reading_bytes`);
page faults read ahead less, and the program that they read may be as small.
How often it happens in a tight cache varies by half, and it may be less with less memory.

Reads at random read ahead as much as is cached before them (page_cache_sync_ra in mm/readahead.c). With more
memory, they miss less often and read ahead more, and both together may read as much again as in the trace.

Pages that were written are evicted later than in their place in the lists, when the disk has them
(shrink_folio_list in mm/vmscan.c). So fewer evictions may have followed theirs than will with more memory,
and as much more memory as was not written at a time may be needed to keep them. Others are evicted in their
place. How many is another matter each time, since it depends on the disk.

Kernel objects that reclaim drops (slab), such as names and inodes of files, share the room with the page
cache. With more room, as many of them stay as there is room for, and what they leave to the page cache is not
known. A program that made 400,000 files read 244 MiB again at 60 MiB, 31 at 101 and 37 at 130.

Where not only the cgroup's own limit evicted its page cache, but also that of a cgroup above or below it,
memory.high, or a shortage of the machine, more room below the cgroup's own limit may spare nothing. Without
what the others evicted, less may be read again, at any limit.

The least limit at which (nearly) nothing is read again (`none_from`) is where this range ends: a 64th of what
was read again, or 256 KiB, may still be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import Int64s, integers, is_one_of, known
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import end_ns, page_size
from tracer.analysis.explain.measure.growth import LEAST_SHARE
from tracer.analysis.explain.sizing.kill_range import (
    LISTS_DIVISOR,
    Spared,
    cache_to_spare,
    few_bytes,
    unseen_bytes,
    why_no_curve,
)
from tracer.analysis.explain.sizing.unreclaimable import (
    dropped_slab_bytes,
    in_reading_bytes,
    read_around_bytes,
)
from tracer.analysis.results.outcome import NOT_KNOWN, UNFLUSHED_BYTES, BytesRange, ShareRange, is_wide
from tracer.analysis.results.survivor import LostTime, Progress
from tracer.analysis.views import miss_curve
from tracer.analysis.views.miss_curve import Reuse
from tracer.schema import UNLIMITED_BYTES
from tracer.units import size

_FAULTS_DIVISOR: Final = 4
_RUNS_DIVISOR: Final = 32
_FEW_BYTES: Final = 256 << 10
_OTHERS_DIVISOR: Final = 32
_MAIN_DIVISOR: Final = 3
"""A reason that makes up so great a part of the width of a range is the one that is said."""
_AT_ONCE_BYTES: Final = 1 << 20
_RUN_BYTES: Final = 1 << 20
"""The pages of a refault lie so far apart in time: nginx with files of 1 MiB read 111 MiB again at a limit at
which the curve without this room has at least 116."""


@dataclass(frozen=True, slots=True)
class Rereads:
    """What a run read again, and how that depends on the limit.

    `limit_bytes`: the limit in the whole trace (`UNLIMITED_BYTES`: none); None: it changed, or was not read.
    `peak_usage_bytes`: None if it was not read. `why_unknown`: the reason if the refaults are not known.
    `is_own`: only the cgroup's own limit, or its memory.high, evicted its page cache. `by_others_bytes`: what
    was evicted for any other reason. `all_bytes`: the memory with which all that the run ever held fits;
    None: not known. `faulted_bytes`: the part of what was read again that was read by page faults.
    `at_random_bytes`: the part that was read by reads at random, if there was also readahead.
    `around_bytes`: what page faults may read besides with more room (`unreclaimable.read_around_bytes`).
    `at_once_bytes`: what was read ahead and evicted before its use came back before so much else was evicted.
    `dropped_bytes`: `unreclaimable.dropped_slab_bytes`. `unseen_bytes`: `kill_range.unseen_bytes`. `is_high`:
    tasks were above memory.high. `spared`: the extra memory with which nearly all would have stayed.
    """

    limit_bytes: int | None
    peak_usage_bytes: int | None
    why_unknown: str | None
    reuse: Reuse
    page_size: int
    is_own: bool
    by_others_bytes: int
    all_bytes: int | None
    faulted_bytes: int
    at_random_bytes: int
    around_bytes: int
    at_once_bytes: int
    dropped_bytes: int
    unseen_bytes: int
    is_high: bool
    spared: Spared
    going: Progress

    @classmethod
    def of(cls, subtree: Subtree, going: Progress) -> Self:
        """Return the rereads of a cgroup; `going` is whether its work went on."""
        limits = ledger.counter(subtree, "limit_bytes")
        most, least = limits.peak(), limits.least()
        reuse, page = miss_curve.reuse_of(subtree), page_size(subtree.whole)
        evicted, by_others = _evicted_pages(subtree)
        faulted_bytes = _refaulted_pages(subtree, "fault") * page
        return cls(
            limit_bytes=most if most == least else None,
            peak_usage_bytes=ledger.peak_usage(subtree),
            why_unknown=why_no_curve(subtree, subtree.start_ns, end_ns(subtree.whole)),
            reuse=reuse,
            page_size=page,
            is_own=by_others <= evicted // _OTHERS_DIVISOR,
            by_others_bytes=by_others * page,
            all_bytes=_all_bytes(subtree),
            faulted_bytes=faulted_bytes,
            at_random_bytes=_at_random_pages(subtree) * page,
            around_bytes=read_around_bytes(subtree) if faulted_bytes else 0,
            at_once_bytes=max(in_reading_bytes(subtree, by_faults=False), _AT_ONCE_BYTES),
            dropped_bytes=dropped_slab_bytes(subtree),
            unseen_bytes=unseen_bytes(subtree.whole),
            is_high=_is_high(subtree),
            spared=cache_to_spare(subtree, reuse, subtree.start_ns, end_ns(subtree.whole)),
            going=going,
        )

    @property
    def seen_bytes(self) -> int:
        """Return what was read again in the trace."""
        return self.reuse.total_pages() * self.page_size

    def at(self, limit_bytes: int) -> BytesRange:
        """Return (low, high) of what is read again at a limit; None: not known."""
        if self.why_unknown is not None or self.peak_usage_bytes is None:
            return NOT_KNOWN
        seen = self.seen_bytes
        if self._has_room_for_all(limit_bytes):
            return 0, _FEW_BYTES if seen else 0
        if self.limit_bytes is None:
            return NOT_KNOWN
        by_faults = self.faulted_bytes // _FAULTS_DIVISOR
        unsure = by_faults + self.by_others_bytes
        late, least = self.spared.late_bytes, self.reuse.least_pages
        steady = self._left(self.at_once_bytes)
        sure_seen = (min(steady, self._left(late, least)) if late else steady) - unsure
        if limit_bytes < self.limit_bytes and not self.is_as_recorded(limit_bytes):
            return _range_of(sure_seen, steady)[0], None
        most_seen = seen + (seen - steady) // 2 + by_faults + late
        more = max(limit_bytes - self.limit_bytes, 0)
        if not more or self.is_high:
            low, high = _range_of(sure_seen, most_seen)
            return (None if more else low), high
        sure = self._sure_bytes(more)
        low = self._left(more + self._differs_bytes(more), least) - unsure
        most = self._left(sure - late)
        if most > few_bytes(seen):
            most = min(most + by_faults + self.at_random_bytes + late, most_seen)
        is_open = sure < self.at_once_bytes or not self.is_own or self._is_shared_with_slab
        return _range_of(low, most_seen if is_open else most)

    def why_wide(self, limit_bytes: int, again: BytesRange) -> str | None:
        """Return a reason, a clause, why the range of `at` is wide at a limit above the recorded one; None if
        it is not, or if an end is not known."""
        low, high = again
        more = limit_bytes - (self.limit_bytes or UNLIMITED_BYTES)
        if low is None or high is None or more <= 0 or not is_wide(again):
            return None
        others, random, faults = self.by_others_bytes, self.at_random_bytes, self.faulted_bytes
        by_faults = 2 * faults // _FAULTS_DIVISOR  # at both ends
        late, sure = self.spared.late_bytes, self._sure_bytes(more)
        dropped = f"{size(self.dropped_bytes)} of kernel objects (slab) was dropped, and takes room as well"
        parts = (
            (high if self._is_shared_with_slab else 0, dropped),
            (0 if self.is_own else high, f"{size(others)} was evicted for another reason than its limit"),
            (random, f"reads at random ({size(random)} of it) read ahead more with more room"),
            (by_faults, f"page faults ({size(faults)} of it) read around more with more room"),
        )
        for part, why in parts:
            if part * _MAIN_DIVISOR >= high - low:
                return why
        if late > more // LISTS_DIVISOR + self.unseen_bytes:
            return f"up to {size(late)} of its page cache was not yet on the disk at a time"
        if sure < self.at_once_bytes:
            return f"of {size(self.at_once_bytes)} that is read ahead, pages may go before their use"
        none_from, _ = self.none_from()
        is_below = none_from is not None and limit_bytes < none_from
        if is_below and low <= UNFLUSHED_BYTES and high > self.seen_bytes // 2:
            from_there = f"it reads (nearly) nothing again from {size(none_from)} on"
            return f"{from_there}; with less, files read in turn may come back whole"
        known_to = more + self._differs_bytes(more) - max(sure - late, 0)
        return f"which pages stay is known to within {size(known_to)} of memory"

    def _differs_bytes(self, more_bytes: int) -> int:
        """Return by how much the kernel's lists may keep more than an LRU list with so much more memory."""
        run = min(self.spared.run_bytes, _RUN_BYTES)
        return more_bytes // LISTS_DIVISOR + self.unseen_bytes + self.spared.late_bytes + run

    def _sure_bytes(self, more_bytes: int) -> int:
        """Return how much longer an LRU list is, in bytes, all of whose pages stay with so much more memory.

        This is the inverse of `none_from`.
        """
        lists_bytes = more_bytes - self.unseen_bytes - self.spared.run_bytes
        return -(-lists_bytes * LISTS_DIVISOR // (LISTS_DIVISOR + 1))

    @property
    def _is_shared_with_slab(self) -> bool:
        """Return whether kernel objects that were dropped may take more of further room than there is for the
        kernel's lists."""
        return self.dropped_bytes > self.spared.lists_bytes + self.unseen_bytes

    @property
    def all_fits_bytes(self) -> int | None:
        """The limit at which nothing has to be evicted; None: not known."""
        if self.all_bytes is None or self._is_shared_with_slab:
            return None
        return self.all_bytes + self.unseen_bytes + self.around_bytes

    def none_from(self) -> tuple[int | None, str | None]:
        """Return the limit in bytes from which (nearly) nothing is read again, or None and the reason.

        Where memory.high evicted page cache, it must be no lower than this limit.
        """
        if self.why_unknown is not None or self.peak_usage_bytes is None:
            return None, self.why_unknown or "its usage is not known"
        if not self.spared.extra_bytes:
            return self.peak_usage_bytes + self.unseen_bytes, None
        if (why_not := self._why_not_by_room()) is not None:
            return None, why_not
        if self.is_high:
            return self.peak_usage_bytes + self.spared.room_bytes() + self.unseen_bytes, None
        all_fits = self.all_fits_bytes
        if self.limit_bytes is None or self.limit_bytes >= UNLIMITED_BYTES:
            why = "it had no limit, or not the same one in the whole trace"
            return all_fits, None if all_fits is not None else why
        least = self.limit_bytes + self.spared.room_bytes() + self.unseen_bytes
        return least if all_fits is None else min(least, all_fits), None

    def _why_not_by_room(self) -> str | None:
        """Return the reason why more room may spare nothing; None if there is none."""
        if self._is_shared_with_slab:
            dropped = f"{size(self.dropped_bytes)} of kernel objects (slab) was dropped beside its page cache"
            return f"{dropped}, and may take any further room"
        if not self.is_own:
            return "its page cache was not evicted for its own limit alone: more room may spare nothing"
        return None

    def _has_room_for_all(self, limit_bytes: int) -> bool:
        """Return whether nothing has to be evicted at a limit."""
        if not self.spared.extra_bytes and self.is_as_recorded(limit_bytes):
            return True
        all_fits = self.all_fits_bytes
        return self.is_own and not self.is_high and all_fits is not None and limit_bytes >= all_fits

    def _left(self, more_bytes: int, extra_pages: Int64s | None = None) -> int:
        """Return what is read again with so much more memory, by the miss curve, or by other distances of its
        refaults."""
        extra_pages = self.reuse.extra_pages if extra_pages is None else extra_pages
        missing = extra_pages * self.page_size > more_bytes
        return round(int(self.reuse.pages[missing].sum()) * self.reuse.scale) * self.page_size

    def lost_share_at(self, limit_bytes: int, again: BytesRange) -> ShareRange:
        """Return (low, high) of the lost share at a limit at which so much is read again; None: not known.

        What is read again takes as long as in the trace. What reclaim takes is at most as in the trace above
        the recorded limit, and at least as in the trace below it.
        """
        lost = self.going.lost
        if lost is None or self.going.lost_share is None or None in (lost.reclaim_ms, lost.work_ms):
            return NOT_KNOWN
        reclaim_ms = lost.reclaim_ms or 0.0
        is_more = self.limit_bytes is None or limit_bytes > self.limit_bytes
        low, high = again
        return (
            None if low is None else self._lost_share(lost, low, 0.0 if is_more else reclaim_ms),
            None if high is None else self._lost_share(lost, high, reclaim_ms),
        )

    def _lost_share(self, lost: LostTime, again_bytes: int, reclaim_ms: float) -> float:
        lost_ms = (lost.reread_ms or 0.0) * again_bytes / (self.seen_bytes or 1) + reclaim_ms
        lost_ms += (lost.swap_in_ms or 0.0) + (lost.throttled_ms or 0.0)
        whole_ms = lost_ms + (lost.work_ms or 0.0) + (lost.first_read_ms or 0.0)
        return lost_ms / whole_ms if whole_ms else 0.0

    def is_thrashing_at(self, limit_bytes: int, again: BytesRange) -> bool | None:
        """Return whether the tasks thrash at a limit at which so much is read again; None: not known.

        In the worst stretch of a trace that thrashes, time is lost in proportion to what is read again. A
        trace that does not thrash shows nothing about less memory.
        """
        crawl = self.going.crawl
        if self.going.state != "thrashing" or crawl is None:
            return False
        if self.limit_bytes is not None and limit_bytes <= self.limit_bytes:
            return True
        low, high = (None if end is None else self._share(crawl.lost_share, end) for end in again)
        if low is not None and low >= LEAST_SHARE:
            return True
        return False if high is not None and high < LEAST_SHARE else None

    def _share(self, lost_share: float, again_bytes: int) -> float:
        lost = lost_share * again_bytes / (self.seen_bytes or 1)
        return lost / (lost + 1 - lost_share) if lost < 1 else 1.0

    def is_as_recorded(self, limit_bytes: int) -> bool:
        """Return whether a limit changes nothing, since usage stayed below it and below the recorded one."""
        peak = self.peak_usage_bytes
        return peak is not None and limit_bytes >= peak + self.unseen_bytes


def _range_of(least_bytes: int, most_bytes: int) -> tuple[int, int]:
    """Return a range with room for the difference between runs of the same work."""
    least_bytes = max(least_bytes, 0)
    few = (least_bytes // _RUNS_DIVISOR + _FEW_BYTES, most_bytes // _RUNS_DIVISOR + _FEW_BYTES)
    return max(least_bytes - few[0], 0), most_bytes + few[1]


def _evicted_pages(subtree: Subtree) -> tuple[int, int]:
    """Return (all page cache that was evicted, the part that reclaim for the cgroup's own limit or
    memory.high cannot have evicted), in pages.

    An attempt may also free anonymous memory and slab, so what it took from lists of files counts. The
    multi-gen LRU reports no lists before 8c2214fc9a47 ("mm: multi-gen LRU: reuse some legacy trace events"),
    v6.7: all that was not written to swap counts then.
    """
    evicted = subtree.evicted.pages_between(subtree.start_ns, end_ns(subtree.whole))
    attempts = subtree.reclaim
    is_own = (integers(attempts["cgroup_id"]) == subtree.cgroup_id) & is_one_of(attempts["kind"], ["memcg"])
    unswapped = integers(attempts["reclaimed"]) - integers(attempts["written_anon"], missing=0)
    has_lists = known(attempts["priority"])
    freed = np.where(has_lists, integers(attempts["reclaimed_file"]), np.maximum(unswapped, 0))
    return evicted, max(evicted - int(freed[is_own].sum()), 0)


def _is_high(subtree: Subtree) -> bool:
    """Return whether tasks were, or may have been, above memory.high in the trace."""
    in_trace = ledger.counted(subtree, "high_events", subtree.start_ns, end_ns(subtree.whole))
    ever = ledger.count(subtree, "high_events").at(end_ns(subtree.whole))
    return bool(ever if in_trace is None else in_trace)


def _all_bytes(subtree: Subtree) -> int | None:
    """Return the memory with which all that the cgroup ever held fits, each page of a file once, in bytes.

    None: what it held when the trace began is not known, or events of its page cache are missing.
    """
    others, cache = ledger.level(subtree, ledger.NOT_CACHE), ledger.level(subtree, ledger.CACHE)
    if others is None or cache is None:
        return None
    kinds, totals = subtree.whole.cache_events.kinds, subtree.whole.page_moves.totals
    is_added = is_one_of(kinds["op"], ["add"]) & np.isin(integers(kinds["cgroup_id"]), subtree.members)
    added = int(totals["pages"][is_added[totals["kind"]]].sum()) - _refaulted_pages(subtree)
    files = (cache.before or 0) + added * page_size(subtree.whole)
    return None if files < (cache.peak() or 0) else (others.peak() or 0) + files


def _at_random_pages(subtree: Subtree) -> int:
    """Return the pages that reads at random read again, if they can have readahead: without any, the program
    has switched it off (POSIX_FADV_RANDOM)."""
    ahead = _refaulted_pages(subtree, "readahead") * page_size(subtree.whole)
    return _refaulted_pages(subtree, "read") if ahead > _FEW_BYTES else 0


def _refaulted_pages(subtree: Subtree, cause: str | None = None) -> int:
    """Return the pages that the cgroup read again, or only those with a cause of their addition."""
    kinds, totals = subtree.whole.cache_events.kinds, subtree.whole.page_moves.totals
    picked = np.isin(integers(kinds["cgroup_id"]), subtree.members)
    if cause is not None:
        picked &= is_one_of(kinds["cause"], [cause])
    return int(totals["refaulted"][picked[totals["kind"]]].sum())
