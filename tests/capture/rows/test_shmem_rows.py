"""Looks at files of shared memory: when they are due, and of which processes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tracer.capture.bpf.ring import Records
from tracer.capture.rows.shmem_rows import SharedFile, ShmemRows
from tracer.enumerations import CATEGORY
from tracer.wire.dtypes import WIRE

MIB = 1 << 20


class Files:
    """Shared memory of processes, by tgid; `looked` are the processes that were looked at."""

    def __init__(self, **held: list[SharedFile]) -> None:
        self.held = {int(name.removeprefix("pid")): files for name, files in held.items()}
        self.looked: list[int] = []
        self.on_disk: dict[str, SharedFile] = {}

    def of_process(self, tgid: int) -> list[SharedFile]:
        self.looked.append(tgid)
        return self.held.get(tgid, [])

    def named(self, known: SharedFile, _tgid: int) -> SharedFile | None:
        return self.on_disk.get(known.name)


def charges(*rows: tuple[int, int, int, str]) -> Records:
    """Return `charge` records of (cgroup id, tgid, bytes, category)."""
    records = np.zeros(len(rows), WIRE["charge"])
    for record, (cgroup_id, tgid, bytes_, category) in zip(records, rows, strict=True):
        record["cgroup_id"], record["tgid"] = cgroup_id, tgid
        record["delta_bytes"][CATEGORY.number(category)] = bytes_
    return records


def file(inode: int, held_bytes: int) -> SharedFile:
    return SharedFile("memfd", "/memfd:a", (0, 1), inode, 9 * MIB, held_bytes, is_mapped=True)


def taken(rows: ShmemRows, *records: tuple[int, int, int, str], **how: bool) -> list[dict[str, Any]]:
    return list(rows.take(charges(*records), 7, **how))


def test_look_is_due_after_a_mebibyte_and_then_an_eighth() -> None:
    files: Any = Files(pid5=[file(1, MIB)])
    rows = ShmemRows(files)
    assert taken(rows, (1, 5, MIB - 1, "shmem")) == []
    (row,) = taken(rows, (1, 5, 1, "shmem"))
    assert (row["cgroup_id"], row["tgid"], row["kind"], row["dev"], row["ino"]) == (1, 5, "memfd", "0:1", 1)
    taken(rows, (1, 5, 79 * MIB, "shmem"))
    files.looked.clear()
    assert taken(rows, (1, 5, 10 * MIB - 1, "shmem")) == []
    assert files.looked == []
    assert taken(rows, (1, 5, 2 * MIB, "shmem"))


def test_other_memory_and_freed_memory_cause_no_look() -> None:
    files: Any = Files(pid5=[file(1, MIB)])
    rows = ShmemRows(files)
    assert taken(rows, (1, 5, 50 * MIB, "anon"), (1, 5, -50 * MIB, "shmem")) == []
    assert taken(rows, is_at_kill=True) == []
    assert files.looked == []


def test_every_growth_is_looked_at_when_something_is_killed() -> None:
    files: Any = Files(pid5=[file(1, 4096)])
    rows = ShmemRows(files)
    assert taken(rows, (1, 5, 4096, "shmem")) == []
    assert len(taken(rows, is_at_kill=True)) == 1
    assert taken(rows, is_at_kill=True) == []


def test_file_of_several_processes_has_one_row_and_an_empty_one_only_if_mapped() -> None:
    files: Any = Files(
        pid5=[file(1, MIB), replace(file(2, 0), is_mapped=False), file(4, 0)],
        pid6=[file(1, MIB), file(3, MIB)],
    )
    found = taken(ShmemRows(files), (1, 5, MIB, "shmem"), (1, 6, MIB, "shmem"), (1, 0, MIB, "shmem"))
    assert [(row["tgid"], row["ino"]) for row in found] == [(6, 1), (6, 3), (5, 4)]
    assert files.looked == [6, 5]


def test_file_on_tmpfs_is_looked_at_by_name_after_its_writer_ended() -> None:
    def written(held_bytes: int) -> SharedFile:
        return SharedFile("tmpfs", "/dev/shm/a", (0, 9), 4, held_bytes, held_bytes, is_mapped=False)

    files: Any = Files(pid5=[written(MIB), file(1, MIB)])
    rows = ShmemRows(files)
    assert len(taken(rows, (1, 5, 2 * MIB, "shmem"))) == 2
    files.held.clear()
    files.on_disk["/dev/shm/a"] = written(7 * MIB)
    (row,) = taken(rows, (1, 5, 6 * MIB, "shmem"))
    assert (row["name"], row["held_bytes"], row["tgid"]) == ("/dev/shm/a", 7 * MIB, 5)
    files.on_disk.clear()
    assert taken(rows, (1, 6, 9 * MIB, "shmem")) == []
