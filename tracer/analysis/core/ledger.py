"""A cgroup's memory as step functions of time, from the `charge` table.

A row of that table is a signed change of one cgroup's own memory. memory.stat and the page counter are
hierarchical. So the level of a cgroup is its level at the start plus the running sum over the cgroup and all
its descendants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import (
    NO_ID,
    Bools,
    Int64s,
    integers,
    known,
    positions,
)
from tracer.analysis.core.gaps import LOOKED_NS
from tracer.analysis.core.lives import Places
from tracer.analysis.core.rows import TableRows
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import unrecorded_categories
from tracer.categories import CATEGORIES
from tracer.enumerations import CATEGORY
from tracer.schema import UNLIMITED_BYTES

Weights = Mapping[str, int]

ANON: Final[Weights] = {"anon": 1}
CACHE: Final[Weights] = {"file": 1, "shmem": -1}
"""Page cache with a file behind it: NR_FILE_PAGES contains shmem, which reclaim cannot simply drop."""
NOT_CACHE: Final[Weights] = {"anon": 1, "shmem": 1, "kernel": 1, "sock": 1}
KERNEL_KINDS: Final[Weights] = {
    category.name: 1
    for category in CATEGORIES
    if not category.is_in_usage and category.name not in ("shmem", "swap")
}
"""The kinds of kernel memory that have a category. `kernel` also has those without one, and zswap."""
SUMMED_NS: Final = 10_000_000
"""A row of `charge` sums up to so much time before it (bpf/shared/sums.h)."""
_NO_STEPS: Final = np.zeros(0, np.int64)
CHARGED: Final[Weights] = {category.name: 1 for category in CATEGORIES if category.is_in_usage}
"""Everything that the page counter counts."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A quantity that changes at `times` (ns, ascending) to `values`, and is `before` until the first.

    `before` is None if that value is not known.
    """

    times: Int64s
    values: Int64s
    before: int | None

    def at(self, time_ns: int) -> int | None:
        """Return the value at a moment. A change at that very moment is included."""
        position = int(self.times.searchsorted(time_ns, side="right"))
        return self.before if position == 0 else int(self.values[position - 1])

    def at_each(self, times_ns: Int64s, missing: int = 0) -> Int64s:
        """Return the value at each of the moments; `missing` where it is not known yet."""
        before = missing if self.before is None else self.before
        return np.concatenate([[before], self.values])[self.times.searchsorted(times_ns, side="right")]

    def within(self, begin_ns: int, end_ns: int) -> Steps:
        """Return the same quantity from `begin_ns` to `end_ns`, both included."""
        first = int(self.times.searchsorted(begin_ns, side="left"))
        last = int(self.times.searchsorted(end_ns, side="right"))
        before = self.before if first == 0 else int(self.values[first - 1])
        return Steps(self.times[first:last], self.values[first:last], before)

    def negative(self) -> Steps:
        """Return the quantity with the opposite sign."""
        return Steps(self.times, -self.values, None if self.before is None else -self.before)

    def peak(self) -> int | None:
        """Return the greatest value, `before` included; None if no value is known."""
        candidates = [] if self.before is None else [self.before]
        if len(self.values):
            candidates.append(int(self.values.max()))
        return max(candidates, default=None)

    def least(self) -> int | None:
        """Return the least value, `before` included; None if no value is known."""
        candidates = [] if self.before is None else [self.before]
        if len(self.values):
            candidates.append(int(self.values.min()))
        return min(candidates, default=None)


def total(parts: Sequence[Steps]) -> Steps:
    """Return the sum of quantities. Each counts as 0 until its first known value. If a quantity changes
    several times at one moment, only the last change counts."""
    times = merged_times(*(part.times for part in parts))
    values, before = np.zeros(len(times), dtype=np.int64), 0
    for part in parts:
        earlier = part.before or 0
        position = np.searchsorted(part.times, times, side="right")
        values = values + np.concatenate([[earlier], part.values])[position]
        before += earlier
    return Steps(times, values, before)


def merged_times(*parts: Int64s) -> Int64s:
    """Return the distinct moments of several series, each of which ascends.

    They are merged, since `np.unique` would build a hash table of all of them.
    """
    times = np.sort(np.concatenate(parts), kind="stable")
    distinct: Int64s = times[np.diff(times, prepend=-1) != 0]
    return distinct


def level(subtree: Subtree, weights: Weights) -> Steps | None:
    """Return the weighted sum of categories of the cgroup and its descendants, in bytes; None if the trace
    has no value for the start.

    It changes once at a moment; where rows are thinned, at the end of their intervals only.
    """

    def find() -> Steps | None:
        base = base_bytes(subtree, weights)
        return None if base is None else change(subtree, weights, base)

    return subtree.once(("ledger.level", *weights.items()), find)


def change(subtree: Subtree, weights: Weights, base: int = 0) -> Steps:
    """Return the change of the sum of `level` since the start of the trace, plus `base` bytes. It is always
    known."""

    def find() -> Steps:
        if subtree.kinds_charged.isdisjoint(map(CATEGORY.number, weights)):
            return Steps(_NO_STEPS, _NO_STEPS, base)
        picked, bytes_ = subtree.charges.weighted(weights)
        times, values = subtree.charges.time[picked], base + np.cumsum(bytes_[picked])
        # The rows of a moment are in no order: shmem, which is in `file` as well, can come before it.
        are_last = np.ones(len(times), np.bool_)
        np.not_equal(times[1:], times[:-1], out=are_last[:-1])
        if subtree.whole.fineness.is_thinned:
            are_last &= subtree.whole.fineness.are_last(times)
        return Steps(times[are_last], values[are_last], base)

    return subtree.once(("ledger.change", *weights.items(), base), find)


def kernel_weights(subtree: Subtree) -> Weights:
    """Return the categories of memory of the kernel's own: without zswap, which holds pages of processes.

    With zswap in use, these are the kinds that have a category.
    """

    def find() -> Weights:
        compressed = reading(subtree, "zswap_bytes").peak()
        return KERNEL_KINDS if compressed else {"kernel": 1}

    return subtree.once("ledger.kernel_weights", find)


def own_weights(subtree: Subtree) -> Weights:
    """Return the categories of `NOT_CACHE`, without zswap."""
    return {name: 1 for name in NOT_CACHE if name != "kernel"} | dict(kernel_weights(subtree))


def base_bytes(subtree: Subtree, weights: Weights) -> int | None:
    """Return the weighted sum at the start of the trace, in bytes: from the cgroup's `start` sample, or 0 for
    a cgroup that was made during the trace. None: not known, or a category was not recorded."""
    start = subtree.once("ledger.start", lambda: _start(subtree))
    if not unrecorded_categories(subtree.whole).isdisjoint(weights):
        return None
    if start is None:
        return 0 if _is_made(subtree) else None
    sizes = subtree.once("ledger.sizes_at_start", dict[str, int | None])
    for category in weights.keys() - sizes.keys():
        of_start = start.known(f"{category}_bytes").numbers(f"{category}_bytes")
        sizes[category] = int(of_start[0]) if len(of_start) else None
    if any(sizes[category] is None for category in weights):
        return None
    return sum((sizes[category] or 0) * weight for category, weight in weights.items())


def _start(subtree: Subtree) -> TableRows | None:
    """Return the cgroup's first `start` sample; None if it has no such sample."""
    samples = subtree.own_rows("samples")
    rows = samples.where(samples.are("source", ["start"]))
    return TableRows(rows.table, rows.positions[:1]) if len(rows.positions) else None


