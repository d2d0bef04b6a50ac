"""The page-cache experiment with its kill: the report, and the parts of the trace that checks read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from tracer.analysis.core.evicted import Evicted
from tracer.analysis.core.lookups import Processes
from tracer.analysis.results.kill import LimitOwner, OomReport, Sizing, Trigger, Verdict, Victim
from tracer.analysis.results.memory import (
    CodeFrame,
    Composition,
    Cushion,
    GrownCode,
    GrownProcess,
    Reclaim,
)
from tracer.analysis.results.quality import Quality
from tracer.lab.checks import Evidence

MIB = 1 << 20
PAGE = 4096
LIMIT = 100 * MIB
EVICTED = 113 * MIB
BEGIN = pd.Timestamp("2025-11-24 23:40:00", tz="UTC")
KILL = BEGIN + pd.Timedelta(seconds=2)


VICTIM = Victim(8, "python3", "/memcg-tracer-1-lab", 61 * MIB, 0, 0, 0, 0, 0, False)


def code(*shares: tuple[str, float]) -> tuple[GrownCode, ...]:
    """Return functions of app.py with their shares of the growth, each with an error of 5 points."""
    process = GrownProcess(8, "python3", 1)
    return tuple(
        GrownCode(
            *(share, 0.05, round(share * 92 * MIB), "anon", process, "python", None),
            frames=(CodeFrame(function, "app.py", 26, None), CodeFrame("rows", "app.py", 19, None)),
        )
        for function, share in shares
    )


def report() -> OomReport:
    parts = dict.fromkeys(("file_dirty", "writeback", "shmem", "sock", "percpu", "vmalloc"), 0)
    composition = Composition(
        anon=98 * MIB,
        file_clean=MIB // 2,
        unevictable=None,
        slab_reclaimable=MIB // 4,
        slab_unreclaimable=MIB // 4,
        kernel_stack=MIB // 4,
        page_tables=MIB // 2,
        other=MIB // 4,
        total=LIMIT,
        **parts,
    )
    return OomReport(
        kill_id=1,
        time=KILL,
        ktime_ns=1,
        constraint="memcg",
        limit_owner=LimitOwner("/memcg-tracer-1-lab", None, None, LIMIT, LIMIT, False),
        trigger=Trigger(7, "python3", "/memcg-tracer-1-lab", None, None, None, None),
        victims=(VICTIM,),
        candidates=(),
        composition=composition,
        working_set_bytes=None,
        reclaim=Reclaim(0, 0, 0, 0.0, ()),
        cushion=Cushion(
            97 * MIB, MIB // 2, EVICTED, 96 * MIB, exhausted_at=KILL - pd.Timedelta("20ms"), refaulted_bytes=0
        ),
        allocators=(),
        verdict=Verdict("anon_growth", "high", "x", (), ()),
        advice=(),
        sizing=Sizing(None),
        quality=Quality(0, "missing", {}),
        code=code(("load_rows", 0.66), ("build_index", 0.26)),
    )


def timeline() -> pd.DataFrame:
    """Return a timeline: one second of reading, one of growing, then the cgroup after the kill."""
    seconds = np.arange(0, 3, 0.02)
    cache = np.where(
        seconds < 1, np.minimum(117 * MIB * seconds, 98 * MIB), 98 * MIB - 97 * MIB * (seconds - 1)
    )
    usage = np.where(seconds < 0.84, cache + 2 * MIB, LIMIT)
    alive = seconds <= 2
    frame = {"usage_bytes": np.where(alive, usage, 0), "cache_bytes": np.where(alive, cache, 0)}
    frame |= {f"cache_evicted_{by}_bytes": np.zeros(len(seconds)) for by in ("memcg", "direct", "kswapd")}
    times = BEGIN + pd.to_timedelta(np.rint(seconds * 1000), unit="ms")
    return pd.DataFrame(frame, index=times).round().astype("Int64")


def evicted(*, damons_pages: int = 0) -> Evicted:
    """Return evictions by DAMON, by reclaim for the limit, and by DAMON in another cgroup."""
    pages, tgids = np.array([damons_pages, 30, 7]), np.array([77, 0, 77])
    return Evicted(np.full(3, BEGIN.value), np.array([5, 5, 6]), np.zeros(3, np.int64), pages, tgids)


def processes() -> Processes:
    """Return DAMON's thread and a process that is not killed."""
    seen = pd.DatetimeIndex([BEGIN, BEGIN])
    columns = {"tgid": [77, 8], "comm": ["kdamond.0", "python3"], "start_ns": [1, 2], "first_seen": seen}
    columns |= {"cmdline": [None] * 2, "exe_inode_id": [None] * 2, "cgroup_id": [6, 5], "ppid": [1, 1]}
    tasks = pd.DataFrame(columns | {"exited": pd.Series([pd.NaT, pd.NaT], dtype=seen.dtype)})
    return Processes(tasks, pd.DataFrame({"tgid": []}, index=seen[:0]), 0)


def trace(**changes: Any) -> Any:
    samples = pd.DataFrame(
        {"cgroup_id": [5, 5, 6], "kill_id": [None, 1, 1], "pgsteal": [3, EVICTED // PAGE, 9]}
    )
    parts = {
        "meta": {"page_size": PAGE, "cpus": 2, "filters": {"cgroups": ["/memcg-tracer-1-lab"]}},
        "samples": samples.astype("Int64"),
        "cgroups": pd.DataFrame({"cgroup_id": [5, 6], "path": ["/memcg-tracer-1-lab", "/"]}),
        "evicted": evicted(),
        "span_ns": (BEGIN.value, BEGIN.value),
        "processes": processes(),
        "explain": lambda: [report()],
        "timeline": lambda cgroup, every: timeline(),
    }
    return SimpleNamespace(**parts | changes)


def evidence(changed: OomReport | None = None, **changes: Any) -> Evidence:
    return Evidence(trace(**changes), [changed or report()], LIMIT, "anon_growth")
