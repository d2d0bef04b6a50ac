"""Rows of `cgroups`, from records as the BPF programs write them."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from tracer.capture.bpf.ring import Records
from tracer.capture.rows.cgroup_rows import GONE_KEPT, Cgroup, CgroupRows
from tracer.enumerations import CGROUP_EVENT, FOLLOW
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.containers import ContainerNames, ContainerRef
from tracer.kernel.naming.host_files import HostFiles
from tracer.kernel.naming.host_names import HostNames
from tracer.wire.dtypes import WIRE
from tracer.wire.fields import PATH_LEN

ID = "4f2c9d1be0a73586" * 4


def cgroup_record(event: str, time_ns: int, cgroup_id: int, path: str | bytes) -> Records:
    record = np.zeros(1, WIRE["cgroup"])
    record["event"], record["follow"] = CGROUP_EVENT.number(event), FOLLOW.number("yes")
    record["time_ns"], record["cgroup_id"], record["path"] = time_ns, cgroup_id, path
    return record


def test_events_outside_of_the_mount_are_left_out(tmp_path: Path) -> None:
    cgroups = CgroupRows(Hierarchy(1, tmp_path, "/docker/abc"))
    records = [
        cgroup_record("mkdir", 5, 23, "/docker/abc/web"),
        cgroup_record("rmdir", 7, 24, "/docker/other"),
        cgroup_record("rename", 9, 23, b"/docker/abc/\xff"),
    ]
    assert [
        (event.kind, event.time_ns, event.cgroup.id, event.cgroup.path, event.follow)
        for event in cgroups.events(np.concatenate(records))
    ] == [("mkdir", 5, 23, "/web", "yes"), ("rename", 9, 23, "/\udcff", "yes")]


def test_cut_path_is_looked_up_in_the_file_system(tmp_path: Path) -> None:
    name = "é" * 120  # cut in the middle of a character
    directory = tmp_path / name / name
    directory.mkdir(parents=True)
    (tmp_path / name / f"other-{name}").mkdir()
    cgroup_id = directory.stat().st_ino
    cut = f"/{name}/{name}".encode()[: PATH_LEN - 1]
    cgroups = CgroupRows(Hierarchy(2, tmp_path, "/"))
    (event,) = cgroups.events(cgroup_record("mkdir", 5, cgroup_id, cut))
    assert event.cgroup.path == f"/{name}/{name}"
    directory.rename(directory.with_name(f"{name}2"))
    (event,) = cgroups.events(cgroup_record("rename", 7, cgroup_id, cut))
    assert event.cgroup.path == f"/{name}/{name}2"
    directory.with_name(f"{name}2").rmdir()
    (event,) = cgroups.events(cgroup_record("rmdir", 9, cgroup_id, cut))
    assert event.cgroup.path == f"/{name}/{name}2"
    (event,) = cgroups.events(cgroup_record("mkdir", 11, 23, cut))
    assert event.cgroup.path == os.fsdecode(cut), "it is gone: no more is known"


def test_untraced_cgroup_that_is_gone_has_a_row_with_its_end(tmp_path: Path) -> None:
    """Its task acted on a traced cgroup, and the records of both are read later."""
    cgroups = CgroupRows(Hierarchy(2, tmp_path, "/"))
    assert len(list(cgroups.events(cgroup_record("mkdir", 5, 2**40, "/job-1")))) == 1
    cgroups.remove(2**40, 9)
    assert cgroups.rows == []
    cgroups.require([2**40, 2**40 + 1, 0])
    (row,) = cgroups.rows
    assert (row["path"], row["created"], row["removed"]) == ("/job-1", None, 9)


def test_renamed_untraced_cgroup_and_those_below_it_have_changed_rows(tmp_path: Path) -> None:
    cgroups = CgroupRows(Hierarchy(1, tmp_path, "/"))
    made = [(23, "/web"), (24, "/web/inner"), (25, "/web-2"), (26, "/web/not-needed")]
    for number, path in made:
        list(cgroups.events(cgroup_record("mkdir", 5, number, path)))
    cgroups.require([23, 24, 25])
    cgroups.rows.clear()
    list(cgroups.events(cgroup_record("rename", 7, 23, "/old")))
    assert [(row["cgroup_id"], row["path"]) for row in cgroups.rows] == [(23, "/old"), (24, "/old/inner")]
    cgroups.require([26])
    assert cgroups.rows[-1]["path"] == "/old/not-needed"


def test_removed_cgroup_keeps_its_path(tmp_path: Path) -> None:
    cgroups = CgroupRows(Hierarchy(2, tmp_path, "/"))
    cgroups.add(Cgroup(23, 1, "/web", 0), 5)
    cgroups.remove(23, 9)
    row = cgroups.rows[-1]
    assert (row["path"], row["created"], row["removed"]) == ("/web", 5, 9)


def test_renamed_cgroup_keeps_its_created_time(tmp_path: Path) -> None:
    cgroups = CgroupRows(Hierarchy(1, tmp_path, "/"))
    cgroups.add(Cgroup(23, 1, "/web", 0), 5)
    cgroups.add(Cgroup(23, 1, "/old-web", 0), None)
    row = cgroups.rows[-1]
    assert (row["cgroup_id"], row["path"], row["created"]) == (23, "/old-web", 5)


class Host(HostNames):
    """A host whose files know `files`, and whose sockets know `late`."""

    def __init__(self, root: Path) -> None:
        super().__init__(HostFiles(root))
        self.known: dict[str, ContainerNames] = {}
        self.late: dict[str, ContainerNames] = {}

    def at_once(self, ref: ContainerRef) -> ContainerNames | None:
        return self.known.get(ref.container_id or "")

    def find(self, refs: Collection[ContainerRef]) -> dict[ContainerRef, ContainerNames]:
        return {ref: self.late.get(ref.container_id or "", ContainerNames()) for ref in refs}


def names_of(row: dict[str, Any]) -> list[str | None]:
    return [row[name] for name in ("container", "pod", "namespace", "image")]


def test_names_are_taken_when_the_cgroup_is_made(tmp_path: Path) -> None:
    """A container that dies at once takes its files with it."""
    host = Host(tmp_path)
    host.known[ID] = ContainerNames("app", "web-1", "prod", "redis:7")
    cgroups = CgroupRows(Hierarchy(2, tmp_path, "/"), host)
    cgroups.add(Cgroup(23, 1, f"/k8s.io/{ID}", 0), 5)
    host.known.clear()
    cgroups.remove(23, 9)
    cgroups.add_late_names(0.1)
    assert [names_of(row) for row in cgroups.rows] == [["app", "web-1", "prod", "redis:7"]] * 2


def test_names_that_come_later_change_the_row(tmp_path: Path) -> None:
    """Also that of a cgroup that is gone meanwhile; containerd's own namespace gives way to the pod's."""
    host = Host(tmp_path)
    host.late[ID] = ContainerNames("app", "web-1", "prod", "redis:7")
    cgroups = CgroupRows(Hierarchy(2, tmp_path, "/"), host)
    cgroups.add(Cgroup(23, 1, f"/k8s.io/{ID}", 0), 5)
    cgroups.add(Cgroup(24, 23, f"/k8s.io/{ID}/init", 0), 5)
    cgroups.add(Cgroup(25, 1, "/system.slice/ssh.service", 0), 5)
    assert [names_of(row) for row in cgroups.rows[:2]] == [[None, None, "k8s.io", None]] * 2
    cgroups.remove(23, 9)
    cgroups.rows.clear()
    cgroups.add_late_names(10)
    assert sorted(row["cgroup_id"] for row in cgroups.rows) == [23, 24]
    assert {row["removed"] for row in cgroups.rows} == {None, 9}
    assert [names_of(row) for row in cgroups.rows] == [["app", "web-1", "prod", "redis:7"]] * 2
    cgroups.close()


def test_names_that_are_known_are_kept(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.known[ID] = ContainerNames("app", "web-1", "prod")
    host.late[ID] = ContainerNames("other", "other", "prod", "redis:7")
    cgroups = CgroupRows(Hierarchy(2, tmp_path, "/"), host)
    cgroups.add(Cgroup(23, 1, f"/k8s.io/{ID}", 0), 5)
    cgroups.add_late_names(10)
    assert names_of(cgroups.rows[-1]) == ["app", "web-1", "prod", "redis:7"]
    cgroups.close()


def test_stored_paths_of_different_names_differ(tmp_path: Path) -> None:
    cgroups = CgroupRows(Hierarchy(2, tmp_path, "/"))
    cgroups.add(Cgroup(23, 1, os.fsdecode(b"/\xff.service"), 0), 5)
    cgroups.add(Cgroup(24, 1, r"/\xff.service", 0), 5)
    assert [(row["path"], row["unit"]) for row in cgroups.rows] == [
        (r"/\xff.service", r"\xff.service"),
        (r"/\x5cxff.service", "\N{REPLACEMENT CHARACTER}.service"),
    ]


def test_removed_cgroup_without_a_path_gets_no_row(tmp_path: Path) -> None:
    cgroups = CgroupRows(Hierarchy(2, tmp_path, "/"))
    cgroups.require([23])
    cgroups.remove(23, 9)
    assert cgroups.rows == []


def test_long_gone_cgroups_are_forgotten(tmp_path: Path) -> None:
    """A flight recorder meets millions of them. One that has its id again is not one of them."""
    cgroups = CgroupRows(Hierarchy(2, tmp_path, "/"))
    cgroups.add(Cgroup(23, 1, "/web", 0), 5)
    cgroups.remove(23, 9)
    cgroups.add(Cgroup(23, 1, "/again", 0), 11)
    for number in range(100, 100 + 2 * GONE_KEPT):
        cgroups.add(Cgroup(number, 1, "/short", 0), 13)
        cgroups.remove(number, 17)
    cgroups.rows.clear()
    assert len(cgroups._known) == 1 + GONE_KEPT
    cgroups.remove(100, 19)
    cgroups.remove(23, 19)
    assert [(row["path"], row["removed"]) for row in cgroups.rows] == [("/again", 19)]


def test_many_cgroups_take_little_memory(tmp_path: Path) -> None:
    """10,000 at once are no more than 5 MB; paths and numbers are part of it."""
    number = 1000
    cgroups = CgroupRows(Hierarchy(2, tmp_path, "/"))
    cgroups.add(Cgroup(1, None, "/made-once", 0), None)
    tracemalloc.start()
    try:
        for one in range(2**40, 2**40 + number):
            cgroups.add(Cgroup(one, 2**39, f"/kubepods/pod{one}", 2**60 + one), 2**60 + one)
            cgroups.rows.clear()
        taken_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        cgroups.close()
    assert taken_bytes / number < 500