def _is_made(subtree: Subtree) -> bool:
    return subtree.once("ledger.is_made", lambda: subtree.whole.places.is_made(subtree.cgroup_id))


def base_levels(
    samples: TableRows,
    places: Places,
    cgroup_ids: Sequence[int],
    weights: Weights,
    unrecorded: frozenset[str],
) -> tuple[Int64s, Bools]:
    """Return (`base_bytes` of each cgroup, 0 if not known; a mask of the known ones). `unrecorded`:
    `unrecorded_categories` of the trace."""
    ids = np.array(cgroup_ids, dtype=np.int64)
    if not unrecorded.isdisjoint(weights):
        return np.zeros(len(ids), np.int64), np.zeros(len(ids), np.bool_)
    starts = samples.where(samples.are("source", ["start"]))
    sampled_ids, firsts = np.unique(starts.cgroup_ids, return_index=True)
    row = positions(sampled_ids, ids)
    base = np.zeros(len(ids), dtype=np.int64)
    sampled = row >= 0
    is_known = sampled.copy()
    read = starts.positions[firsts[row[sampled]]]
    for category, weight in weights.items():
        values, are_read = samples.table.numbers(f"{category}_bytes")
        base[sampled] += weight * np.where(are_read, values, 0)[read]
        is_known[sampled] &= are_read[read]
    is_known |= ~sampled & np.array([places.is_made(number) for number in ids.tolist()], np.bool_)
    return np.where(is_known, base, 0), is_known


