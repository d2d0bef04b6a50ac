"""The lines of a report about the whole machine: its memory, below `Mem-Info:`, and its memory nodes.

The report of a global OOM has the memory of the machine (mm/show_mem.c). Kernels that print no constraint
print the memory nodes of the allocation in other lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from tracer.kernel.kmsg.report.log_report import Constraint, MemInfo, Zone
from tracer.kernel.kmsg.text import shapes

TITLES: Final = ("Mem-Info:", "Mem-info:")
OLD_SUMS: Final = ("Active:", "Active_anon:")
"""The beginning of the sums before v2.6.31, which may have no title."""

_PAGE_KB: Final = (4, 16, 64)

_NODE: Final = re.compile(
    r"(?:Node (\d{1,4}) )?(?:(DMA|DMA32|Normal|HighMem|Movable|Device) free:|(?<=\d )active_anon:)"
)
"""The beginning of a line of a zone or node; kernels without NUMA print a zone without its node
(show_node)."""

_AMOUNT: Final = re.compile(r"(?<![\w()])([a-z][a-z_()]{0,63}):(\d{1,20})(k[Bb])?(?=\s|$)", re.IGNORECASE)
_SUMS: Final = tuple(f"{name}:" for name in shapes.SUM_NAMES)
_HUGE: Final = re.compile(
    r"(?:Node \d{1,4} )?hugepages_total=(\d{1,20}) hugepages_free=(\d{1,20}) hugepages_surp=\d{1,20} "
    r"hugepages_size=(\d{1,20})kB\s*"
)
"""A line for each node and size of huge pages (hugetlb_show_meminfo_node, mm/hugetlb.c)."""

_GPU: Final = re.compile(r" gpu_(?:active|reclaim):(\d{1,20})kB(?=\s|$)")
"""On the line of a node; seen on 7.3, not on 6.18."""

_RESERVE: Final = re.compile(r"lowmem_reserve\[\]:(?: \d{1,20})*? (\d{1,20})\s*")
_TOTAL: Final = re.compile(
    r"(\d{1,20}) "
    r"(total pagecache pages|pages in swap cache|pages (?:of )?RAM|pages reserved|reserved pages)\s*"
    r"|(Free|Total) swap:? *=? *(\d{1,20})kB\s*"
)
_OLD_TOTALS: Final = {"pages of RAM": "pages RAM", "reserved pages": "pages reserved"}  # before v2.6.31
_CACHE: Final = re.compile(r"\s*(\S.{0,63}?) +\d{1,15}KB +(\d{1,15})KB\s*")
"""The name of a slab cache, the memory of its objects in use, and all its memory (dump_unreclaimable_slab,
mm/slab_common.c)."""

_MOST_CACHES: Final = 1000


class MemInfoReader:
    """A reader of the `Mem-Info:` lines of one report."""

    def __init__(self) -> None:
        self._pages: dict[str, int] = {}
        self._zones: list[Zone] = []
        self._totals: dict[str, int] = {}
        self._caches: dict[str, int] = {}
        self._gpu_kib: list[int] = []
        self._huge_pages: list[tuple[int, int, int]] = []  # (pages, unused pages, bytes of a page)

    def take(self, text: str) -> bool:
        """Read a line; return False for any other line, and ignore it."""
        text = text.lstrip()
        node = _NODE.match(text)
        if node is not None:
            if node[2] is not None and not _is_empty(text):  # a zone
                self._zones.append(_zone(int(node[1] or 0), node[2], text))
            else:
                self._gpu_kib += [int(kib) for kib in _GPU.findall(text)]
        elif (reserve := _RESERVE.fullmatch(text)) is not None:
            if self._zones:  # of the zone before it
                self._zones[-1] = replace(self._zones[-1], reserve_pages=int(reserve[1]))
        elif text.startswith(_SUMS):
            self._pages |= _pages(text)
        elif (huge := _HUGE.fullmatch(text)) is not None:
            self._huge_pages.append((int(huge[1]), int(huge[2]), int(huge[3]) * 1024))
        elif (total := _TOTAL.fullmatch(text)) is not None:
            name, number = (total[2], total[1]) if total[2] is not None else (f"{total[3]} swap", total[4])
            self._totals[_OLD_TOTALS.get(name, name)] = int(number)
        else:
            return False
        return True

    def take_cache(self, text: str) -> bool:
        """Read a line of the table of slab caches; return False for any other line, and ignore it."""
        found = _CACHE.fullmatch(text)
        if found is not None and len(self._caches) < _MOST_CACHES:
            self._caches[found[1]] = int(found[2]) * 1024
        return found is not None

    @property
    def ram_pages(self) -> int | None:
        """Return the pages of the machine's memory; None: not known."""
        return self._totals.get("pages RAM")

    @property
    def most_bytes(self) -> int | None:
        """Return an upper bound of the machine's memory, by the largest page size if the page size is not
        known; None: not known."""
        if self.ram_pages is None:
            return None
        page_kb = next((size for size in _PAGE_KB if _near(self._kb_of_a_page(), size)), _PAGE_KB[-1])
        return self.ram_pages * page_kb * 1024

    def shown(self) -> Shown:
        """Return the nodes whose zones were read, and whether their pages are all pages of the machine."""
        found, of_a_page = frozenset(zone.node for zone in self._zones), self._kb_of_a_page()
        return Shown(found, any(_near(of_a_page, size) for size in _PAGE_KB) if of_a_page else None)

    def _kb_of_a_page(self) -> float:
        """Return the kB of all zones that were read, divided by the pages of the machine; 0: not known."""
        pages = self._totals.get("pages RAM", 0) - self._totals.get("pages reserved", 0)
        managed_kb = sum((zone.managed_bytes or 0) // 1024 for zone in self._zones)
        return managed_kb / pages if pages > 0 else 0

    def result(self) -> MemInfo:
        """Return the facts of the lines so far, without impossible sizes."""
        free, total = self._totals.get("Free swap"), self._totals.get("Total swap")
        ram = self.ram_pages
        huge = sum(number * size for number, _, size in self._huge_pages)
        gpu = sum(self._gpu_kib) * 1024
        is_gpu_shown = bool(self._gpu_kib) and (self.most_bytes is None or gpu <= self.most_bytes)
        is_shown = bool(self._huge_pages) and (self.most_bytes is None or huge <= self.most_bytes)
        return MemInfo(
            pages={name: number for name, number in self._pages.items() if ram is None or number <= ram},
            zones=tuple(zone for zone in self._zones if zone.free_bytes <= _most(zone)),
            free_swap_bytes=None if free is None else free * 1024,
            total_swap_bytes=None if total is None else total * 1024,
            ram_pages=ram,
            reserved_pages=self._totals.get("pages reserved"),
            hugetlb_bytes=huge if is_shown else None,
            unused_hugetlb_bytes=sum(unused * size for _, unused, size in self._huge_pages)
            if is_shown
            else None,
            unreclaimable_caches={
                name: size
                for name, size in self._caches.items()
                if self.most_bytes is None or size <= self.most_bytes
            },
            gpu_bytes=gpu if is_gpu_shown else None,
        )


def _is_empty(zone: str) -> bool:
    """Return whether a zone has no memory at all; kernels before v2.6.19 print it nevertheless."""
    return " present:0kB" in zone


def _near(number: float, other: float) -> bool:
    return 0.9 * other <= number <= 1.1 * other


def _most(zone: Zone) -> int:
    """Return the most bytes that can be free in a zone; a larger number was misread from a broken line."""
    return zone.free_bytes if zone.managed_bytes is None else 2 * zone.managed_bytes


def _pages(text: str) -> dict[str, int]:
    """Return the numbers of pages in `free:12 mapped:4`; a number with a unit is not a number of pages."""
    return {name.lower(): int(number) for name, number, unit in _AMOUNT.findall(text) if not unit}


def _sizes(text: str) -> dict[str, int]:
    """Return the sizes in `free:12kB mapped:4kB`, in bytes."""
    return {name: int(number) * 1024 for name, number, unit in _AMOUNT.findall(text) if unit}


def _zone(node: int, name: str, text: str) -> Zone:
    amounts = _sizes(text)
    return Zone(
        node,
        name,
        free_bytes=amounts.get("free", 0),
        min_bytes=amounts.get("min"),
        high_bytes=amounts.get("high"),
        managed_bytes=amounts.get("managed"),
        free_cma_bytes=amounts.get("free_cma", 0),
    )


_NODE_RANGE: Final = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")
_RELEASE: Final = re.compile(r"(\d{1,3})\.(\d{1,4})")
_OF_POLICY_SINCE: Final = (4, 11)
_ALWAYS_A_NODE: Final = 0


@dataclass(frozen=True, slots=True)
class Nodemask:
    """`nodemask=` of the line `X invoked oom-killer`, which v4.9 to v4.20 print.

    `is_of_policy`: the line was printed by v4.11 to v4.18, which print two spaces after the nodes. Without a
    memory policy, v4.9 and v4.10 print the nodes of the task's cpuset; v4.11 and later do not, since "mm,
    oom: header nodemask is NULL when cpusets are disabled".
    """

    nodes: str
    is_of_policy: bool


def parse_nodemask(text: str) -> frozenset[int] | None:
    """Return the nodes of a list such as `0-1,3`; None if the text is not a list of nodes."""
    nodes: set[int] = set()
    for part in text.split(","):
        found = _NODE_RANGE.fullmatch(part)
        if found is None:
            return None
        nodes.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return frozenset(nodes)


@dataclass(frozen=True, slots=True)
class Shown:
    """The nodes that have lines after `Mem-Info:`; the kernel prints the allowed nodes only.

    `is_all`: the machine has no other nodes; None: not known.
    """

    nodes: frozenset[int] = frozenset()
    is_all: bool | None = None


def confined(
    mask: Nodemask | None, cpuset: tuple[str, str] | None, release: str | None, shown: Shown
) -> Constraint | None:
    """Return the constraint of an allocation that was confined to some nodes; None if the log shows no such
    confinement.

    The result is `mempolicy` for a memory policy, and `unknown` if a policy or a cpuset confined it. `cpuset`
    is (path, nodes). A mask or cpuset of all nodes of the machine confines nothing (constrained_alloc,
    mm/oom_kill.c).
    """
    mems = None if cpuset is None else parse_nodemask(cpuset[1])
    allowed = None if mask is None else parse_nodemask(mask.nodes)
    if mask is not None and allowed is not None and not (shown.is_all and shown.nodes <= allowed):
        is_by_policy = mask.is_of_policy or _is_of_policy(release) or (mems is not None and mems != allowed)
        if is_by_policy:
            return "mempolicy" if _is_less(allowed, mems, shown) else "unknown"
    return "unknown" if mems is not None and not shown.nodes <= mems else None


def _is_less(allowed: frozenset[int], mems: frozenset[int] | None, shown: Shown) -> bool:
    """Return whether these nodes are certainly only a part of the machine's nodes."""
    is_outside = shown.is_all is False or not shown.nodes <= allowed
    return is_outside or _ALWAYS_A_NODE not in allowed or (mems is not None and allowed < mems)


def _is_of_policy(release: str | None) -> bool:
    found = None if release is None else _RELEASE.match(release)
    return found is not None and (int(found[1]), int(found[2])) >= _OF_POLICY_SINCE
