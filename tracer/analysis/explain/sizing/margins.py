"""The parts that the ranges of kills and of survivors share: form, rounding, and margins.

`high` has room for what the ledger does not see. Each CPU may hold 64 pages that are charged in advance, and
it holds them even at a kill (mm/memcontrol.c, MEMCG_CHARGE_BATCH, drain_all_stock). Each CPU may also hold
256 KiB of changes that it has not handed over (docs/trace-format.md).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tracer.analysis.core.columns import integers
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.results.conclusions import Sizing

_BATCH_PAGES: Final = 64
_HELD_BACK_BYTES: Final = 256 << 10

Sized = tuple[Sizing, str | None]
"""A range, and the reason if it is null."""


def with_margin(trace: TraceTables, low: int, high: int) -> tuple[int, int]:
    """Return the range in whole pages, `high` with room for what the ledger does not see."""
    page = page_size(trace)
    high += int(trace.meta["cpus"]) * (_BATCH_PAGES * page + _HELD_BACK_BYTES)
    return low // page * page, -(-high // page) * page


def needed_again(subtree: Subtree) -> Steps:
    """Return the page cache that was evicted and came back, in bytes, from its first eviction to its last
    return."""

    def find() -> Steps:
        needed = subtree.needed_again
        bytes_ = integers(needed["bytes"])
        times = np.concatenate([integers(needed["begin_ns"]), integers(needed["end_ns"])])
        order = np.argsort(times, kind="stable")
        return Steps(times[order], np.cumsum(np.concatenate([bytes_, -bytes_])[order]), 0)

    return subtree.once("sizing.needed", find)
