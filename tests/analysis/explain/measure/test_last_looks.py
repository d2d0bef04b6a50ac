"""The page cache by file at the last look before a kill, and in a cgroup that lived."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic.memcg_kill import LIMIT, only_report, record_kill

from tracer.analysis.explain.measure.last_looks import MOST_FILES
from tracer.analysis.explain.survivors import held_cgroups
from tracer.render.words import memory_facts

MIB = 1 << 20


def look(trace: Any, seconds: float, mib: int, inode_id: int | None, **row: Any) -> None:
    row = {"cgroup_id": 1, "kind": "file", "files": 1, "active_bytes": mib * MIB // 2} | row
    trace.add("contents", seconds, inode_id=inode_id, bytes=mib * MIB, **row)


@pytest.fixture
def filled(trace: Any) -> Any:
    """Return a trace of a cgroup with one below it, which hold 55 MiB in 8 files or more at second 5."""
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.add("cgroups", cgroup_id=2, path="/a/b", parent_id=1, created=trace.ns(0))
    trace.charged(1, 1, "anon", 100 * MIB, tgid=50, usage_bytes=100 * MIB)
    trace.add("inodes", inode_id=7, path="/log", dev="8:1")
    trace.add("inodes", inode_id=8, path="/dev/shm/x", dev="0:5")
    look(trace, 2, 60, 9)
    look(trace, 5, 20, 7, dirty_bytes=3 * MIB)
    look(trace, 5, 11, 7, cgroup_id=2, dirty_bytes=2 * MIB)
    look(trace, 5, 13, 8, kind="shmem")
    look(trace, 5, 4, 9)
    look(trace, 5, 7, None, files=5)
    look(trace, 11, 90, 9)
    return trace


def test_last_look_before_a_kill_has_the_sums_of_the_files(filled: Any) -> None:
    record_kill(filled, 10)
    found = only_report(filled).cached
    assert found is not None
    assert (found.bytes, found.time.value) == (55 * MIB, filled.ns(5))
    assert [(one.path, one.kind, one.bytes // MIB, one.dirty_bytes // MIB) for one in found.files] == [
        ("/log", "file", 31, 5),
        ("/dev/shm/x", "shmem", 13, 0),
        (None, "file", 4, 0),
    ]
    assert found.files[0].active_bytes == 10 * MIB + 11 * MIB // 2
    assert (found.further_files, found.further_bytes) == (5, 7 * MIB)


def test_words_name_large_files_and_when_that_was(filled: Any) -> None:
    record_kill(filled, 10)
    report = only_report(filled)
    assert dict(memory_facts.cache_at_kill(report)) == {
        "in cache": "31 MiB of /log (5 MiB not written yet), 13 MiB of /dev/shm/x (in memory only), "
        "4 MiB of a file whose name is not known, 7 MiB of 5 other files",
        "": "55 MiB in all, 5 s before the kill",
    }
    assert list(memory_facts.by_file(report.cached, 1200 * MIB, None)) == []
    assert list(memory_facts.by_file(None, None, None)) == []


def test_files_have_a_bound_and_generations_have_no_active_list(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.charged(1, 1, "anon", 100 * MIB, tgid=50, usage_bytes=100 * MIB)
    trace.charged(9, 1, "anon", -MIB, tgid=50, usage_bytes=99 * MIB)
    for number in range(MOST_FILES + 3):
        look(trace, 5, 20 - number, 100 + number, active_bytes=None)
    (held,) = held_cgroups(trace, "/a")
    assert held.cached is not None
    assert [one.bytes // MIB for one in held.cached.files] == [20 - number for number in range(MOST_FILES)]
    assert {one.active_bytes for one in held.cached.files} == {None}
    assert held.cached.further_files == 3


def test_cgroup_that_was_not_looked_at_has_no_files(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.charged(1, 1, "anon", 100 * MIB, tgid=50, usage_bytes=100 * MIB)
    (held,) = held_cgroups(trace, "/a")
    assert held.cached is None


def process_memory_look(trace: Any, seconds: float, tgid: int, *parts: tuple[str, int], **more: Any) -> None:
    for kind, mib in parts:
        anon = 0 if kind in ("file", "shared") else mib * MIB
        row = {"kind": kind, "name": "", "count": 1, "size_bytes": mib * MIB, "rss_bytes": mib * MIB}
        row |= {"anon_bytes": anon} | more
        row |= {"pss_bytes": None if kind.startswith("file") else row.get("pss_bytes", mib * MIB)}
        trace.add("mappings", seconds, cgroup_id=1, tgid=tgid, swap_bytes=0, **row)


def jvm(trace: Any, seconds: float, tgid: int, **mib: int) -> None:
    for name, value in mib.items():
        row = {"kind": "jvm", "name": f"{name}_bytes", "value": value * MIB}
        trace.add("runtimes", seconds, cgroup_id=1, tgid=tgid, **row)


@pytest.fixture
def process_memory_filled(trace: Any) -> Any:
    """Return a trace in which `java` (50) and `sh` (60) fill a limit of 100 MiB within five seconds."""
    trace.add("cgroups", cgroup_id=1, path="/a", created=trace.ns(0))
    trace.add("tasks", tgid=50, comm="java", first_seen=trace.ns(0), cmdline="java -Xmx32m -jar a.jar")
    trace.add("tasks", tgid=60, comm="sh", first_seen=trace.ns(0))
    trace.charged(1, 1, "anon", 20 * MIB, tgid=60, usage_bytes=20 * MIB)
    trace.charged(5, 1, "anon", 80 * MIB, tgid=50, usage_bytes=LIMIT)
    return trace


def test_last_look_before_the_kill_counts(process_memory_filled: Any) -> None:
    process_memory_look(process_memory_filled, 4, 50, ("heap", 10))
    process_memory_look(process_memory_filled, 5, 50, ("heap", 11), ("stack", 20), ("file", 3))
    process_memory_look(process_memory_filled, 11, 50, ("heap", 99))
    record_kill(process_memory_filled, 10, anon_rss_bytes=80 * MIB)
    (one,) = only_report(process_memory_filled).mappings
    assert (one.pid, one.comm, one.rss_bytes) == (50, "java", 34 * MIB)
    assert [(part.kind, part.rss_bytes // MIB) for part in one.parts] == [
        ("stack", 20),
        ("heap", 11),
        ("file", 3),
    ]
    assert (process_memory_filled.ns(10) - one.time.value) / 1e9 == 5


def test_killed_process_comes_first_and_ended_ones_are_left_out(process_memory_filled: Any) -> None:
    process_memory_filled.add(
        "tasks",
        tgid=70,
        comm="gone",
        first_seen=process_memory_filled.ns(0),
        exited=process_memory_filled.ns(6),
    )
    for tgid, mib in ((50, 30), (60, 40), (70, 50)):
        process_memory_look(process_memory_filled, 5, tgid, ("heap", mib))
    record_kill(process_memory_filled, 10, anon_rss_bytes=80 * MIB)
    assert [one.pid for one in only_report(process_memory_filled).mappings] == [50, 60]


def test_look_before_the_last_kill_does_not_count(process_memory_filled: Any) -> None:
    process_memory_look(process_memory_filled, 5, 50, ("heap", 30))
    record_kill(process_memory_filled, 6, anon_rss_bytes=1)
    record_kill(process_memory_filled, 10, kill_id=2, anon_rss_bytes=80 * MIB)
    first, second = process_memory_filled.explain()
    assert [len(report.mappings) for report in (first, second)] == [1, 0]


def test_memory_shared_since_a_fork_is_the_difference_of_rss_and_pss(process_memory_filled: Any) -> None:
    process_memory_look(process_memory_filled, 5, 50, ("heap", 30), pss_bytes=18 * MIB)
    process_memory_look(process_memory_filled, 5, 50, ("shared", 7), pss_bytes=MIB)
    record_kill(process_memory_filled, 10, anon_rss_bytes=80 * MIB)
    (one,) = only_report(process_memory_filled).mappings
    assert one.shared_bytes == 12 * MIB


def test_heap_that_is_mapped_at_several_places_counts_once(process_memory_filled: Any) -> None:
    """ZGC of Java 17 maps its memfd three times: 220 MiB of RSS were 110 MiB of memory."""
    process_memory_look(process_memory_filled, 5, 50, ("java heap", 60), pss_bytes=20 * MIB, anon_bytes=0)
    process_memory_look(process_memory_filled, 5, 50, ("anonymous", 30))
    record_kill(process_memory_filled, 10, anon_rss_bytes=80 * MIB)
    (one,) = only_report(process_memory_filled).mappings
    assert (one.rss_bytes, one.shared_bytes) == (50 * MIB, 0)
    assert [(part.kind, part.rss_bytes) for part in one.parts] == [
        ("anonymous", 30 * MIB),
        ("java heap", 20 * MIB),
    ]


def test_java_shows_what_is_outside_of_its_heap(process_memory_filled: Any) -> None:
    process_memory_look(
        process_memory_filled, 5, 50, ("java heap", 25), ("anonymous", 41), ("stack", 7), ("file", 5)
    )
    jvm(process_memory_filled, 5, 50, heap_used=19, heap_max=32)
    record_kill(process_memory_filled, 10, anon_rss_bytes=80 * MIB)
    (found,) = only_report(process_memory_filled).runtime
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


def test_java_that_needs_more_than_the_limit_is_told_both_ways(process_memory_filled: Any) -> None:
    process_memory_look(process_memory_filled, 5, 50, ("java heap", 16), ("anonymous", 75))
    jvm(process_memory_filled, 5, 50, heap_used=9, heap_max=32)
    text = advice(process_memory_filled)
    assert "a limit of at least 107 MiB, or a heap of at most 25 MiB (-Xmx25m)" in text
    assert "the heap may grow to 32 MiB (-Xmx32m), and 75 MiB was outside of it" in text


def test_java_that_fits_gets_no_advice_on_its_heap(process_memory_filled: Any) -> None:
    process_memory_look(process_memory_filled, 5, 50, ("java heap", 16), ("anonymous", 60))
    jvm(process_memory_filled, 5, 50, heap_used=9, heap_max=32)
    assert "heap" not in advice(process_memory_filled)


@pytest.mark.parametrize("is_seen", [True, False])
def test_what_was_seen_replaces_what_follows_from_names_and_counts(
    process_memory_filled: Any, is_seen: bool
) -> None:
    process_memory_look(process_memory_filled, 5, 50 if is_seen else 60, ("java heap", 25), ("anonymous", 41))
    jvm(process_memory_filled, 5, 50 if is_seen else 60, heap_used=19, heap_max=32)
    record_kill(process_memory_filled, 10, anon_rss_bytes=80 * MIB, threads=300)
    kinds = {item.kind for item in only_report(process_memory_filled).verdict.contributing}
    assert ({"many_threads", "outside_heap"} <= kinds) is not is_seen
    assert is_seen is kinds.isdisjoint({"many_threads", "outside_heap"})


def test_threads_are_named_whose_stacks_hold_much(process_memory_filled: Any) -> None:
    process_memory_look(process_memory_filled, 5, 50, ("heap", 40))
    process_memory_look(process_memory_filled, 5, 50, ("stack", 35), count=174)
    assert "Run fewer threads in java (pid 50): the stacks of 174 held 35 MiB." in advice(
        process_memory_filled
    )


def test_cgroup_that_lived_shows_the_look_with_most_memory(process_memory_filled: Any) -> None:
    process_memory_look(process_memory_filled, 2, 50, ("heap", 10))
    process_memory_look(process_memory_filled, 4, 50, ("heap", 30))
    process_memory_look(process_memory_filled, 4.1, 60, ("heap", 40))
    process_memory_look(process_memory_filled, 8, 50, ("heap", 20))
    (held,) = held_cgroups(process_memory_filled)
    assert [(one.pid, one.rss_bytes // MIB) for one in held.mappings] == [(60, 40), (50, 30)]


def test_trace_without_looks_says_nothing(process_memory_filled: Any) -> None:
    record_kill(process_memory_filled, 10, anon_rss_bytes=80 * MIB)
    report = only_report(process_memory_filled)
    assert (report.mappings, report.runtime) == ((), ())
    document = report.to_dict()
    assert (document["mappings"], document["runtime"]) == ([], [])
