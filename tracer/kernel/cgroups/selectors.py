"""The arguments of `-c`, and the cgroups that they select, now or later.

An argument that is a path (of the directory, or relative to the hierarchy) selects the cgroup at that path.
Any other argument is the last part of a path, the name of a container, or its id (at least the first six
digits). It may be a glob over any of these or over paths, in which `*` also matches "/".
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Final

from tracer.errors import UsageError
from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.containers import Lookup, identify, short_id
from tracer.kernel.cgroups.mounts import read_mounts

_MIN_ID_PREFIX: Final = 6  # a shorter prefix of a container id may be a word
_NEAR_MATCHES: Final = 5
_GLOB_CHARACTERS: Final = frozenset("*?[")


@dataclass(frozen=True)
class Selector:
    """One argument: `text` as typed, and `place`, which is a path, a glob over paths, or a single name."""

    text: str
    place: str
    is_path: bool

    def fits_path(self, path: str) -> bool:
        """Return whether it selects the cgroup at `path`, by its path or its name."""
        if self.is_path:
            return path == self.place
        if "/" in self.place:
            return fnmatchcase(path, self.place)
        return self._fits(path.rsplit("/", 1)[-1])

    def fits_container(self, container_id: str, name: str | None) -> bool:
        """Return whether it selects a container, by its id or its name (None: not known)."""
        if self.is_path or "/" in self.place:
            return False
        is_prefix = len(self.place) >= _MIN_ID_PREFIX and container_id.startswith(self.place)
        return is_prefix or self._fits(container_id) or (name is not None and self._fits(name))

    def _fits(self, name: str) -> bool:
        return name == self.place or fnmatchcase(name, self.place)


def parse_selector(hierarchy: Hierarchy, argument: str) -> Selector:
    """Return the selector of an argument, by the cgroups that exist now.

    Raises UsageError if it can never select a cgroup: it is empty, leads out of the hierarchy, or is a path
    of another controller's hierarchy.
    """
    if not argument or "\0" in argument:
        raise UsageError("an empty cgroup name means nothing: give a path, a container or a glob")
    places = list(_places(hierarchy, argument))
    for place in places:
        if place.is_dir():
            return Selector(argument, hierarchy.path(place), is_path=True)
    _refuse_other_hierarchies(hierarchy, argument)
    if "/" not in argument:
        return Selector(argument, argument, is_path=False)
    if not places:
        raise UsageError(f"{argument!r} is not below {hierarchy.mount}, where the memory cgroups are")
    return Selector(argument, hierarchy.path(places[0]), is_path=not _GLOB_CHARACTERS & set(argument))


def parse_selectors(hierarchy: Hierarchy, arguments: Sequence[str], lookup: Lookup) -> list[Selector]:
    """Return the selector of each argument; raises UsageError, also for the prefix of several ids."""
    selectors = [parse_selector(hierarchy, argument) for argument in arguments]
    listing = list_cgroups(hierarchy, lookup)
    for selector in selectors:
        listing.find(selector)
    return selectors


@dataclass(frozen=True)
class Listing:
    """The cgroups at one moment, and the names of their containers, which are looked up when needed."""

    paths: Sequence[str]
    lookup: Lookup

    def find(self, selector: Selector) -> list[str]:
        """Return the paths of the selected cgroups, sorted; for a container, only its topmost cgroup.

        Raises UsageError if the prefix of an id fits several containers.
        """
        found = {path for path in self.paths if selector.fits_path(path)}
        if not selector.is_path and "/" not in selector.place:
            _refuse_ambiguous(selector, self._containers)
            found |= {
                path
                for container, path in self._containers.items()
                if selector.fits_container(container, self._names.get(container))
            }
        return sorted(found)

    def near(self, selector: Selector) -> str:
        """Return the part of a message that lists cgroups with similar names.

        A container is listed by its name or the begin of its id, any other cgroup by its path.
        """
        known = {path.rsplit("/", 1)[-1]: path for path in self.paths} | {path: path for path in self.paths}
        known |= dict(self.containers())
        near = [known[name] for name in difflib.get_close_matches(selector.text, known, _NEAR_MATCHES, 0.5)]
        near += [path for path in self.paths if selector.text in path]
        typed = {path: short_id(container) for container, path in self._containers.items()}
        typed |= {path: name for name, path in self.containers()}
        shown = dict.fromkeys(typed.get(path, path) for path in near)
        listed = ", ".join(repr(name)[1:-1] for name in list(shown)[:_NEAR_MATCHES])
        return f"near it: {listed}" if listed else f"none of the {len(self.paths)} cgroups has a name like it"

    def containers(self) -> list[tuple[str, str]]:
        """Return (name, topmost cgroup) of each container whose name is known."""
        return [(name, self._containers[container]) for container, name in self._names.items()]

    @cached_property
    def _containers(self) -> dict[str, str]:
        """Return container id -> its topmost cgroup."""
        found: dict[str, str] = {}
        for path in self.paths:
            ref = identify(path)
            if ref is not None and ref.container_id is not None:
                found.setdefault(ref.container_id, path)
        return found

    @cached_property
    def _names(self) -> dict[str, str]:
        """Return container id -> its name, for containers whose name is known."""
        refs = [ref for path in self._containers.values() if (ref := identify(path)) is not None]
        named = {ref.container_id: names.container for ref, names in self.lookup(refs).items()}
        return {container: name for container, name in named.items() if container and name is not None}


def list_cgroups(hierarchy: Hierarchy, lookup: Lookup) -> Listing:
    return Listing([one.path for one in cgroupfs.walk(hierarchy)], lookup)


def _places(hierarchy: Hierarchy, argument: str) -> Iterable[Path]:
    """Yield the directories below the mount that an argument may name."""
    for candidate in (Path(argument), hierarchy.directory(argument)):
        directory = Path(os.path.normpath(candidate))
        if directory.is_absolute() and directory.is_relative_to(hierarchy.mount):
            yield directory


def _refuse_other_hierarchies(hierarchy: Hierarchy, argument: str) -> None:
    """Raise UsageError for a path of another controller's hierarchy.

    The cgroup at the same path in the memory controller's hierarchy is not taken instead: managers usually
    keep the paths equal, but the two may have different processes.
    """
    for mount in read_mounts():
        if mount.fs_type not in ("cgroup", "cgroup2") or cgroupfs.memory_version(mount) is not None:
            continue
        other = Hierarchy(1 if mount.fs_type == "cgroup" else 2, Path(mount.mount_point), mount.root)
        directory = Path(os.path.normpath(argument))
        if not directory.is_relative_to(other.mount):
            continue
        namesake = hierarchy.directory(other.path(directory))
        hint = f", as -c {str(namesake)!r}" if namesake.is_dir() else ""
        raise UsageError(
            f"{argument!r} is of a cgroup v{other.version} hierarchy without the memory controller, "
            f"which is on v{hierarchy.version} at {hierarchy.mount}: give a cgroup of that one{hint}"
        )


def _refuse_ambiguous(selector: Selector, containers: Iterable[str]) -> None:
    begun = sorted(container for container in containers if container.startswith(selector.place))
    if len(selector.place) >= _MIN_ID_PREFIX and len(begun) > 1:
        listed = ", ".join(begun[:_NEAR_MATCHES])
        raise UsageError(f"container id {selector.text!r} is ambiguous, give more of it: {listed}")
