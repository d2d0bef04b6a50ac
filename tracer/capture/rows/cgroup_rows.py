"""Rows of `cgroups`, and the paths of cgroups by id, including removed ones.

There is a row for each traced cgroup, and for each cgroup whose tasks act on traced ones.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tracer.capture.bpf.ring import Records
from tracer.enumerations import CGROUP_EVENT, FOLLOW
from tracer.kernel.cgroups import cgroupfs, containers
from tracer.kernel.cgroups.cgroupfs import Hierarchy, Walked
from tracer.kernel.naming.host_names import HostNames, is_lacking
from tracer.kernel.naming.late_names import LateNames
from tracer.stored_names import stored_path, stored_text
from tracer.wire.fields import PATH_LEN

REMOVED_KEPT: Final = 4096
_IDLE_FOR_A_WALK: Final = 50.0  # the least time between two walks, in durations of a walk


class KnownPaths:
    """The paths that a walk found, and the paths that the kernel has reported since.

    An id is never reused. kernfs allocates ids in increasing order, and their upper half counts how often the
    lower half wrapped around (__kernfs_new_node in fs/kernfs/dir.c). So an unknown id belongs to a removed
    cgroup, unless the id is newer than the last walk: then the report of the cgroup's creation was lost.
    `now` returns seconds.
    """

    def __init__(self, hierarchy: Hierarchy, now: Callable[[], float] = time.monotonic) -> None:
        self._hierarchy = hierarchy
        self._now = now
        self._paths: dict[int, str | None] = {}  # None: outside of the mount
        self._removed: dict[int, int] = {}  # id -> when, for the last removed cgroups
        self._walked_to = 0
        self._walk_from_s = 0.0

    def walk(self) -> list[Walked]:
        """Return the cgroups that exist, and remember their paths."""
        begin = self._now()
        walked = list(cgroupfs.walk(self._hierarchy))
        gone = {number: self._paths[number] for number in self._removed}
        self._paths = {**{one.id: one.path for one in walked}, **gone}
        self._walked_to = max([self._walked_to, *(one.id for one in walked)])
        self._walk_from_s = self._now() + _IDLE_FOR_A_WALK * (self._now() - begin)
        return walked

    def note_made(self, cgroup_id: int, path: str | None) -> None:
        """Note the path of a new cgroup; None: it is outside of this mount."""
        self._paths[cgroup_id] = path

    def note_renamed(self, cgroup_id: int, path: str | None) -> list[int]:
        """Note the new path of a cgroup. Return its id and the ids of the cgroups below it."""
        old = self._paths.get(cgroup_id)
        self._paths[cgroup_id] = path
        if old is None or path is None:
            return [cgroup_id]
        below = {
            number: path + known[len(old) :]
            for number, known in self._paths.items()
            if known is not None and known.startswith(f"{old}/") and number not in self._removed
        }
        self._paths |= below
        return [cgroup_id, *below]

    def note_removed(self, cgroup_id: int, time_ns: int) -> None:
        """Note when a cgroup was removed. The time is forgotten after `REMOVED_KEPT` later removals."""
        if cgroup_id in self._paths:
            self._removed[cgroup_id] = time_ns
            if len(self._removed) > REMOVED_KEPT:
                oldest = next(iter(self._removed))
                del self._removed[oldest], self._paths[oldest]

    def find(self, cgroup_ids: Iterable[int]) -> dict[int, str]:
        """Return id -> path for the cgroups whose path is known.

        The cgroups are walked if one is newer than the last walk. The next walk is put off for 50 times as
        long as this one took; until then, a newer id is not found.
        """
        ids = list(cgroup_ids)
        newest = max((number for number in ids if number not in self._paths), default=0)
        if newest > self._walked_to and self._now() >= self._walk_from_s:
            self.walk()
            self._walked_to = max(self._walked_to, newest)
        return {number: path for number in ids if (path := self._paths.get(number)) is not None}

    def removed_ns(self, cgroup_id: int) -> int | None:
        """Return the noted time of a cgroup's removal; None if there is none."""
        return self._removed.get(cgroup_id)

    def whole(self, cgroup_id: int, path: str, *, is_new: bool) -> str:
        """Return the whole path of a cgroup that begins with `path`; `path` if the cgroup is gone.

        `is_new`: the known path of the cgroup is out of date.
        """
        if not is_new and (known := self._paths.get(cgroup_id)) is not None:
            return known
        above, _, begins = path.rpartition("/")
        found = cgroupfs.walk(self._hierarchy, above or "/", os.fsencode(begins))
        return next((one.path for one in found if one.id == cgroup_id), path)


