"""A trace as far as it is about one cgroup and those below it, and what follows from that, found once.

To pick the rows of a cgroup out of a table takes a pass over the table, and with thousands of cgroups, or of
kills, that is all the time there is. So the tables are sorted by cgroup once: what belongs to one then lies
side by side. And what is worked out of those rows, such as a level as a function of time, serves all who ask
about the same cgroup: to find its value at one more moment is a search.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, TypeVar, cast

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import NO_ID, Int64s, integers
from tracer.analysis.core.index import Grouped
from tracer.analysis.core.tables import TraceTables, is_evicted, start_ns

T = TypeVar("T")

_NARROWED: Final = (
    *("charge", "pagecache", "samples", "reclaim", "waits", "swap_io"),
    *("needed_again", "stack_samples", "cgroups"),
)
_NOBODY: Final = np.array([], dtype=np.int64)


class Subtree:
    """A cgroup, `members` being itself and all below it, ascending.

    `trace` has of what is by cgroup only the rows of these, and of `pagecache` only evictions. `start_ns` is
    when the whole trace begins.
    """

    def __init__(self, trace: TraceTables, cgroup_id: int, members: Int64s, start_ns: int) -> None:
        self.trace = trace
        self.cgroup_id = cgroup_id
        self.members = members
        self.start_ns = start_ns
        self._found: dict[Hashable, Any] = {}

    def once(self, key: Hashable, find: Callable[[], T]) -> T:
        """What `find` gives: called for the first who asks for `key`, which has its caller's name in it."""
        if key not in self._found:
            self._found[key] = find()
        return cast(T, self._found[key])


class Subtrees:
    """The subtrees of a trace. What was found in one is kept by whoever keeps it."""

    def __init__(self, trace: TraceTables) -> None:
        self._trace = trace
        self._start_ns = start_ns(trace)
        self._tables: dict[str, _ByCgroup] = {}

    def of(self, cgroup_id: int, members: Int64s | None = None) -> Subtree:
        """`members`: where they are known already."""
        if members is None:
            members = self._trace.places.descendants(cgroup_id)
        return self._of(cgroup_id, members, {})

    def of_nobody(self) -> Subtree:
        """What is about no cgroup: attempts of reclaim for the whole machine, in which any process may have
        waited and any cgroup's pages been swapped."""
        tables = {name: getattr(self._trace, name) for name in ("charge", "waits", "swap_io")}
        tables["reclaim"] = self._table("reclaim").rows(np.array([NO_ID]))
        return self._of(NO_ID, _NOBODY, tables)

    def _of(self, cgroup_id: int, members: Int64s, tables: dict[str, pd.DataFrame]) -> Subtree:
        def find(name: str) -> pd.DataFrame | None:
            if name in _NARROWED and name not in tables:
                tables[name] = self._table(name).rows(members)
            return tables.get(name)

        return Subtree(cast(TraceTables, _Narrowed(self._trace, find)), cgroup_id, members, self._start_ns)

    def _table(self, name: str) -> _ByCgroup:
        if name not in self._tables:
            table = getattr(self._trace, name)
            self._tables[name] = _ByCgroup(table[is_evicted(table)] if name == "pagecache" else table)
        return self._tables[name]


class _ByCgroup:
    """A table, and which of its rows are whose."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table
        self._rows = Grouped.by(integers(table["cgroup_id"]))

    def rows(self, members: Int64s) -> pd.DataFrame:
        """Those of these cgroups, in the table's order."""
        return self._table.iloc[self._rows.of_any(members)]


class _Narrowed:
    """The tables that `find` gives, made when they are first asked for, and for all else the whole trace."""

    def __init__(self, whole: TraceTables, find: Callable[[str], pd.DataFrame | None]) -> None:
        self._whole = whole
        self._find = find

    def __getattr__(self, name: str) -> Any:
        found = self._find(name)
        return getattr(self._whole, name) if found is None else found


class Part:
    """Some tables, and for all else the whole trace."""

    def __init__(self, whole: TraceTables, tables: Mapping[str, pd.DataFrame]) -> None:
        self._whole = whole
        self._tables = tables

    def __getattr__(self, name: str) -> Any:
        return self._tables[name] if name in self._tables else getattr(self._whole, name)
