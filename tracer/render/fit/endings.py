"""Words for the runs of `fit`."""

from __future__ import annotations

from tracer.fit.search import Run
from tracer.units import UNKNOWN, size


def ending(run: Run) -> str:
    """Return the end of a run in words: `succeeded`, `status 137, 2 OOM kills`, `ended: it took too long`."""
    killed = f", {run.kills} OOM kill{'s' * (run.kills != 1)}" if run.kills else ""
    if run.status is None:
        return f"ended: it took too long{killed}"
    return f"succeeded{killed}" if run.status == 0 else f"status {run.status}{killed}"


def read_again(run: Run) -> str:
    """Return the size of the page cache that a run read again; empty for 0."""
    return "" if run.refaulted_bytes == 0 else size(run.refaulted_bytes)


def lost(run: Run) -> str:
    """Return the share of its time that a run lost in reclaim and in reading again; empty for 0."""
    if run.lost_share is None:
        return UNKNOWN
    return "" if run.lost_share == 0 else f"{run.lost_share * 100:.1f} %"
