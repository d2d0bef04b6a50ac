"""Attempts of reclaim to free memory, the tasks that waited for them, and swap I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class ReclaimAttempt:
    """One attempt, from start to end, to free memory for the limit owner or for a cgroup below it.

    `kept_anon` and `kept_file` are the pages on either list that it could not free, by the names in
    `categories.RECLAIM_COUNTS`; None if the trace does not separate the lists.
    """

    time: pd.Timestamp
    duration_ms: float
    kind: str
    cgroup: str | None
    pid: int
    comm: str | None
    scanned_pages: int
    reclaimed_pages: int
    priority: int | None
    scanned_anon_pages: int
    scanned_file_pages: int
    reclaimed_anon_pages: int
    reclaimed_file_pages: int
    nr_dirty: int
    nr_writeback: int
    usage_bytes: int | None
    limit_bytes: int | None
    kept_anon: Mapping[str, int] | None = None
    kept_file: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Waiter:
    """A process that waited for memory, and how long, summed over its threads.

    `kinds_ms`: the same for each kind of wait that it met (`analysis.views.stalls.KINDS`).
    """

    tgid: int
    comm: str | None
    stalled_ms: float
    kinds_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SwapIo:
    """The writes to swap, or the reads from it: their number and their size.

    `took_ms`: the `median` of their durations, and the `longest`; empty if no end was seen.
    """

    count: int
    size_bytes: int
    took_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reclaim:
    """All attempts in the window; `transcript` holds the last ones, oldest first.

    `stall_ms` is the duration of these attempts. `waiters` are the processes of the cgroup that waited
    longest for memory in the window: in these attempts, in other attempts or for another reason.
    `swap_writes` and `swap_reads` count pages of the cgroup, whichever task caused the IO. The numbers are
    None if only a kernel log has the kill.
    """

    attempts: int | None = None
    scanned_pages: int | None = None
    reclaimed_pages: int | None = None
    stall_ms: float | None = None
    transcript: tuple[ReclaimAttempt, ...] = ()
    waiters: tuple[Waiter, ...] = ()
    swap_writes: SwapIo | None = None
    swap_reads: SwapIo | None = None
