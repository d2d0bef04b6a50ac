"""Cgroups from a user's patterns, and names from ids."""

from __future__ import annotations

import os
from typing import Any

import pandas as pd
import pytest

from tracer.analysis.core import naming
from tracer.errors import TracerError, UsageError


@pytest.fixture
def named(trace: Any) -> Any:
    for number, path, container, container_id in (
        (1, "/", None, None),
        (20, "/docker", None, None),
        (21, "/docker/4f2a99", "web", "4f2a99"),
        (22, "/docker/4f2b00", "db", "4f2b00"),
        (23, "/docker/4f2a99/worker", None, None),
        (24, "/dockerlike", None, None),
        (25, "/batch/worker", None, None),
    ):
        trace.add("cgroups", cgroup_id=number, path=path, container=container, container_id=container_id)
    return trace


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("21", [21]),
        (21, [21]),
        ("/", [1]),
        ("/docker", [20]),
        ("docker/", [20]),
        ("/sys/fs/cgroup/memory/docker/4f2a99", [21]),
        ("/sys/fs/cgroup/docker", [20]),
        ("web", [21]),
        ("4f2a", [21]),
        ("4f2b00", [22]),
        ("worker", [23, 25]),
        ("4f2a99/worker", [23]),
        ("/docker/*", [21, 22, 23]),
        ("d?", [22]),
    ],
)
def test_resolve_each_kind_of_pattern_finds_its_cgroups(
    named: Any, pattern: str | int, expected: list[int]
) -> None:
    assert naming.resolve(named.cgroups, pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (b"web-\xff", [31]),
        (rb"web-\xff", [32]),
        (rb"web-\x5cxff", [32]),
        (b"/x/web-\xff", [31]),
        (rb"/x/web-\xff", [32]),
        (rb"api-\xfe", [33]),
    ],
)
def test_resolve_byte_and_text_of_its_escape_are_two_names(
    trace: Any, pattern: bytes, expected: list[int]
) -> None:
    """A pattern is a name, or, if no cgroup has that name, the spelling of a name in a report."""
    for number, path in ((31, r"/x/web-\xff"), (32, r"/x/web-\x5cxff"), (33, r"/x/api-\xfe")):
        trace.add("cgroups", cgroup_id=number, path=path)
    assert naming.resolve(trace.cgroups, os.fsdecode(pattern)) == expected


@pytest.mark.parametrize("pattern", ["cart-7d9f-x2", "shop/cart-7d9f-x2"])
def test_resolve_name_of_a_pod_finds_its_containers_and_its_own_cgroup(trace: Any, pattern: str) -> None:
    pod = "/kubepods/pod1"
    trace.add("cgroups", cgroup_id=41, path=pod, pod="cart-7d9f-x2", namespace="shop")
    for number, container in ((42, "web"), (43, "sidecar")):
        place = {"path": f"{pod}/{container}", "container": container, "container_id": f"4f2{number}"}
        trace.add("cgroups", cgroup_id=number, pod="cart-7d9f-x2", namespace="shop", **place)
    trace.add("cgroups", cgroup_id=44, path="/kubepods/pod2", pod="cart-7d9f-zz", namespace="shop")
    assert naming.resolve(trace.cgroups, pattern) == [41, 42, 43]
    with pytest.raises(TracerError):
        naming.resolve(trace.cgroups, "billing/cart-7d9f-x2")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("web", [51, 53]), ("web/worker", [52]), ("lab-anon", [54]), ("api", [55]), ("4711-web", None)],
)
def test_resolve_name_given_to_record_finds_the_cgroups_of_its_runs(
    trace: Any, pattern: str, expected: list[int] | None
) -> None:
    """A cgroup that is called so itself comes before one that `record` made for that name."""
    own = ("/memcg-tracer-4711-web", "/memcg-tracer-4711-web/worker", "/ours/memcg-tracer-4712-web")
    for number, path in enumerate((*own, "/memcg-tracer-4713-lab-anon", "/api", "/memcg-tracer-9-api"), 51):
        trace.add("cgroups", cgroup_id=number, path=path)
    if expected is None:
        with pytest.raises(TracerError):
            naming.resolve(trace.cgroups, pattern)
    else:
        assert naming.resolve(trace.cgroups, pattern) == expected


def test_resolve_short_beginning_is_no_container_id(named: Any) -> None:
    with pytest.raises(TracerError, match=r"4f2a99"):
        naming.resolve(named.cgroups, "4f2")


def test_resolve_without_a_match_names_the_candidates(named: Any) -> None:
    with pytest.raises(UsageError, match=r"'/docker/4f2a99/worker', '/batch/worker'"):
        naming.select(named, "worker", run=1)
    with pytest.raises(TracerError, match="'/batch/worker'"):
        naming.select(named, "bacth/workr")


