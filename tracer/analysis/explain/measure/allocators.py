"""The processes that were charged most in the window before a kill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import Int64s, integers, known, times_ns
from tracer.analysis.core.ledger import CHARGED
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.results.memory import Allocator, FurtherAllocators
from tracer.analysis.views import stack_samples

_MOST: Final = 10
_CHARGED: Final = tuple(CHARGED)


def between(subtree: Subtree, begin_ns: int, end_ns: int) -> tuple[tuple[Allocator, ...], FurtherAllocators]:
    """Return the processes that were charged most within the interval, and the sum of all others.

    Both ends of the interval count. Only categories with a positive sum count for a process: cache that
    reclaim took in its context while it allocated does not reduce its charge.
    """
    trace = subtree.whole
    charges = subtree.once("allocators.charges", lambda: _Charges.from_charge(subtree.charge))
    tgids, charged = charges.sums(begin_ns, end_ns)
    sampled = stack_samples.samples_within(subtree.stack_samples, None, begin_ns, end_ns)
    tgid_sampled = integers(sampled["tgid"])
    most = tuple(
        Allocator(
            tgid=tgid,
            comm=trace.processes.comm_at(tgid, begin_ns, end_ns),
            charged_bytes=bytes_,
            stack=stack_samples.heaviest(trace, sampled[tgid_sampled == tgid]),
            cmdline=trace.processes.cmdline_at(tgid, begin_ns, end_ns),
        )
        for tgid, bytes_ in zip(tgids[:_MOST].tolist(), charged[:_MOST].tolist(), strict=True)
    )
    return most, FurtherAllocators(len(tgids) - len(most), int(charged[_MOST:].sum()))


@dataclass(frozen=True, slots=True)
class _Charges:
    """The charges of processes, by time.

    `tgids` are in order of appearance. `pair` is a position in `tgids` and one in `_CHARGED`, as one number.
    """

    times: Int64s
    pair: Int64s
    bytes_: Int64s
    tgids: Int64s

    @classmethod
    def from_charge(cls, charge: pd.DataFrame) -> _Charges:
        kind = pd.Index(_CHARGED).get_indexer(pd.Index(charge["category"].cat.categories))
        kinds = np.append(kind, -1)[charge["category"].cat.codes.to_numpy()]
        rows = np.flatnonzero((kinds >= 0) & known(charge["tgid"]))
        number, tgids = pd.factorize(integers(charge["tgid"])[rows])
        pair = number.astype(np.int64) * len(_CHARGED) + kinds[rows]
        return cls(times_ns(charge)[rows], pair, integers(charge["bytes"])[rows], np.asarray(tgids))

    def sums(self, begin_ns: int, end_ns: int) -> tuple[Int64s, Int64s]:
        """Return (tgids with a charge within the interval, the largest first; their charges in bytes).

        Processes of one time have positions near each other, so only the range between them is counted.
        """
        first, last = np.searchsorted(self.times, [begin_ns, end_ns + 1])
        pair = self.pair[first:last]
        base = int(pair.min(initial=len(self.tgids) * len(_CHARGED))) // len(_CHARGED)
        # The sums are exact: NumPy sums in float64, which holds integers up to 2^53.
        summed = np.bincount(pair - base * len(_CHARGED), self.bytes_[first:last])
        summed = np.append(summed, np.zeros(-len(summed) % len(_CHARGED)))
        charged = np.rint(summed.reshape(-1, len(_CHARGED)).clip(min=0).sum(axis=1)).astype(np.int64)
        tgids = self.tgids[base : base + len(charged)]
        order = np.lexsort((tgids, -charged))
        order = order[charged[order] > 0]
        return tgids[order], charged[order]
