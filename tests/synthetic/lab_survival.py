"""The thrash experiment, which lives: the report, and the parts of the trace that checks read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from synthetic.lab_kill import processes

from tracer.analysis.core.evicted import Evicted
from tracer.analysis.results.kill import Sizing
from tracer.analysis.results.memory import Reclaim
from tracer.analysis.results.quality import Quality
from tracer.analysis.results.survivor import Held, Progress

MIB = 1 << 20
PAGE = 4096
FILE = 83 * MIB
OWN = "/memcg-tracer-1-lab"

HELD = Held(
    cgroup=OWN,
    container=None,
    limit_bytes=40 * MIB,
    peak_usage_bytes=40 * MIB,
    peak_time=pd.Timestamp("2025-11-24T23:40:01+00:00"),
    headroom_bytes=0,
    peak_anon_bytes=7 * MIB,
    anon_at_peak_bytes=7 * MIB,
    cache_at_peak_bytes=32 * MIB,
    evicted_bytes=217 * MIB,
    refaulted_bytes=2 * FILE,
    kernel_refaulted_bytes=2 * FILE,
    max_events=None,
    reclaim=Reclaim(1, 1, 1, 1.0, ()),
    sizing=Sizing(None),
    quality=Quality(0, "missing", {}),
    progress=Progress("thrashing", 0.6),
)


def lost_time(_: str) -> pd.DataFrame:
    """Return the lost time of one second, most of it in reading again."""
    times = {"reclaim_ms": 100.0, "reread_ms": 300.0, "swap_in_ms": None, "throttled_ms": None}
    times |= {"first_read_ms": 100.0, "work_ms": 166.0}
    index = pd.DatetimeIndex([HELD.peak_time], name="time")
    return pd.DataFrame(times, index=index).astype("float64")


def trace(**changes: Any) -> Any:
    """Return a trace in which the file is read three times, and a library of 8 pages once.

    The library's pages were evicted before the trace; the kernel counts a refault for each.
    """
    added = {"op": "add", "cgroup_id": 5}
    pagecache = [{**added, "inode_id": 1, "nr_pages": FILE // PAGE}] * 3
    pagecache += [{**added, "inode_id": 2, "nr_pages": 8}, {**added, "inode_id": 1, "cgroup_id": 6}]
    evicted = {**added, "op": "delete", "inode_id": 1, "tgid": 8, "cause": "reclaim_memcg"}
    pagecache += [{**evicted, "nr_pages": 217 * MIB // PAGE}]
    moments = pd.DatetimeIndex([HELD.peak_time] * len(pagecache), name="time")
    by_damon = {"pages": np.array([4]), "damon_tgid": np.array([77])}
    moment_ns = int(moments.as_unit("ns").asi8[0])
    samples = pd.DataFrame({"cgroup_id": [5, 5, 6], "pgsteal": [0, 217 * MIB // PAGE, 9]})
    thrashed = {"cgroup_id": [5, 6], "evicted_bytes": [200 * MIB, 1], "refaulted_bytes": [2 * FILE, 1]}
    parts = {
        "meta": {"page_size": PAGE, "cpus": 2, "filters": {"cgroups": [OWN]}},
        "samples": samples.astype("Int64"),
        "cgroups": pd.DataFrame({"cgroup_id": [5, 6], "path": [OWN, "/"]}),
        "pagecache": pd.DataFrame(pagecache, index=moments).fillna(
            {"tgid": 0, "nr_pages": 0, "cause": "read"}
        ),
        "evicted": Evicted(
            time=np.array([moment_ns]), duration_ns=np.array([0]), cgroup_id=np.array([5]), **by_damon
        ),
        "span_ns": (moment_ns, moment_ns),
        "processes": processes(),
        "refaults": pd.DataFrame({"cgroup_id": 5, "inode_id": 1, "bytes": [FILE, FILE]}, index=moments[:2]),
        "lost_time": lost_time,
        "thrash": lambda: pd.DataFrame(thrashed),
        "explain": list,
        "held_cgroups": lambda: [HELD],
    }
    return SimpleNamespace(**parts | changes)