GONE_KEPT: Final = 1024


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A traced cgroup. `memcg` is the kernel address of its struct mem_cgroup; 0 if not known."""

    id: int
    parent_id: int | None
    path: str
    memcg: int


@dataclass(slots=True)
class _Row:
    """A row of `cgroups`; a dict of each would take three times as much memory."""

    cgroup_id: int
    parent_id: int | None
    path: str
    version: int
    created: int | None
    removed: int | None
    runtime: str | None
    container_id: str | None
    container: str | None
    pod: str | None
    namespace: str | None
    image: str | None
    unit: str | None

    def columns(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class CgroupEvent:
    """The making, removal or renaming of a cgroup.

    `kind` is a name of CGROUP_EVENT; `follow`, a name of FOLLOW, is the BPF program's decision. `time_ns` is
    CLOCK_MONOTONIC.
    """

    kind: str
    time_ns: int
    cgroup: Cgroup
    follow: str


@dataclass
class CgroupRows:
    """A row for each cgroup; the owner takes new and changed rows from `rows`.

    Cgroups that are gone are remembered for a while: records of what their tasks did may come later.
    """

    hierarchy: Hierarchy
    host: HostNames = field(default_factory=HostNames)
    rows: list[dict[str, Any]] = field(default_factory=list)
    _known: dict[int, _Row] = field(default_factory=dict)
    _gone: deque[int] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.paths = KnownPaths(self.hierarchy)
        self._late = LateNames(self.host.find)

    def close(self) -> None:
        """End the thread that looks up names."""
        self._late.close()

    def events(self, records: Records) -> Iterator[CgroupEvent]:
        """Decode `cgroup` records. A cgroup outside this process's cgroup mount is left out."""
        for record in records:
            cgroup_id, rooted = int(record["cgroup_id"]), os.fsdecode(bytes(record["path"]).split(b"\0")[0])
            kind, path = CGROUP_EVENT.names[record["event"]], self.hierarchy.visible_path(rooted)
            if path is not None and len(os.fsencode(rooted)) >= PATH_LEN - 1:  # the record's path is cut
                path = self.paths.whole(cgroup_id, path, is_new=kind == "rename")
            if kind == "mkdir":
                self.paths.note_made(cgroup_id, path)
            elif kind == "rename":
                self._rename_rows(self.paths.note_renamed(cgroup_id, path))
            if path is not None:
                cgroup = Cgroup(cgroup_id, int(record["parent_id"]) or None, path, int(record["memcg"]))
                yield CgroupEvent(kind, int(record["time_ns"]), cgroup, FOLLOW.names[record["follow"]])

    def add(
        self, cgroup: Cgroup, created_ns: int | None, names: containers.ContainerNames | None = None
    ) -> None:
        """Add a traced cgroup, or one that has a new path.

        `created_ns` (CLOCK_REALTIME) is None unless the cgroup was made during the trace.
        """
        known = self._known.get(cgroup.id)
        if known:
            created_ns = created_ns or known.created
        self._add_row(cgroup.id, cgroup.parent_id, cgroup.path, created_ns, names)

    def remove(self, cgroup_id: int, removed_ns: int) -> None:
        """Set the end (CLOCK_REALTIME) of a cgroup."""
        self.paths.note_removed(cgroup_id, removed_ns)
        if known := self._known.get(cgroup_id):
            known.removed = removed_ns
            self.rows.append(known.columns())
            self._note_gone(cgroup_id)

    def require(self, ids: Iterable[int]) -> None:
        """Add rows of cgroups that are not traced; a cgroup whose path is not known gets no row."""
        for cgroup_id, path in self.paths.find(number for number in ids if number not in self._known).items():
            removed_ns = self.paths.removed_ns(cgroup_id)
            self._add_row(cgroup_id, None, path, None, removed_ns=removed_ns)
            if removed_ns is not None:
                self._note_gone(cgroup_id)

    def shown_name(self, cgroup_id: int) -> str | None:
        """Return the container of a cgroup, else the last name of its path; None: the cgroup is not known."""
        if (row := self._known.get(cgroup_id)) is None:
            return None
        return containers.shown_name(row.path, row.container, row.pod)

    def ask_for_names(self) -> None:
        """Request the names of containers that no file contains."""
        self._late.ask()

    def add_late_names(self, within_s: float = 0.0) -> None:
        """Add the rows of cgroups whose names were found late. The last time, `within_s` is how long to wait
        for an answer: all names that are missing are then requested again."""
        if within_s:
            self._late.hurry()
        for cgroup_id, names in self._late.take(within_s):
            if not (row := self._known.get(cgroup_id)):
                continue
            row.namespace = names.namespace or row.namespace
            for name in ("container", "pod", "image"):
                setattr(row, name, getattr(row, name) or getattr(names, name))
            self.rows.append(row.columns())

    def _note_gone(self, cgroup_id: int) -> None:
        self._gone.append(cgroup_id)
        if len(self._gone) > GONE_KEPT:
            oldest = self._gone.popleft()
            row = self._known.get(oldest)
            if row is not None and row.removed is not None:  # else the id was used again
                del self._known[oldest]

    def _rename_rows(self, cgroup_ids: Iterable[int]) -> None:
        """Add changed rows of cgroups that have new paths."""
        renamed = [row for number in cgroup_ids if (row := self._known.get(number)) is not None]
        paths = self.paths.find(row.cgroup_id for row in renamed)
        for row in renamed:
            if (path := paths.get(row.cgroup_id)) is not None:
                self._add_row(row.cgroup_id, row.parent_id, path, row.created)

    def _add_row(
        self,
        cgroup_id: int,
        parent_id: int | None,
        path: str,
        created_ns: int | None,
        names: containers.ContainerNames | None = None,
        *,
        removed_ns: int | None = None,
    ) -> None:
        reference = containers.identify(path) or containers.ContainerRef()
        if names is None:
            names = self.host.at_once(reference)
        if is_lacking(reference, names):
            self._late.want(reference, cgroup_id)
        names = names or containers.ContainerNames()
        row = _Row(
            cgroup_id=cgroup_id,
            parent_id=parent_id,
            path=stored_path(path),
            version=self.hierarchy.version,
            created=created_ns,
            removed=removed_ns,
            runtime=reference.runtime,
            container_id=reference.container_id and stored_text(reference.container_id),
            container=names.container,
            pod=names.pod,
            namespace=names.namespace or reference.namespace,
            image=names.image,
            unit=reference.unit and stored_text(reference.unit),
        )
        self._known[cgroup_id] = row
        self.rows.append(row.columns())
