"""The page cache by file at the last look before a kill, and in a cgroup that lived."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic.memcg_kill import only_report, record_kill

from tracer.analysis.explain.measure.cached_files import MOST_FILES
from tracer.analysis.explain.survivors import held_cgroups
from tracer.render.words import cache_facts

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
    assert dict(cache_facts.of_kill(report)) == {
        "in cache": "31 MiB of /log (5 MiB not written yet), 13 MiB of /dev/shm/x (in memory only), "
        "4 MiB of a file whose name is not known, 7 MiB of 5 other files",
        "": "55 MiB in all, 5 s before the kill",
    }
    assert list(cache_facts.by_file(report.cached, 1200 * MIB, None)) == []
    assert list(cache_facts.by_file(None, None, None)) == []


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
