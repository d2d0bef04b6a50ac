"""One look at what cgroups hold: the pass over pages, and the names of what it found.

Only what is shown gets a name: a machine may have hundreds of thousands of files in its page cache. The
processes are read after the pass (/proc/PID/smaps), so their sizes are of a later moment.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import numpy as np

from tracer.capture.contents import counted
from tracer.capture.contents.held import (
    CgroupContents,
    Contents,
    CountedBetween,
    HeldCache,
    HeldFile,
    HeldProcess,
)
from tracer.capture.contents.pass_over_pages import SIZES, Amounts, Found, PassOverPages
from tracer.capture.contents.processes import read_processes
from tracer.capture.rows.inode_rows import InodeRows
from tracer.enumerations import CONTENTS
from tracer.kernel.anatomy.process_anatomy import rss_bytes
from tracer.kernel.cgroups import cgroupfs
from tracer.kernel.cgroups.cgroupfs import Hierarchy
from tracer.kernel.cgroups.containers import ContainerNames, Lookup, identify
from tracer.kernel.cgroups.mounts import Mounts
from tracer.stored_names import stored_name, stored_path

_LRU_GEN: Final = Path("/sys/kernel/mm/lru_gen/enabled")
_MOST_PROCS_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for. `by` is None for all parts of each of the `most` largest cgroups; or one of `PARTS`,
    of which the `most` largest of all cgroups are wanted; or "cgroup", for sums alone.

    `below`: the paths of cgroups, which are wanted with the cgroups below them; None: all cgroups.
    """

    by: str | None
    most: int
    below: Sequence[str] | None = None

    def includes(self, part: str) -> bool:
        """Return whether a part is wanted."""
        return self.by in (None, part)

    @property
    def has_slab(self) -> bool:
        """Return whether the objects of slab must be looked at."""
        return self.by in (None, "slab", "cgroup")

    def largest(self, rows: Amounts, order: Sequence[int]) -> Amounts:
        """Return those of the rows, each with `cgroup_id` and `bytes`, that are wanted, the largest first.

        `order` are the ids of the cgroups, the largest first.
        """
        rows = rows[np.argsort(rows["bytes"], kind="stable")[::-1]]
        if self.by is not None:
            return rows[: self.most]
        of_cgroups = (rows[rows["cgroup_id"] == number][: self.most] for number in order[: self.most])
        return np.concatenate([rows[:0], *of_cgroups])


class _Place(NamedTuple):
    """The path of a cgroup; None if it is not known."""

    path: str | None
    is_removed: bool


def look(
    hierarchy: Hierarchy, wanted: Wanted, lookup: Lookup, counts: Callable[[int, int], None]
) -> Contents:
    """Return what the wanted cgroups hold now.

    `lookup` names containers. `counts` is called with the number of pages that were passed, and of all.
    Raises TracerError if the kernel or BCC is unfit, or without root.
    """
    selected = None if wanted.below is None else _ids(hierarchy, wanted.below)
    with PassOverPages() as passing:  # compiling may take seconds, in which a cgroup may be removed
        before = counted.count(hierarchy, wanted.below)
        time_ns, begin_s = time.time_ns(), time.monotonic()
        objects = wanted.includes("file") or wanted.includes("slab")
        found = passing.scan(selected, objects=objects, slab=wanted.has_slab, counts=counts)
        took_ms = (time.monotonic() - begin_s) * 1e3
        ranges = counted.between(hierarchy, before)
        has_active = not has_generations()
        sizes = _sizes(found, has_slab=wanted.has_slab, has_active=has_active)
        order = sorted(sizes, key=lambda number: (-_whole(sizes[number]), number))
        places = _places(passing, found, hierarchy)
        ranges = _of_those_alone(ranges, places)
        chosen = wanted.largest(_of_kinds(found.amounts, "file", "shmem"), order)
        files = _files(passing, chosen, has_active=has_active)
        slab = _slab(passing, wanted.largest(_of_kinds(found.amounts, "slab"), order))
    processes: Mapping[int, list[HeldProcess]] = {}
    if wanted.includes("process"):
        processes = _processes(hierarchy, places, wanted, order)
    names = _names(places, lookup)
    cgroups = []
    for number in order:
        path, is_removed = places[number]
        cgroups.append(
            CgroupContents(
                cgroup=None if path is None else stored_path(path),
                container=names[number].container,
                pod=names[number].pod,
                removed=is_removed,
                **sizes[number],
                counted=ranges.get(number),
                files=files.get(number, []) if wanted.includes("file") else None,
                processes=processes.get(number, []) if wanted.includes("process") else None,
                slab=slab.get(number, []) if wanted.includes("slab") else None,
            )
        )
    return Contents(time_ns, took_ms, found.unnamed_bytes, cgroups)