def test_select_leaves_out_cgroups_below_another_match(named: Any) -> None:
    assert naming.select(named, "/docker/*") == [21, 22]
    assert naming.select(named, "worker") == [23, 25]
    assert naming.members_of(named, naming.select(named, "*/worker")).tolist() == [23, 25]


def test_select_reused_path_is_two_lives(trace: Any) -> None:
    trace.add("cgroups", cgroup_id=5, path="/a", removed=trace.ns(1))
    trace.add("cgroups", cgroup_id=6, path="/a", created=trace.ns(2))
    assert naming.select(trace, "/a") == [5, 6]
    assert naming.select(trace, "/a", run=2) == [6]
    assert naming.select(trace, "6") == [6]
    with pytest.raises(UsageError, match=r"'/a' has no run 3 in this trace: it has 1, 2"):
        naming.select(trace, "/a", run=3)
    assert trace.places.descendants(6).tolist() == [6]


def test_descendants_of_a_path_exclude_paths_beside_it(named: Any) -> None:
    assert named.places.descendants(20).tolist() == [20, 21, 22, 23]
    assert named.places.descendants(1).tolist() == [1, 20, 21, 22, 23, 24, 25]
    assert named.places.descendants(99).tolist() == [99]


def test_processes_with_a_reused_tgid_are_distinct(trace: Any) -> None:
    trace.add("tasks", tgid=7, start_ns=1, comm="first", first_seen=trace.ns(1), exited=trace.ns(2))
    trace.add("tasks", tgid=7, start_ns=2, comm="second", first_seen=trace.ns(3))
    at = trace.ns
    assert trace.processes.comm_at(7, at(1.5), at(1.5)) == "first"
    assert trace.processes.comm_at(7, at(2.5), at(2.5)) is None
    assert trace.processes.comm_at(7, at(1.5), at(4)) == "second"
    assert trace.processes.comm_at(7, at(0.5), at(0.6)) == "first", (
        "the task has its first name before that was recorded"
    )
    assert trace.processes.comm_at(8, at(1), at(4)) is None


def test_with_names_adds_a_column_for_each_id(named: Any) -> None:
    named.add("tasks", tgid=7, start_ns=1, comm="first", first_seen=named.ns(1), exited=named.ns(2))
    named.add("tasks", tgid=7, start_ns=2, comm="second", first_seen=named.ns(3))
    named.add("inodes", inode_id=9, path="/data/file", dev="8:1", ino=4)
    named.add("inodes", inode_id=8, dev="8:1", ino=5)
    for seconds, cgroup_id, tgid, inode_id in ((1, 21, 7, 9), (3, 22, 7, 8), (4, None, 6, 7)):
        named.add("pagecache", seconds, cgroup_id=cgroup_id, tgid=tgid, inode_id=inode_id)
    joined = naming.with_names(named, named.pagecache)
    assert joined["cgroup"].tolist()[:2] == ["/docker/4f2a99", "/docker/4f2b00"]
    assert joined["container"].tolist()[:2] == ["web", "db"]
    assert joined["comm"].tolist()[:2] == ["first", "second"]
    assert joined["file"].tolist()[:2] == ["/data/file", "8:1 inode 5"]
    assert joined[["cgroup", "container", "comm", "file"]].iloc[2].isna().all()
    assert all(joined[column].dtype == "category" for column in ("cgroup", "container", "comm", "file"))
    assert [*named.pagecache.columns, "cgroup", "container", "task_cgroup", "comm", "file"] == list(
        joined.columns
    )
    pd.testing.assert_index_equal(joined.index, named.pagecache.index)


def test_with_names_of_a_process_named_after_it_acted_has_the_later_name(trace: Any) -> None:
    trace.add("tasks", tgid=7, start_ns=1, comm="daemon", first_seen=trace.ns(2))
    trace.add("tasks", tgid=7, start_ns=3, comm="second", first_seen=trace.ns(4))
    for seconds in (1, 3, 5):
        trace.add("pagecache", seconds, tgid=7)
    comms = naming.with_names(trace, trace.pagecache)["comm"].tolist()
    assert comms == ["daemon", "daemon", "second"]


def test_with_names_of_an_empty_trace_is_empty(trace: Any) -> None:
    assert naming.with_names(trace, trace.pagecache).empty


def test_id_at_a_reused_path_is_the_cgroup_of_that_time(trace: Any) -> None:
    """A cgroup without a creation time existed from the start, one without a removal time to the end."""
    trace.add("cgroups", cgroup_id=1, path="/a", removed=trace.ns(2))
    trace.add("cgroups", cgroup_id=2, path="/a", created=trace.ns(3))
    trace.add("cgroups", cgroup_id=3, path="/ab")
    found = [trace.places.id_at("/a", trace.ns(seconds)) for seconds in (1, 2.5, 4)]
    assert found == [1, None, 2]
    assert trace.places.id_at("/b", trace.ns(1)) is None
