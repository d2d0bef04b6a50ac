"""Decide which cgroups are traced: at the start, and as cgroups are made, removed and renamed.

The BPF program decides on paths when a cgroup is made. It cannot match names and globs: while one is
requested, the program traces every new cgroup, and its records are held back until user space has decided.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.ring import Records
from tracer.capture.bpf.roots import Roots
from tracer.capture.rows.cgroup_rows import GONE_KEPT, Cgroup, CgroupEvent
from tracer.capture.selection.hold import Hold
from tracer.capture.selection.requests import Requests, SelectorState
from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.containers import ContainerNames, ContainerRef, Lookup, identify
from tracer.kernel.cgroups.selectors import Listing, Selector
from tracer.kernel.naming.host_names import HostNames
from tracer.kernel.naming.late_names import ContainerLookup, remembering

_PURGE_INTERVAL_S: Final = 0.05
_STRAYS_S: Final = 2.0  # records under way in the kernel when a cgroup was refused have arrived by then


class Refusals:
    """The refused cgroups: their records are dropped, and the BPF programs stop tracing them, in batches."""

    def __init__(self, roots: Roots, hold: Hold) -> None:
        self._roots = roots
        self._hold = hold
        self._refused: list[int] = []
        self._purged: list[tuple[float, int]] = []
        self._dropped_tasks: set[int] = set()
        self._purge_at_s = 0.0

    def add(self, cgroup_id: int) -> None:
        self._hold.refuse(cgroup_id)
        self._refused.append(cgroup_id)

    def take_back(self, cgroup_id: int) -> None:
        """Let the BPF programs go on tracing a cgroup, if they have not stopped yet."""
        self._refused = [refused for refused in self._refused if refused != cgroup_id]

    def note_dropped(self, tasks: Records) -> None:
        """Note `task` records that were dropped: the programs report each task once only."""
        self._dropped_tasks |= set(tasks["tgid"].tolist())

    def purge(self) -> None:
        """Make the BPF programs stop tracing the refused cgroups. Call it after all rings were read."""
        now = time.monotonic()
        while self._purged and now - self._purged[0][0] > _STRAYS_S:
            self._hold.forget(self._purged.pop(0)[1])
        if not self._refused:
            self._roots.forget_tasks(self._dropped_tasks)
            self._dropped_tasks.clear()
        elif now >= self._purge_at_s:
            self._purge_at_s = now + _PURGE_INTERVAL_S
            self._roots.remove(self._refused)
            for cgroup_id in self._refused:
                self._hold.purge(cgroup_id, time.monotonic_ns())
                self._purged.append((now, cgroup_id))
            self._refused.clear()


_ASK_AGAIN_S: Final = 0.2
_MOST_WAIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Taken:
    """A cgroup that is traced from now on.

    `created_ns` and `removed_ns` are CLOCK_MONOTONIC. `created_ns` is None for a cgroup that existed before
    it was requested: its charges until now were not recorded, and it is not traced until `trace_late` is
    called. `matching` are the selectors that it matches. `removed_ns` is set if the cgroup is gone. `names`
    is None if the container runtime was not queried.
    """

    cgroup: Cgroup
    created_ns: int | None
    removed_ns: int | None = None
    names: ContainerNames | None = None
    matching: Sequence[SelectorState] = ()


@dataclass
class _Undecided:
    cgroup: Cgroup
    created_ns: int
    ref: ContainerRef
    until_s: float
    ask_at_s: float
    removed_ns: int | None = None


class CgroupSelection:
    """The traced cgroups, the undecided ones, and the decisions on new ones.

    `selectors` None traces every cgroup. `command_cgroup` is the directory made for the recorder's command.
    `hold` has the records of undecided cgroups, up to `held_bytes`.
    """

    def __init__(
        self,
        programs: Programs,
        hierarchy: Hierarchy,
        selectors: Sequence[Selector] | None,
        command_cgroup: Path | None = None,
        *,
        held_bytes: int = 64 << 20,
        lookup: Lookup | None = None,
    ) -> None:
        self._programs = programs
        self._hierarchy = hierarchy
        self._command_cgroup = command_cgroup
        lookup = lookup if lookup is not None else HostNames().find
        self._cached_lookup = remembering(lookup)  # for the listings at the start
        self._roots = Roots(programs, hierarchy.root)
        self._names = ContainerLookup(lookup)
        self._undecided: dict[int, _Undecided] = {}
        self._traced: dict[int, Cgroup | None] = {}  # None: it is gone, and records of it may still come
        self._gone: deque[int] = deque()
        self._taken: list[Taken] = []
        self._renamed: list[Cgroup] = []
        self._given_up: list[int] = []
        self.requests = Requests(hierarchy, selectors)
        self.hold = Hold(held_bytes)
        self._refusals = Refusals(self._roots, self.hold)

    def close(self) -> None:
        """End the thread that looks up container names."""
        self._names.close()

    # At the start

    def begin(self) -> None:
        """Let the BPF program decide on cgroups that are made from now on."""
        for state in self.requests.states:
            if not (state.selector.is_path and self._roots.want(state.selector.place)):
                self._roots.want_undecided()

    def find(self, paths: Sequence[str]) -> set[str]:
        """Trace the requested cgroups among the existing `paths`, and the cgroup of the recorder's command.
        Return their paths; {"/"} if every cgroup is requested.

        A cgroup that is removed meanwhile is left out. Raises UsageError if a container name is ambiguous.
        """
        if self.requests.is_everything:
            return {"/"}
        listing = Listing(paths, self._cached_lookup)
        found: set[str] = set()
        for state in self.requests.states:
            for path in listing.find(state.selector):
                with suppress(FileNotFoundError):
                    self._add_root(cgroupfs.cgroup_id(self._hierarchy.directory(path)), path, [state])
                    found.add(path)
        if self._command_cgroup is not None:
            self._roots.add(cgroupfs.cgroup_id(self._command_cgroup))
            path = self._hierarchy.path(self._command_cgroup)
            self.requests.add_command_cgroup(path)
            found.add(path)
        return found

    def waiting(self) -> list[str]:
        """Return a line for each selector that matches no cgroup now."""
        return list(self.requests.waiting(self._cached_lookup))

    def is_traced(self, cgroup_id: int) -> bool:
        """Return whether a cgroup is or was traced."""
        return cgroup_id in self._traced

    def add_existing(self, cgroup: Cgroup) -> None:
        """Add a traced cgroup that existed before the recording."""
        self._traced[cgroup.id] = cgroup
        self.hold.accept(cgroup.id)

    # As cgroups are made, removed and renamed

    def take_event(self, event: CgroupEvent) -> None:
        """Decide on a cgroup that was made or renamed, or note that one was removed."""
        cgroup = event.cgroup
        if event.kind == "mkdir" and cgroup.id not in self._traced:
            self._take_new(event)
        elif event.kind == "rename":
            self._take_renamed(event)
        elif event.kind == "rmdir":
            if cgroup.id in self._undecided:
                self._undecided[cgroup.id].removed_ns = event.time_ns
            self._remove(cgroup.id)

    def undecided(self) -> list[Cgroup]:
        """Return the cgroups whose records are held back now."""
        return [undecided.cgroup for undecided in self._undecided.values()]

    def trace_late(self, taken: Taken) -> None:
        """Trace a cgroup that existed before it was requested. Call it once the counters of the cgroup, and
        of the cgroups below it, are the zero of their ledger."""
        self._add_root(taken.cgroup.id, taken.cgroup.path, taken.matching)

    def take_renamed(self) -> list[Cgroup]:
        """Return the traced cgroups that got a new path since the last call."""
        renamed, self._renamed = self._renamed, []
        return renamed

    def take_given_up(self) -> list[int]:
        """Return the ids of undecided cgroups that were refused since the last call."""
        given_up, self._given_up = self._given_up, []
        return given_up

    def settle(self) -> list[Taken]:
        """Decide with the container names that have arrived. Return the cgroups taken since the last call."""
        now = time.monotonic()
        answers = self._names.take()
        asked = [
            one.ref for one in [*self._undecided.values()] if self._decide(one, answers.get(one.ref), now)
        ]
        self._names.ask(asked)
        taken, self._taken = self._taken, []
        return taken

    def purge(self) -> None:
        """Make the BPF programs stop tracing the refused cgroups. Call it after all rings were read."""
        self._refusals.purge()

    def sift(self, stream: str, records: Records) -> Records:
        """Return the records of requested cgroups, from `records` and from the records held back."""
        if self.requests.is_everything:
            return records
        wanted, dropped = self.hold.sift(stream, records)
        if stream == "task":
            self._refusals.note_dropped(dropped)
        return wanted

    def residue(self, sums: Mapping[tuple[int, int], int]) -> dict[tuple[int, int], int]:
        """Return (cgroup id, category) -> bytes of lost records, for the requested cgroups.

        `sums` were lost in the kernel; the sums of records that did not fit into the hold are added.
        """
        for key, total in sums.items():
            if key[0] in self._undecided:
                self.hold.add_sum(key, total)
        kept = Counter(self.hold.take_residue())
        kept.update(
            {
                key: total
                for key, total in sums.items()
                if self.requests.is_everything or key[0] in self._traced
            }
        )
        return dict(kept)

    def includes(self, path: str) -> bool:
        """Return whether a cgroup is requested or undecided, or is below one that is."""
        return self.requests.includes(path, self._undecided_paths())

    def concerns(self, rooted_path: str) -> bool:
        """Return whether a cgroup is included, or above an included one (`Requests.concerns`)."""
        return self.requests.concerns(rooted_path, self._undecided_paths())

    def _undecided_paths(self) -> list[str]:
        return [undecided.cgroup.path for undecided in self._undecided.values()]

    # Decisions

    def _take_new(self, event: CgroupEvent) -> None:
        cgroup = event.cgroup
        if event.follow == "no":
            return
        matching = self.requests.matching(cgroup.path, None)
        is_below_traced = cgroup.parent_id in self._traced
        if self.requests.is_everything or event.follow == "yes" or is_below_traced or matching:
            if matching or event.follow == "undecided":
                self._add_root(cgroup.id, cgroup.path, matching)
            self._accept(Taken(cgroup, event.time_ns))
        elif (ref := identify(cgroup.path)) is not None and ref.container_id is not None:
            now = time.monotonic()
            self._undecided[cgroup.id] = _Undecided(cgroup, event.time_ns, ref, now + _MOST_WAIT_S, now)
            self.hold.wait_for(cgroup.id)
        else:
            self._refusals.add(cgroup.id)

    def _decide(self, undecided: _Undecided, names: ContainerNames | None, now: float) -> bool:
        """Take or refuse a cgroup; return whether its names are to be requested instead."""
        cgroup = undecided.cgroup
        matching = self.requests.matching(cgroup.path, names) if names else []
        if matching or cgroup.parent_id in self._traced:
            del self._undecided[cgroup.id]
            self._add_root(cgroup.id, cgroup.path, matching)
            self._accept(Taken(cgroup, undecided.created_ns, undecided.removed_ns, names))
            if undecided.removed_ns is not None:
                self._remove(cgroup.id)
        elif (names and names.container is not None) or now > undecided.until_s:
            del self._undecided[cgroup.id]
            self._given_up.append(cgroup.id)
            self._refusals.add(cgroup.id)
        elif now >= undecided.ask_at_s:
            undecided.ask_at_s = now + _ASK_AGAIN_S
            return True
        return False

    def _take_renamed(self, event: CgroupEvent) -> None:
        """Keep tracing a traced cgroup under its new name, and take one whose new name is requested.

        The charges of the latter until now are unknown, as for cgroups that existed before the recording.
        """
        cgroup = event.cgroup
        if (known := self._traced.get(cgroup.id)) is not None:
            self._rename_subtree(known.path, cgroup.path)
        elif matching := self.requests.matching(cgroup.path, None):
            self._undecided.pop(cgroup.id, None)
            self._refusals.take_back(cgroup.id)
            self._accept(Taken(cgroup, None, matching=matching))

    def _rename_subtree(self, old: str, new: str) -> None:
        for cgroup in self._traced.values():
            if cgroup is not None and (cgroup.path == old or cgroup.path.startswith(f"{old}/")):
                renamed = replace(cgroup, path=new + cgroup.path[len(old) :])
                self._traced[cgroup.id] = renamed
                self._renamed.append(renamed)
                self.requests.rename(cgroup.id, renamed.path)

    def _add_root(self, cgroup_id: int, path: str, matching: Sequence[SelectorState]) -> None:
        self._roots.add(cgroup_id)
        if matching:
            self.requests.add_match(matching, cgroup_id, path)
            self._roots.want_again(path)

    def _accept(self, taken: Taken) -> None:
        self._traced[taken.cgroup.id] = taken.cgroup
        self.hold.accept(taken.cgroup.id)
        self._taken.append(taken)

    def _remove(self, cgroup_id: int) -> None:
        if cgroup_id in self._traced:
            self._traced[cgroup_id] = None
            self._gone.append(cgroup_id)
            if len(self._gone) > GONE_KEPT and self._traced.get(oldest := self._gone.popleft()) is None:
                self._traced.pop(oldest, None)
                self.hold.forget(oldest)
        if self.requests.remove(cgroup_id):
            self._roots.bury(cgroup_id)
