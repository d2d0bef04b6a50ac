"""The memory that grew before a kill; thrashing that lasts until a kill, and what it means for the pace."""

from __future__ import annotations

from typing import Any

import pytest
from support.evidence import numbers_of
from synthetic.crawling import MIB, livelock
from synthetic.memcg_kill import only_report, record_kill

from tracer.analysis.core.gaps import LOOKED_NS
from tracer.analysis.core.subtree import Subtrees
from tracer.analysis.explain.measure import growth

KILL_S = 89.5
LIMIT = 150 * MIB


@pytest.mark.parametrize(("version", "held_mib"), [(2, 50), (1, 80)])
def test_growth_counts_memory_in_the_swap_cache_once(trace: Any, version: int, held_mib: int) -> None:
    """40 of 50 MiB go to swap, and 30 of them are read again. On v2 they keep their place there."""
    trace.meta["cgroup_version"] = version
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    for seconds, category, mib in ((1, "anon", 50), (2, "swap", 40), (2, "anon", -40), (3, "anon", 30)):
        trace.charged(seconds, 7, category, mib * MIB)
    none = dict.fromkeys(("anon_bytes", "shmem_bytes", "inactive_anon_bytes", "active_anon_bytes"), 0)
    for at_s, read_mib in ((0.5, 0), (3.1, 30)):
        read = none | {"swapcached_bytes": read_mib * MIB}
        trace.add("samples", at_s, cgroup_id=7, source="periodic", **read)
    subtree = Subtrees(trace).subtree_at(7)
    held = growth.held(subtree, trace.ns(0), trace.ns(4))
    assert held.at(trace.ns(4)) == held_mib * MIB


def test_growth_counts_files_on_ramfs(trace: Any) -> None:
    """A file on ramfs takes 60 MiB within 2 s: it is page cache, and reclaim may not take it. The samples
    that show it are a look apart."""
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    none = dict.fromkeys(("anon_bytes", "shmem_bytes", "inactive_anon_bytes", "active_anon_bytes"), 0)
    for at_s, mib in ((0.5, 0), (1.5, 30), (2.5, 60)):
        trace.charged(at_s, 7, "file", 30 * MIB if mib else 0)
        read = none | {"unevictable_bytes": mib * MIB, "file_bytes": mib * MIB}
        trace.add("samples", at_s, cgroup_id=7, source="periodic", **read)
    subtree = Subtrees(trace).subtree_at(7)
    begin, end = trace.ns(0), trace.ns(3)
    assert growth.held(subtree, begin, end).at(end) == 60 * MIB
    assert growth.covered_ns(subtree, begin, end, 60 * MIB) == LOOKED_NS


def kill(trace: Any) -> None:
    """Record the kill of the compiler in cgroup 7, at its limit."""
    record_kill(
        trace,
        KILL_S,
        **{"limit_owner_cgroup_id": 7, "trigger_cgroup_id": 7, "cgroup_id": 7, "pid": 40, "tgid": 40},
        **{"limit_bytes": LIMIT, "usage_bytes": LIMIT, "comm": "cc1plus"},
    )


def grown_then_thrashing(trace: Any, *, until_s: int = 89) -> None:
    """Record cgroup 7, in which anon grows by 134 MiB within 5 s, and its tasks then read their program again
    for 84 s, up to the kill at 89.5 s; anon grows by 9 MiB meanwhile."""
    livelock(trace, seconds=until_s, idle_s=5)
    read = {"usage_bytes": LIMIT, "limit_bytes": LIMIT, "tgid": 40}
    for step in range(134):
        held = 40 * MIB + step * MIB
        trace.charged(step * 5 / 134, 7, "anon", MIB, **read | {"usage_bytes": min(held, LIMIT)})
    trace.charged(5, 7, "file", -34 * MIB, **read)
    for step in range(9):
        trace.charged(10 + 8 * step, 7, "anon", MIB, **read)
    kill(trace)


def test_thrashing_until_the_kill_is_told(trace: Any) -> None:
    grown_then_thrashing(trace)
    report = only_report(trace)
    (it,) = numbers_of(report.verdict.contributing, "thrashing")
    assert it["span_ns"] == pytest.approx(84.5e9)
    assert it["lost_ns"] == pytest.approx(0.9 * 84e9, rel=0.02)
    assert it["evicted_bytes"] == it["refaulted_bytes"] == 84 * 4 * MIB
    assert "thrashing" in report.verdict.summary


def test_pace_leaves_out_the_time_of_thrashing(trace: Any) -> None:
    """From half of the limit on, 108 MiB in 3.8 s and 84.5 s, of which tasks ran for a tenth; no leak."""
    grown_then_thrashing(trace)
    report = only_report(trace)
    assert "in which tasks hardly ran" in report.sizing.pace
    buys = report.sizing.pace.rpartition("buys ")[2]
    seconds = float(buys.split()[0])
    assert buys.split()[1] == "s."
    assert seconds == pytest.approx((3.8 + 84.5 - 0.9 * 84) / 108 * 100, rel=0.03)
    assert numbers_of(report.verdict.contributing, "slow_growth") == []


