"""What the recorder keeps of each traced cgroup: a row of `cgroups`, samples, and where its counters are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.ring import Records
from tracer.capture.learn import calibration
from tracer.capture.rows import cgroup_rows
from tracer.capture.rows.sampler import Row, Sampler
from tracer.capture.selection.cgroup_selection import Following, Taken
from tracer.errors import TracerError
from tracer.kernel.cgroups.cgroupfs import Hierarchy


@dataclass(frozen=True)
class TracedCgroups:
    """Bring what `following` decides to those who go by it. `clock_offset_ns`: realtime minus monotonic."""

    programs: Programs
    hierarchy: Hierarchy
    following: Following
    cgroups: cgroup_rows.Cgroups
    sampler: Sampler
    clock_offset_ns: int

    def find(self, read_events: Callable[[], Records]) -> None:
        """Take up those that are there, but for those whose making `read_events` tells of. Raises TracerError
        where one that was asked for has no memory controller.
        """
        roots = self.following.find()
        listed = cgroup_rows.list_traced(self.hierarchy, roots)
        self.take_events(read_events())  # after the listing: of what is in it, nothing comes later
        for directory, cgroup_id, parent in listed:
            if not self.following.is_traced(cgroup_id):
                cgroup = cgroup_rows.Cgroup(cgroup_id, parent, self.hierarchy.path(directory), 0)
                with suppress(OSError):  # gone
                    self._require_memory(self._take_up(cgroup), directory, roots)

    def take_events(self, records: Records) -> list[Row]:
        """Take note of those that were made, removed and renamed, and of those that are known by now to
        have been asked for.
        """
        ends = []
        begins: list[Row] = []
        for event in self.cgroups.events(records):
            self.following.take_event(event)
            if event.kind == "rmdir":
                ends.append((event.cgroup.id, event.time_ns))
        for taken in self.following.settle():
            begins += self._take(taken)
            if taken.removed_ns is not None:
                ends.append((taken.cgroup.id, taken.removed_ns))
        for cgroup in self.following.take_renamed():
            self.cgroups.add(cgroup, None)
            self.sampler.discard(cgroup.id)
            self.sampler.add(cgroup)
        for cgroup_id, time_ns in ends:
            self.cgroups.remove(cgroup_id, time_ns + self.clock_offset_ns)
        for cgroup in self.following.undecided():
            self.sampler.add(cgroup)
        for cgroup_id in self.following.take_refused():
            self.sampler.discard(cgroup_id)
        return begins

    def _take(self, taken: Taken) -> list[Row]:
        if taken.created_ns is None:
            return [row for cgroup in self._below(taken.cgroup) for row in self._begin_late(cgroup)]
        self.cgroups.add(taken.cgroup, taken.created_ns + self.clock_offset_ns, taken.names)
        self.sampler.add(taken.cgroup)
        return []

    def _below(self, cgroup: cgroup_rows.Cgroup) -> Iterator[cgroup_rows.Cgroup]:
        """The cgroup itself, and those below it that nothing of was recorded until now."""
        yield cgroup
        directory = self.hierarchy.directory(cgroup.path)
        for below, cgroup_id, parent in cgroup_rows.list_traced(self.hierarchy, [directory]):
            if not self.following.is_traced(cgroup_id):
                yield cgroup_rows.Cgroup(cgroup_id, parent, self.hierarchy.path(below), 0)

    def _begin_late(self, cgroup: cgroup_rows.Cgroup) -> list[Row]:
        with suppress(OSError):  # gone
            self._take_up(cgroup)
        return self.sampler.sample_files(cgroup.id, "start", self.clock_offset_ns)

    def _take_up(self, cgroup: cgroup_rows.Cgroup) -> int:
        """Take up a cgroup whose charges until now nobody has seen. Returns the address of its memcg; 0: it
        has none. Raises OSError where it is gone.
        """
        memcg = calibration.find_memcg(self.programs, self.hierarchy.directory(cgroup.path))
        known = replace(cgroup, memcg=memcg)
        self.following.take_up(known)
        self.cgroups.add(known, None)
        if memcg:
            calibration.prime(self.programs, memcg, cgroup.id)
        self.sampler.add(known)
        return memcg

    def _require_memory(self, memcg: int, directory: Path, roots: list[Path]) -> None:
        if not memcg and directory in roots:
            raise TracerError(
                f"{directory} has no memory controller: "
                f"run echo +memory > {directory.parent}/cgroup.subtree_control"
            )
