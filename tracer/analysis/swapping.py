"""What was written to swap, and how long the writes took: of pages of which cgroup, by when they were queued.

How long a write took is known once its end was seen (docs/trace-format.md, `swap_writes`).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tracer.analysis.report import SwapWrites
from tracer.analysis.subtree import Subtree
from tracer.analysis.tables import (
    TraceTables,
    integers,
    is_one_of,
    known,
    page_size,
    times_ns,
)

NOT_KNOWN: Final = "the trace has no writes to swap, though there was swapping"


def is_known(trace: TraceTables) -> bool:
    """Whether a trace without writes to swap had none: they were looked for, or nothing was swapped."""
    probe = trace.meta["probes"].get("swap-out")
    was_taken = isinstance(probe, dict) and bool(probe.get("hook"))
    return was_taken or not bool(is_one_of(trace.charge["category"], ["swap"]).any())


def written(subtree: Subtree, begin_ns: int, end_ns: int) -> SwapWrites | None:
    """The writes of pages of these cgroups (of `Subtrees.of_nobody`: of all) that were queued within the
    interval, both ends included. None: not known."""
    trace = subtree.trace
    if not subtree.once("swapping.is_known", lambda: is_known(trace)):
        return None
    writes = trace.swap_writes
    first, last = np.searchsorted(times_ns(writes), [begin_ns, end_ns + 1])
    rows = writes.iloc[first:last]
    took_ms = integers(rows["duration_ns"])[known(rows["duration_ns"])] / 1e6
    return SwapWrites(
        writes=len(rows),
        written_bytes=int(integers(rows["nr_pages"]).sum()) * page_size(trace),
        took_ms={"median": float(np.median(took_ms)), "longest": float(took_ms.max())}
        if len(took_ms)
        else {},
    )
