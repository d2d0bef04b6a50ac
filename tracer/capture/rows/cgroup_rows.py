"""The names behind the ids of a recording: cgroups, tasks, files, stacks."""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.capture.bpf.ring import Records
from tracer.capture.rows.decode import text
from tracer.kernel.cgroups import cgroupfs, containers
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.mounts import Mounts, MountTable
from tracer.kernel.process.titles import read_title
from tracer.schema import CGROUP_EVENTS, FOLLOW, TASK_EVENTS
from tracer.stored_names import stored_path, stored_text
from tracer.wire.fields import PATH_LEN

Row = dict[str, Any]

_TITLES_AT_ONCE = 128  # of some 20 us each
_TITLE_AFTER_S = 1.0
_YOUNG_KEPT = 4096
_EXITED_KEPT = 4096  # a dying task acts within milliseconds of its exit
_MINOR_BITS = 20  # include/linux/kdev_t.h, the kernel's own dev_t


@dataclass(frozen=True)
class Cgroup:
    """A traced cgroup. `memcg` is the kernel address of its counters, 0 where it is not known."""

    id: int
    parent_id: int | None
    path: str
    memcg: int


@dataclass(frozen=True)
class CgroupEvent:
    """That a cgroup was made, removed or renamed (`kind` of CGROUP_EVENTS, `follow` of FOLLOW; monotonic)."""

    kind: str
    time_ns: int
    cgroup: Cgroup
    follow: str


@dataclass
class Cgroups:
    """The cgroups of a recording: those that are traced, and those that only act.

    `rows` are new or changed rows of `cgroups`, to be taken.
    """

    hierarchy: Hierarchy
    rows: list[Row] = field(default_factory=list)
    _known: dict[int, Row] = field(default_factory=dict)

    def events(self, records: Records) -> Iterator[CgroupEvent]:
        """Read the records of what can be seen from here: a container's mount may begin further down."""
        for record in records:
            cgroup_id, rooted = int(record["cgroup_id"]), os.fsdecode(bytes(record["path"]).split(b"\0")[0])
            path = self.hierarchy.visible_path(rooted)
            if len(os.fsencode(rooted)) >= PATH_LEN - 1:  # it is cut
                directory = cgroupfs.directory_of(self.hierarchy, cgroup_id)
                path = path if directory is None else self.hierarchy.path(directory)
            if path is not None:
                cgroup = Cgroup(cgroup_id, int(record["parent_id"]) or None, path, int(record["memcg"]))
                kind, follow = CGROUP_EVENTS[record["event"]], FOLLOW[record["follow"]]
                yield CgroupEvent(kind, int(record["time_ns"]), cgroup, follow)

    def add(
        self, cgroup: Cgroup, created_ns: int | None, names: containers.ContainerNames | None = None
    ) -> None:
        """Take up a cgroup that is traced, or one that has another path now; `created_ns` (realtime) where it
        was made during the trace.
        """
        known = self._known.get(cgroup.id)
        if known:
            created_ns = created_ns or known["created"]
        self._say(cgroup.id, cgroup.parent_id, cgroup.path, created_ns, names)

    def remove(self, cgroup_id: int, removed_ns: int) -> None:
        """Take note of the end (realtime) of a cgroup that has a row."""
        if known := self._known.get(cgroup_id):
            known["removed"] = removed_ns
            self.rows.append(known)

    def need(self, ids: Iterable[int]) -> None:
        """Find names for ids that appeared as actors only; one that is gone stays without."""
        for cgroup_id in ids:
            if cgroup_id <= 0 or cgroup_id in self._known:
                continue
            directory = cgroupfs.directory_of(self.hierarchy, cgroup_id)
            if directory is None:
                self._known[cgroup_id] = {}
            else:
                self._say(cgroup_id, None, self.hierarchy.path(directory), None)

    def _say(
        self,
        cgroup_id: int,
        parent_id: int | None,
        path: str,
        created_ns: int | None,
        names: containers.ContainerNames | None = None,
    ) -> None:
        reference = containers.identify(path) or containers.ContainerRef()
        if names is None:
            names = containers.lookup_name(reference)
        row = {
            "cgroup_id": cgroup_id,
            "parent_id": parent_id,
            "path": stored_path(path),
            "version": self.hierarchy.version,
            "created": created_ns,
            "removed": None,
            "runtime": reference.runtime,
            "container_id": reference.container_id and stored_text(reference.container_id),
            "container": names.container,
            "pod": names.pod,
            "namespace": names.namespace or reference.namespace,
            "unit": reference.unit and stored_text(reference.unit),
        }
        self._known[cgroup_id] = row
        self.rows.append(row)


def list_traced(hierarchy: Hierarchy, roots: Iterable[Path]) -> list[tuple[Path, int, int | None]]:
    """(directory, id, parent's id) of every cgroup that is there now at or below the roots; those that go are
    left out."""
    found: dict[Path, tuple[Path, int, int | None]] = {}
    for directory in (below for root in roots for below in cgroupfs.descendants(root)):
        with suppress(FileNotFoundError):
            parent = None if directory == hierarchy.mount else cgroupfs.cgroup_id(directory.parent)
            found[directory] = (directory, cgroupfs.cgroup_id(directory), parent)
    return list(found.values())


