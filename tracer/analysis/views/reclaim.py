"""The attempts of reclaim for a cgroup, and its writes to swap and reads from it.

A request counts for the cgroup of its pages, at the time at which it was queued. Its duration is known if its
end was seen (docs/trace-format.md, `swap_io`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import (
    Bools,
    Int64s,
    is_one_of,
    limit_of,
    optional,
    utc_time,
)
from tracer.analysis.core.ledger import Steps
from tracer.analysis.core.rows import Charges
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.table_rows import TableRows
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.results.memory import Reclaim, ReclaimAttempt, SwapIo
from tracer.analysis.views import stalls
from tracer.categories import RECLAIM_COUNTS
from tracer.schema import LIMITS

SWAP_NOT_KNOWN: Final = dict.fromkeys(
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
    def from_rows(cls, swap_io: TableRows, op: str) -> _Requests:
        rows = swap_io.where(swap_io.are("op", (op,)))
        durations = rows.numbers("duration_ns", missing=_NOT_SEEN_TO_END)
        return cls(rows.times, rows.numbers("nr_pages"), durations)


def is_swap_known(trace: TraceTables, charges: Charges) -> bool:
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
    if not subtree.once("swapping.is_known", lambda: is_swap_known(subtree.whole, subtree.charges)):
        return None
    requests = subtree.once(
        ("swapping.swapped", op), lambda: _Requests.from_rows(subtree.rows("swap_io"), op)
    )
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


_TRANSCRIPT: Final = 12
_OF_AN_ATTEMPT: Final = (
    *("duration_ns", "kind", "cgroup_id", "pid", "tgid", "priority", "nr_dirty", "nr_writeback"),
    *("scanned", "scanned_anon", "scanned_file", "reclaimed", "reclaimed_anon", "reclaimed_file"),
    *("usage_bytes", "limit_bytes", LIMITS["limit_bytes"]),
    *(f"{count}_{lru}" for lru in ("anon", "file") for count in RECLAIM_COUNTS),
)


_NOT_WAITED_FOR: Final = ("kswapd",)


def is_waited_for(reclaim: pd.DataFrame) -> Bools:
    """Return a mask of the attempts for which a task waited: all but those of the kswapd threads
    (mm/vmscan.c)."""
    return ~is_one_of(reclaim["kind"], _NOT_WAITED_FOR)


def attempts(subtree: Subtree, begin_ns: int, end_ns: int) -> Reclaim:
    """Return the attempts for these cgroups that began within an interval (both ends included), and the tasks
    that waited.

    With `Subtrees.machine`, these are the attempts for the whole machine; any process may have waited for
    them.
    """
    known = subtree.once("reclaim.attempts", lambda: _Attempts.from_rows(subtree.rows("reclaim")))
    first, last = np.searchsorted(known.time, [begin_ns, end_ns + 1]).tolist()
    scanned, reclaimed, waited_ns = (known.sums[last] - known.sums[first]).tolist()
    shown = slice(max(first, last - _TRANSCRIPT), last)
    return Reclaim(
        attempts=last - first,
        scanned_pages=scanned,
        reclaimed_pages=reclaimed,
        stall_ms=waited_ns / 1e6,
        transcript=_transcript(
            subtree.whole, known.time[shown].tolist(), known.rows.records(_OF_AN_ATTEMPT, shown)
        ),
        waiters=stalls.longest(subtree, begin_ns, end_ns),
        swap_writes=swapped(subtree, "write", begin_ns, end_ns),
        swap_reads=swapped(subtree, "read", begin_ns, end_ns),
    )


@dataclass(frozen=True, slots=True)
class _Attempts:
    """The attempts for the cgroups of a subtree.

    `sums[n]` has the scanned and the reclaimed pages of the first n attempts, and the time for which tasks
    waited in them, in ns.
    """

    time: Int64s
    sums: Int64s
    rows: TableRows

    @classmethod
    def from_rows(cls, reclaim: TableRows) -> _Attempts:
        scanned, reclaimed, took = map(reclaim.numbers, ("scanned", "reclaimed", "duration_ns"))
        waited = np.where(reclaim.are("kind", _NOT_WAITED_FOR), 0, took)
        each = np.stack([scanned, reclaimed, waited], axis=1)
        sums = np.concatenate([np.zeros((1, 3), np.int64), np.cumsum(each, axis=0)])
        return cls(reclaim.times, sums, reclaim)


def reclaimed_anon_pages(subtree: Subtree, begin_ns: int, end_ns: int) -> int:
    """Return the number of pages that these attempts took from anonymous lists, which went to swap."""

    def find() -> Steps:
        reclaim = subtree.rows("reclaim")
        return Steps(reclaim.times, np.cumsum(reclaim.numbers("reclaimed_anon")), 0)

    taken = subtree.once("reclaim.reclaimed_anon_pages", find)
    return (taken.at(end_ns) or 0) - (taken.at(begin_ns - 1) or 0)


def _transcript(
    trace: TraceTables, moments: Sequence[int], rows: Sequence[Mapping[str, Any]]
) -> tuple[ReclaimAttempt, ...]:
    return tuple(
        ReclaimAttempt(
            time=utc_time(moment),
            duration_ms=row["duration_ns"] / 1e6,
            kind=str(row["kind"]),
            cgroup=trace.places.path_of(optional(row["cgroup_id"])),
            pid=int(row["pid"]),
            comm=trace.processes.comm_at(int(row["tgid"]), moment, moment),
            scanned_pages=int(row["scanned"]),
            reclaimed_pages=int(row["reclaimed"]),
            priority=optional(row["priority"]),
            scanned_anon_pages=int(row["scanned_anon"]),
            scanned_file_pages=int(row["scanned_file"]),
            reclaimed_anon_pages=int(row["reclaimed_anon"]),
            reclaimed_file_pages=int(row["reclaimed_file"]),
            nr_dirty=int(row["nr_dirty"]),
            nr_writeback=int(row["nr_writeback"]),
            usage_bytes=optional(row["usage_bytes"]),
            limit_bytes=limit_of(row),
            kept_anon=_kept(row, "anon"),
            kept_file=_kept(row, "file"),
        )
        for moment, row in zip(moments, rows, strict=True)
    )


def _kept(row: Mapping[str, Any], lru: str) -> dict[str, int] | None:
    """Return reason -> pages of this list that the attempt could not free; None if not all are known."""
    counts = {count: optional(row[f"{count}_{lru}"]) for count in RECLAIM_COUNTS}
    known_counts = {name: count for name, count in counts.items() if count is not None}
    return known_counts if len(known_counts) == len(counts) else None