def made_in_trace(cgroups: pd.DataFrame, cgroup_ids: Int64s) -> Bools:
    """Return a mask of the cgroups that were made during the trace."""
    return np.isin(cgroup_ids, integers(cgroups["cgroup_id"])[known(cgroups["created"])])


def counter(subtree: Subtree, column: str) -> Steps:
    """Return `usage_bytes` or `limit_bytes` of the cgroup's own page counter (struct mem_cgroup, memory), as
    charge rows and samples read it. The value is not known before the first reading."""

    def find() -> Steps:
        charges = subtree.charges
        rows = (charges.cgroup_id == subtree.cgroup_id) & charges.is_read(column)
        sampled, values = _read(subtree, "samples", column)
        times = np.append(charges.time[rows], sampled)
        order = np.argsort(times, kind="stable")
        return Steps(times[order], np.append(charges.values_of(column)[rows], values)[order], None)

    return subtree.once(("ledger.counter", column), find)


def usage(subtree: Subtree) -> Steps:
    """Return `usage_bytes` of the page counter. If descendants charge the cgroup, charges since the last
    reading are added.

    The counter of such a cgroup is read only by samples and at the end of a reclaim attempt for it. A charge
    and an uncharge can reach the ledger up to 10 ms apart, so the sum is clipped at the limit. Page cache
    that no known process freed is not subtracted: a task of another cgroup may have reclaimed it up to 200 ms
    before its row, so that the last reading already lacks it.
    """

    def find() -> Steps:
        read = counter(subtree, "usage_bytes")
        if (subtree.charges.cgroup_id == subtree.cgroup_id).all():
            return read
        attempts = subtree.own_rows("reclaim").known("usage_bytes")
        times, values, took = attempts.times, attempts.numbers("usage_bytes"), attempts.numbers("duration_ns")
        times, values = np.append(read.times, times + took), np.append(read.values, values)
        order = np.argsort(times, kind="stable")
        times, values = times[order], values[order]
        picked, bytes_ = subtree.charges.weighted(CHARGED)
        is_unknown = (subtree.charges.tgid == NO_ID) & subtree.charges.is_of("file")
        picked &= ~(is_unknown & (bytes_ < 0))
        charged = Steps(subtree.charges.time[picked], np.cumsum(bytes_[picked]), 0)
        moments = merged_times(times, charged.times)
        last = np.searchsorted(times, moments, side="right") - 1
        moments, last = moments[last >= 0], last[last >= 0]
        since = charged.at_each(moments) - charged.at_each(times[last])
        limits = counter(subtree, "limit_bytes").at_each(moments, missing=UNLIMITED_BYTES)
        return Steps(moments, np.clip(values[last] + since, 0, np.maximum(limits, values[last])), None)

    return subtree.once("ledger.usage", find)


@dataclass(frozen=True, slots=True)
class Lowering:
    """A limit that was lowered from `limit_bytes`, which was last seen at `seen_ns`; the lower one was first
    seen at `since_ns`."""

    limit_bytes: int
    since_ns: int
    seen_ns: int


def last_lowering(
    subtree: Subtree, limit_bytes: int, time_ns: int, column: str = "limit_bytes"
) -> Lowering | None:
    """Return the last change of the cgroup's limit up to a moment, if it lowered the limit to `limit_bytes`,
    the limit at that moment; None if it did not, or if the limit before was not seen.

    `column`: `limit_bytes`, or another limit that samples have.
    """
    read, changes = subtree.once(("ledger.limits", column), lambda: _limits(subtree, column))
    last = int(read.times.searchsorted(time_ns, side="right")) - 1
    if last < 0:
        return None
    if read.values[last] > limit_bytes:
        return Lowering(int(read.values[last]), time_ns, int(read.times[last]))
    change = int(changes[changes.searchsorted(last, side="right") - 1])
    if change == 0 or read.values[change - 1] <= read.values[change]:
        return None
    return Lowering(int(read.values[change - 1]), *read.times[[change, change - 1]].tolist())


