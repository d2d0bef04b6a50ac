"""The kills that a trace recorded, each with its rows, its limit owner, and the window before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import NO_ID, Cells, integers, is_one_of, optional_text, times_ns
from tracer.analysis.core.index import RowIndex
from tracer.analysis.core.limits import limit_of
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.core.tables import TraceTables
from tracer.analysis.explain.measure.findings import PreviousKill
from tracer.analysis.explain.measure.window import Window, find_window, start_after
from tracer.analysis.kernel_log.comparison import Completed
from tracer.schema import UNLIMITED_BYTES


@dataclass(frozen=True, slots=True)
class RecordedKill:
    """One decision of the OOM killer.

    `rows` of `oom` are the victims, `first` the first of them, `weighed` the rows of `oom_candidates`.
    `subtree` is the limit owner with all cgroups below it. `sample` is the row of `samples` that the kernel
    program read of the owner at the kill. A global OOM has no owner: `owner_id` is None, `subtree` is empty,
    and the window begins after the previous global OOM.
    """

    kill_id: int
    rows: Sequence[Mapping[str, Any]]
    first: Mapping[str, Any]
    weighed: pd.DataFrame
    time_ns: int
    owner_id: int | None
    subtree: Subtree
    window: Window
    sample: Mapping[str, Any] | None
    previous: PreviousKill | None = None


class RecordedKills:
    """The kills of a trace. Kills for one limit share a subtree, and so what was computed from its rows."""

    def __init__(self, trace: TraceTables, completed: Completed) -> None:
        """Find the kills in the tables that the trace's kernel log completed."""
        self._oom, samples = completed.oom, completed.samples
        self._candidates = trace.oom_candidates
        self._subtrees = Subtrees(trace, samples)
        self._kill_ids, self._tgids = (integers(self._oom[name]) for name in ("kill_id", "tgid"))
        self._times = times_ns(self._oom)
        self._rows = RowIndex.from_keys(self._kill_ids)
        self._rows_of_owner = RowIndex.from_keys(integers(self._oom["limit_owner_cgroup_id"]))
        self._weighed = RowIndex.from_keys(integers(self._candidates["kill_id"]))
        self._at_kills = samples[is_one_of(samples["source"], ["oom"])]
        self._read = RowIndex.from_keys(integers(self._at_kills["kill_id"]))
        self._read_of = integers(self._at_kills["cgroup_id"])
        self._cells = Cells.from_frame(self._oom)

    def __iter__(self) -> Iterator[tuple[int, Callable[[], RecordedKill]]]:
        """Yield the number of each kill, and what finds it; those for one limit come one after the other."""
        for owner_id, kill_ids in self._by_owner().items():
            subtree = cache(partial(self._subtree_of, owner_id))
            yield from ((kill_id, partial(self._kill, owner_id, kill_id, subtree)) for kill_id in kill_ids)

    def kill_at(self, kill_id: int) -> RecordedKill:
        """Return the kill of this number; ValueError if there is none."""
        (found,) = (find for number, find in self if number == kill_id)
        return found()

    def rows_for(self, kill_id: int) -> tuple[int, list[dict[str, Any]]]:
        """Return (the time of a kill in ns since the epoch, its rows of `oom`)."""
        rows = self._rows.rows_for(kill_id)
        return int(self._times[rows[0]]), [self._cells.row(row) for row in rows.tolist()]

    @cached_property
    def _samples(self) -> Cells:
        return Cells.from_frame(self._at_kills)

    def _by_owner(self) -> dict[int, list[int]]:
        """Return the kills in order, by the limit owner in the first row of each; `NO_ID`: no owner."""
        oom, found = self._oom, dict[int, list[int]]()
        kill_ids, firsts = np.unique(self._kill_ids, return_index=True)
        for owner_id, kill_id in zip(
            integers(oom["limit_owner_cgroup_id"])[firsts].tolist(), kill_ids.tolist(), strict=True
        ):
            found.setdefault(owner_id, []).append(kill_id)
        return found

    def _subtree_of(self, owner_id: int) -> Subtree:
        return self._subtrees.machine() if owner_id == NO_ID else self._subtrees.subtree_at(owner_id)

    def _kill(self, owner_id: int, kill_id: int, subtree_of: Callable[[], Subtree]) -> RecordedKill:
        subtree, (time_ns, rows) = subtree_of(), self.rows_for(kill_id)
        first, moments = rows[0], self._times[self._rows_of_owner.rows_for(owner_id)]
        limit = limit_of(first)
        earlier = moments[: int(np.searchsorted(moments, time_ns))]
        if owner_id == NO_ID:
            start = start_after(subtree, earlier)
            window = Window(start, start, time_ns)
        else:
            limit = UNLIMITED_BYTES if limit is None else limit
            window = find_window(subtree, limit_bytes=limit, earlier=earlier, kill_ns=time_ns)
        return RecordedKill(
            kill_id=kill_id,
            rows=rows,
            first=first,
            weighed=self._candidates.iloc[self._weighed.rows_for(kill_id)],
            time_ns=time_ns,
            owner_id=None if owner_id == NO_ID else owner_id,
            subtree=subtree,
            window=window,
            sample=self._sample_at(kill_id, owner_id),
            previous=self._last_of(owner_id, len(earlier), time_ns),
        )

    def _last_of(self, owner_id: int, victims: int, time_ns: int) -> PreviousKill | None:
        """Return the kill of the last of these first victims for one limit, as seen at a moment."""
        if not victims or owner_id == NO_ID:
            return None
        kill_id = int(self._kill_ids[self._rows_of_owner.rows_for(owner_id)[victims - 1]])
        row = int(self._rows.rows_for(kill_id)[0])
        comm = optional_text(self._oom["comm"].iloc[row])
        return PreviousKill(kill_id, int(self._tgids[row]), comm, time_ns - int(self._times[row]))

    def _sample_at(self, kill_id: int, owner_id: int) -> dict[str, Any] | None:
        rows = self._read.rows_for(kill_id)
        rows = rows[self._read_of[rows] == owner_id]
        return self._samples.row(int(rows[0])) if owner_id != NO_ID and len(rows) else None
