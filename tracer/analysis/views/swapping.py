"""Writes to swap and reads from it: their number, their pages and their durations.

A request counts for the cgroup of its pages, at the time at which it was queued. Its duration is known if its
end was seen (docs/trace-format.md, `swap_io`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core.charges import Charges
from tracer.analysis.core.columns import Int64s, integers, is_one_of, times_ns
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.results.reclaim_attempts import SwapIo

NOT_KNOWN: Final = dict.fromkeys(
    ("reclaim.swap_writes", "reclaim.swap_reads"),
    "the trace has nothing written to swap or read from it, though there was swapping",
)
"""Entries of `quality.unknown` of a report."""

_NOT_SEEN_TO_END: Final = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class _Requests:
    """The requests of one direction, in order of time; `duration_ns` is `_NOT_SEEN_TO_END` if unknown."""

    times: Int64s
    nr_pages: Int64s
    duration_ns: Int64s

    @classmethod
    def from_table(cls, swap_io: pd.DataFrame, op: str) -> _Requests:
        rows = is_one_of(swap_io["op"], [op])
        durations = integers(swap_io["duration_ns"], missing=_NOT_SEEN_TO_END)
        return cls(times_ns(swap_io)[rows], integers(swap_io["nr_pages"])[rows], durations[rows])


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
    requests = subtree.once(("swapping.swapped", op), lambda: _Requests.from_table(subtree.swap_io, op))
    first, last = np.searchsorted(requests.times, [begin_ns, end_ns + 1])
    duration_ns = requests.duration_ns[first:last]
    took_ms = duration_ns[duration_ns != _NOT_SEEN_TO_END] / 1e6
    return SwapIo(
        count=int(last - first),
        size_bytes=int(requests.nr_pages[first:last].sum()) * page_size(subtree.whole),
        took_ms={"median": float(np.median(took_ms)), "longest": float(took_ms.max())}
        if len(took_ms)
        else {},
    )
