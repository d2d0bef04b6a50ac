"""The state of each traced cgroup: its row of `cgroups`, its samples, the address of its counters; and
whether the recorder itself runs in one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from tracer.capture.bpf.accounts import Accounts
from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.ring import Records
from tracer.capture.learn import calibration
from tracer.capture.rows.cgroup_rows import Cgroup, CgroupRows
from tracer.capture.rows.sampler import Sampler
from tracer.capture.selection.cgroup_selection import CgroupSelection, Taken
from tracer.errors import TracerError
from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.cgroupfs import Hierarchy, own_path
from tracer.kernel.cgroups.memory_files import read_limit
from tracer.schema import UNLIMITED_BYTES
from tracer.units import size


@dataclass(frozen=True)
class TracedCgroups:
    """Carries the decisions of `selection` to rows and samples.

    `clock_offset_ns` is CLOCK_REALTIME minus CLOCK_MONOTONIC.
    """

    programs: Programs
    accounts: Accounts
    hierarchy: Hierarchy
    selection: CgroupSelection
    cgroups: CgroupRows
    sampler: Sampler
    clock_offset_ns: int

    def find(self, read_events: Callable[[], Records]) -> None:
        """Add the requested cgroups that exist; `read_events` reads the ring of cgroup events.

        Raises TracerError if a requested cgroup has no memory controller.
        """
        walked = self.cgroups.paths.walk()
        roots = self.selection.find([one.path for one in walked])
        self.take_events(read_events())  # after the walk: later events are about cgroups that it lacks
        selected: set[int] = set()
        for one in walked:
            if one.parent_id in selected or one.path in roots:
                selected.add(one.id)
                if not self.selection.is_traced(one.id):
                    with suppress(OSError):  # removed meanwhile
                        memcg = self._add_existing(Cgroup(one.id, one.parent_id, one.path, 0))
                        self._require_memory(memcg, one.path, roots)

    def take_events(self, records: Records) -> list[int]:
        """Process `cgroup` records, and add the cgroups that were selected since the last call.

        Returns the ids of those that existed before they were selected.
        """
        ends = []
        found: list[int] = []
        for event in self.cgroups.events(records):
            self.selection.take_event(event)
            if event.kind == "rmdir":
                ends.append((event.cgroup.id, event.time_ns))
        for taken in self.selection.settle():
            found += self._add(taken)
            if taken.removed_ns is not None:
                ends.append((taken.cgroup.id, taken.removed_ns))
        for cgroup in self.selection.take_renamed():
            self.cgroups.add(cgroup, None)  # it may have been added under its old name only now
            self.sampler.add(cgroup)
        for cgroup_id, time_ns in ends:
            self.cgroups.remove(cgroup_id, time_ns + self.clock_offset_ns)
            self.sampler.discard(cgroup_id)
        for cgroup in self.selection.undecided():
            self.sampler.add(cgroup)
        for cgroup_id in self.selection.take_given_up():
            self.sampler.discard(cgroup_id)
        self.cgroups.ask_for_names()
        return found

    def _add(self, taken: Taken) -> list[int]:
        """Add a cgroup that was selected. Returns its id and those below it, if it existed before."""
        if taken.created_ns is None:
            below = [one.id for one in self._untraced_subtree(taken.cgroup) if self._add_late(one)]
            self.selection.trace_late(taken)
            return below
        self.cgroups.add(taken.cgroup, taken.created_ns + self.clock_offset_ns, taken.names)
        self.sampler.add(taken.cgroup)
        return []

    def _untraced_subtree(self, cgroup: Cgroup) -> Iterator[Cgroup]:
        """Yield the cgroup, and those below it that were not traced until now."""
        yield cgroup
        for one in cgroupfs.walk(self.hierarchy, cgroup.path):
            if not self.selection.is_traced(one.id):
                yield Cgroup(one.id, one.parent_id, one.path, 0)

    def _add_late(self, cgroup: Cgroup) -> bool:
        with suppress(OSError):  # removed meanwhile
            self._add_existing(cgroup)
            return True
        return False

    def _add_existing(self, cgroup: Cgroup) -> int:
        """Add a cgroup whose charges until now were not recorded.

        Returns the kernel address of its memcg; 0 if it has none. Raises OSError if it is gone.
        """
        memcg = calibration.find_memcg(self.programs, self.hierarchy.directory(cgroup.path))
        known = replace(cgroup, memcg=memcg)
        self.selection.add_existing(known)
        self.cgroups.add(known, None)
        if memcg:
            self.accounts.prime(memcg, cgroup.id)
        self.sampler.add(known)
        return memcg

    def _require_memory(self, memcg: int, path: str, roots: Collection[str]) -> None:
        if not memcg and path in roots:
            directory = self.hierarchy.directory(path)
            raise TracerError(
                f"{directory} has no memory controller: "
                f"run echo +memory > {directory.parent}/cgroup.subtree_control"
            )


def find_recorder_cgroup(hierarchy: Hierarchy, is_traced: Callable[[str], bool]) -> tuple[str, str] | None:
    """Return the recorder's own cgroup, and a warning about the lowest of its limits and its ancestors'.

    None: the cgroup is not traced, or no visible limit bounds it.
    """
    try:
        own = own_path(hierarchy)
    except (TracerError, OSError):
        return None
    limits: list[tuple[int, str]] = []
    for path in map(str, (PurePosixPath(own), *PurePosixPath(own).parents)):
        with suppress(OSError):
            limit = read_limit(hierarchy.directory(path), hierarchy.version)
            if limit is not None and limit < UNLIMITED_BYTES:
                limits.append((limit, path))
    if not limits or not is_traced(own):
        return None
    limit_bytes, limited_by = min(limits)
    return own, (
        f"the recorder itself runs in {own!a}, which is traced: the limit of {limited_by!a} "
        f"({size(limit_bytes)}) counts its memory, and an OOM kill there may end the recording"
    )
