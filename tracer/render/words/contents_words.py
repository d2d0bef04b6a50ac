"""Sentences on what cgroups hold: what reclaim can free, what it cannot, and what removed cgroups keep."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from tracer import units
from tracer.capture.contents.held import CgroupContents, Contents, HeldFile
from tracer.render.words.escape import visible

_LARGE_SHARE: Final = 0.2
"""The least part of the memory of a cgroup that gets a sentence."""

_NOTABLE_SHARE: Final = 0.02
_NOTABLE_BYTES: Final = 1 << 20
"""How far the page cache may be from what the kernel counted, by this share and by these bytes, without a
sentence."""

_BEHIND_PAGES: Final = 64
"""By so many pages for each CPU, memory.stat may be behind for seconds (MEMCG_CHARGE_BATCH in
memcg_vmstats_needs_flush(), mm/memcontrol.c)."""

_SLAB_OF_FILES: Final = ("dentry", "inode_cache")

_KERNELS_NAMES: Final = {"zero": "a shared anonymous mapping"}  # shmem_zero_setup() in mm/shmem.c
_SYSV: Final = "SYSV"


def document(found: Contents) -> dict[str, Any]:
    """Return the document of `contents --json`: what the cgroups hold, each with its sentences."""
    moment = datetime.fromtimestamp(found.time_ns / 1e9, UTC)
    return {
        "schema": 1,
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "took_ms": round(found.took_ms, 1),
        "unnamed_bytes": found.unnamed_bytes,
        "cgroups": [asdict(one) | {"advice": list(advice_on(one))} for one in found.cgroups],
    }


def file_name(one: HeldFile) -> str:
    """Return the path of a file; without one, what is known of it."""
    if _is_kernels_own(one):
        return f"{_KERNELS_NAMES.get(one.path or '', one.path)} (shmem)"
    if one.path is not None:
        known = one.path
    elif one.inode is not None:
        known = f"inode {one.inode} on device {one.device}"
    else:
        known = "a file that is gone"
    marks = [mark for mark, holds in (("shmem", one.shmem), ("deleted", one.deleted)) if holds]
    return f"{known} ({', '.join(marks)})" if marks else known


def _is_kernels_own(one: HeldFile) -> bool:
    """Return whether the kernel made this file of shared memory, which nobody can open by a path."""
    return one.shmem and one.path_kind == "kernel"


def advice_on(one: CgroupContents) -> Iterator[str]:
    """Yield a sentence for each large part of a cgroup that reclaim can free, or cannot, with its names;
    first one on page cache that came and went during the pass."""
    if one.counted is not None and (said := _came_and_went(one.file_bytes, *one.counted.file_bytes)):
        yield said
    on_files = [said for file in one.files or () if (said := file_advice(file, one.bytes)) is not None]
    yield from on_files
    idle = max(_clean_bytes(one) - (one.active_bytes or 0), 0)
    if not on_files and _is_large(idle, one.bytes):
        clean = _clean(one.active_bytes)
        yield f"At least {units.size(idle)} is page cache of files, {clean}: it gives way at once."
    of_files = [cache for cache in one.slab or () if (cache.cache or "").endswith(_SLAB_OF_FILES)]
    size = sum(cache.bytes for cache in of_files)
    if _is_large(size, one.bytes):
        count = max(cache.objects for cache in of_files)
        yield (
            f"{units.size(size)} of slab is for {units.count(count)} names and inodes of files that were "
            "looked at: reclaim can free what is not in use."
        )


def _came_and_went(file_bytes: int, least_bytes: int, most_bytes: int) -> str | None:
    difference = max(least_bytes - file_bytes, file_bytes - most_bytes)
    behind = _BEHIND_PAGES * mmap.PAGESIZE * (os.cpu_count() or 1)
    if difference <= max(_NOTABLE_SHARE * most_bytes, _NOTABLE_BYTES, behind):
        return None
    least, most = units.size(least_bytes), units.size(most_bytes)
    counted = most if least == most else f"{least} to {most}"
    return (
        f"Page cache came and went during the pass: {units.size(file_bytes)} of it was met, and the kernel "
        f"counted {counted}, so the sizes of files are uncertain."
    )


def file_advice(file: HeldFile, whole_bytes: int) -> str | None:
    """Return a sentence on the page cache of one file; None if it is a small part of `whole_bytes`, or in
    use.

    A page may be active and dirty at once, so the pages that are neither are at least the rest.
    """
    name, of = visible(file_name(file)), f"of {units.size(whole_bytes)}"
    unwritten = file.dirty_bytes + file.writeback_bytes
    kept = [size for size in (unwritten, file.unevictable_bytes, file.active_bytes) if size]
    idle = file.bytes - sum(kept)
    if file.shmem:
        if not _is_large(file.bytes, whole_bytes):
            return None
        if _is_kernels_own(file) and (file.path or "").startswith(_SYSV):
            how = f"detach it, ipcrm -m {file.inode}"  # newseg() in ipc/shm.c: the id is the inode number
        else:
            how = "unmap and close it" if file.deleted else "remove the file"
        return (
            f"{units.size(file.bytes)} {of} is {name}: memory that its programs must free ({how}), or that "
            "goes to swap."
        )
    if _is_large(idle, whole_bytes):
        size = f"{'At least ' if len(kept) > 1 else ''}{units.size(idle)}"
        return (
            f"{size} {of} is page cache of one file, {name}, {_clean(file.active_bytes)}: it gives way at "
            "once."
        )
    if _is_large(unwritten, whole_bytes):
        return f"{units.size(unwritten)} {of} is of {name} and must be written before reclaim can free it."
    return None


def _is_large(size_bytes: int, whole_bytes: int) -> bool:
    return size_bytes > 0 and size_bytes >= _LARGE_SHARE * whole_bytes


def _clean(active_bytes: int | None) -> str:
    """Return the state of idle page cache; `active_bytes` is None on a kernel without an active list."""
    return "clean" if active_bytes is None else "clean and not active"


def _clean_bytes(one: CgroupContents) -> int:
    """Return the least size of the page cache of files that is written and not locked in memory."""
    kept = one.shmem_bytes + one.dirty_bytes + one.writeback_bytes + one.unevictable_bytes
    return max(one.file_bytes - kept, 0)


def removed_words(cgroups: Sequence[CgroupContents]) -> str:
    """Return the sentence on the removed cgroups among these; empty without one."""
    removed = [one for one in cgroups if one.removed]
    if not removed:
        return ""
    size = sum(one.bytes for one in removed)
    number = "a removed cgroup" if len(removed) == 1 else f"{units.count(len(removed))} removed cgroups"
    clean = sum(map(_clean_bytes, removed))
    freed = f": {units.size(clean)} is clean page cache, which gives way when memory is short"
    return f"{units.size(size)} of it belongs to {number}{freed if clean >= size / 2 else ''}."