def _limits(subtree: Subtree, column: str) -> tuple[Steps, Int64s]:
    """Return (the cgroup's limit as it was read, the positions at which a new value was first read).

    Reclaim for a lowered limit is often the first to read it. It reads the limit at its end, but the limit
    was there at its begin.
    """
    if column == "limit_bytes":
        read = [counter(subtree, column), Steps(*_read(subtree, "reclaim", column), None)]
    else:
        read = [reading(subtree, column)]
    times, values = (np.concatenate([getattr(one, of) for one in read]) for of in ("times", "values"))
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    return Steps(times, values, None), np.flatnonzero(np.diff(values, prepend=-1) != 0)


def peak_usage(subtree: Subtree) -> int | None:
    """Return the highest usage in the trace in bytes, also between two readings; None if it was never read.

    The kernel's own peak (memory.peak) was reached in the trace if the cgroup was made in it, or if the peak
    rose in it. The sums of `usage` then count only after the last reading of the peak. Otherwise, the peak is
    at least the anonymous memory in the ledger, up to the limit.
    """
    over_time = usage(subtree)
    observed = over_time.peak()
    if observed is None:
        return None
    peaks = reading(subtree, "peak_bytes")
    if len(peaks.values) and (_is_made(subtree) or peaks.values[-1] > peaks.values[0]):
        later = int(over_time.values[over_time.times >= peaks.times[-1]].max(initial=0))
        return max(int(peaks.values[-1]), counter(subtree, "usage_bytes").peak() or 0, later)
    anon, limit = level(subtree, ANON), counter(subtree, "limit_bytes").values
    most = (anon and anon.peak()) or 0
    return max(observed, min(most, int(limit[-1])) if len(limit) else most)


def reading(subtree: Subtree, column: str) -> Steps:
    """Return a column of the cgroup's samples, without nulls. The value is not known before the first
    reading."""

    def find() -> Steps:
        return Steps(*_read(subtree, "samples", column), None)

    return subtree.once(("ledger.reading", column), find)


def sampled(subtree: Subtree, added: Sequence[str], taken: Sequence[str] = ()) -> Steps:
    """Return the sum of columns of the cgroup's samples less others, at least 0, over time, in bytes.

    It is 0 before the first sample.
    """
    rows = subtree.own_rows("samples")
    for name in (*added, *taken):
        rows = rows.known(name)
    total = sum(map(rows.numbers, added), np.zeros(len(rows.positions), np.int64))
    return Steps(rows.times, np.maximum(total - sum(map(rows.numbers, taken)), 0), 0)


def locked_files(subtree: Subtree) -> Steps:
    """Return the page cache that is mlocked or on ramfs, in bytes, by the cgroup's samples: `unevictable`
    without anon and shmem that are on no list."""

    def find() -> Steps:
        of_processes = ("anon_bytes", "shmem_bytes"), ("inactive_anon_bytes", "active_anon_bytes")
        rows = subtree.own_rows("samples")
        for name in ("unevictable_bytes", *of_processes[0], *of_processes[1]):
            rows = rows.known(name)
        on_no_list = sum(map(rows.numbers, of_processes[0])) - sum(map(rows.numbers, of_processes[1]))
        unevictable = rows.numbers("unevictable_bytes")
        return Steps(rows.times, unevictable - np.clip(on_no_list, 0, unevictable), 0)

    return subtree.once("ledger.locked_files", find)


def swap_cache(subtree: Subtree) -> Steps:
    """Return the memory that `anon` and `swap` both count, in bytes, by the cgroup's samples; negative: that
    neither counts.

    v2 charges a page to swap from the moment it gets a place there until that place is freed, so also while
    the page is still in memory, or again (mm/memcontrol.c, __mem_cgroup_try_charge_swap). v1 charges a page
    either to memory or to swap (do_memsw_account). Swap cache that no process has mapped, as pages that were
    read ahead, is not in `anon`, only on its lists.
    """

    def find() -> Steps:
        lists = ("inactive_anon_bytes", "active_anon_bytes")
        cached = sampled(subtree, ("swapcached_bytes",))
        unmapped = sampled(subtree, lists, ("anon_bytes", "shmem_bytes")).at_each(cached.times)
        if subtree.whole.meta.get("cgroup_version") == 2:
            return Steps(cached.times, np.maximum(cached.values - unmapped, 0), 0)
        return Steps(cached.times, -np.minimum(cached.values, unmapped), 0)

    return subtree.once("ledger.swap_cache", find)