class Tasks:
    """The processes that acted. `rows` are new or changed rows of `tasks`, to be taken."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._alive: dict[tuple[int, int], Row] = {}
        self._exited: dict[tuple[int, int], Row] = {}  # the last ones, oldest first
        self._young: deque[tuple[float, tuple[int, int]]] = deque()

    def look_again(self, tgids: Collection[int] = ()) -> None:
        """Read the titles of these processes, and of those that have had time to write their own: a process
        has its parent's when it is first seen.
        """
        now_s = time.monotonic()
        asked = (key for key in self._alive if key[0] in tgids) if tgids else ()
        due = set(islice(asked, _TITLES_AT_ONCE))
        while self._young and self._young[0][0] <= now_s and len(due) < _TITLES_AT_ONCE:
            due.add(self._young.popleft()[1])
        for key in due:
            row = self._alive.get(key)
            if row is not None and (title := read_title(*key)) not in (None, row["cmdline"]):
                row["cmdline"] = title
                self.rows.append(row)

    def take_events(self, records: Records, clock_offset_ns: int) -> None:
        """First sights, execs (which change the name) and exits.

        Since kernel 6.16 a task says that it exits before it gives its memory back (kernel/exit.c, do_exit),
        which makes it act again afterwards: such a sight is of the dead, and no process of its own.
        """
        reads = 0
        for record in records:
            event = TASK_EVENTS[record["event"]]
            time_ns = int(record["time_ns"]) + clock_offset_ns
            key = (int(record["tgid"]), int(record["start_ns"]))
            if event == "seen" and key in self._exited:
                continue
            # A thread that executes takes over the tgid and the start of a leader that has exited.
            row = self._alive.setdefault(key, self._exited.pop(key, {"first_seen": time_ns, "cmdline": None}))
            row |= {
                "tgid": key[0],
                "start_ns": key[1],
                "ppid": int(record["ppid"]),
                "uid": int(record["uid"]),
                "comm": text(record["comm"]),
                "cgroup_id": int(record["cgroup_id"]),
                "exited": None,
            }
            if event == "exit":
                row["exited"] = time_ns
                self._exited[key] = self._alive.pop(key)
                if len(self._exited) > _EXITED_KEPT:
                    del self._exited[next(iter(self._exited))]
            elif len(self._young) < _YOUNG_KEPT:
                self._young.append((time.monotonic() + _TITLE_AFTER_S, key))
                if reads < _TITLES_AT_ONCE:
                    row["cmdline"] = read_title(*key) or row["cmdline"]
                    reads += 1
            self.rows.append(row)


class Files:
    """The names of files, from what the kernel has of them and the mounts of those who act on them."""

    def __init__(self, mounts: Mounts) -> None:
        self._mounts = mounts

    def rows(self, records: Records) -> list[Row]:
        """Rows of `inodes`. What is not known now is null: what an earlier row of the file said holds."""
        if not len(records):
            return []
        own = self._mounts.own()
        return [self._row(record, own) for record in records]

    def _row(self, record: np.void, own: MountTable) -> Row:
        path, kind, container_path = self._names(record, own)
        is_block_device = stat.S_ISBLK(int(record["mode"]))
        return {
            "inode_id": int(record["inode_id"]),
            "dev": _device(record["dev"]),
            "ino": int(record["ino"]),
            "path": path and stored_text(path),
            "path_kind": kind,
            "container_path": container_path and stored_text(container_path),
            "rdev": _device(record["rdev"]) if is_block_device else None,
            "deleted": bool(record["nlink"] == 0),
            "fs_type": text(record["fs_type"]),
            "mode": int(record["mode"]),
            "size_bytes": int(record["size_bytes"]),
        }

    def _names(self, record: np.void, own: MountTable) -> tuple[str | None, str | None, str | None]:
        """path, path_kind, container_path."""
        if record["fs_type"] == b"bdev":
            node = _device_node(_device(record["rdev"]))
            return node, node and "device", None
        if not record["depth"]:
            return None, None, None
        names = _names_from_the_root(record)
        if record["is_pseudo"]:
            return names[0], "kernel", None
        if record["truncated"]:
            return "…/" + "/".join(names), "filesystem", None
        path, device = "/" + "/".join(names), _numbers(record["dev"])
        host = own.host_path(device, path)
        container = self._container_path(record, device, path, host)
        if host is not None:
            return host, "host", container
        return (container, "container", container) if container else (path, "filesystem", None)

    def _container_path(
        self, record: np.void, device: tuple[int, int], path: str, host: str | None
    ) -> str | None:
        """As the acting process sees the file: by way of an overlay, where one shows it."""
        tgids = (int(record["tgid"]), int(record["ppid"]), int(record["reaper_tgid"]))
        table = self._mounts.other(int(record["mount_ns"]), tgids, int(record["time_ns"]))
        if table is None:
            return None
        shown = table.host_path(device, path)
        layers = (name for name in (host, shown) if name is not None)
        return next((found for name in layers if (found := table.overlaid_path(name))), shown)


def _names_from_the_root(record: np.void) -> list[str]:
    names = bytes(record["path"])[: int(record["path_len"])].rstrip(b"\0").split(b"/")
    return [name.decode("utf-8", "surrogateescape") for name in reversed(names) if name]


def _numbers(dev: np.integer[Any]) -> tuple[int, int]:
    return int(dev) >> _MINOR_BITS, int(dev) & ((1 << _MINOR_BITS) - 1)


def _device(dev: np.integer[Any]) -> str:
    return "{}:{}".format(*_numbers(dev))


def _device_node(device: str) -> str | None:
    """Where a block device is by default (drivers/base/core.c, dev_uevent); None where it is gone."""
    try:
        lines = Path(f"/sys/dev/block/{device}/uevent").read_text("utf-8", "backslashreplace").splitlines()
    except OSError:
        return None
    return next(("/dev/" + line[len("DEVNAME=") :] for line in lines if line.startswith("DEVNAME=")), None)


def actors(*columns: npt.NDArray[np.uint64]) -> set[int]:
    """The distinct cgroup ids in some columns."""
    return {int(value) for column in columns if len(column) for value in np.unique(column)}
