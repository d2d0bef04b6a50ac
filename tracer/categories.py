"""The kinds of memory: the kernel's counters, the categories of the ledger, the parts of usage, and the
layers of every picture.

Each is defined here once, with the kernel's names, its unit, its words and its colour. All of it is plain
data: every room reads this table, and `bpf/categories.h` is generated from it
(tracer/wire/c_headers.py).

The parts of a cgroup's usage at an instant do not overlap.

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
from dataclasses import dataclass
from typing import Any, Final, Literal

Unit = Literal["bytes", "KiB", "pages"]


@dataclass(frozen=True, slots=True)
class Counter:
    """A size that the kernel counts for each cgroup, named as in memory.stat of cgroup v2.

    `node_items` and `memcg_items` are the names that the counter has or had in enum node_stat_item and in
    enum memcg_stat_item; a kernel has one of them. `unit` is the unit of the kernel's counter
    (memcg_page_state_unit in mm/memcontrol.c). `v1` and `v2` are the names of its lines in memory.stat
    (memcg1_stats[] and memory_stats[] in mm/memcontrol*.c). `v1` is None if v1 prints no line. `v2` is None
    if the line has the counter's own name; `is_in_v2_stat` is false if v2 prints no line.

    `only_version`: only this version of cgroups counts it.

    `number` is the counter's number on the wire, if it is a category of the ledger. The counters with
    `is_in_usage` add up to usage.
    """

    name: str
    v1: str | None = None
    v2: str | None = None
    is_in_v2_stat: bool = True
    node_items: tuple[str, ...] = ()
    memcg_items: tuple[str, ...] = ()
    unit: Unit = "pages"
    only_version: int | None = None
    number: int | None = None
    is_in_usage: bool = False

    @property
    def column(self) -> str:
        """Return the column of `samples`, in bytes."""
        return f"{self.name}_bytes"

    @property
    def v2_line(self) -> str:
        """Return the name of the counter's line in memory.stat of v2, which exists if `is_in_v2_stat`."""
        return self.v2 or self.name

    @property
    def items(self) -> tuple[str, ...]:
        """Return all names of the counter, from both enums."""
        return self.node_items + self.memcg_items

    @property
    def item(self) -> str:
        """Return the one name under which the position of the counter is stored, on every kernel."""
        return self.items[-1]

    def unit_bytes(self, page_bytes: int) -> int:
        """Return the unit of the kernel's counter, in bytes."""
        return {"bytes": 1, "KiB": 1024, "pages": page_bytes}[self.unit]