def lazily_freed(subtree: Subtree) -> Steps:
    """Return the memory that programs gave back by MADV_FREE and `anon` still counts, in bytes, by the
    cgroup's samples.

    The kernel keeps it in the inactive list of files (lru_lazyfree in mm/swap.c), which is then larger than
    the page cache.
    """

    def find() -> Steps:
        return sampled(subtree, ("inactive_file_bytes", "active_file_bytes", "shmem_bytes"), ("file_bytes",))

    return subtree.once("ledger.lazily_freed", find)


def _read(subtree: Subtree, table: str, column: str) -> tuple[Int64s, Int64s]:
    """Return (times in ns, values) of the cgroup's rows in which the column is not null."""
    rows = subtree.own_rows(table).known(column)
    return rows.times, rows.numbers(column)


def held(subtree: Subtree, read: Steps, time_ns: int) -> bool:
    """Return whether the last value that a sample read (`reading`, `count`) was still current at a moment.

    The recorder looks at each cgroup ten times a second, and samples it if anything changed. So a value that
    is older than a look was still current, unless samples were lost or left out since then, or the recorder
    did not look (`Looks.missed`). False if nothing was read.
    """
    position = int(np.searchsorted(read.times, time_ns, side="right"))
    if position == 0:
        return False
    last = int(read.times[position - 1])
    if position < len(read.times) and subtree.whole.fineness.since(int(read.times[position])) <= time_ns:
        return False
    if time_ns - last <= LOOKED_NS or subtree.whole.losses.near("samples", last, time_ns):
        return False
    return not subtree.whole.looks.missed(last, time_ns)


def read_around(subtree: Subtree, read: Steps, begin_ns: int, end_ns: int) -> Steps:
    """Return the two readings (`reading`, `count`) that best show how a value changed over an interval.

    The first is the value at `begin_ns` if it is known (`held`), else the last reading before, else the first
    one after. The second is the value at `end_ns` if it is known, else the first reading after, else the last
    one before. If the value is not known at two moments, only one reading is returned, or none.
    """
    moments = []
    most = len(read.times) - 1
    for time_ns, is_end in ((begin_ns, False), (end_ns, True)) if most >= 0 else ():
        before = int(np.searchsorted(read.times, time_ns, side="right")) - 1
        if held(subtree, read, time_ns):
            moments.append((time_ns, int(read.values[before])))
        else:
            place = int(np.searchsorted(read.times, time_ns)) if is_end else before
            place = min(max(place, 0), most)
            moments.append((int(read.times[place]), int(read.values[place])))
    if len(moments) == 2 and moments[0][0] >= moments[1][0]:
        moments.pop()
    times, values = zip(*moments, strict=True) if moments else ((), ())
    return Steps(np.array(times, dtype=np.int64), np.array(values, dtype=np.int64), None)


def count(subtree: Subtree, column: str) -> Steps:
    """Return a running count of memory.stat (`schema.MEMORY_STAT_COUNTS`) as the samples read it.

    A reading can be below an earlier one if the kernel had not yet folded its per-CPU parts together
    (mm/memcontrol.c, mem_cgroup_flush_stats). The count itself never falls, so each value here is the
    greatest so far.
    """

    def find() -> Steps:
        read = reading(subtree, column)
        return Steps(read.times, np.maximum.accumulate(read.values), 0 if _is_made(subtree) else None)

    return subtree.once(("ledger.count", column), find)


def counted(subtree: Subtree, column: str, begin_ns: int, end_ns: int) -> int | None:
    """Return by how much a running count (`count`) grew in an interval, both ends included.

    It is counted from the last reading before the interval, or else the first in it, to the last in it. With
    a single reading, it did not grow if its value held (`held`), else that is not known.
    """
    whole = count(subtree, column)
    inside = whole.within(begin_ns, end_ns)
    values = [*([] if inside.before is None else [inside.before]), *inside.values[:1], *inside.values[-1:]]
    is_read_twice = len(inside.values) > (inside.before is None)
    if not is_read_twice and not held(subtree, whole, end_ns):
        return None
    return int(values[-1]) - int(values[0])
