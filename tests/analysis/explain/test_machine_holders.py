"""The traced cgroups at synthetic kills of the whole machine."""

from __future__ import annotations

from typing import Any

from support.evidence import numbers_of
from synthetic.memcg_kill import only_report, record_kill

MIB = 1 << 20


def holders_of(trace: Any) -> dict[str, tuple[int, int]]:
    """Kill at 30 s for lack of memory, and return cgroup -> (held, charged lately) in MiB, in the order."""
    record_kill(
        trace, 30, constraint="global", limit_owner_cgroup_id=None, usage_bytes=None, limit_bytes=None
    )
    found = numbers_of(only_report(trace).verdict.evidence, "machine_holders")
    return {
        one["cgroup"]: (one["held_bytes"] // MIB, one["charged_bytes"] // MIB)
        for numbers in found
        for one in numbers["cgroups"]
    }


def made(trace: Any, number: int, path: str, *charges: tuple[float, int]) -> None:
    trace.add("cgroups", cgroup_id=number, path=path, created=trace.ns(0))
    for seconds, mib in charges:
        trace.charged(seconds, number, "anon", mib * MIB)


def test_holders_are_ranked_by_what_they_held(trace: Any) -> None:
    made(trace, 1, "/steady", (1, 70))
    made(trace, 2, "/growing", (1, 7), (25, 40), (31, 500))
    made(trace, 3, "/freeing", (1, 90), (26, -13))
    made(trace, 4, "/empty", (1, 5), (2, -5))
    assert holders_of(trace) == {"/freeing": (77, -13), "/steady": (70, 0), "/growing": (47, 40)}


def test_memory_of_a_lower_cgroup_is_not_its_parents(trace: Any) -> None:
    made(trace, 1, "/pods", (25, 3))
    made(trace, 2, "/pods/one", (1, 20))
    made(trace, 3, "/pods/one/deep", (25, 11))
    assert holders_of(trace) == {"/pods/one": (20, 0), "/pods/one/deep": (11, 11), "/pods": (3, 3)}


def test_start_sample_of_a_parent_includes_lower_cgroups(trace: Any) -> None:
    for number, path, mib in ((1, "/a", 30), (2, "/a/b", 23)):
        trace.add("cgroups", cgroup_id=number, path=path)
        sizes = dict.fromkeys(("file", "shmem", "kernel", "sock"), 0)
        trace.add(
            "samples",
            0,
            cgroup_id=number,
            source="start",
            anon_bytes=mib * MIB,
            **{f"{name}_bytes": value for name, value in sizes.items()},
        )
    assert holders_of(trace) == {"/a/b": (23, 0), "/a": (7, 0)}


def test_cgroup_that_charged_most_lately_is_always_among_them(trace: Any) -> None:
    for number in range(1, 15):
        made(trace, number, f"/{number}", (1, 100 + number))
    made(trace, 20, "/late", (29, 50))
    found = holders_of(trace)
    assert list(found) == [*(f"/{number}" for number in range(14, 5, -1)), "/late"]


def test_kill_in_a_trace_without_cgroups_has_no_holders(trace: Any) -> None:
    assert holders_of(trace) == {}
