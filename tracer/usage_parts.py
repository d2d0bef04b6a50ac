"""The parts of a cgroup's usage at an instant. They do not overlap.

The kernel's counters (mm/memcontrol.c, memory_stat_format) overlap. The parts follow from them:

* `anon` includes swap cache that no process has mapped. Such pages are on the LRU lists of anon and shmem,
  but in neither counter. They are not in file either: NR_FILE_PAGES of a cgroup does not count swap cache.
* `file_clean` is file - shmem - file_dirty - file_writeback. If dirty and writeback are not known, dirty
  pages are inside `file_clean`, and `quality` has a note of it. The kernel counts pages that are being
  swapped out as under writeback: with swap cache, `writeback` is at most the rest of file. A folio that is
  both dirty and under writeback is in both counters: if this would make `file_clean` negative, `writeback` is
  reduced.
* `unevictable` (mlock, SHM_LOCK) counts pages that anon, file or shmem count as well, and that are on none of
  their LRU lists. anon and shmem share their lists: pages of anon and shmem that are on no list are the
  unevictable part of these two, the rest is file. `unevictable` is a separate part if its shares of anon and
  shmem are known except for at most a tenth of it, which is then taken from anon. Otherwise it is null and
  stays inside the other parts, and `quality` has its size.
* `zswap` and `hugetlb` are charged on v2 only, `hugetlb` if cgroup2 is mounted with
  memory_hugetlb_accounting.
* `other` is the rest of usage: kernel memory without a counter of its own, pages that exiting processes
  have unmapped but not yet freed, charges that a CPU holds in stock (up to 64 pages each,
  MEMCG_CHARGE_BATCH), and every part that is null. The counters are read one after the
  other and can exceed usage: then `other` is 0, and the largest parts are reduced by the excess. No part is
  negative, and they add up to usage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tracer.categories import PARTS

_STRAIGHT: Final = {part.name: part.counter for part in PARTS if part.counter is not None}
_UNDECIDED_PERCENT: Final = 10


def usage_parts(
    sizes: Mapping[str, int | None], total: int | None, absent: Callable[[str], str]
) -> tuple[dict[str, int | None], dict[str, str]]:
    """Return part -> bytes, for `categories.PARTS`; and name -> the reason why it is not known, for parts and
    "total".

    `sizes` are the sizes of memory.stat (`schema.MEMORY_STAT_BYTES`). `total` is the usage, in bytes; the
    parts add up to it. `absent` gives the reason for a size that is not known.
    """
    unknown: dict[str, str] = {}
    parts: dict[str, int | None] = dict.fromkeys(part.name for part in PARTS)
    parts["anon"], parts["shmem"] = _anon(sizes), sizes["shmem"]
    parts["file_dirty"], parts["writeback"] = sizes["file_dirty"], _writeback(sizes)
    parts |= {name: sizes[counter] for name, counter in _STRAIGHT.items()}
    parts["file_clean"] = _file_clean(sizes, parts["writeback"])
    if parts["file_clean"] is not None and None in (parts["file_dirty"], parts["writeback"]):
        unknown["file_clean"] = (
            "it contains dirty pages and pages under writeback: their counters were not read"
        )
    _count_once(parts)
    _take_out_unevictable(parts, sizes, absent("unevictable"), unknown)
    for name in list(parts)[:-1]:
        if parts[name] is None:
            unknown.setdefault(name, f"{absent(name)}; it is inside `other`")
    if total is None:
        unknown |= dict.fromkeys(("other", "total"), "usage was never read")
    else:
        parts["other"] = total - sum(size or 0 for size in parts.values())
        _take_off_excess(parts)
    return parts, unknown


def _count_once(parts: dict[str, int | None]) -> None:
    """Reduce `writeback`, then `file_dirty`, until `file_clean` is not negative."""
    for name in ("writeback", "file_dirty"):
        clean, of_both = parts["file_clean"], parts[name]
        if clean is not None and of_both is not None and clean < 0:
            twice = min(-clean, of_both)
            parts[name], parts["file_clean"] = of_both - twice, clean + twice
    if parts["file_clean"] is not None:
        parts["file_clean"] = max(parts["file_clean"], 0)


def _take_off_excess(parts: dict[str, int | None]) -> None:
    excess = -(parts["other"] or 0)
    if excess <= 0:
        return
    parts["other"] = 0
    for name in sorted(parts, key=lambda name: -(parts[name] or 0)):
        taken = min(excess, parts[name] or 0)
        if taken:
            parts[name] = (parts[name] or 0) - taken
            excess -= taken


def _anon(sizes: Mapping[str, int | None]) -> int | None:
    """Return anon plus the swap cache that only the lists show. Old kernels do not count swap cache."""
    anon, shmem, *lists = (sizes[name] for name in ("anon", "shmem", "inactive_anon", "active_anon"))
    in_swap_cache = sizes["swapcached"] if sizes["swapcached"] is not None else sizes["swap"]
    if anon is None or shmem is None or None in lists or not in_swap_cache:
        return anon
    unmapped = sum(one or 0 for one in lists) - anon - shmem
    return anon + min(max(unmapped, 0), in_swap_cache)


def _writeback(sizes: Mapping[str, int | None]) -> int | None:
    file, shmem, writeback = sizes["file"], sizes["shmem"], sizes["file_writeback"]
    if writeback is None or file is None or shmem is None or not sizes["swapcached"]:
        return writeback
    return min(writeback, max(file - shmem - (sizes["file_dirty"] or 0), 0))


def _file_clean(sizes: Mapping[str, int | None], writeback: int | None) -> int | None:
    file, shmem = sizes["file"], sizes["shmem"]
    if file is None or shmem is None:
        return None
    return file - shmem - (sizes["file_dirty"] or 0) - (writeback or 0)


def _take_out_unevictable(
    parts: dict[str, Any], sizes: Mapping[str, int | None], absent: str, unknown: dict[str, str]
) -> None:
    size = sizes["unevictable"]
    if not size:
        parts["unevictable"] = size
        if size is None:
            unknown["unevictable"] = f"{absent}; it is inside anon, file_clean and shmem"
        return
    split = _split_unevictable(size, sizes)
    if split is None or split["file_clean"] > (parts["file_clean"] or 0):
        unknown["unevictable"] = (
            f"{size} bytes are unevictable, but the kernel does not show in which class: "
            "they are inside anon, file_clean and shmem"
        )
        return
    parts["unevictable"] = size
    for part, share in split.items():
        if share:  # file_clean may be null; its share is then 0
            parts[part] -= share


def _split_unevictable(size: int, sizes: Mapping[str, int | None]) -> dict[str, int] | None:
    """Return the unevictable bytes in each part: the pages that are on none of the part's LRU lists. None:
    not known, or anon and shmem, which share their lists, cannot be distinguished."""
    anon, shmem, swap_backed = sizes["anon"], sizes["shmem"], _swap_backed(size, sizes)
    if anon is None or shmem is None or swap_backed is None:
        return None
    least_anon, least_shmem = max(swap_backed - shmem, 0), max(swap_backed - anon, 0)
    if swap_backed - least_anon - least_shmem > size * _UNDECIDED_PERCENT // 100:
        return None
    return {"anon": swap_backed - least_shmem, "file_clean": size - swap_backed, "shmem": least_shmem}


def _swap_backed(size: int, sizes: Mapping[str, int | None]) -> int | None:
    """Return the unevictable bytes that are anon or shmem: the pages of both that are on no list.

    A list that is not known holds at most the pages on all lists (all pages that are not unevictable) less
    the pages on the known lists. None: that bound is too high to distinguish anon from cache.
    """
    anon, file, shmem = sizes["anon"], sizes["file"], sizes["shmem"]
    of_anon, of_file = ([sizes[f"{kind}_{of}"] for kind in ("inactive", "active")] for of in ("anon", "file"))
    if anon is None or shmem is None:
        return None
    beyond = anon + shmem - sum(filter(None, of_anon))
    if None in of_anon:
        if file is None:
            return None
        listed = anon + file - size
        hidden = max(listed - sum(filter(None, of_anon + of_file)), 0)
        if None not in of_file:
            beyond -= hidden
        elif hidden > size * _UNDECIDED_PERCENT // 100:
            return None
    return min(max(beyond, 0), size)
