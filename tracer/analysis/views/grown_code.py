"""The code of a program that made memory grow, from the samples of the growth in a trace (`code_samples`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import Int64s, column_times_ns, integers, times_ns
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.results.memory import Grown, GrownCode
from tracer.analysis.views.code_samples import were_asked_for
from tracer.analysis.views.grown_functions import StackGrowth, grown_functions

_WEIGHTS: Final[Mapping[str, ledger.Weights]] = {
    "anon": ledger.ANON,
    "shmem": {"shmem": 1},
    "file": ledger.CACHE,
    "kernel": {"kernel": 1, "sock": 1},
}


class Samples(NamedTuple):
    """Rows of `code_samples` as arrays, in the order of time. `kind`: sockets count as kernel memory."""

    time: Int64s
    tgid: Int64s
    stack_id: Int64s
    kernel_stack_id: Int64s
    bytes: Int64s
    kind: npt.NDArray[np.object_]

    @classmethod
    def from_rows(cls, rows: pd.DataFrame) -> Samples:
        kinds = np.array(rows["category"], dtype=object)
        kinds[kinds == "sock"] = "kernel"
        tgid, user, kernel, nr_bytes = (
            integers(rows[name]) for name in ("tgid", "stack_id", "kernel_stack_id", "bytes")
        )
        return cls(times_ns(rows), tgid, user, kernel, nr_bytes, kinds)

    def picked(self, which: slice | npt.NDArray[np.bool_]) -> Samples:
        numbers = (self.time, self.tgid, self.stack_id, self.kernel_stack_id, self.bytes)
        time, tgid, user, kernel, nr_bytes = (column[which] for column in numbers)
        return Samples(time, tgid, user, kernel, nr_bytes, self.kind[which])

    def within(self, begin_ns: int, end_ns: int) -> Samples:
        """Return the samples of an interval, both ends included."""
        first = int(np.searchsorted(self.time, begin_ns))
        return self.picked(slice(first, int(np.searchsorted(self.time, end_ns, "right"))))


def grown_within(subtree: Subtree, kinds: Sequence[str], begin_ns: int, end_ns: int) -> Grown:
    """Return the code that made memory of some kinds grow in a cgroup and below it.

    The sampled share is at most the share that came while sampling was armed: memory that was freed and came
    again is sampled twice.
    """
    trace = subtree.whole
    if not were_asked_for(trace):
        return Grown((), None, "no samples of code were asked for (--stacks)")
    samples = subtree.once("grown_code", lambda: Samples.from_rows(subtree.code_samples))
    samples = samples.within(begin_ns, end_ns)
    code = grown_code(trace, samples, kinds)
    grown = [_grown(subtree, kind, begin_ns, end_ns) for kind in kinds]
    whole = sum(grown)
    if not whole:
        return Grown(code, None, "no memory of the kind of the verdict grew")
    armed = sum(
        min(_grown_while_armed(subtree, kind, begin_ns, end_ns), most)
        for kind, most in zip(kinds, grown, strict=True)
    )
    sampled = int(samples.bytes[np.isin(samples.kind, list(kinds))].sum())
    return Grown(code, min(sampled, armed) / whole)


def _grown(subtree: Subtree, kind: str, begin_ns: int, end_ns: int) -> int:
    steps = ledger.change(subtree, _WEIGHTS[kind])
    return max((steps.at(end_ns) or 0) - (steps.at(begin_ns) or 0), 0)


def _grown_while_armed(subtree: Subtree, kind: str, begin_ns: int, end_ns: int) -> int:
    """Return the growth within the intervals of `armed`."""
    begins, ends = subtree.once(("grown_code.armed", kind), lambda: _armed(subtree.whole, kind))
    near = slice(np.searchsorted(ends, begin_ns), np.searchsorted(begins, end_ns, "right"))
    spans = np.column_stack([np.maximum(begins[near], begin_ns), np.minimum(ends[near], end_ns)])
    return sum(_grown(subtree, kind, begin, end) for begin, end in spans.tolist() if begin < end)


def _armed(trace: TraceTables, kind: str) -> tuple[Int64s, Int64s]:
    """Return the begins and ends of the intervals of `armed`; rows that touch are one interval."""
    armed = trace.armed[np.array(trace.armed["kind"], dtype=object) == kind]
    begins, ends = column_times_ns(armed["begin"]), times_ns(armed)
    firsts = np.flatnonzero(np.append(True, begins[1:] > ends[:-1])[: len(begins)])
    lasts = np.append(firsts[1:], len(begins))[: len(firsts)] - 1
    return begins[firsts], ends[lasts]


def grown_code(trace: TraceTables, samples: Samples, kinds: Sequence[str]) -> tuple[GrownCode, ...]:
    """Return the code that made memory of some kinds grow, the largest share first.

    `kinds`: anon, shmem, file, kernel (with sockets). Shares are of the growth of these kinds that was
    sampled.
    """
    return grown_functions({kind: _sampled(trace, samples.picked(samples.kind == kind)) for kind in kinds})


def _sampled(trace: TraceTables, samples: Samples) -> list[StackGrowth]:
    """Return the samples by process and stack."""
    if not len(samples.time):
        return []
    positions = trace.processes.positions_at(samples.tgid, samples.time)
    names = [None if pd.isna(comm) else str(comm) for comm in trace.processes.comms(positions).tolist()]
    keys = np.column_stack([samples.tgid, samples.stack_id, samples.kernel_stack_id])
    unique, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    weights = _sums(which.ravel(), samples.bytes, len(unique))
    counts = np.bincount(which.ravel(), minlength=len(unique))
    return [
        StackGrowth(names[at], tgid, _frames(trace, user), _frames(trace, kernel), weight, count)
        for (tgid, user, kernel), at, weight, count in zip(
            unique.tolist(), first.tolist(), weights.tolist(), counts.tolist(), strict=True
        )
    ]


def _sums(which: npt.NDArray[np.intp], values: Int64s, groups: int) -> Int64s:
    sums = np.zeros(groups, np.int64)
    np.add.at(sums, which, values)
    return sums


def _frames(trace: TraceTables, stack_id: int) -> tuple[str, ...]:
    return trace.functions.frames_for(stack_id) or ()
