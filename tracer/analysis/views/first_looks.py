"""The page cache that cgroups held when the recorder first looked at it, such as before the trace began."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Bools, Int64s, integers, is_one_of, known, times_ns
from tracer.analysis.core.ledger import made_in_trace
from tracer.analysis.core.tables import TraceTables


@dataclass(frozen=True, slots=True)
class FirstLooks:
    """The page cache that the first look at each cgroup found (`contents`), without shmem.

    `last_ns`: the time of the latest of these looks; None: there was none. `of_files`: inode_id -> bytes, for
    the files that were named.
    """

    last_ns: int | None
    bytes: int
    of_files: pd.Series[int]


def first_looks(trace: TraceTables, members: Int64s | None) -> FirstLooks:
    """Return the first looks at these cgroups; None: at all.

    What a look finds in a cgroup that had no page cache when the trace began came later, and counts as 0.
    """
    rows = trace.contents
    rows = rows[is_one_of(rows["kind"], ["file"])]
    if members is not None:
        rows = rows[np.isin(integers(rows["cgroup_id"]), members)]
    times = pd.Series(times_ns(rows), index=rows.index)
    first = times.groupby(integers(rows["cgroup_id"])).transform("min")
    is_first = (times == first).to_numpy()
    rows, times = rows[is_first], times[is_first]
    is_before = ~_began_empty(trace, integers(rows["cgroup_id"]))
    named = rows[is_before & known(rows["inode_id"])]
    return FirstLooks(
        last_ns=int(times.max()) if len(times) else None,
        bytes=int(rows["bytes"][is_before].sum()),
        of_files=named["bytes"].groupby(integers(named["inode_id"])).sum(),
    )


def _began_empty(trace: TraceTables, cgroup_ids: Int64s) -> Bools:
    """Return a mask of the cgroups that were made during the trace, or had no page cache at their first
    sample."""
    samples = trace.samples[np.isin(integers(trace.samples["cgroup_id"]), cgroup_ids)]
    first = samples[known(samples["file_bytes"])].drop_duplicates("cgroup_id")
    empty = integers(first["cgroup_id"])[(first["file_bytes"] == 0).to_numpy(np.bool_)]
    return made_in_trace(trace.cgroups, cgroup_ids) | np.isin(cgroup_ids, empty)
