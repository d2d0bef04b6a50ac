"""When the page cache of traced cgroups is looked at: when the trace begins, and when a limit is near.

A child passes over the pages and makes the rows (`look_rows`), so the recorder goes on meanwhile. A look
costs CPU time that grows with the machine's memory, so looks have a budget. A look that it does not allow
waits until it does, and that is said.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from tracer.errors import TracerError
from tracer.kernel import physical_memory
from tracer.kernel.process.asked_child import AskedChild
from tracer.live.sample_arrays import at_least_0, is_word, limits, values
from tracer.schema import UNLIMITED_BYTES

MOST_SHARE: Final = 0.001
"""The share of one CPU that looks may take, beside `AT_ONCE_S`."""

AT_ONCE_S: Final = 2.0
"""The CPU time that looks may take before their share allows it: as much as a look at 400 GiB takes."""

LEAST_BYTES: Final = 1 << 20
"""Cgroups with less page cache, shmem included, are not looked at."""

NEAR_DIVISOR: Final = 10
"""A cgroup is near its limit when at most this part of the limit is free."""

NOTABLE_DIVISOR: Final = 20
"""Near its limit, a cgroup is looked at if at least this part of the limit is page cache."""

AGAIN_S: Final = 600.0
"""The least time between looks at a cgroup: one may live at its limit, as one that reads large files does."""

_LOADING_S: Final = 0.1
_PAGES_PER_S: Final = 54e6  # 5 s for 1 TiB of 4-KiB pages, on an idle machine
_ANSWERS_WITHIN_S: Final = 120.0  # the programs may have to be compiled first
_MOST_WANTED: Final = 4096

Tables = dict[str, list[dict[str, Any]]]


class ContentRows:
    """Looks at cgroups with a limit that hold page cache when their recording begins, or near the limit.

    `why_left_out` is the reason why a look did not take place, or not when it was due; None: all did.
    """

    def __init__(self) -> None:
        self.why_left_out: str | None = None
        self._began_s = time.monotonic()
        self._spent_s = 0.0
        self._last_s: float | None = None
        self._waiting: dict[int, None] = {}
        self._rests_until_s = 0.0
        self._looked_s: dict[int, float] = {}  # cgroup -> when its last look began, or was given up
        self._child: AskedChild | None = None
        self._has_failed = False

    def look(self, samples: pa.RecordBatch) -> None:
        """Take samples. The next `take` begins a look, if one is due."""
        if self._has_failed:
            return
        usage, limit = at_least_0(samples, "usage_bytes"), limits(samples, "limit_bytes")
        cache = at_least_0(samples, "file_bytes")
        is_near = (usage >= limit - limit // NEAR_DIVISOR) & (cache >= limit // NOTABLE_DIVISOR)
        is_wanted = is_word(samples, "source", "start") | is_near
        is_wanted &= (limit < UNLIMITED_BYTES) & (cache >= LEAST_BYTES)
        now_s = time.monotonic()
        for number in set(values(samples, "cgroup_id")[is_wanted].tolist()):
            if now_s - self._looked_s.get(number, -AGAIN_S) >= AGAIN_S:
                self._waiting[number] = None
        if len(self._waiting) > _MOST_WANTED:
            self.why_left_out = f"{len(self._waiting):,} cgroups with a limit were to be looked at together"
            self._take_waiting()
        if len(self._looked_s) > _MOST_WANTED:
            kept = {number: at_s for number, at_s in self._looked_s.items() if now_s - at_s < AGAIN_S}
            self._looked_s = kept

    @property
    def is_busy(self) -> bool:
        """Return whether a look goes on, or is about to begin."""
        return self._child is not None or self._is_due

    @property
    def _is_due(self) -> bool:
        return bool(self._waiting) and time.monotonic() >= self._rests_until_s

    def take(self, clock_offset_ns: int) -> Tables:
        """Return the rows of looks that have come since the last call, and begin the next look."""
        tables: Tables = {"inodes": [], "contents": []}
        if self._child is not None:
            failure = None
            for answer in self._child.answers():
                failure = answer.get("failed")
                for table, rows in answer.get("tables", {}).items():
                    tables[table] += rows
            if failure is not None or self._child.has_failed:
                self._fail(failure or "the pass over the pages did not end")
            elif not self._child.is_busy:
                self._last_s = self._child.cpu_s
                self._spent_s += self._last_s
                self.close()
        if self._child is None and self._is_due:
            self._begin(clock_offset_ns)
        return tables

    def finish(self, clock_offset_ns: int, within_s: float) -> Tables:
        """Return what `take` does, for the look that goes on; wait at most so long."""
        until_s = time.monotonic() + within_s
        tables = self.take(clock_offset_ns)
        while self._child is not None and (left_s := until_s - time.monotonic()) > 0:
            self._child.wait(left_s)
            for table, rows in self.take(clock_offset_ns).items():
                tables[table] += rows
        if self._child is not None:
            self.why_left_out = "the recording ended before a look did"
        return tables

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _begin(self, clock_offset_ns: int) -> None:
        try:
            cost_s = self._last_s or expected_s()
        except TracerError as error:
            self._fail(str(error))
            return
        now_s = time.monotonic()
        allowed_s = AT_ONCE_S + MOST_SHARE * (now_s - self._began_s) - self._spent_s
        if cost_s > allowed_s:
            self._rests_until_s = now_s + (cost_s - allowed_s) / MOST_SHARE
            self.why_left_out = (
                f"a look takes {cost_s:.1f} s of CPU time, and {max(allowed_s, 0):.1f} s were left for it"
            )
            return
        self._child = AskedChild(_look, within_s=_ANSWERS_WITHIN_S, is_urgent=False)
        self._child.ask([self._take_waiting(), clock_offset_ns])

    def _take_waiting(self) -> list[int]:
        """Return the cgroups that wait for a look, which do not wait any more."""
        numbers, self._waiting = list(self._waiting), {}
        self._looked_s |= dict.fromkeys(numbers, time.monotonic())
        return numbers

    def _fail(self, reason: str) -> None:
        """Look no more: what failed once would fail again."""
        self.why_left_out = reason
        self._has_failed = True
        self._waiting.clear()
        self.close()


def expected_s() -> float:
    """Return the CPU time that a look is expected to take, in seconds.

    Raises TracerError if the kernel shows no addresses of memory to this process.
    """
    return _LOADING_S + sum(map(len, physical_memory.ram())) / _PAGES_PER_S


def _look(request: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield what `look_rows.messages` does, in the child: most recorders look at nothing."""
    from tracer.capture.contents.look_rows import messages  # noqa: PLC0415

    yield from messages(*request)
