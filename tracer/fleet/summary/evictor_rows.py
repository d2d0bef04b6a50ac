"""A row for each minute, owner of page cache, cgroup that evicted it, and cause."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import NO_ID, Integers, distinct, integers
from tracer.analysis.core.evicted import is_evicted
from tracer.analysis.core.page_cache import CacheEvents
from tracer.analysis.core.tables import ShmemFiles, page_size
from tracer.analysis.trace import AnalysedTrace
from tracer.fleet.summary.named_cgroups import NamedCgroups
from tracer.fleet.summary.origin import Origin
from tracer.fleet.summary.summaries import BIN_NS


def evictor_rows(trace: AnalysedTrace, origin: Origin, names: NamedCgroups) -> list[dict[str, Any]]:
    """Return the rows of `evictors`.

    `refaulted_bytes` is the part of `evicted_bytes` that was read again later in the trace. Summed over
    minutes and causes, both columns equal `evicted_bytes` and `returned_bytes` of `t.evictions(by="cgroup")`.
    """
    events = trace.cache_events
    pairs = [*_evicted(trace, events, origin), *_returned(trace, events, origin)]
    if not pairs:
        return []
    keys = ["bin", "cgroup_id", "task_cgroup_id", "cause"]
    frame = pd.concat(pairs).join(events.kinds[keys[1:]], on="kind")
    sums = frame.groupby(keys, observed=True)[["evicted", "returned"]].sum()
    start, end = trace.span_ns
    size = page_size(trace)
    return [
        {
            **origin.bin_row(
                max(number * BIN_NS + origin.clock_offset_ns, start),
                min((number + 1) * BIN_NS + origin.clock_offset_ns, end),
            ),
            **_who("owner", names, None if owner == NO_ID else owner),
            **_who("evictor", names, evictor),
            "cause": cause,
            "evicted_bytes": evicted * size,
            "refaulted_bytes": returned * size,
        }
        for (number, owner, evictor, cause), evicted, returned in zip(
            sums.index.tolist(), sums["evicted"].tolist(), sums["returned"].tolist(), strict=True
        )
    ]


def _who(role: str, names: NamedCgroups, cgroup_id: int | None) -> dict[str, Any]:
    row = names.row(cgroup_id)
    return {f"{role}_{name}": row[name] for name in ("workload", "cgroup", "cgroup_id")}


def _evicted(trace: AnalysedTrace, events: CacheEvents, origin: Origin) -> Iterator[pd.DataFrame]:
    """Yield sums of evicted pages by kind of event and minute, without shmem, which is not page cache."""
    is_taken = is_evicted(events.kinds)
    shmem = ShmemFiles.from_inodes(trace.inodes)
    is_file = ~shmem.hold(*(integers(events.files[name]) for name in ("inode_id", "dev")))
    for batch in events.batches():
        taken = np.flatnonzero(is_taken[batch.kind] & is_file[batch.file])
        yield _sums("evicted", batch.kind[taken], batch.time[taken], batch.pages[taken], origin)


def _returned(trace: AnalysedTrace, events: CacheEvents, origin: Origin) -> Iterator[pd.DataFrame]:
    """Yield sums of the pages that came back, by the kind and the minute of their eviction."""
    is_taken = is_evicted(events.kinds)
    for links in trace.page_moves.links.batches():
        chosen = np.flatnonzero(is_taken[links.evicted_kind])
        yield _sums(
            "returned",
            links.evicted_kind[chosen],
            links.evicted_ns[chosen],
            links.pages[chosen],
            origin,
        )


def _sums(column: str, kind: Integers, time_ns: Integers, pages: Integers, origin: Origin) -> pd.DataFrame:
    minute = (time_ns - origin.clock_offset_ns) // BIN_NS
    code, firsts = distinct(kind, minute - minute.min(initial=np.iinfo(np.int64).max))
    amounts = np.bincount(code, pages, len(firsts)).astype(np.int64)
    found = pd.DataFrame(
        {"bin": minute[firsts], "kind": kind[firsts].astype(np.int64), "evicted": 0, "returned": 0}
    )
    found[column] = amounts
    return found
