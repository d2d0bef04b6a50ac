"""What cgroups hold: page cache by file, anonymous memory by process and mapping, slab by kmem_cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PARTS: Final = ("file", "process", "slab")
"""What the memory of a cgroup can be told apart by."""


@dataclass(frozen=True, slots=True)
class HeldFile:
    """The page cache of one file that is charged to one cgroup.

    `path` is None if it is not known; `path_kind` is as in the table `inodes`. `device`, `inode` and
    `deleted` are None if the file was gone before it could be named. `shmem`: the file is in memory only,
    and its pages can go nowhere but to swap. `active_bytes` are on the active list; None: the kernel has
    generations in place of this list. `unevictable_bytes` are locked in memory (mlock(2)).
    """

    path: str | None
    path_kind: str | None
    device: str | None
    inode: int | None
    deleted: bool | None
    shmem: bool
    bytes: int
    dirty_bytes: int
    writeback_bytes: int
    active_bytes: int | None
    unevictable_bytes: int


@dataclass(frozen=True, slots=True)
class HeldMapping:
    """Anonymous memory that a process has in mappings of one kind (`anatomy.mapping_kinds`) and name."""

    mapping: str
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class HeldProcess:
    """The anonymous memory that a process has mapped.

    Pages that it shares with others since a fork count in each of them. They may be charged to another
    cgroup, as may be pages from before it came to this one.
    """

    pid: int
    comm: str
    bytes: int
    mappings: list[HeldMapping]


@dataclass(frozen=True, slots=True)
class HeldCache:
    """The objects of a kmem_cache that are charged to one cgroup; `cache` is None if it is gone."""

    cache: str | None
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CountedBetween:
    """The least and the most that the kernel counted in a cgroup (memory.stat), just before the pass and just
    after it. `file_bytes` contains `shmem_bytes`.

    `anon_bytes` leaves out pages that no process maps (swap cache, parts of huge pages that were unmapped).
    """

    anon_bytes: tuple[int, int]
    shmem_bytes: tuple[int, int]
    file_bytes: tuple[int, int]


@dataclass(frozen=True, slots=True)
class CgroupContents:
    """What is charged to one cgroup itself, without the cgroups below it.

    `cgroup` is its path, None if it is not known. `removed`: it has no directory any more. `file_bytes`
    contains `shmem_bytes`, as in memory.stat. `kernel_bytes` has page tables, stacks and other pages of the
    kernel, without slab; `slab_bytes` is None if slab was not looked at. `counted` is None if the cgroup was
    removed or has cgroups below it, or if there are too many cgroups. A list has the largest ones, and is
    None if it was not asked for.
    """

    cgroup: str | None
    container: str | None
    pod: str | None
    removed: bool
    anon_bytes: int
    shmem_bytes: int
    file_bytes: int
    dirty_bytes: int
    writeback_bytes: int
    active_bytes: int | None
    unevictable_bytes: int
    hugetlb_bytes: int
    kernel_bytes: int
    slab_bytes: int | None
    counted: CountedBetween | None
    files: list[HeldFile] | None
    processes: list[HeldProcess] | None
    slab: list[HeldCache] | None

    @property
    def bytes(self) -> int:
        """Return the size of all that was found."""
        parts = (self.anon_bytes, self.file_bytes, self.hugetlb_bytes, self.kernel_bytes)
        return sum(parts) + (self.slab_bytes or 0)


@dataclass(frozen=True, slots=True)
class Contents:
    """What the cgroups hold, the largest first.

    `time_ns` is CLOCK_REALTIME at the begin, and `took_ms` the duration of the pass over the pages.
    `unnamed_bytes` are of files and kmem_caches for which there was no room: they are in the sums alone.
    """

    time_ns: int
    took_ms: float
    unnamed_bytes: int
    cgroups: list[CgroupContents]
