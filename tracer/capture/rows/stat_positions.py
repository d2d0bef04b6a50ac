"""The positions of a memcg's counters, learnt by comparison with memory.stat."""

from __future__ import annotations

import mmap
from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from tracer.capture.learn.positions import reclaim_kinds
from tracer.capture.rows.decode import STATE_COLUMNS
from tracer.categories import COUNTERS
from tracer.kernel.btf import KnownTypes
from tracer.kernel.cgroups.memory_files import RECLAIM_PARTS, Reading
from tracer.kernel.struct_header import reclaim_counts_are_node_stats
from tracer.schema import MEMORY_STAT_COUNTS
from tracer.wire.fields import LENGTHS

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

STAT_COLUMNS: Final = (*(counter.column for counter in COUNTERS), *MEMORY_STAT_COUNTS)
"""The columns of `samples` that `StatPositions.values` returns, in this order."""

_WIDTH: Final = LENGTHS["TRACER_COUNTERS"]
_LINES: Final = tuple(line for column in STAT_COLUMNS for line in RECLAIM_PARTS.get(column, (column,)))
_FIRST_LINES: Final = np.array([_LINES.index(RECLAIM_PARTS.get(name, (name,))[0]) for name in STAT_COLUMNS])
"""Number of the first of the lines that add up to each of `STAT_COLUMNS`."""

_UNITS: Final = {counter.column: counter.unit_bytes(mmap.PAGESIZE) for counter in COUNTERS}
_UNIT: Final = np.array([_UNITS.get(line, 1) for line in _LINES])


class StatPositions:
    """The position in `sample_event.counters` of each line of memory.stat.

    The kernel's table of positions has no symbol (mem_cgroup_stats_index, since ff48c71c26aa ("memcg: reduce
    memory for the lruvec and memcg stats"), v6.10). But memory.stat prints the counters. So a position whose
    value differs from a line's value is excluded for this line. While several are left, the line is known in
    a sample in which all of them have the same value, mostly 0.

    `known`: line -> position (`calibrated`). It is the only source for what v1 does not print.

    `lacking`: the counters that exist, but that calibration could not move (`calibration.unrecorded`). Either
    it missed the change, or the kernel does not count this memory, and prints 0 (6.18.15 of Debian:
    pagetables). So the line is not known until some memory.stat, mostly the root's, shows more than 0.
    """

    def __init__(self, known: Mapping[str, int], lacking: Collection[str] = ()) -> None:
        self._possible = np.ones((len(_LINES), _WIDTH), np.bool_)
        self._exists = np.zeros(len(_LINES), np.bool_)
        self._is_doubtful = np.isin(_LINES, [f"{name}_bytes" for name in lacking])
        for name, position in known.items():
            line = _LINES.index(name)
            self._possible[line] = np.arange(_WIDTH) == position
            self._exists[line] = True
        self._exclude_taken()

    def compare(self, before: Reading, counters: Numbers, after: Reading) -> None:
        """Exclude positions, by the counters of one memcg between two readings of its memory.stat.

        A line that changed meanwhile is left out, and stays ambiguous. A line without a possible position
        begins anew: a change and its reversal went unseen in an earlier comparison.
        """
        printed = np.array([_steady(before, after, line) for line in _LINES])
        is_equal = np.maximum(counters, 0) * _UNIT[:, None] == printed[:, None]
        is_equal[~is_equal.any(axis=1)] = True
        left = self._possible & is_equal
        self._possible = np.where(left.any(axis=1)[:, None], left, is_equal)
        self._exists |= np.array([line in before for line in _LINES])
        self._is_doubtful &= ~np.array([before.get(line, 0) > 0 for line in _LINES])
        self._exclude_taken()

    def ambiguous(self, counters: Numbers) -> Flags:
        """Return the samples in which a line is ambiguous: comparing their memory.stat makes it known.

        `counters`: a row for each sample.
        """
        if not len(self._unresolved):
            return np.zeros(len(counters), np.bool_)
        are_ambiguous: Flags = np.logical_or.reduce(self._are_ambiguous(np.maximum(counters, 0)))
        return are_ambiguous

    def _are_ambiguous(self, counters: Numbers) -> Flags:
        """Return which lines are ambiguous in which samples (line by sample)."""
        are_ambiguous = np.zeros((len(_LINES), len(counters)), np.bool_)
        for line in self._unresolved:
            candidates = counters[:, self._possible[line]]
            are_ambiguous[line] = (candidates != candidates[:, :1]).any(axis=1)
        return are_ambiguous

    def values(self, counters: Numbers) -> tuple[Numbers, Flags]:
        """Return the values of `STAT_COLUMNS` (column by sample), and where they are not known.

        `counters`: a row for each sample. Sizes are in bytes.
        """
        counters = np.maximum(counters, 0)  # as printed: a sum over CPUs can be less for a moment
        lines = counters.T[self._position]
        is_ambiguous = self._are_ambiguous(counters)
        lines = lines * (_UNIT * self._exists)[:, None]
        is_unknown = np.logical_or.reduceat(is_ambiguous, _FIRST_LINES)
        is_unknown |= ~np.logical_or.reduceat(self._exists & ~self._is_doubtful, _FIRST_LINES)[:, None]
        return np.add.reduceat(lines, _FIRST_LINES), is_unknown

    def _exclude_taken(self) -> None:
        """Exclude the position of each line that has only one from the lines that have several."""
        before = None
        while before is None or (before != self._possible).any():
            before = self._possible
            is_resolved = before.sum(axis=1) == 1
            left = before & ~before[is_resolved].any(axis=0)
            self._possible = np.where((is_resolved | ~left.any(axis=1))[:, None], before, left)
        self._position = self._possible.argmax(axis=1)
        self._unresolved = np.flatnonzero((self._possible.sum(axis=1) > 1) & self._exists)


def calibrated(learnt: Mapping[str, int], types: KnownTypes) -> dict[str, int]:
    """Return line -> position, for the lines that calibration found (`calibrate`)."""
    known = {line: learnt[item] for line, item in STATE_COLUMNS.items() if item in learnt}
    first = 0 if reclaim_counts_are_node_stats(types) else LENGTHS["TRACER_STATE_ITEMS"]
    for column in RECLAIM_PARTS.keys() & learnt.keys():
        for number, kind in enumerate(reclaim_kinds(types)):
            known[f"{column}_{kind.lower()}"] = first + learnt[column] + number
    return known


def _steady(before: Reading, after: Reading, line: str) -> int:
    """Return the value of a line that both readings have; -1 if they differ, or it is not printed."""
    value = before.get(line, -1)
    return value if value == after.get(line) else -1