COUNTERS: Final = (
    Counter("anon", v1="rss", node_items=("NR_ANON_MAPPED",), number=0, is_in_usage=True),
    Counter("file", v1="cache", node_items=("NR_FILE_PAGES",), number=1, is_in_usage=True),
    Counter("shmem", v1="shmem", node_items=("NR_SHMEM",), number=2),
    Counter("file_mapped", v1="mapped_file", node_items=("NR_FILE_MAPPED",)),
    Counter("file_dirty", v1="dirty", node_items=("NR_FILE_DIRTY",)),
    Counter("file_writeback", v1="writeback", node_items=("NR_WRITEBACK",)),
    Counter("swapcached", v1="swapcached"),
    Counter("inactive_anon", v1="inactive_anon", node_items=("NR_INACTIVE_ANON",)),
    Counter("active_anon", v1="active_anon", node_items=("NR_ACTIVE_ANON",)),
    Counter("inactive_file", v1="inactive_file", node_items=("NR_INACTIVE_FILE",)),
    Counter("active_file", v1="active_file", node_items=("NR_ACTIVE_FILE",)),
    Counter("unevictable", v1="unevictable", node_items=("NR_UNEVICTABLE",)),
    Counter("slab_reclaimable", node_items=("NR_SLAB_RECLAIMABLE_B",), unit="bytes", number=3),
    Counter("slab_unreclaimable", node_items=("NR_SLAB_UNRECLAIMABLE_B",), unit="bytes", number=4),
    Counter("kernel", memcg_items=("MEMCG_KMEM",), number=11, is_in_usage=True),
    Counter("kernel_stack", node_items=("NR_KERNEL_STACK_KB",), unit="KiB", number=5),
    Counter("page_tables", v2="pagetables", node_items=("NR_PAGETABLE",), number=6),
    # v1 counts socket memory separately, outside of usage (tcpmem).
    Counter("sock", memcg_items=("MEMCG_SOCK",), only_version=2, number=7, is_in_usage=True),
    Counter("percpu", memcg_items=("MEMCG_PERCPU_B",), unit="bytes", number=8),
    # A node's counter since c466412c73c3
    # ("mm: memcontrol: switch to native NR_VMALLOC vmstat counter"), v7.1.
    Counter("vmalloc", node_items=("NR_VMALLOC",), memcg_items=("MEMCG_VMALLOC",), number=9),
    # Only v2 charges huge pages, and only if it is mounted with memory_hugetlb_accounting: since 8cba9576df60
    # ("hugetlb: memcg: account hugetlb-backed memory in memory controller"), v6.7. The counter came later
    # ("memcg/hugetlb: add hugeTLB counters to memcg"; seen on 6.18, not on 6.12).
    Counter("hugetlb", node_items=("NR_HUGETLB",), only_version=2),
    # Compressed pages, charged since f4840ccfca25 ("zswap: memcg accounting"), v5.19; `kernel` contains them.
    Counter("zswap", memcg_items=("MEMCG_ZSWAP_B",), unit="bytes", only_version=2),
    Counter("zswapped", memcg_items=("MEMCG_ZSWAPPED",), only_version=2),
    # The part of zswap and zswapped that could not be compressed; seen on 7.3, not on 6.18.
    Counter("zswap_incomp", memcg_items=("MEMCG_ZSWAP_INCOMP",), only_version=2),
    # v2 shows it in a separate file, memory.swap.current.
    Counter("swap", v1="swap", is_in_v2_stat=False, memcg_items=("MEMCG_SWAP",), number=10),
)
"""The counters, in the order of the columns of `samples`. `file` contains `shmem`. `kernel` contains slab,
stacks, page tables, percpu, vmalloc, zswap, and the remainder that has no counter of its own. Usage is anon +
file + kernel + sock + hugetlb (mm/memcontrol.c, memory_stat_format). `zswapped` is the size before
compression, which is not in usage; `zswap_incomp` is a part of `zswap`."""

V1_STAT: Final = {counter.v1: counter.column for counter in COUNTERS if counter.v1 is not None} | {
    name: name for name in ("workingset_refault_anon", "workingset_refault_file", "pgfault", "pgmajfault")
}
"""Name in v1's memory.stat -> column."""

CATEGORIES: Final = tuple(sorted((c for c in COUNTERS if c.number is not None), key=lambda c: c.number or 0))
"""The counters whose every change is in the ledger; the position is the number on the wire."""

WORKINGSET_ITEMS: Final = {
    name: name.upper()
    for name in (
        "workingset_refault_anon",
        "workingset_refault_file",
        "workingset_activate_anon",
        "workingset_activate_file",
    )
}
"""Running counts of pages, by their names in memory.stat of v2 -> item of enum node_stat_item."""

RECLAIM_KINDS: Final = ("KSWAPD", "DIRECT", "KHUGEPAGED", "PROACTIVE")
"""The kinds of reclaim for which the kernel counts pages, in the order of its counters: PGSCAN_KSWAPD and so
on (memcg_vm_event_stat[], or memcg_node_stat_items[] since v7.1, in mm/memcontrol.c). khugepaged has counters
since 57e9cc50f4dd ("mm: vmscan: split khugepaged stats from direct reclaim stats"), v6.2; proactive reclaim
has them on later kernels (seen on 6.18, not on 6.12)."""

RECLAIM_COUNTS: Final = (
    *("nr_dirty", "nr_unqueued_dirty", "nr_writeback", "nr_immediate"),
    *("nr_activate", "nr_ref_keep", "nr_unmap_fail"),
)
"""Pages on a list that reclaim could not free, by reason (struct reclaim_stat, include/linux/vmstat.h)."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of usage at a kill; the parts do not overlap, and add up to usage.

    `layer` names the `Layer` that gives its colour, `label` is its name on a page, `meaning` explains it in a
    few words. `counter` is the one counter that it equals; None: it is computed from several. Only the parts
    of the kernel's own memory have a `phrase`, which names them in a sentence.
    """

    name: str
    layer: str
    label: str
    meaning: str
    counter: str | None = None
    phrase: str = ""


