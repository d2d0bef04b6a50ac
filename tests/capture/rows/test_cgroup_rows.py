"""Names behind ids, from records as the kernel programs write them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracer.capture.bpf.ring import Records
from tracer.capture.rows import cgroup_rows
from tracer.capture.rows.cgroup_rows import Cgroup, Cgroups, Files, Row, Tasks, list_traced
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.mounts import MountTable, parse_mountinfo
from tracer.schema import CGROUP_EVENTS, FOLLOW, TASK_EVENTS
from tracer.wire.dtypes import WIRE

CLOCK_OFFSET_NS = 1_000_000


def task_records(*events: tuple[str, int, int, str]) -> Records:
    """(event, time, start, comm), all of tgid 23."""
    records = np.zeros(len(events), WIRE["task"])
    for record, (event, time_ns, start_ns, comm) in zip(records, events, strict=True):
        record["event"] = TASK_EVENTS.index(event)
        record["time_ns"], record["start_ns"], record["tgid"], record["comm"] = time_ns, start_ns, 23, comm
    return records


def last_rows(rows: list[Row]) -> dict[int, Row]:
    """start -> the row that a reader keeps."""
    return {row["start_ns"]: row for row in rows}


def test_a_process_is_one_row_from_first_sight_to_exit() -> None:
    tasks = Tasks()
    tasks.take_events(task_records(("seen", 10, 7, "sh"), ("exec", 20, 7, "tail")), CLOCK_OFFSET_NS)
    tasks.take_events(task_records(("exit", 30, 7, "tail")), CLOCK_OFFSET_NS)
    row = last_rows(tasks.rows)[7]
    assert (row["comm"], row["first_seen"], row["exited"]) == (
        "tail",
        10 + CLOCK_OFFSET_NS,
        30 + CLOCK_OFFSET_NS,
    )


@pytest.mark.parametrize("batches", [1, 3])
def test_memory_given_back_after_the_exit_makes_no_new_process(batches: int) -> None:
    records = task_records(("seen", 10, 7, "tail"), ("exit", 30, 7, "tail"), ("seen", 31, 7, "tail"))
    tasks = Tasks()
    for batch in np.array_split(records, batches):
        tasks.take_events(batch, 0)
    row = last_rows(tasks.rows)[7]
    assert (row["first_seen"], row["exited"]) == (10, 30)


def test_a_number_given_out_again_is_another_process() -> None:
    tasks = Tasks()
    tasks.take_events(
        task_records(("seen", 10, 7, "old"), ("exit", 30, 7, "old"), ("seen", 40, 39, "new")), 0
    )
    rows = last_rows(tasks.rows)
    assert {start: (row["comm"], row["first_seen"], row["exited"]) for start, row in rows.items()} == {
        7: ("old", 10, 30),
        39: ("new", 40, None),
    }


def test_a_thread_that_executes_lives_on_as_its_leader() -> None:
    tasks = Tasks()
    tasks.take_events(task_records(("seen", 10, 7, "a"), ("exit", 30, 7, "a"), ("exec", 40, 7, "b")), 0)
    row = last_rows(tasks.rows)[7]
    assert (row["comm"], row["first_seen"], row["exited"]) == ("b", 10, None)


def cgroup_record(event: str, time_ns: int, cgroup_id: int, path: str | bytes) -> Records:
    record = np.zeros(1, WIRE["cgroup"])
    record["event"], record["follow"] = CGROUP_EVENTS.index(event), FOLLOW.index("yes")
    record["time_ns"], record["cgroup_id"], record["path"] = time_ns, cgroup_id, path
    return record


def test_cgroups_that_are_there_are_listed_once_with_their_parents(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    hierarchy, gone = Hierarchy(2, tmp_path, "/"), tmp_path / "gone" / "child"
    ids = {path: path.stat().st_ino for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")}
    below = [(tmp_path / "a" / "b", ids[tmp_path / "a" / "b"], ids[tmp_path / "a"])]
    assert list_traced(hierarchy, [tmp_path / "a" / "b", gone]) == below
    whole = [(tmp_path, ids[tmp_path], None), (tmp_path / "a", ids[tmp_path / "a"], ids[tmp_path]), *below]
    assert list_traced(hierarchy, [tmp_path, tmp_path / "a"]) == whole


def test_events_tell_of_what_can_be_seen_from_here(tmp_path: Path) -> None:
    cgroups = Cgroups(Hierarchy(1, tmp_path, "/docker/abc"))
    records = [
        cgroup_record("mkdir", 5, 23, "/docker/abc/web"),
        cgroup_record("rmdir", 7, 24, "/docker/other"),
        cgroup_record("rename", 9, 23, b"/docker/abc/\xff"),
    ]
    assert [
        (event.kind, event.time_ns, event.cgroup.id, event.cgroup.path, event.follow)
        for event in cgroups.events(np.concatenate(records))
    ] == [("mkdir", 5, 23, "/web", "yes"), ("rename", 9, 23, "/\udcff", "yes")]


def test_a_path_that_was_cut_is_asked_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "deep" / "est"
    monkeypatch.setattr("tracer.kernel.cgroups.cgroupfs.directory_of", lambda _hierarchy, _cgroup: whole)
    (event,) = Cgroups(Hierarchy(2, tmp_path, "/")).events(cgroup_record("mkdir", 5, 23, "/" + "a" * 500))
    assert event.cgroup.path == "/deep/est"


def test_a_cgroup_that_is_removed_keeps_its_name(tmp_path: Path) -> None:
    cgroups = Cgroups(Hierarchy(2, tmp_path, "/"))
    cgroups.add(Cgroup(23, 1, "/web", 0), 5)
    cgroups.remove(23, 9)
    row = cgroups.rows[-1]
    assert (row["path"], row["created"], row["removed"]) == ("/web", 5, 9)


def test_a_cgroup_that_is_renamed_keeps_its_birth(tmp_path: Path) -> None:
    cgroups = Cgroups(Hierarchy(1, tmp_path, "/"))
    cgroups.add(Cgroup(23, 1, "/web", 0), 5)
    cgroups.add(Cgroup(23, 1, "/old-web", 0), None)
    row = cgroups.rows[-1]
    assert (row["cgroup_id"], row["path"], row["created"]) == (23, "/old-web", 5)


def test_names_of_cgroups_are_stored_so_that_two_are_two(tmp_path: Path) -> None:
    cgroups = Cgroups(Hierarchy(2, tmp_path, "/"))
    cgroups.add(Cgroup(23, 1, os.fsdecode(b"/\xff.service"), 0), 5)
    cgroups.add(Cgroup(24, 1, r"/\xff.service", 0), 5)
    assert [(row["path"], row["unit"]) for row in cgroups.rows] == [
        (r"/\xff.service", r"\xff.service"),
        (r"/\x5cxff.service", "\N{REPLACEMENT CHARACTER}.service"),
    ]


def test_the_end_of_a_cgroup_that_nothing_named_is_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracer.kernel.cgroups.cgroupfs.directory_of", lambda _hierarchy, _cgroup: None)
    cgroups = Cgroups(Hierarchy(2, tmp_path, "/"))
    cgroups.need([23])
    cgroups.remove(23, 9)
    assert cgroups.rows == []


HOST = b"""\
21 1 254:1 / / rw - ext4 /dev/vda1 rw
22 21 254:2 /exports /srv rw - ext4 /dev/vdb rw
"""
IN_CONTAINER = b"""\
31 1 0:40 / / rw - overlay overlay rw,lowerdir=/docker/one/diff,upperdir=/docker/two/diff,workdir=/w
32 31 254:2 /exports/big /data rw - ext4 /dev/vdb rw
33 31 254:3 / /own rw - xfs /dev/vdc rw
"""
CONTAINER_NS = 23


class KnownMounts:
    """As much of Mounts as names need."""

    def own(self) -> MountTable:
        return MountTable(parse_mountinfo(HOST))

    def other(self, mount_ns: int, tgids: tuple[int, ...], _since_ns: int) -> MountTable | None:
        return MountTable(parse_mountinfo(IN_CONTAINER)) if mount_ns == CONTAINER_NS and 7 in tgids else None


def file_row(device: tuple[int, int], *names: bytes, **fields: object) -> Row:
    """The row of a file by its names from the root, met in the container if not told otherwise."""
    record = np.zeros(1, WIRE["inode"])
    path = b"".join(name + b"/" for name in reversed(names))
    record["path"], record["path_len"], record["depth"] = path, len(path), len(names)
    record["dev"], record["nlink"], record["fs_type"] = device[0] << 20 | device[1], 1, b"ext4"
    record["mount_ns"], record["ppid"] = CONTAINER_NS, 7
    for field, value in fields.items():
        record[field] = value
    mounts: Any = KnownMounts()
    (row,) = Files(mounts).rows(record)
    return row


@pytest.mark.parametrize(
    ("device", "names", "path", "kind", "container_path"),
    [
        ((254, 1), (b"etc", b"passwd"), "/etc/passwd", "host", None),
        ((254, 1), (b"docker", b"one", b"diff", b"sh"), "/docker/one/diff/sh", "host", "/sh"),
        ((254, 1), (b"docker", b"two", b"diff", b"a", b"b"), "/docker/two/diff/a/b", "host", "/a/b"),
        ((254, 2), (b"exports", b"big", b"file"), "/srv/big/file", "host", "/data/file"),
        ((254, 3), (b"f",), "/own/f", "container", "/own/f"),
        ((254, 4), (b"f",), "/f", "filesystem", None),
        ((254, 1), (b"caf\xe9",), "/caf\\xe9", "host", None),
        ((254, 1), (), None, None, None),
    ],
)
def test_a_file_has_a_name_on_the_host_and_one_in_the_container(
    device: tuple[int, int], names: tuple[bytes, ...], path: str, kind: str, container_path: str
) -> None:
    row = file_row(device, *names)
    assert (row["path"], row["path_kind"], row["container_path"]) == (path, kind, container_path)


def test_who_acts_on_the_host_sees_what_the_host_sees() -> None:
    row = file_row((254, 2), b"exports", b"big", b"file", mount_ns=1)
    assert (row["path"], row["path_kind"], row["container_path"]) == ("/srv/big/file", "host", None)


def test_a_path_that_was_cut_is_no_path_of_the_host() -> None:
    row = file_row((254, 1), b"deep", b"file", truncated=1)
    assert (row["path"], row["path_kind"], row["container_path"]) == ("…/deep/file", "filesystem", None)


def test_a_file_in_no_directory_has_the_name_that_the_kernel_gave_it() -> None:
    row = file_row((0, 1), b"memfd:m", is_pseudo=1, nlink=0, fs_type=b"tmpfs")
    assert (row["path"], row["path_kind"], row["deleted"]) == ("memfd:m", "kernel", True)


def test_the_cache_of_a_block_device_says_which() -> None:
    row = file_row((0, 3), fs_type=b"bdev", mode=0o060600, rdev=4095 << 20 | 77)
    assert (row["path"], row["path_kind"], row["rdev"]) == (None, None, "4095:77"), "no such device here"
    assert file_row((254, 1), b"file", mode=0o100644)["rdev"] is None


def test_a_title_is_read_at_first_sight_and_once_it_may_have_been_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that was forked has its parent's; at a kill those that were weighed are read again."""
    titles = {1: "postgres", 2: "postgres"}
    monkeypatch.setattr(cgroup_rows, "read_title", lambda _tgid, start: titles[start])
    tasks = Tasks()
    tasks.take_events(task_records(("seen", 10, 1, "postgres"), ("seen", 10, 2, "postgres")), 0)
    assert [row["cmdline"] for row in tasks.rows] == ["postgres", "postgres"]
    tasks.rows.clear()
    titles.update({1: "postgres: checkpointer"})
    tasks.look_again()
    assert tasks.rows == []
    tasks.look_again({23})
    assert [row["cmdline"] for row in tasks.rows] == ["postgres: checkpointer"]
    titles.update({2: "postgres: writer"})
    later_s = time.monotonic() + 2
    monkeypatch.setattr(cgroup_rows.time, "monotonic", lambda: later_s)
    tasks.look_again()
    assert [row["cmdline"] for row in tasks.rows] == ["postgres: checkpointer", "postgres: writer"]
