"""A trace as far as it is about one cgroup and those below it, for one cgroup after the other.

To pick the rows of a cgroup out of a table takes a pass over the table, and with thousands of cgroups that is
all the time there is. So the tables are sorted by cgroup once: what belongs to one then lies side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import pandas as pd

from tracer.analysis.tables import Int64s, TraceTables, integers

_NARROWED: Final = ("charge", "samples", "reclaim", "waits", "swap_writes", "needed_again", "cgroups")


class Subtrees:
    """The parts of a trace, by the cgroups that they are about."""

    def __init__(self, trace: TraceTables) -> None:
        self._trace = trace
        self._tables = {name: _ByCgroup.of(getattr(trace, name)) for name in _NARROWED}

    def of(self, members: Int64s) -> TraceTables:
        """The trace; of what is by cgroup it has only the rows of these (`_NARROWED`)."""
        tables = {name: table.rows(members) for name, table in self._tables.items()}
        return cast(TraceTables, Part(self._trace, tables))


@dataclass(frozen=True, slots=True)
class _ByCgroup:
    """A table, and the positions of its rows in the order of `ids`, which ascend."""

    table: pd.DataFrame
    positions: Int64s
    ids: Int64s

    @classmethod
    def of(cls, table: pd.DataFrame) -> _ByCgroup:
        ids = integers(table["cgroup_id"])
        positions = np.argsort(ids, kind="stable")
        return cls(table, positions, ids[positions])

    def rows(self, members: Int64s) -> pd.DataFrame:
        """Those of these cgroups, in the table's order."""
        firsts, ends = (np.searchsorted(self.ids, members, side) for side in ("left", "right"))
        slices = [self.positions[first:end] for first, end in zip(firsts, ends, strict=True)]
        return self.table.iloc[np.sort(np.concatenate([*slices, self.positions[:0]]))]


class Part:
    """Some tables, and for all else the whole trace."""

    def __init__(self, whole: TraceTables, tables: Mapping[str, pd.DataFrame]) -> None:
        self._whole = whole
        self._tables = tables

    def __getattr__(self, name: str) -> Any:
        return self._tables[name] if name in self._tables else getattr(self._whole, name)
