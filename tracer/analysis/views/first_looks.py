"""The page cache that cgroups held when the recorder first looked at it, such as before the trace began."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Int64s, integers, is_one_of, known, times_ns
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
    """Return the first looks at these cgroups; None: at all."""
    rows = trace.contents
    rows = rows[is_one_of(rows["kind"], ["file"])]
    if members is not None:
        rows = rows[np.isin(integers(rows["cgroup_id"]), members)]
    times = pd.Series(times_ns(rows), index=rows.index)
    first = times.groupby(integers(rows["cgroup_id"])).transform("min")
    is_first = (times == first).to_numpy()
    rows, times = rows[is_first], times[is_first]
    named = rows[known(rows["inode_id"])]
    return FirstLooks(
        last_ns=int(times.max()) if len(times) else None,
        bytes=int(rows["bytes"].sum()),
        of_files=named["bytes"].groupby(integers(named["inode_id"])).sum(),
    )