def test_pace_leaves_out_the_time_of_swapping(trace: Any) -> None:
    """From 5 s on, 1 MiB each second goes to swap, for which tasks wait nine tenths of their time."""
    read = {"usage_bytes": LIMIT, "limit_bytes": LIMIT, "tgid": 40}
    trace.add("cgroups", cgroup_id=7, path="/job", created=trace.ns(0))
    for step in range(150):
        trace.charged(step * 5 / 150, 7, "anon", MIB, **read | {"usage_bytes": (step + 1) * MIB})
    for second in range(5, 89):
        trace.charged(second, 7, "anon", 0, **read)
        trace.charged(second, 7, "swap", MIB, tgid=40)
        trace.add(
            "reclaim",
            second,
            **{"kind": "memcg", "cgroup_id": 7, "tgid": 40, "pid": 40, "duration_ns": 900_000_000},
            **{"cpu_ns": 900_000_000, "scanned": 256, "reclaimed": 256},
            **{"scanned_anon": 256, "reclaimed_anon": 256, "order": 0, "task_cgroup_id": 7},
        )
        ends = {"begin": trace.ns(second), "time": trace.ns(second + 1)}
        trace.add("task_time", **ends, cgroup_id=7, cpu_ns=1_000_000_000)
    kill(trace)
    assert "in which tasks hardly ran" in only_report(trace).sizing.pace


def test_thrashing_that_ended_before_the_kill_is_not_told(trace: Any) -> None:
    grown_then_thrashing(trace, until_s=60)
    assert numbers_of(only_report(trace).verdict.contributing, "thrashing") == []


def test_slow_growth_of_tasks_that_ran_is_told(trace: Any) -> None:
    """The same growth within 84 s, without thrashing, looks like a leak."""
    livelock(trace, seconds=5, idle_s=5)
    read = {"usage_bytes": LIMIT, "limit_bytes": LIMIT, "tgid": 40}
    for step in range(134):
        trace.charged(
            1 + step * 80 / 134, 7, "anon", MIB, **read | {"usage_bytes": min(80 + step, 150) * MIB}
        )
    kill(trace)
    (it,) = numbers_of(only_report(trace).verdict.contributing, "slow_growth")
    assert it["rise_ns"] > 60e9


def factors_of_growth(trace: Any, *growths: tuple[float, float, str, int], kill_s: float) -> list[Any]:
    """Return the factors `slow_growth` and `burst` of a kill in cgroup 1, in which each of `growths` (begin,
    end in s, category, MiB) comes in steps of a MiB."""
    trace.add("cgroups", cgroup_id=1, path="/job", created=trace.ns(0))
    for begin_s, end_s, category, mib in growths:
        for step in range(abs(mib)):
            at = begin_s + (end_s - begin_s) * step / abs(mib)
            size = MIB if mib > 0 else -MIB
            trace.charged(at, 1, category, size, tgid=50, usage_bytes=90 * MIB, limit_bytes=100 * MIB)
    record_kill(trace, kill_s)
    found = only_report(trace).verdict.contributing
    return [(one.kind, dict(one.numbers)) for one in found if one.kind in ("slow_growth", "burst")]


def test_growth_that_paused_is_not_slow(trace: Any) -> None:
    """As with cgroup.freeze: half of the memory comes in a second, and the rest in a second after 100 s."""
    found = factors_of_growth(trace, (1, 2, "anon", 50), (102, 103, "anon", 50), kill_s=103)
    assert [kind for kind, _ in found] == []


def test_burst_begins_after_the_pause_before_it(trace: Any) -> None:
    ((kind, it),) = factors_of_growth(trace, (1, 2, "anon", 19), (102, 103, "anon", 81), kill_s=103)
    assert (kind, it["grown_bytes"]) == ("burst", 100 * MIB)
    assert it["rise_ns"] < 1.1e9
    assert it["calm_ns"] == pytest.approx(102e9, rel=0.01)


def test_slow_growth_counts_what_went_to_swap(trace: Any) -> None:
    """Memory fills the limit within 100 s, and goes to swap from then on as quickly as it grows."""
    growths = ((0, 100, "anon", 80), (100, 200, "swap", 80))
    ((kind, it),) = factors_of_growth(trace, *growths, kill_s=200)
    assert (kind, it["grown_bytes"]) == ("slow_growth", 160 * MIB)
    assert it["rise_ns"] == pytest.approx(160e9, rel=0.02)
    assert it["bytes_per_minute"] == pytest.approx(48 * MIB, rel=0.02)


def test_slow_growth_is_that_of_memory_that_replaces_slab(trace: Any) -> None:
    """From 100 s on, each MiB takes the place of a MiB of dentries: the pace does not change."""
    dentries = [(0, 1, name, 50) for name in ("kernel", "slab_reclaimable")]
    taken = [(100, 200, name, -50) for name in ("kernel", "slab_reclaimable")]
    ((kind, it),) = factors_of_growth(trace, *dentries, (1, 200, "anon", 100), *taken, kill_s=200)
    assert (kind, it["grown_bytes"]) == ("slow_growth", 100 * MIB)
    assert it["rise_ns"] == pytest.approx(160e9, rel=0.02)


def test_growth_counts_swap_cache_that_no_process_has_mapped(trace: Any) -> None:
    """50 MiB went to swap. v1 charges 14 MiB that were read ahead to memory, where `anon` lacks them."""
    trace.meta["cgroup_version"] = 1
    trace.add("cgroups", cgroup_id=7, path="/work", created=trace.ns(0))
    for seconds, category, mib in ((1, "anon", 50), (2, "swap", 50), (2, "anon", -50), (3, "swap", -14)):
        trace.charged(seconds, 7, category, mib * MIB)
    for at_s, listed_mib in ((0.5, 0), (3.1, 14)):
        read = {"anon_bytes": 0, "shmem_bytes": 0, "inactive_anon_bytes": listed_mib * MIB}
        read |= {"active_anon_bytes": 0, "swapcached_bytes": listed_mib * MIB}
        trace.add("samples", at_s, cgroup_id=7, source="periodic", **read)
    held = growth.held(Subtrees(trace).subtree_at(7), trace.ns(0), trace.ns(4))
    assert held.at(trace.ns(4)) == 50 * MIB
