"""The processes that were charged in the window before a kill: how much of each kind of memory, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import NO_ID, Int64s, Integers, utc_time
from tracer.analysis.core.ledger import CACHE, Weights
from tracer.analysis.core.rows import Charges
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.results.memory import Allocator, FurtherAllocators
from tracer.enumerations import CATEGORY
from tracer.units import size

_MOST: Final = 10
_ANY: Final = np.iinfo(np.int64).max
_EDGE_PERCENT: Final = 10
_LEAST_GROWN: Final = 20
"""Growth below this fraction of usage is not looked at."""


def _kinds(subtree: Subtree) -> Mapping[str, Weights]:
    """Return the fields of `Allocator` with the categories that each sums. The kinds do not overlap.

    Memory that a process moves to swap while it allocates was charged all the same: `anon` falls and `swap`
    rises in its context. Shared memory in swap counts as anonymous here, since `swap` does not show which it
    was. Kernel memory is without zswap, which `swap` has counted.
    """
    return {
        "anon_bytes": {"anon": 1, "swap": 1},
        "shmem_bytes": {"shmem": 1},
        "file_bytes": CACHE,
        "kernel_bytes": {**ledger.kernel_weights(subtree), "sock": 1},
    }


def between(subtree: Subtree, begin_ns: int, end_ns: int) -> tuple[tuple[Allocator, ...], FurtherAllocators]:
    """Return the processes that were charged most within the interval, and the sum of all others.

    Both ends of the interval count. Only kinds with a positive sum count for a process: cache that reclaim
    took in its context while it allocated does not reduce its charge. Of a kind, at most so much is left of
    it as the cgroup holds at the end: others may have freed it. The processes of which most is left come
    first. Of each kind, the process of which most is left and that was still there at the end is among those
    returned.
    """
    trace = subtree.whole
    charges = subtree.once(
        "allocators.charges", lambda: _Charges.from_ledger(subtree.charges, _kinds(subtree))
    )
    tgids, charged = charges.sums(begin_ns, end_ns)
    left = np.minimum(charged, _held(subtree, end_ns))
    order = np.lexsort((tgids, -charged.sum(axis=1), -left.sum(axis=1)))
    tgids, charged, left = tgids[order], charged[order], left[order]
    rows, ended = _picked(subtree, tgids, left, begin_ns, end_ns)
    spans = charges.spans(tgids[rows], begin_ns, end_ns)
    most = tuple(
        Allocator(
            tgid=tgid,
            comm=trace.processes.comm_at(tgid, begin_ns, end_ns),
            charged_bytes=total,
            cmdline=trace.processes.cmdline_at(tgid, begin_ns, end_ns),
            **dict(zip(_kinds(subtree), kinds, strict=True)),
            grew_from=utc_time(trace.fineness.since(span[0])),
            grew_until=utc_time(trace.fineness.since(span[1])),
            exited=_time(ended[tgid]),
        )
        for tgid, total, kinds, span in zip(
            tgids[rows].tolist(), charged[rows].sum(axis=1).tolist(), left[rows].tolist(), spans, strict=True
        )
    )
    return most, FurtherAllocators(len(tgids) - len(most), int(charged.sum() - charged[rows].sum()))


def why_unknown(
    grown_bytes: Mapping[str, int],
    listed: Sequence[Allocator],
    further: FurtherAllocators,
    usage_bytes: int | None,
) -> str | None:
    """Return a sentence if the processes that were charged explain less than half of what grew; else None.

    A task of another cgroup can fill a process's memory, which is charged to the cgroup of that process: by
    userfaultfd (mfill_atomic in mm/userfaultfd.c), ptrace or /proc/PID/mem.
    """
    grown = sum(grown_bytes.values())
    charged = further.charged_bytes + sum(one.charged_bytes for one in listed)
    if grown * _LEAST_GROWN < (usage_bytes or 0) or 2 * charged >= grown or not grown:
        return None
    return (
        f"of the {size(grown)} that grew, {size(grown - charged)} was charged by no process that was seen in "
        "the cgroup: a task of another one may have filled it (userfaultfd, ptrace)"
    )


def _held(subtree: Subtree, time_ns: int) -> Int64s:
    """Return the memory of each kind at a moment; where that is not known, more than there can be."""
    levels = {name: ledger.level(subtree, weights) for name, weights in _kinds(subtree).items()}
    held = {name: _ANY if steps is None else steps.at(time_ns) for name, steps in levels.items()}
    twice = {"anon_bytes": ledger.swap_cache(subtree).at(time_ns) or 0}
    return np.array(
        [_ANY if size is None else max(size - twice.get(name, 0), 0) for name, size in held.items()]
    )


def _time(time_ns: int | None) -> pd.Timestamp | None:
    return None if time_ns is None else utc_time(time_ns)


def _picked(
    subtree: Subtree, tgids: Int64s, left: Int64s, begin_ns: int, end_ns: int
) -> tuple[list[int], dict[int, int | None]]:
    """Return the rows of the processes to list, in order, and for each tgid that was looked up its end."""
    ended: dict[int, int | None] = {}

    def is_there(row: int) -> bool:
        tgid = int(tgids[row])
        if tgid not in ended:
            ended[tgid] = subtree.whole.processes.exited_at(tgid, begin_ns, end_ns)
        return ended[tgid] is None

    rows = list(range(min(_MOST, len(tgids))))
    for row in rows:
        is_there(row)
    for kind in left.T:
        largest = np.argsort(-kind, kind="stable")
        there = next((row for row in largest[kind[largest] > 0].tolist() if is_there(row)), None)
        if there is not None and there not in rows:
            rows.append(there)
    return sorted(rows), ended


def _places(tgids: Int64s, wanted: Int64s) -> Int64s:
    """Return the position of each wanted tgid in `tgids`, -1 where it is missing.

    For ten of them, `columns.positions` would take ten times as long to build its index.
    """
    order = np.argsort(tgids)
    found = order[np.minimum(tgids.searchsorted(wanted, sorter=order), len(tgids) - 1)]
    return np.where(tgids[found] == wanted, found, -1)


@dataclass(frozen=True, slots=True)
class _Charges:
    """The charges of processes, by time.

    `tgids` are in order of appearance. `pair` is a position in `tgids` and one in `names`, as one number.
    `weights`: a row for each of the categories `names`, a column for each kind.
    """

    names: tuple[str, ...]
    weights: Int64s
    times: Int64s
    pair: Int64s
    bytes_: Integers
    tgids: Int64s

    @classmethod
    def from_ledger(cls, charges: Charges, of_kinds: Mapping[str, Weights]) -> _Charges:
        names = tuple(dict.fromkeys(name for kind in of_kinds.values() for name in kind))
        weights = np.array([[kind.get(name, 0) for kind in of_kinds.values()] for name in names])
        kind = [names.index(name) if name in names else -1 for name in CATEGORY.names]
        kinds = np.array([*kind, -1])[charges.category]
        rows = np.flatnonzero((kinds >= 0) & (charges.tgid != NO_ID))
        number, tgids = pd.factorize(charges.tgid[rows].astype(np.int64))
        pair = number.astype(np.int64) * len(names) + kinds[rows]
        return cls(names, weights, charges.time[rows], pair, charges.bytes[rows], np.asarray(tgids))

    def sums(self, begin_ns: int, end_ns: int) -> tuple[Int64s, Int64s]:
        """Return (tgids with a charge within the interval; a row for each of them with its charge of each
        kind in bytes).

        Processes of one time have positions near each other, so only the range between them is counted.
        """
        first, last = np.searchsorted(self.times, [begin_ns, end_ns + 1])
        pair = self.pair[first:last]
        base = int(pair.min(initial=len(self.tgids) * len(self.names))) // len(self.names)
        # The sums are exact: NumPy sums in float64, which holds integers up to 2^53.
        summed = np.bincount(pair - base * len(self.names), self.bytes_[first:last])
        summed = np.append(summed, np.zeros(-len(summed) % len(self.names)))
        by_category = np.rint(summed.reshape(-1, len(self.names))).astype(np.int64)
        charged = (by_category @ self.weights).clip(min=0)
        is_charged = charged.any(axis=1)
        return self.tgids[base : base + len(charged)][is_charged], charged[is_charged]

    def spans(self, tgids: Int64s, begin_ns: int, end_ns: int) -> list[tuple[int, int]]:
        """Return for each of these processes the moments between which four fifths of its charges within the
        interval were made, in ns since the epoch.

        A process that freed shared memory while it added less page cache was charged, and has negative rows
        alone: its moments are those of its rows.
        """
        if not len(tgids):
            return []
        first, last = np.searchsorted(self.times, [begin_ns, end_ns + 1])
        number, category = np.divmod(self.pair[first:last], len(self.names))
        # Only the range of positions that occur, as in `sums`: of many kills, each has few of all processes.
        base, end = int(number.min(initial=len(self.tgids))), int(number.max(initial=-1)) + 1
        place = _places(tgids, self.tgids[base:end])
        number -= base
        # `file` contains shmem, which would count twice.
        bytes_ = np.where(category == self.names.index("shmem"), 0, self.bytes_[first:last])
        rows = np.flatnonzero(place[number] >= 0)
        of, is_charge = place[number[rows]], self.bytes_[first:last][rows] > 0
        found = []
        for process in range(len(tgids)):
            own = rows[(of == process) & is_charge]
            own = own if len(own) else rows[of == process]
            so_far = np.cumsum(bytes_[own].clip(min=0), dtype=np.int64)
            edge = so_far[-1] * _EDGE_PERCENT // 100
            begin, end = np.searchsorted(so_far, [edge, so_far[-1] - edge])
            times = self.times[first:last][own]
            found.append((int(times[begin]), int(times[end])))
        return found
