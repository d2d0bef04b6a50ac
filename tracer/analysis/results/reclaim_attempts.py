"""Attempts of reclaim to free memory, the tasks that waited for them, and swap I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # lab's names do not need it
    import pandas as pd


@dataclass(frozen=True, slots=True)
class ReclaimAttempt:
    """One begin-to-end attempt to free memory for the limit owner, or for a cgroup below it.

    `kept_anon` and `kept_file` are what it met on either list and could not free, in pages, by
    `schema.RECLAIM_COUNTS`; None where the trace does not tell the lists apart.
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
    """A process that waited for memory: how long in all, its threads together, and of that by kind (those of
    `analysis.views.stalls.KINDS` that it met)."""

    tgid: int
    comm: str | None
    stalled_ms: float
    kinds_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SwapIo:
    """What was written to swap, or what was read from it, in how many pieces. `took_ms`: what half of them
    took at most (`median`), and the slowest (`longest`); empty where there was none of which the end was
    seen."""

    count: int
    size_bytes: int
    took_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Reclaim:
    """All attempts in the window; `transcript` holds the last ones, oldest first.

    `stall_ms` is what these attempts took. `waiters` are the processes of the cgroup that waited longest for
    memory in the window, in these attempts, in others or for another reason. `swap_writes`, `swap_reads`: of
    pages of the cgroup, whoever made room or wanted them back. The numbers are None where there are only a
    kernel log's words.
    """

    attempts: int | None
    scanned_pages: int | None
    reclaimed_pages: int | None
    stall_ms: float | None
    transcript: tuple[ReclaimAttempt, ...]
    waiters: tuple[Waiter, ...] = ()
    swap_writes: SwapIo | None = None
    swap_reads: SwapIo | None = None