def _ids(hierarchy: Hierarchy, paths: Sequence[str]) -> list[int]:
    """Return the ids of the cgroups at these paths, without those that were removed meanwhile."""
    found = []
    for path in paths:
        with suppress(OSError):
            found.append(cgroupfs.cgroup_id(hierarchy.directory(path)))
    return found


def _of_kinds(amounts: Amounts, *kinds: str) -> Amounts:
    return amounts[np.isin(amounts["kind"], [CONTENTS.number(kind) for kind in kinds])]


def _sizes(found: Found, *, has_slab: bool, has_active: bool) -> dict[int, dict[str, Any]]:
    """Return cgroup id -> the sizes of `CgroupContents`, by field."""
    sums: defaultdict[int, defaultdict[str, dict[str, int]]] = defaultdict(
        lambda: defaultdict(lambda: dict.fromkeys(SIZES, 0))
    )
    for row in found.totals:
        kind = CONTENTS.names[int(row["kind"])]
        sums[int(row["cgroup_id"])][kind] = {field: int(row[field]) for field in SIZES}
    return {
        number: {
            "anon_bytes": of["anon"]["bytes"],
            "shmem_bytes": of["shmem"]["bytes"],
            "file_bytes": of["file"]["bytes"] + of["shmem"]["bytes"],
            "dirty_bytes": of["file"]["dirty_bytes"],
            "writeback_bytes": of["file"]["writeback_bytes"],
            "active_bytes": of["file"]["active_bytes"] + of["shmem"]["active_bytes"] if has_active else None,
            "unevictable_bytes": sum(of[kind]["unevictable_bytes"] for kind in ("anon", "file", "shmem")),
            "hugetlb_bytes": of["hugetlb"]["bytes"],
            "kernel_bytes": of["kernel"]["bytes"],
            "slab_bytes": of["slab"]["bytes"] if has_slab else None,
        }
        for number, of in sums.items()
    }


def _whole(sizes: Mapping[str, Any]) -> int:
    kinds = ("anon_bytes", "file_bytes", "hugetlb_bytes", "kernel_bytes", "slab_bytes")
    return sum(sizes[kind] or 0 for kind in kinds)


def _places(passing: PassOverPages, found: Found, hierarchy: Hierarchy) -> dict[int, _Place]:
    """Return cgroup id -> its path. The cgroups are walked after the pass, which may have met new ones."""
    known = {one.id: one.path for one in cgroupfs.walk(hierarchy)}
    places: dict[int, _Place] = {}
    for total in found.totals:
        number = int(total["cgroup_id"])
        if number in known:
            places[number] = _Place(known[number], is_removed=False)
        elif number not in places:
            named = passing.cgroup(total)
            path = None if named is None else hierarchy.visible_path(named.path) or named.path
            places[number] = _Place(path, is_removed=named is None or not named.has_directory)
    return places


def _of_those_alone(
    found: Mapping[int, CountedBetween], places: Mapping[int, _Place]
) -> dict[int, CountedBetween]:
    """Return the counts of cgroups with no removed cgroups below them, whose memory would be in the count."""
    removed = [place.path or "" for place in places.values() if place.is_removed]
    if not all(path.startswith("/") for path in removed):  # the upper part is not known: it may be any cgroup
        return {}
    above = {str(parent) for path in removed for parent in PurePosixPath(path).parents}
    return {
        number: one
        for number, one in found.items()
        if (place := places.get(number)) is not None and place.path not in above
    }


