"""The pages that reclaim took from the page cache, and those that came back, by cgroup and time.

All pages of a run count at the time of its first folio. The run is at most 10 ms long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import NO_ID, Bools, Int64s, Integers, integers, is_one_of, joined, narrow
from tracer.analysis.core.page_cache import CacheEvents, Events, Links
from tracer.analysis.core.rows import OwnedRows
from tracer.enumerations import EVICTION_CAUSES

DAMON_COMM: Final = "kdamond"
"""The beginning of the names of DAMON's threads (damon_start in mm/damon/core.c)."""


@dataclass(frozen=True)
class Evicted(OwnedRows):
    """Evictions from the cache of cgroups.

    `duration_ns` is the time from the first folio of a run to the last. `damon_tgid` is the tgid of the
    evicting process if it may be a thread of DAMON, else 0. The integers are as small as their values permit.
    """

    duration_ns: Integers
    pages: Integers
    damon_tgid: Integers

    @classmethod
    def from_events(cls, events: CacheEvents, tasks: pd.DataFrame) -> Evicted:
        """Return the evictions among the events of a trace with these `tasks`, without cache that nobody
        owns."""
        kinds = events.kinds
        owner, tgid = integers(kinds["cgroup_id"]), integers(kinds["tgid"])
        damons = integers(tasks["tgid"])[tasks["comm"].astype(str).str.startswith(DAMON_COMM)]
        by_damon = is_one_of(kinds["cause"], ["reclaim_kswapd"]) & np.isin(tgid, damons)
        is_picked = is_evicted(kinds) & (owner != NO_ID)
        cgroup_id, damon_tgid = narrow(np.where(is_picked, owner, 0)), narrow(np.where(by_damon, tgid, 0))

        def columns(some: Events) -> dict[str, Integers]:
            of_kind = {"cgroup_id": cgroup_id[some.kind], "damon_tgid": damon_tgid[some.kind]}
            return {"time": some.time, "duration_ns": some.duration, "pages": some.pages, **of_kind}

        return cls.from_batches([*map(columns, events.recorded(is_picked))])

    def pages_between(self, begin_ns: int, end_ns: int) -> int:
        """Return the pages that were taken within an interval, both ends included."""
        first, end = np.searchsorted(self.time, [begin_ns, end_ns + 1])
        return int(self.pages[first:end].sum(dtype=np.int64))

    def damons_pages_between(self, begin_ns: int, end_ns: int) -> dict[int, int]:
        """Return tgid -> pages taken within an interval, for processes that may be threads of DAMON."""
        first, end = np.searchsorted(self.time, [begin_ns, end_ns + 1])
        tgids, pages = self.damon_tgid[first:end], self.pages[first:end]
        return {tgid: int(pages[tgids == tgid].sum()) for tgid in np.unique(tgids[tgids > 0]).tolist()}


@dataclass(frozen=True)
class Refaulted(OwnedRows):
    """Refaults, at the times at which the pages came back.

    `cgroup_id` was charged for the pages when they were evicted, at `evicted_ns` (ns since the epoch), and
    `returned_to` is charged for them since they came back. `file` is a position in `CacheEvents.files`. The
    integers are as small as their values permit.
    """

    evicted_ns: Int64s
    returned_to: Integers
    file: Integers
    pages: Integers

    @classmethod
    def from_links(cls, links: Links, events: CacheEvents) -> Self:
        """Return the refaults in sorted links, without cache that had no owner before or has none now."""
        owner = integers(events.kinds["cgroup_id"])
        is_owned, small = owner != NO_ID, narrow(np.where(owner == NO_ID, 0, owner))
        chosen: slice | Int64s = slice(None)
        if not is_owned.all():
            chosen = np.flatnonzero(is_owned[links.evicted_kind] & is_owned[links.added_kind])
        return cls(
            time=links.back_ns[chosen],
            evicted_ns=links.evicted_ns[chosen],
            cgroup_id=joined([small[links.evicted_kind[chosen]]]),
            returned_to=joined([small[links.added_kind[chosen]]]),
            file=links.file[chosen],
            pages=links.pages[chosen],
        )

    def within(self, members: Int64s) -> Self:
        """Return the refaults of pages that were charged to a member before and are again.

        Pages that another cgroup reads, also a later life of the same name, are not among them.
        """
        found = self.of_cgroups(members)
        return found.chosen(np.flatnonzero(np.isin(found.returned_to, members)))

    def between(self, begin_ns: int, end_ns: int) -> Self:
        """Return the refaults of pages that were evicted and came back within an interval, both ends
        included."""
        first, end = np.searchsorted(self.time, [begin_ns, end_ns + 1])
        return self.chosen(first + np.flatnonzero(self.evicted_ns[first:end] >= begin_ns))


def is_evicted(pagecache: pd.DataFrame) -> Bools:
    """Return a mask of the rows of `pagecache`, or of kinds of its events, that are folios taken by
    reclaim."""
    return is_one_of(pagecache["op"], ["delete"]) & is_one_of(pagecache["cause"], EVICTION_CAUSES)
