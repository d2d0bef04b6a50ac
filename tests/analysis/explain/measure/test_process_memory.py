"""The memory of processes by mapping before a kill, and near a limit that held."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic.memcg_kill import LIMIT, only_report, record_kill

from tracer.analysis.explain.survivors import held_cgroups

MIB = 1 << 20


def look(trace: Any, seconds: float, tgid: int, *parts: tuple[str, int], **more: Any) -> None:
    for kind, mib in parts:
        anon = 0 if kind in ("file", "shared") else mib * MIB
        row = {"kind": kind, "name": "", "count": 1, "size_bytes": mib * MIB, "rss_bytes": mib * MIB} | more
        row |= {"pss_bytes": None if kind.startswith("file") else row.get("pss_bytes", mib * MIB)}
        trace.add("mappings", seconds, cgroup_id=1, tgid=tgid, anon_bytes=anon, swap_bytes=0, **row)


def jvm(trace: Any, seconds: float, tgid: int, **mib: int) -> None:
    for name, value in mib.items():
        row = {"kind": "jvm", "name": f"{name}_bytes", "value": value * MIB}
        trace.add("runtimes", seconds, cgroup_id=1, tgid=tgid, **row)


@pytest.fixture
def filled(trace: Any) -> Any:
    """Return a trace in which `java` (50) and `sh` (60) fill a limit of 100 MiB within five seconds."""
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.add("tasks", tgid=50, comm="java", first_seen=trace.ns(0), cmdline="java -Xmx32m -jar a.jar")
    trace.add("tasks", tgid=60, comm="sh", first_seen=trace.ns(0))
    trace.charged(1, 1, "anon", 20 * MIB, tgid=60, usage_bytes=20 * MIB)
    trace.charged(5, 1, "anon", 80 * MIB, tgid=50, usage_bytes=LIMIT)
    return trace


def test_last_look_before_the_kill_counts(filled: Any) -> None:
    look(filled, 4, 50, ("heap", 10))
    look(filled, 5, 50, ("heap", 11), ("stack", 20), ("file", 3))
    look(filled, 11, 50, ("heap", 99))
    record_kill(filled, 10, anon_rss_bytes=80 * MIB)
    (one,) = only_report(filled).mappings
    assert (one.pid, one.comm, one.rss_bytes) == (50, "java", 34 * MIB)
    assert [(part.kind, part.rss_bytes // MIB) for part in one.parts] == [
        ("stack", 20),
        ("heap", 11),
        ("file", 3),
    ]
    assert (filled.ns(10) - one.time.value) / 1e9 == 5


def test_killed_process_comes_first_and_ended_ones_are_left_out(filled: Any) -> None:
    filled.add("tasks", tgid=70, comm="gone", first_seen=filled.ns(0), exited=filled.ns(6))
    for tgid, mib in ((50, 30), (60, 40), (70, 50)):
        look(filled, 5, tgid, ("heap", mib))
    record_kill(filled, 10, anon_rss_bytes=80 * MIB)
    assert [one.pid for one in only_report(filled).mappings] == [50, 60]


def test_look_before_the_last_kill_does_not_count(filled: Any) -> None:
    look(filled, 5, 50, ("heap", 30))
    record_kill(filled, 6, anon_rss_bytes=1)
    record_kill(filled, 10, kill_id=2, anon_rss_bytes=80 * MIB)
    first, second = filled.explain()
    assert [len(report.mappings) for report in (first, second)] == [1, 0]


def test_memory_shared_since_a_fork_is_the_difference_of_rss_and_pss(filled: Any) -> None:
    look(filled, 5, 50, ("heap", 30), pss_bytes=18 * MIB)
    look(filled, 5, 50, ("shared", 7), pss_bytes=MIB)
    record_kill(filled, 10, anon_rss_bytes=80 * MIB)
    (one,) = only_report(filled).mappings
    assert one.shared_bytes == 12 * MIB


def test_java_shows_what_is_outside_of_its_heap(filled: Any) -> None:
    look(filled, 5, 50, ("java heap", 25), ("anonymous", 41), ("stack", 7), ("file", 5))
    jvm(filled, 5, 50, heap_used=19, heap_max=32)
    record_kill(filled, 10, anon_rss_bytes=80 * MIB)
    (found,) = only_report(filled).runtime
    assert found == {
        "pid": 50,
        "kind": "jvm",
        "heap_used_bytes": 19 * MIB,
        "heap_max_bytes": 32 * MIB,
        "outside_bytes": 48 * MIB,
        "option": "-Xmx32m",
    }


def advice(trace: Any) -> str:
    record_kill(trace, 10, anon_rss_bytes=80 * MIB)
    return "\n".join(only_report(trace).advice)


def test_java_that_needs_more_than_the_limit_is_told_both_ways(filled: Any) -> None:
    look(filled, 5, 50, ("java heap", 16), ("anonymous", 75))
    jvm(filled, 5, 50, heap_used=9, heap_max=32)
    text = advice(filled)
    assert "a limit of at least 107 MiB, or a heap of at most 25 MiB (-Xmx25m)" in text
    assert "the heap may grow to 32 MiB (-Xmx32m), and 75 MiB was outside of it" in text


def test_java_that_fits_gets_no_advice_on_its_heap(filled: Any) -> None:
    look(filled, 5, 50, ("java heap", 16), ("anonymous", 60))
    jvm(filled, 5, 50, heap_used=9, heap_max=32)
    assert "heap" not in advice(filled)


@pytest.mark.parametrize("is_seen", [True, False])
def test_what_was_seen_replaces_what_follows_from_names_and_counts(filled: Any, is_seen: bool) -> None:
    look(filled, 5, 50 if is_seen else 60, ("java heap", 25), ("anonymous", 41))
    jvm(filled, 5, 50 if is_seen else 60, heap_used=19, heap_max=32)
    record_kill(filled, 10, anon_rss_bytes=80 * MIB, threads=300)
    kinds = {item.kind for item in only_report(filled).verdict.contributing}
    assert ({"many_threads", "outside_heap"} <= kinds) is not is_seen
    assert is_seen is kinds.isdisjoint({"many_threads", "outside_heap"})


def test_threads_are_named_whose_stacks_hold_much(filled: Any) -> None:
    look(filled, 5, 50, ("heap", 40))
    look(filled, 5, 50, ("stack", 35), count=174)
    assert "Run fewer threads in java (pid 50): the stacks of 174 held 35 MiB." in advice(filled)


def test_cgroup_that_lived_shows_the_look_with_most_memory(filled: Any) -> None:
    look(filled, 2, 50, ("heap", 10))
    look(filled, 4, 50, ("heap", 30))
    look(filled, 4.1, 60, ("heap", 40))
    look(filled, 8, 50, ("heap", 20))
    (held,) = held_cgroups(filled)
    assert [(one.pid, one.rss_bytes // MIB) for one in held.mappings] == [(60, 40), (50, 30)]


def test_trace_without_looks_says_nothing(filled: Any) -> None:
    record_kill(filled, 10, anon_rss_bytes=80 * MIB)
    report = only_report(filled)
    assert (report.mappings, report.runtime) == ((), ())
    document = report.to_dict()
    assert (document["mappings"], document["runtime"]) == ([], [])
