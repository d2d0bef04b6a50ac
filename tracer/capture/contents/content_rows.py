"""Rows of `contents` and `inodes`: the page cache of traced cgroups by file, when the trace began and when a
limit was near.

A child passes over the pages (`pass_over_pages`), so the recorder goes on meanwhile. A look costs CPU time
that grows with the machine's memory, so looks have a budget. A look that it does not allow waits until it
does, and that is said.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tracer.capture.contents.look import Wanted, has_generations
from tracer.capture.contents.pass_over_pages import Amounts, Found, PassOverPages
from tracer.capture.rows.inode_rows import InodeRows
from tracer.enumerations import CONTENTS
from tracer.errors import TracerError
from tracer.kernel import physical_memory
from tracer.kernel.cgroups.mounts import Mounts
from tracer.kernel.process.asked_child import MESSAGE_BYTES, AskedChild
from tracer.live.sample_arrays import at_least_0, is_word, limits, values
from tracer.schema import UNLIMITED_BYTES

MOST_SHARE: Final = 0.001
"""The share of one CPU that looks may take, beside `AT_ONCE_S`."""

AT_ONCE_S: Final = 2.0
"""The CPU time that looks may take before their share allows it: as much as a look at 400 GiB takes."""

MOST_FILES: Final = 100
"""The files of a cgroup that a look names, the largest first, and the cgroups whose files it names; the rest
of each cgroup is one row."""

MOST_NAMES: Final = 2_000
"""The files that a look names in all: it takes 0.1 ms for each."""

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
_KINDS: Final = ("file", "shmem")
_SIZES: Final = ("bytes", "dirty_bytes", "writeback_bytes", "active_bytes", "unevictable_bytes")

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
    """Yield the rows of a look at these cgroups and those below them, in messages, in the child."""
    numbers, offset_ns = request
    try:
        with PassOverPages() as passing:
            ktime_ns = time.monotonic_ns()
            found = passing.scan(numbers, slab=False)
            common = {"time": ktime_ns + offset_ns, "duration_ns": time.monotonic_ns() - ktime_ns}
            yield from _messages(_rows(passing, found, common))
    except TracerError as error:
        yield {"failed": str(error)}


def _rows(passing: PassOverPages, found: Found, common: dict[str, int]) -> Iterator[Tables]:
    """Yield the rows of the largest files, each with its name, and those of the rest."""
    has_active = not has_generations()
    kinds = [CONTENTS.number(kind) for kind in _KINDS]
    totals, amounts = (rows[np.isin(rows["kind"], kinds)] for rows in (found.totals, found.amounts))
    rest = {(int(row["cgroup_id"]), int(row["kind"])): row.copy() for row in totals}
    files = dict.fromkeys(rest, 0)
    for key in zip(amounts["cgroup_id"].tolist(), amounts["kind"].tolist(), strict=True):
        files[key] += 1
    held: dict[int, int] = {}
    for (number, _), row in rest.items():
        held[number] = held.get(number, 0) + int(row["bytes"])
    order = sorted(held, key=lambda number: (-held[number], number))
    with closing(Mounts()) as mounts:
        inode_rows = InodeRows(mounts)
        for amount in _named(amounts, order):
            record = passing.file(amount)
            if record is None:  # it is gone: it stays in the rest
                continue
            key = int(amount["cgroup_id"]), int(amount["kind"])
            for name in _SIZES:
                rest[key][name] -= amount[name]
            files[key] -= 1
            yield {
                "inodes": inode_rows.rows_for(record),
                "contents": [common | _row(amount, int(amount["object"]), 1, has_active=has_active)],
            }
    for key, row in rest.items():
        if row["bytes"]:
            yield {"contents": [common | _row(row, None, files[key], has_active=has_active)]}


def _named(amounts: Amounts, order: Sequence[int]) -> Amounts:
    named: Amounts = Wanted(by=None, most=MOST_FILES).largest(amounts, order)[:MOST_NAMES]
    return named


def _row(sizes: Any, inode_id: int | None, files: int, *, has_active: bool) -> dict[str, Any]:
    row = {name: int(sizes[name]) for name in _SIZES}
    if not has_active:
        row["active_bytes"] = None  # type: ignore[assignment]
    return {
        "cgroup_id": int(sizes["cgroup_id"]),
        "kind": CONTENTS.names[int(sizes["kind"])],
        "inode_id": inode_id,
        "files": files,
        **row,
    }


def _messages(rows: Iterable[Tables]) -> Iterator[dict[str, Tables]]:
    """Yield rows in few messages, each short enough."""
    together: Tables = {}
    size = 0
    for some in rows:
        length = len(json.dumps(some))
        if size and size + length > MESSAGE_BYTES // 2:
            yield {"tables": together}
            together, size = {}, 0
        for table, listed in some.items():
            together.setdefault(table, []).extend(listed)
        size += length
    if together:
        yield {"tables": together}