PARTS: Final = (
    Part("anon", "anon", "anonymous memory", "heap and stack; only swap takes it"),
    Part("file_clean", "cache", "clean page cache", "file contents, free to be dropped"),
    Part("file_dirty", "dirty", "dirty page cache", "must be written to disk first"),
    Part("writeback", "dirty", "under writeback", "being written to disk"),
    Part("shmem", "shmem", "shared memory (shmem)", "tmpfs, memfd; only swap takes it"),
    Part("unevictable", "anon", "unevictable", "locked, or on ramfs: never reclaimed"),
    Part(
        "slab_reclaimable",
        "kernel",
        "reclaimable slab",
        "kernel objects; unused ones can go",
        counter="slab_reclaimable",
        phrase="slab (kernel objects that can be dropped once unused)",
    ),
    Part(
        "slab_unreclaimable",
        "kernel",
        "unreclaimable slab",
        "kernel objects in use",
        counter="slab_unreclaimable",
        phrase="slab (kernel objects in use)",
    ),
    Part(
        "kernel_stack",
        "kernel",
        "kernel stacks",
        "one for each thread",
        counter="kernel_stack",
        phrase="kernel stacks, one for each thread",
    ),
    Part(
        "page_tables",
        "kernel",
        "page tables",
        "the maps of the processes' memory",
        counter="page_tables",
        phrase="page tables",
    ),
    Part(
        "sock", "kernel", "socket buffers", "network data in flight", counter="sock", phrase="socket buffers"
    ),
    Part(
        "percpu",
        "kernel",
        "per-CPU memory",
        "kernel data with a copy for each CPU",
        counter="percpu",
        phrase="per-CPU memory",
    ),
    Part(
        "vmalloc", "kernel", "vmalloc", "large kernel allocations", counter="vmalloc", phrase="vmalloc memory"
    ),
    Part(
        "zswap",
        "zswap",
        "zswap",
        "pages that were swapped out, compressed in memory",
        counter="zswap",
    ),
    Part(
        "hugetlb",
        "anon",
        "huge pages (hugetlb)",
        "reserved huge pages in use: never reclaimed",
        counter="hugetlb",
    ),
    Part(
        "other",
        "other",
        "other",
        "other kernel memory, or being freed",
        phrase="whole pages without a counter of their own",
    ),
)
PART_BY_NAME: Final = {part.name: part for part in PARTS}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of memory in a picture.

    `glyph` distinguishes it without colour. `terminal` is its number in the terminal's 256 colours, `hex` is
    the same colour on a page. A legend names a layer that is not `is_common` only where it was drawn.
    """

    name: str
    label: str
    glyph: str
    terminal: str
    hex: str
    meaning: str
    is_common: bool = True


LAYERS: Final = (
    Layer("kernel", "kernel", "▚", "color(178)", "#E69F00", "slab, stacks, page tables, sockets"),
    Layer("anon", "anon", "█", "color(166)", "#D55E00", "process memory with no file behind it"),
    Layer("shmem", "shmem", "▓", "color(175)", "#CC79A7", "tmpfs and shared memory, reclaimed only to swap"),
    Layer(
        *("zswap", "zswap", "%", "color(36)", "#009E73", "swapped pages, compressed in memory"),
        is_common=False,
    ),
    Layer("other", "unnamed", "·", "color(245)", "#808080", "charged, but in no counter read"),
    Layer("dirty", "dirty cache", "▒", "color(32)", "#0072B2", "must be written back before it can go"),
    Layer("cache", "clean cache", "░", "color(74)", "#56B4E9", "file contents that can simply be dropped"),
)
"""In stacking order. Memory that cannot be reclaimed is at the bottom (at the left in the terminal) and has
dense glyphs; memory that reclaim can take is next to the limit and has light ones. The colours are distinct
with any common colour blindness (the palette of Okabe and Ito), on light and on dark grounds."""

LAYER_BY_NAME: Final = {layer.name: layer for layer in LAYERS}


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