def _names(places: Mapping[int, _Place], lookup: Lookup) -> dict[int, ContainerNames]:
    """Return cgroup id -> the names of its container and pod."""
    refs = {number: identify(place.path) for number, place in places.items() if place.path}
    found = lookup([ref for ref in dict.fromkeys(refs.values()) if ref is not None])
    return {
        number: ContainerNames() if (ref := refs.get(number)) is None else found.get(ref, ContainerNames())
        for number in places
    }


def has_generations(switch: Path = _LRU_GEN) -> bool:
    """Return whether the kernel has generations of pages in place of the active and the inactive list
    (Documentation/admin-guide/mm/multigen_lru.rst): then no page on them is marked active."""
    try:
        return bool(int(switch.read_text("ascii"), 16) & 1)
    except FileNotFoundError:  # built without CONFIG_LRU_GEN
        return False


def _files(passing: PassOverPages, chosen: Amounts, *, has_active: bool) -> Mapping[int, list[HeldFile]]:
    """Return cgroup id -> its files, in the order of `chosen`."""
    files: defaultdict[int, list[HeldFile]] = defaultdict(list)
    with closing(Mounts()) as mounts:
        rows = InodeRows(mounts)
        for amount in chosen:
            file = held_file(passing, rows, amount, has_active=has_active)
            files[int(amount["cgroup_id"])].append(file)
    return files


def held_file(passing: PassOverPages, rows: InodeRows, amount: np.void, *, has_active: bool) -> HeldFile:
    """Return the file of a row of `Found.amounts`, with its name as far as it is known now."""
    record = passing.file(amount)
    row = {} if record is None else rows.rows_for(record)[0]
    return HeldFile(
        path=row.get("path"),
        path_kind=row.get("path_kind"),
        device=row.get("dev"),
        inode=row.get("ino"),
        deleted=row.get("deleted"),
        shmem=int(amount["kind"]) == CONTENTS.number("shmem"),
        bytes=int(amount["bytes"]),
        dirty_bytes=int(amount["dirty_bytes"]),
        writeback_bytes=int(amount["writeback_bytes"]),
        active_bytes=int(amount["active_bytes"]) if has_active else None,
        unevictable_bytes=int(amount["unevictable_bytes"]),
    )


def _slab(passing: PassOverPages, chosen: Amounts) -> Mapping[int, list[HeldCache]]:
    """Return cgroup id -> its kmem_caches, in the order of `chosen`."""
    slab: defaultdict[int, list[HeldCache]] = defaultdict(list)
    for amount in chosen:
        name = passing.cache(amount)
        slab[int(amount["cgroup_id"])].append(
            HeldCache(
                None if name is None else stored_name(name), int(amount["objects"]), int(amount["bytes"])
            )
        )
    return slab


_RESIDENT: Final = np.dtype([("cgroup_id", "<u8"), ("bytes", "<u8"), ("tgid", "<u4")])


def _processes(
    hierarchy: Hierarchy, places: Mapping[int, _Place], wanted: Wanted, order: Sequence[int]
) -> Mapping[int, list[HeldProcess]]:
    """Return cgroup id -> its processes with anonymous memory, the largest first."""
    resident = [
        (number, rss_bytes(tgid), tgid)
        for number, place in places.items()
        if place.path is not None and not place.is_removed
        for tgid in _tgids(hierarchy.directory(place.path))
    ]
    processes: defaultdict[int, list[HeldProcess]] = defaultdict(list)
    chosen = wanted.largest(np.array(resident, _RESIDENT), order)
    for number, held in zip(chosen["cgroup_id"], read_processes(chosen["tgid"].tolist()), strict=True):
        if held is not None:
            processes[int(number)].append(held)
    for listed in processes.values():
        listed.sort(key=lambda one: -one.bytes)
    return processes


def _tgids(directory: Path) -> list[int]:
    """Return the processes of a cgroup, as many as the bounds allow; [] if it was removed."""
    try:
        with (directory / "cgroup.procs").open("rb", buffering=0) as stream:
            return [tgid for tgid in map(int, stream.read(_MOST_PROCS_BYTES).split()) if tgid]
    except OSError:  # also a threaded cgroup, whose processes are those of the domain above it
        return []
