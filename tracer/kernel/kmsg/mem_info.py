"""The report on the whole machine that a global OOM has (`Mem-Info:`, mm/show_mem.c), line by line."""

from __future__ import annotations

import re
from typing import Final

from tracer.kernel.kmsg.facts import MemInfo, Zone

TITLE: Final = "Mem-Info:"

_NODE: Final = re.compile(r"Node (\d{1,4}) (?:(\w{1,32}) free:|active_anon:)")
_AMOUNT: Final = re.compile(r"(?<![\w()])([a-z][a-z_()]{0,63}):(\d{1,20})(k[Bb])?(?=\s|$)", re.IGNORECASE)
_SUMS: Final = (
    "active_anon:",
    "active_file:",
    "unevictable:",
    "slab_reclaimable:",
    "mapped:",
    "sec_pagetables:",
    "kernel_misc_reclaimable:",
    "free:",
)
_TOTAL: Final = re.compile(
    r"(\d{1,20}) (total pagecache pages|pages in swap cache|pages RAM|pages reserved)\s*"
    r"|(Free|Total) swap +=? *(\d{1,20})kB\s*"
)


class Reader:
    """Takes the lines of one report, and gives what they said; others pass by."""

    def __init__(self) -> None:
        self._pages: dict[str, int] = {}
        self._nodes: dict[int, dict[str, int]] = {}
        self._zones: list[Zone] = []
        self._totals: dict[str, int] = {}

    def take(self, text: str) -> bool:
        """Whether the line belongs to it."""
        text = text.lstrip()
        node = _NODE.match(text)
        if node is not None and node[2] is not None:
            self._zones.append(_zone(int(node[1]), node[2], text))
        elif node is not None:
            self._nodes[int(node[1])] = _amounts(text)
        elif text.startswith(_SUMS):
            self._pages |= _amounts(text)
        elif (total := _TOTAL.fullmatch(text)) is not None:
            name, number = (total[2], total[1]) if total[2] is not None else (f"{total[3]} swap", total[4])
            self._totals[name] = int(number)
        else:
            return False
        return True

    def result(self) -> MemInfo:
        """What has been said so far."""
        free, total = self._totals.get("Free swap"), self._totals.get("Total swap")
        return MemInfo(
            pages=self._pages,
            nodes=self._nodes,
            zones=tuple(self._zones),
            pagecache_pages=self._totals.get("total pagecache pages"),
            swap_cache_pages=self._totals.get("pages in swap cache"),
            free_swap_bytes=None if free is None else free * 1024,
            total_swap_bytes=None if total is None else total * 1024,
            ram_pages=self._totals.get("pages RAM"),
            reserved_pages=self._totals.get("pages reserved"),
        )


def _amounts(text: str) -> dict[str, int]:
    """`free:12 mapped:4kB`: pages as they are, kB in bytes."""
    return {name: int(number) * (1024 if unit else 1) for name, number, unit in _AMOUNT.findall(text)}


def _zone(node: int, name: str, text: str) -> Zone:
    amounts = _amounts(text)
    return Zone(
        node,
        name,
        free_bytes=amounts.get("free", 0),
        min_bytes=amounts.get("min"),
        low_bytes=amounts.get("low"),
        high_bytes=amounts.get("high"),
        managed_bytes=amounts.get("managed"),
    )
