"""The rows of a trace about one cgroup and those below it, and values derived from them, found once.

Picking the rows of a cgroup out of a table takes a pass over the table. With thousands of cgroups or kills,
such passes would take all the time. So each table is sorted by cgroup once; the rows of one cgroup then lie
side by side. Derived values, such as a level as a function of time, are kept for all callers that ask about
the same cgroup: one more moment then costs a binary search.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import NO_ID, Int64s
from tracer.analysis.core.evicted import Evicted, Refaulted
from tracer.analysis.core.rows import Charges, Table, TableRows
from tracer.analysis.core.tables import TraceTables, start_ns

T = TypeVar("T")

_MACHINE: Final = np.array([NO_ID])
_MISSING: Final = object()


class Subtree:
    """A cgroup with all cgroups below it, and their rows of each table.

    `members` are the ids of all of them, ascending. `whole` is the trace of the rows. `start_ns` is the
    moment at which the trace begins, or at which the cgroup was made, if that is later.
    """

    def __init__(
        self,
        whole: TraceTables,
        cgroup_id: int,
        members: Int64s,
        start_ns: int,
        rows: Callable[[str], TableRows],
        *,
        shared: dict[Hashable, Any],
    ) -> None:
        self.whole = whole
        self.cgroup_id = cgroup_id
        self.members = members
        self.start_ns = start_ns
        self._rows = rows
        self._found: dict[Hashable, Any] = {}
        self._shared = shared

    def rows(self, name: str) -> TableRows:
        """Return the rows of a table for the members, of which single columns are read as arrays."""
        return self.once(("subtree.rows", name), lambda: self._rows(name))

    def own_rows(self, name: str) -> TableRows:
        """Return the rows of a table for the cgroup itself."""

        def find() -> TableRows:
            rows = self.rows(name)
            return rows.where(rows.cgroup_ids == self.cgroup_id)

        return self.once(("subtree.own_rows", name), find)

    def has(self, cgroup_id: int) -> bool:
        """Return whether a cgroup is a member."""
        place = int(self.members.searchsorted(cgroup_id))
        return place < len(self.members) and int(self.members[place]) == cgroup_id

    @cached_property
    def cgroups(self) -> pd.DataFrame:
        """Return the rows of `cgroups` for the members."""
        return self.rows("cgroups").frame

    @cached_property
    def charges(self) -> Charges:
        """Return the rows of `charge` for memory that is charged to a member; for the machine, all rows."""
        return self.whole.charges if self.cgroup_id == NO_ID else self.whole.charges.of_cgroups(self.members)

    @cached_property
    def kinds_charged(self) -> frozenset[int]:
        """Return the categories in `charges`, as numbers."""
        return frozenset(np.unique(self.charges.category).tolist())

    @cached_property
    def file_waits(self) -> pd.DataFrame:
        """Return the rows of `file_waits` for tasks in a member."""
        return self.rows("file_waits").frame

    @cached_property
    def task_time(self) -> pd.DataFrame:
        """Return the rows of `task_time` of a member."""
        return self.rows("task_time").frame

    @cached_property
    def evicted(self) -> Evicted:
        """Return the evictions from the page cache of a member."""
        return self.whole.evicted.of_cgroups(self.members)

    @cached_property
    def refaulted(self) -> Refaulted:
        """Return the refaults of pages that were charged to a member before and after."""
        return self.whole.refaulted.within(self.members)

    @cached_property
    def reclaim(self) -> pd.DataFrame:
        """Return the rows of `reclaim` whose target is a member."""
        return self.rows("reclaim").frame

    @cached_property
    def samples(self) -> pd.DataFrame:
        """Return the rows of `samples` of a member."""
        return self.rows("samples").frame

    @cached_property
    def shmem_files(self) -> pd.DataFrame:
        """Return the rows of `shmem_files` for processes of a member."""
        return self.rows("shmem_files").frame

    @cached_property
    def contents(self) -> pd.DataFrame:
        """Return the rows of `contents` of a member."""
        return self.rows("contents").frame

    @cached_property
    def mappings(self) -> pd.DataFrame:
        """Return the rows of `mappings` for looks at a member, whose limit or a limit above it was near."""
        return self.rows("mappings").frame

    @cached_property
    def runtimes(self) -> pd.DataFrame:
        """Return the rows of `runtimes` for looks at a member."""
        return self.rows("runtimes").frame

    @cached_property
    def code_samples(self) -> pd.DataFrame:
        """Return the rows of `code_samples` for memory that was charged to a member."""
        return self.rows("code_samples").frame

    @cached_property
    def swap_io(self) -> pd.DataFrame:
        """Return the rows of `swap_io` for pages of a member."""
        return self.rows("swap_io").frame

    @cached_property
    def waits(self) -> pd.DataFrame:
        """Return the rows of `waits` for tasks in a member."""
        return self.rows("waits").frame

    def once(self, key: Hashable, find: Callable[[], T]) -> T:
        """Return the result of `find`, which is called only for the first caller with `key`.

        The key contains the name of its caller.
        """
        return _once(self._found, key, find)

    def once_for_all(self, key: Hashable, find: Callable[[], T]) -> T:
        """Return the result of `find`, as `once` does, for all subtrees of one `Subtrees`: it depends only on
        the trace."""
        return _once(self._shared, key, find)


def _once(found: dict[Hashable, Any], key: Hashable, find: Callable[[], T]) -> T:
    value: T = found.get(key, _MISSING)
    if value is _MISSING:
        value = found[key] = find()
    return value


class Subtrees:
    """The subtrees of a trace. A caller keeps each `Subtree`, since that keeps the values derived from it."""

    def __init__(self, trace: TraceTables, samples: pd.DataFrame | None = None) -> None:
        """Take the tables of `trace`, with `samples`, if given, in place of its table of that name."""
        self._trace = trace
        self._start_ns = start_ns(trace)
        self._tables: dict[str, Table] = {}
        self._shared: dict[Hashable, Any] = {}
        if samples is not None:
            self._tables["samples"] = Table(samples)

    def subtree_at(self, cgroup_id: int, members: Int64s | None = None) -> Subtree:
        """Return the cgroup with all below it; `members` are their ids, if already known."""
        ids = self._trace.places.descendants(cgroup_id) if members is None else members
        return self._subtree(cgroup_id, ids, lambda name: self._table(name).rows_for(ids))

    def machine(self) -> Subtree:
        """Return the rows about the whole machine, whose reclaim has no target cgroup.

        `reclaim` has the attempts without a target. Any process may have waited for them, and they may have
        swapped pages of any cgroup, so `charges`, `waits` and `swap_io` are those of the whole trace. All
        other tables are empty.
        """
        nobody = _MACHINE[:0]

        def rows(name: str) -> TableRows:
            if name in ("waits", "swap_io"):
                return TableRows.whole(getattr(self._trace, name))
            return self._table(name).rows_for(_MACHINE if name == "reclaim" else nobody)

        return self._subtree(NO_ID, nobody, rows)

    def _subtree(self, cgroup_id: int, members: Int64s, rows: Callable[[str], TableRows]) -> Subtree:
        made_ns, _ = self._trace.places.lifetime_ns(cgroup_id)
        return Subtree(
            self._trace, cgroup_id, members, max(self._start_ns, made_ns), rows, shared=self._shared
        )

    def _table(self, name: str) -> Table:
        if name not in self._tables:
            self._tables[name] = Table(getattr(self._trace, name))
        return self._tables[name]
