from __future__ import annotations

import math
from typing import Any

import pandas as pd

from tracer.analysis.explain import slowed
from tracer.analysis.results.kill import Sizing
from tracer.analysis.results.memory import Reclaim
from tracer.analysis.results.quality import Quality
from tracer.analysis.results.survivor import Crawl, Held, Progress
from tracer.schema import UNLIMITED_BYTES

MIB = 1 << 20
BEGIN = pd.Timestamp("2025-11-24 23:40:01", tz="UTC")


def survivor(
    cgroup: str, *, lost_share: float | None = None, room_mib: int | None = 50, **changes: Any
) -> Held:
    """Return a cgroup with a limit of 100 MiB that came so near to it, and lost this share of its time."""
    crawl = None if lost_share is None else Crawl(BEGIN, BEGIN + pd.Timedelta("6s"), lost_share, True)
    fields: dict[str, Any] = {
        "container": None,
        "limit_bytes": UNLIMITED_BYTES if room_mib is None else 100 * MIB,
        "peak_usage_bytes": 50 * MIB,
        "peak_time": BEGIN,
        "headroom_bytes": None if room_mib is None else room_mib * MIB,
        "peak_anon_bytes": None,
        "cache_at_peak_bytes": None,
        "evicted_bytes": 0,
        "refaulted_bytes": None,
        "kernel_refaulted_bytes": None,
        "max_events": None,
        "reclaim": Reclaim(0, 0, 0, 0.0, ()),
        "sizing": Sizing(None),
        "quality": Quality(0, "missing", {}),
        "progress": Progress(state=None if crawl is None else "thrashing", crawl=crawl),
    }
    return Held(cgroup, **(fields | changes))


def test_slowest_cgroup_is_the_deepest_with_a_limit() -> None:
    root, pod = (survivor(path, lost_share=0.85, room_mib=None) for path in ("/", "/pod/a/b"))
    container, held = survivor("/pod/a", lost_share=0.86), survivor("/held")
    stuck = survivor("/x/y/z", lost_share=0.99, stuck_since=BEGIN)
    assert slowed.slowest([root, pod, container, stuck, held]) is container
    assert slowed.slowest([held, stuck]) is None


def test_room_is_a_share_of_the_limit() -> None:
    assert slowed.room_left(survivor("/a", room_mib=25)) == 0.25
    assert slowed.room_left(survivor("/a", room_mib=None)) == math.inf


def test_slowest_cgroup_comes_first_and_then_the_nearest_to_its_limit() -> None:
    free, far, near = survivor("/free", room_mib=None), survivor("/far"), survivor("/near", room_mib=1)
    slow = survivor("/slow", lost_share=0.8, room_mib=90)
    assert slowed.foremost_first([free, far, near]) == [near, far, free]
    assert slowed.foremost_first([free, far, slow, near]) == [slow, near, far, free]
    assert slowed.foremost_first([]) == []
