"""Writes to swap and reads from it: their number, their pages and their durations.

A request counts for the cgroup of its pages, at the time at which it was queued. Its duration is known if its
end was seen (docs/trace-format.md, `swap_io`).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tracer.analysis.core.charges import Charges
from tracer.analysis.core.columns import integers, is_one_of, known, times_ns
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.results.reclaim_attempts import SwapIo

NOT_KNOWN: Final = dict.fromkeys(
    ("reclaim.swap_writes", "reclaim.swap_reads"),
    "the trace has nothing written to swap or read from it, though there was swapping",
)
"""Entries of `quality.unknown` of a report."""


def is_known(trace: TraceTables, charges: Charges) -> bool:
    """Return whether swap IO was recorded, so that its absence means that there was none.

    Also True if nothing was swapped, so that `charges` has no rows of swap.
    """
    probe = trace.meta["probes"].get("swap IO")
    was_taken = isinstance(probe, dict) and bool(probe.get("hook"))
    return was_taken or not bool(charges.is_of("swap").any())


def swapped(subtree: Subtree, op: str, begin_ns: int, end_ns: int) -> SwapIo | None:
    """Return the writes to swap or the reads from it (`op` is "write" or "read") of pages of these cgroups.

    IO that was queued within the interval is counted, both ends included; with `Subtrees.machine`, the IO of
    all cgroups. None: not known.
    """
    if not subtree.once("swapping.is_known", lambda: is_known(subtree.whole, subtree.charges)):
        return None
    rows = subtree.swap_io
    first, last = np.searchsorted(times_ns(rows), [begin_ns, end_ns + 1])
    rows = rows.iloc[first:last]
    rows = rows[is_one_of(rows["op"], [op])]
    took_ms = integers(rows["duration_ns"])[known(rows["duration_ns"])] / 1e6
    return SwapIo(
        count=len(rows),
        size_bytes=int(integers(rows["nr_pages"]).sum()) * page_size(subtree.whole),
        took_ms={"median": float(np.median(took_ms)), "longest": float(took_ms.max())}
        if len(took_ms)
        else {},
    )
