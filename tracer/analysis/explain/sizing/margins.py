"""The parts that the ranges of kills and of survivors share: form, rounding, and margins.

`high` has room for what the ledger does not see. Each CPU may hold 64 pages that are charged in advance, and
it holds them even at a kill (mm/memcontrol.c, MEMCG_CHARGE_BATCH, drain_all_stock). Each CPU may also hold
256 KiB of changes that it has not handed over (docs/trace-format.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.explain.measure.cushion import why_not_followed
from tracer.analysis.views.miss_curve import Reuse

_BATCH_PAGES: Final = 64
_HELD_BACK_BYTES: Final = 256 << 10

_FEW_DIVISOR: Final = 64
_FEW_BYTES: Final = 256 << 10
"""What may be read again at the upper end: a 64th of what was read again, and not less than these bytes."""

_LISTS_DIVISOR: Final = 8
"""The kernel keeps two lists of files, and evicts from the inactive one. It needs up to an eighth more extra
memory than an LRU list (measured: docs/sizing.md)."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A fact behind a range, without words: `words.advice` has the sentence of each kind."""

    kind: str
    numbers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Range:
    """The limits of `results.kill.Sizing`, with the grounds that its sentences state."""

    limits_bytes: tuple[int, int | None] | None = None
    basis: tuple[Ground, ...] = ()
    pace: Ground | None = None


Sized = tuple[Range, str | None]
"""A range, and the reason if it is null."""


def ground(kind: str, **numbers: Any) -> Ground:
    """Return a ground of a kind in `words.advice`, with the numbers of its sentence."""
    return Ground(kind, numbers)


@dataclass(frozen=True, slots=True)
class Spared:
    """Page cache that was read again (`again_bytes`), and the extra memory that would have kept nearly all.

    `extra_bytes` by the miss curve, and `lists_bytes` because the kernel's lists differ from it.
    """

    again_bytes: int
    extra_bytes: int
    lists_bytes: int

    def room_bytes(self) -> int:
        """Return the extra memory with the room for the kernel's lists."""
        return self.extra_bytes + self.lists_bytes


def with_margin(trace: TraceTables, low: int, high: int) -> tuple[int, int]:
    """Return the range in whole pages, `high` with room for what the ledger does not see."""
    page = page_size(trace)
    high += int(trace.meta["cpus"]) * (_BATCH_PAGES * page + _HELD_BACK_BYTES)
    return low // page * page, -(-high // page) * page


def why_no_curve(subtree: Subtree, begin_ns: int, end_ns: int) -> str | None:
    """Return the reason why refaults may be missing in an interval, or evictions between them."""
    if subtree.whole.losses.near("pagecache", begin_ns, end_ns) and subtree.evicted.pages_between(
        begin_ns, end_ns
    ):
        return "events of the page cache were lost: which of it was read again is not known"
    return why_not_followed(subtree, begin_ns, end_ns)


def cache_to_spare(subtree: Subtree, reuse: Reuse) -> Spared:
    """Return the extra memory with which nearly all of these refaults would not have happened."""
    page = page_size(subtree.whole)
    again = reuse.total_pages()
    few = max(again // _FEW_DIVISOR, _FEW_BYTES // page)
    extra = reuse.extra_to_spare(few)
    return Spared(again * page, extra * page, extra * page // _LISTS_DIVISOR)
