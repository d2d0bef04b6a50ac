"""Which cgroups are traced: by what was asked for, at the start and as cgroups come, go and change their
names.

Paths are decided on in the kernel, when a cgroup is made. Names and globs the kernel cannot match: while
any is asked for, each new cgroup is traced at once and its records are held back, until it is known here
whether it was meant.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

from tracer.capture.bpf.load import Programs
from tracer.capture.bpf.ring import Records
from tracer.capture.bpf.roots import Roots
from tracer.capture.learn import calibration
from tracer.capture.rows.cgroup_rows import Cgroup, CgroupEvent
from tracer.capture.selection.container_lookup import NamesApart
from tracer.capture.selection.hold import Hold
from tracer.capture.selection.selector_state import Followed
from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.containers import ContainerNames, ContainerRef, identify, lookup_name
from tracer.kernel.cgroups.selectors import Selector, list_cgroups
from tracer.stored_names import stored_path

_ASK_AGAIN_S: Final = 0.2
_MOST_WAIT_S: Final = 10.0
_PURGE_INTERVAL_S: Final = 0.05
_STRAYS_S: Final = 2.0  # what was under way in the kernel when a cgroup was refused has come by then
_MOST_PATHS: Final = 1000


@dataclass(frozen=True)
class Taken:
    """A cgroup that is traced from now on. `created_ns`: CLOCK_MONOTONIC; None: it was there before it was
    asked for, and what was charged until now nobody has seen. `removed_ns`: where it is gone already.
    `names` None: nobody has asked for them yet.
    """

    cgroup: Cgroup
    created_ns: int | None
    removed_ns: int | None = None
    names: ContainerNames | None = None


@dataclass
class _Undecided:
    cgroup: Cgroup
    created_ns: int
    ref: ContainerRef
    until_s: float
    ask_at_s: float
    removed_ns: int | None = None


class Following:
    """Decides. `selectors` None: everything is traced. `own`: the cgroup of the recorder's command.

    `hold` has the records of those that are not decided on.
    """

    def __init__(
        self,
        programs: Programs,
        hierarchy: Hierarchy,
        selectors: Sequence[Selector] | None,
        own: Path | None = None,
        *,
        lookup: Callable[[ContainerRef], ContainerNames] = lookup_name,
    ) -> None:
        self._programs = programs
        self._hierarchy = hierarchy
        self._own = own
        self._lookup = cache(lookup)  # for the listings at the start
        self._roots = Roots(programs, hierarchy.root)
        self._names = NamesApart(lookup)
        self._followed = None if selectors is None else [Followed(selector) for selector in selectors]
        self._undecided: dict[int, _Undecided] = {}
        self._traced: dict[int, Cgroup | None] = {}  # None: it is gone
        self._taken: list[Taken] = []
        self._renamed: list[Cgroup] = []
        self._refused: list[int] = []
        self._let_go: list[int] = []
        self._purged: list[tuple[float, int]] = []
        self._dropped_tasks: set[int] = set()
        self._purge_at_s = 0.0
        self.hold = Hold()
        self._matched: dict[str, None] = {}

    def close(self) -> None:
        """End the thread that asks for names."""
        self._names.close()

    # At the start

    def begin(self) -> None:
        """Have the kernel decide on what is made from now on."""
        for followed in self._followed or ():
            if not (followed.selector.is_path and self._roots.want(followed.selector.place)):
                self._roots.want_undecided()

    def find(self) -> list[Path]:
        """Return the directories of what was asked for and is there now; the kernel traces them from now on.

        Raises UsageError where a name is ambiguous, OSError never: what goes meanwhile is left out.
        """
        if self._followed is None:
            return [self._hierarchy.mount]
        listing = list_cgroups(self._hierarchy, self._lookup)
        found: list[Path] = []
        for followed in self._followed:
            for path in listing.find(followed.selector):
                directory = self._hierarchy.directory(path)
                with suppress(FileNotFoundError):
                    self._add_root(cgroupfs.cgroup_id(directory), path, [followed])
                    found.append(directory)
        if self._own is not None:
            self._roots.add(cgroupfs.cgroup_id(self._own))
            self._matched[self._hierarchy.path(self._own)] = None
            found.append(self._own)
        return found

    def waiting(self) -> Iterator[str]:
        """Say, a line for each, what was asked for and is not there."""
        listing = None
        for followed in self._followed or ():
            followed.begin()
            if not followed.there:
                listing = listing or list_cgroups(self._hierarchy, self._lookup)
                near = listing.near(followed.selector)
                yield f"no cgroup or container is {followed.name} yet: waiting for it ({near})"

    def is_traced(self, cgroup_id: int) -> bool:
        """Whether it is traced by now."""
        return cgroup_id in self._traced

    def take_up(self, cgroup: Cgroup) -> None:
        """Take note of a traced cgroup that was there before."""
        self._traced[cgroup.id] = cgroup
        self.hold.accept(cgroup.id)

    # As they come and go

    def take_event(self, event: CgroupEvent) -> None:
        """Decide on a cgroup that was made, or take note that one was removed or renamed."""
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
        """Return those whose records are held back now."""
        return [undecided.cgroup for undecided in self._undecided.values()]

    def memcgs(self) -> dict[int, int]:
        """Return cgroup id -> the address of its memcg, of the traced ones that are there."""
        found: dict[int, int] = {}
        for cgroup in self._traced.values():
            if cgroup is not None:
                with suppress(OSError):  # gone
                    found[cgroup.id] = cgroup.memcg or calibration.find_memcg(
                        self._programs, self._hierarchy.directory(cgroup.path)
                    )
        return found

    def take_renamed(self) -> list[Cgroup]:
        """Return those traced cgroups that got another path since the last call."""
        renamed, self._renamed = self._renamed, []
        return renamed

    def take_refused(self) -> list[int]:
        """Return the ids of those that were undecided until the last call, and are refused."""
        refused, self._let_go = self._let_go, []
        return refused

    def settle(self) -> list[Taken]:
        """Return what is traced since the last call, after the answers that have come."""
        now = time.monotonic()
        answers = self._names.take()
        for undecided in list(self._undecided.values()):
            self._decide(undecided, answers.get(undecided.ref), now)
        taken, self._taken = self._taken, []
        return taken

    def tidy(self) -> None:
        """Have the kernel stop with what was refused. To be called when all rings were read."""
        now = time.monotonic()
        while self._purged and now - self._purged[0][0] > _STRAYS_S:
            self.hold.forget(self._purged.pop(0)[1])
        if not self._refused:
            self._roots.forget_tasks(self._dropped_tasks)
            self._dropped_tasks.clear()
        elif now >= self._purge_at_s:
            self._purge_at_s = now + _PURGE_INTERVAL_S
            self._roots.remove(self._refused)
            for cgroup_id in self._refused:
                self.hold.purge(cgroup_id, time.monotonic_ns())
                self._purged.append((now, cgroup_id))
            self._refused.clear()

    def sift(self, stream: str, records: Records) -> Records:
        """Return what of `records`, and of what was held back before, is of what was asked for."""
        if self._followed is None:
            return records
        wanted, dropped = self.hold.sift(stream, records)
        if stream == "task":
            self._dropped_tasks |= set(dropped["tgid"].tolist())
        return wanted

    def residue(self, sums: Mapping[tuple[int, int], int]) -> dict[tuple[int, int], int]:
        """Return, of the sums by (cgroup id, category) whose records were lost, those of what was asked
        for; with what did not fit into the hold.
        """
        kept = Counter(self.hold.take_residue())
        kept.update(
            {key: total for key, total in sums.items() if self._followed is None or key[0] in self._traced}
        )
        return dict(kept)

    def matched_paths(self) -> list[str] | None:
        """Return the paths of what was asked for and found, in the order in which it came; None:
        everything.
        """
        return None if self._followed is None else [stored_path(path) for path in self._matched]

    def concerns(self, rooted_path: str) -> bool:
        """Return whether a cgroup, by its path from the root of the hierarchy, was or may be asked for, or is
        above such a one: its limit is then a limit of theirs.
        """
        if self._followed is None or len(self._matched) >= _MOST_PATHS:
            return True
        path = self._hierarchy.visible_path(rooted_path)
        if path is None:
            return self._hierarchy.root.startswith(rooted_path.rstrip("/") + "/")
        below = path.rstrip("/") + "/"
        return self.is_asked_for(path) or any(place.startswith(below) for place in self._places())

    def is_asked_for(self, path: str) -> bool:
        """Return whether a cgroup at this path was or may be asked for, or is below such a one."""
        own = path.rstrip("/") + "/"
        return self._followed is None or any(
            own.startswith(place.rstrip("/") + "/") for place in self._places()
        )

    def _places(self) -> list[str]:
        return [*self._matched, *(one.cgroup.path for one in self._undecided.values())]

    def news(self, *, is_last: bool = False) -> Iterator[str]:
        """Say, in a line for each selector, what has come, gone or come again since the last call."""
        for followed in self._followed or ():
            if (line := followed.news(is_last=is_last)) is not None:
                yield line

    def never_came(self) -> list[str]:
        """Return what was asked for and did not come, as it was typed."""
        return [followed.name for followed in self._followed or () if not followed.came]

    # Decisions

    def _take_new(self, event: CgroupEvent) -> None:
        cgroup = event.cgroup
        if event.follow == "no":
            return
        if self._followed is None or event.follow == "yes" or cgroup.parent_id in self._traced:
            fitting = [] if self._followed is None else self._fitting(cgroup, None)
            if fitting or event.follow == "undecided":
                self._add_root(cgroup.id, cgroup.path, fitting)
            self._accept(Taken(cgroup, event.time_ns))
        elif fitting := self._fitting(cgroup, None):
            self._add_root(cgroup.id, cgroup.path, fitting)
            self._accept(Taken(cgroup, event.time_ns))
        elif (ref := identify(cgroup.path)) is not None and ref.container_id is not None:
            now = time.monotonic()
            self._undecided[cgroup.id] = _Undecided(cgroup, event.time_ns, ref, now + _MOST_WAIT_S, now)
            self.hold.wait_for(cgroup.id)
        else:
            self._refuse(cgroup.id)

    def _decide(self, undecided: _Undecided, names: ContainerNames | None, now: float) -> None:
        cgroup = undecided.cgroup
        fitting = self._fitting(cgroup, names) if names else []
        if fitting or cgroup.parent_id in self._traced:
            del self._undecided[cgroup.id]
            self._add_root(cgroup.id, cgroup.path, fitting)
            self._accept(Taken(cgroup, undecided.created_ns, undecided.removed_ns, names))
            if undecided.removed_ns is not None:
                self._remove(cgroup.id)
        elif (names and names.container is not None) or now > undecided.until_s:
            del self._undecided[cgroup.id]
            self._let_go.append(cgroup.id)
            self._refuse(cgroup.id)
        elif now >= undecided.ask_at_s:
            undecided.ask_at_s = now + _ASK_AGAIN_S
            self._names.ask(undecided.ref)

    def _take_renamed(self, event: CgroupEvent) -> None:
        """One that is traced already stays so: it is what was named. Of another, what was charged until now
        is not known, as of all that was there before the recording.
        """
        cgroup = event.cgroup
        if (known := self._traced.get(cgroup.id)) is not None:
            self._rename_below(known.path, cgroup.path)
        elif self._followed is not None and (fitting := self._fitting(cgroup, None)):
            self._undecided.pop(cgroup.id, None)
            self._refused = [refused for refused in self._refused if refused != cgroup.id]
            self._add_root(cgroup.id, cgroup.path, fitting)
            self._accept(Taken(cgroup, None))

    def _rename_below(self, old: str, new: str) -> None:
        for cgroup in self._traced.values():
            if cgroup is not None and (cgroup.path == old or cgroup.path.startswith(f"{old}/")):
                renamed = replace(cgroup, path=new + cgroup.path[len(old) :])
                self._traced[cgroup.id] = renamed
                self._renamed.append(renamed)
                for followed in self._followed or ():
                    if cgroup.id in followed.there:
                        followed.there[cgroup.id] = renamed.path

    def _fitting(self, cgroup: Cgroup, names: ContainerNames | None) -> list[Followed]:
        """The selectors that mean this cgroup. `names`: of its container, where they are known."""
        ref = identify(cgroup.path)
        container = None if ref is None else ref.container_id
        name = names.container if names else None
        return [
            followed
            for followed in self._followed or ()
            if followed.selector.fits_path(cgroup.path)
            or (container is not None and followed.selector.fits_container(container, name))
            or cgroup.path in followed.came
        ]

    def _add_root(self, cgroup_id: int, path: str, followed_by: list[Followed]) -> None:
        self._roots.add(cgroup_id)
        for followed in followed_by:
            followed.there[cgroup_id] = path
            self._note_match(followed, path)
            self._roots.want_again(path)

    def _note_match(self, followed: Followed, path: str) -> None:
        followed.note(path)
        if len(self._matched) < _MOST_PATHS:
            self._matched[path] = None

    def _accept(self, taken: Taken) -> None:
        self._traced[taken.cgroup.id] = taken.cgroup
        self.hold.accept(taken.cgroup.id)
        self._taken.append(taken)

    def _refuse(self, cgroup_id: int) -> None:
        self.hold.refuse(cgroup_id)
        self._refused.append(cgroup_id)

    def _remove(self, cgroup_id: int) -> None:
        if cgroup_id in self._traced:
            self._traced[cgroup_id] = None
        was_root = False
        for followed in self._followed or ():
            was_root |= followed.there.pop(cgroup_id, None) is not None
        if was_root:
            self._roots.bury(cgroup_id)
