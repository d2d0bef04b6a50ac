"""The kills that a trace recorded, each with its rows, limit owner, window, trigger and victims.

Functions with `unknown` add the reasons for unknown values to it, by dotted field name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import (
    NO_ID,
    Cells,
    ColumnArrays,
    Int64s,
    integers,
    is_one_of,
    limit_of,
    optional,
    optional_text,
    times_ns,
)
from tracer.analysis.core.lookups import is_named
from tracer.analysis.core.rows import RowIndex
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.explain.measure.findings import PreviousKill
from tracer.analysis.explain.measure.window import Window, find_window, start_after
from tracer.analysis.kernel_log.comparison import Completed, Told
from tracer.analysis.kernel_log.logged_kill import OF_LIMIT_BEFORE, OF_THE_PATH, is_writing_limit
from tracer.analysis.results.kill import LimitOwner, Lowered, Trigger, Victim
from tracer.analysis.results.quality import Unknown
from tracer.schema import UNLIMITED_BYTES

_OF_A_CANDIDATE: Final = (
    *("pid", "tgid", "comm", "badness", "oom_score_adj", "chosen"),
    *("rss_bytes", "anon_rss_bytes", "shmem_rss_bytes"),
)


@dataclass(frozen=True, slots=True)
class RecordedKill:
    """One decision of the OOM killer.

    `rows` of `oom` are the victims, `first` the first of them. `weighed` returns the rows of
    `oom_candidates`, with the time of each (`time_ns`).
    `subtree` is the limit owner with all cgroups below it. `sample` is the row of `samples` that the kernel
    program read of the owner at the kill. A global OOM has no owner: `owner_id` is None, `subtree` is empty,
    and the window begins after the previous global OOM.
    """

    kill_id: int
    rows: Sequence[Mapping[str, Any]]
    first: Mapping[str, Any]
    weighed: Callable[[], list[dict[str, Any]]]
    time_ns: int
    owner_id: int | None
    subtree: Subtree
    window: Window
    sample: Mapping[str, Any] | None
    previous: PreviousKill | None = None


@dataclass(frozen=True, slots=True)
class _Victims:
    """The rows of `oom` for one limit owner, in order of time, and their times in ns since the epoch."""

    rows: Int64s
    times: Int64s


@dataclass(frozen=True, slots=True)
class _Sampled:
    """Samples that the kernel log completed: the subtrees that they are in, and the rows read at kills."""

    subtrees: Subtrees
    cells: Cells
    of_kill: RowIndex
    cgroup_ids: Int64s

    @classmethod
    def from_samples(cls, trace: TraceTables, samples: pd.DataFrame) -> _Sampled:
        at_kills = samples[is_one_of(samples["source"], ["oom"])]
        of_kill = RowIndex.from_keys(integers(at_kills["kill_id"]))
        return cls(
            Subtrees(trace, samples), Cells.from_frame(at_kills), of_kill, integers(at_kills["cgroup_id"])
        )

    def at_kill(self, kill_id: int, owner_id: int) -> dict[str, Any] | None:
        """Return the row of the limit owner that was read at a kill; None if there is none."""
        rows = self.of_kill.rows_for(kill_id)
        rows = rows[self.cgroup_ids[rows] == owner_id]
        return self.cells.row(int(rows[0])) if owner_id != NO_ID and len(rows) else None


class RecordedKills:
    """The kills of a trace. Kills for one limit share a subtree, and so what was computed from its rows."""

    def __init__(self, trace: TraceTables, completed: Completed) -> None:
        """Find the kills in the tables that the trace's kernel log completed."""
        self._trace, self._completed, self._oom = trace, completed, completed.oom
        self._kill_ids, self._tgids = (integers(self._oom[name]) for name in ("kill_id", "tgid"))
        self._times = times_ns(self._oom)
        self._rows = RowIndex.from_keys(self._kill_ids)
        self._rows_of_owner = RowIndex.from_keys(integers(self._oom["limit_owner_cgroup_id"]))
        self._weighed = RowIndex.from_keys(integers(trace.oom_candidates["kill_id"]))
        self._cells = Cells.from_frame(self._oom)
        self._sampled = dict[int | None, _Sampled]()
        self._last_subtree = dict[int, Subtree]()

    def __iter__(self) -> Iterator[tuple[int, Callable[[], RecordedKill]]]:
        """Yield the number of each kill, and what finds it; those for one limit come one after the other."""
        self._sample_for(None)
        for owner_id, kill_ids in self.by_owner.items():
            of_owner = self._victims_of(owner_id)
            yield from ((kill_id, partial(self._kill, owner_id, kill_id, of_owner)) for kill_id in kill_ids)

    def kill_at(self, kill_id: int) -> RecordedKill:
        """Return the kill of this number; LookupError if there is none."""
        owner_id = self.numbers[kill_id]
        return self._kill(owner_id, kill_id, self._victims_of(owner_id))

    def _victims_of(self, owner_id: int) -> _Victims:
        victims = self._rows_of_owner.rows_for(owner_id)
        return _Victims(victims, self._times[victims])

    def _sample_for(self, owner_id: int | None) -> _Sampled:
        """Return the samples, with what the log adds to those of a limit owner and all below it; None: to
        all.

        A report of the log adds to the samples of its own limit owner, so that one kill needs few reports.
        Whoever asks for kills for a second limit gets the additions of all reports.
        """
        if None not in self._sampled and owner_id not in self._sampled:
            owner_id = None if self._sampled or owner_id == NO_ID else owner_id
            self._sampled = {owner_id: self._sampled_at(owner_id)}
        return self._sampled.get(None) or self._sampled[owner_id]

    def _sampled_at(self, owner_id: int | None) -> _Sampled:
        if owner_id is None:
            return _Sampled.from_samples(self._trace, self._completed.samples())
        below = self._trace.places.descendants(owner_id).tolist()
        kill_ids = {kill_id for member in below for kill_id in self.by_owner.get(member, ())}
        return _Sampled.from_samples(self._trace, self._completed.samples(kill_ids))

    def rows_for(self, kill_id: int) -> tuple[int, list[dict[str, Any]]]:
        """Return (the time of a kill in ns since the epoch, its rows of `oom`)."""
        rows = self._rows.rows_for(kill_id)
        return int(self._times[rows[0]]), [self._cells.row(row) for row in rows.tolist()]

    @cached_property
    def _candidates(self) -> ColumnArrays:
        candidates = self._trace.oom_candidates
        timed = candidates.assign(time_ns=times_ns(candidates))
        return ColumnArrays.from_frame(timed, ("time_ns", *_OF_A_CANDIDATE))

    def _weighed_at(self, kill_id: int) -> list[dict[str, Any]]:
        rows = self._weighed.rows_for(kill_id)
        if not len(rows):
            return []
        # They stand together in the table, and a slice copies nothing.
        first, last = int(rows[0]), int(rows[-1])
        return self._candidates.records(slice(first, last + 1) if last - first + 1 == len(rows) else rows)

    @cached_property
    def numbers(self) -> dict[int, int]:
        """Return the limit owner in the first row of each kill, by the number of the kill; `NO_ID`: no
        owner."""
        kill_ids, firsts = np.unique(self._kill_ids, return_index=True)
        owner_ids = integers(self._oom["limit_owner_cgroup_id"])[firsts]
        return dict(zip(kill_ids.tolist(), owner_ids.tolist(), strict=True))

    @cached_property
    def by_owner(self) -> dict[int, list[int]]:
        """Return the kills in order, by limit owner (`numbers`)."""
        found = dict[int, list[int]]()
        for kill_id, owner_id in self.numbers.items():
            found.setdefault(owner_id, []).append(kill_id)
        return found

    def subtree_of(self, owner_id: int) -> Subtree:
        """Return the cgroups below a limit owner; the whole machine for `NO_ID`. The last one is kept."""
        if owner_id not in self._last_subtree:
            machine = owner_id == NO_ID
            subtrees = self._sample_for(owner_id).subtrees
            found = subtrees.machine() if machine else subtrees.subtree_at(owner_id)
            self._last_subtree = {owner_id: found}
        return self._last_subtree[owner_id]

    def _kill(self, owner_id: int, kill_id: int, victims: _Victims) -> RecordedKill:
        subtree, (time_ns, rows) = self.subtree_of(owner_id), self.rows_for(kill_id)
        first = rows[0]
        limit = limit_of(first)
        earlier = victims.times[: int(victims.times.searchsorted(time_ns))]
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
            weighed=partial(self._weighed_at, kill_id),
            time_ns=time_ns,
            owner_id=None if owner_id == NO_ID else owner_id,
            subtree=subtree,
            window=window,
            sample=self._sample_for(owner_id).at_kill(kill_id, owner_id),
            previous=None if owner_id == NO_ID else self._last_of(victims, len(earlier), time_ns),
        )

    def _last_of(self, victims: _Victims, earlier: int, time_ns: int) -> PreviousKill | None:
        """Return the kill of the last of the first `earlier` victims for one limit, as seen at a moment."""
        if not earlier:
            return None
        kill_id = int(self._kill_ids[victims.rows[earlier - 1]])
        row = int(self._rows.rows_for(kill_id)[0])
        comm = optional_text(self._cells.columns["comm"][row])
        return PreviousKill(kill_id, int(self._tgids[row]), comm, time_ns - int(self._times[row]))


NO_OWNER = "no cgroup's limit was hit, or the trace does not show whose"


_SIZES: Final = (
    *("anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes", "pgtables_bytes", "swap_bytes", "threads"),
)


def outlined_owner(trace: TraceTables, first: Mapping[str, Any]) -> LimitOwner:
    """Return the cgroup whose limit was hit, as a row of `oom` and `cgroups` have it."""
    owner_id = optional(first["limit_owner_cgroup_id"])
    container, pod = trace.places.container_of(owner_id)
    return LimitOwner(
        cgroup=trace.places.path_of(owner_id),
        container=container,
        pod=pod,
        limit_bytes=limit_of(first),
        usage_bytes=optional(first["usage_bytes"]),
        cgroup_id=owner_id,
    )


def limit_owner(
    trace: TraceTables,
    kill: RecordedKill,
    outline: LimitOwner,
    stack: Sequence[str] | None,
    unknown: Unknown,
) -> LimitOwner:
    """Return the cgroup whose limit was hit; `stack` is the trigger's, innermost frame first."""
    if kill.owner_id is None:
        unknown["limit_owner"] = NO_OWNER
        return outline
    trigger_id, life = int(kill.first["trigger_cgroup_id"]), trace.places.lives.life_for(kill.owner_id)
    namespace, image = trace.places.origin_of(kill.owner_id)
    owner = replace(
        outline,
        is_ancestor=kill.subtree.has(trigger_id) and trigger_id != kill.owner_id,
        run=life.run,
        runs=life.runs,
        namespace=namespace,
        image=image,
        lowered=_lowered(kill, stack, unknown),
    )
    if owner.cgroup is None:  # the names follow from the path
        no_path = f"the trace holds no path of cgroup {kill.owner_id}"
        unknown |= {f"limit_owner.{name}": no_path for name in OF_THE_PATH}
    elif owner.container is not None and image is None:
        unknown["limit_owner.image"] = "no file or socket of the host had it, or the trace is older"
    return owner


def _reclaimed_bytes(kill: RecordedKill, since_ns: int) -> int:
    """Return what attempts to reclaim from the limit owner freed between a moment and the kill."""
    attempts = kill.subtree.reclaim
    begun_ns = times_ns(attempts)
    own = (attempts["cgroup_id"] == kill.owner_id).to_numpy(dtype=bool, na_value=False)
    of_them = own & (begun_ns >= since_ns) & (begun_ns <= kill.time_ns)
    return int(attempts["reclaimed"][of_them].sum()) * page_size(kill.subtree.whole)


def _lowered(kill: RecordedKill, stack: Sequence[str] | None, unknown: Unknown) -> Lowered | None:
    """Return how the limit was lowered; None if usage was not above it then, or if that was not seen."""
    first = kill.first
    limit, usage_bytes = limit_of(first), optional(first["usage_bytes"])
    if limit is None:
        return None
    by_trigger = is_writing_limit(str(first["constraint"]), stack)
    step = ledger.last_lowering(kill.subtree, limit, kill.time_ns)
    if step is None and by_trigger:
        unknown |= dict.fromkeys(OF_LIMIT_BEFORE, "the limit was not read before it was lowered")
        return Lowered(None, usage_bytes, by_trigger)
    if step is None:
        return None
    if not is_named(stack) and (usage_bytes or 0) > limit:
        # A task of another cgroup: it is the writer, or fills memory of a process in this one, which is rare.
        by_trigger = not kill.subtree.has(int(first["trigger_cgroup_id"]))
    if by_trigger and usage_bytes is not None:  # the write reclaims what it can, and kills in the same call
        usage_bytes += _reclaimed_bytes(kill, step.since_ns)
    elif (then := ledger.usage(kill.subtree).at(step.since_ns - 1)) is not None:
        usage_bytes = then
    if not by_trigger and (usage_bytes is None or usage_bytes <= limit):
        return None
    return Lowered(step.limit_bytes, usage_bytes, by_trigger, kill.time_ns - step.since_ns)


def trigger(trace: TraceTables, kill: RecordedKill, told: Told, unknown: Unknown) -> Trigger:
    """Return the task whose charge could not be met."""
    first = kill.first
    gfp = optional(first["gfp"])
    if gfp is None:
        unknown["trigger.gfp"] = "the trace has no reclaim attempt of the trigger"
    cgroup = trace.places.path_of(int(first["trigger_cgroup_id"]))
    order = _order(kill, unknown)
    if cgroup is None:
        unknown["trigger.cgroup"] = f"the trace holds no path of cgroup {first['trigger_cgroup_id']}"
    left_code = trace.functions.left_code(optional(first["user_stack_id"]) or NO_ID)
    if left_code is None:
        unknown["trigger.user_stack_left_code"] = "no stack was taken, or the trace is older"
    return Trigger(
        pid=int(first["trigger_pid"]),
        comm=str(first["trigger_comm"]),
        cgroup=cgroup,
        gfp=gfp,
        order=order,
        stack=told.logged.stack
        if "trigger.stack" in told.fields and told.logged is not None
        else _frames(trace, first["kernel_stack_id"], "trigger.stack", unknown),
        user_stack=_frames(trace, first["user_stack_id"], "trigger.user_stack", unknown),
        user_stack_left_code=left_code,
        gfp_names=told.gfp_names(gfp),
        tgid=int(first["trigger_tgid"]),
        cmdline=_title_at(trace, int(first["trigger_tgid"]), kill.time_ns),
    )


def victims(trace: TraceTables, time_ns: int, rows: Sequence[Mapping[str, Any]]) -> tuple[Victim, ...]:
    """Return the killed tasks in the order in which they were marked; `rows` of `oom` are those of a kill at
    `time_ns`."""
    return tuple(
        Victim(
            pid=int(row["pid"]),
            comm=str(row["comm"]),
            cgroup=trace.places.path_of(int(row["cgroup_id"])),
            oom_score_adj=int(row["oom_score_adj"]),
            group_kill=len(rows) > 1,
            cgroup_id=int(row["cgroup_id"]),
            cmdline=_title_at(trace, int(row["tgid"]), time_ns),
            **{name: optional(row[name]) for name in _SIZES},
        )
        for row in rows
    )


def why_unknown(victims: Sequence[Victim]) -> Unknown:
    """Return the reasons for unknown values of the victims."""
    unknown = {}
    if any(victim.anon_rss_bytes is None for victim in victims):
        unknown["victims.anon_rss_bytes"] = "a victim had no address space left when it was marked"
    if any(victim.cgroup is None for victim in victims):
        unknown["victims.cgroup"] = "the trace holds no path of a victim's cgroup"
    return unknown


def _order(kill: RecordedKill, unknown: Unknown) -> int | None:
    """Return the order of the request, if known; for a global OOM, else the order of the trigger's last
    direct reclaim."""
    first = kill.first
    order = optional(first["order"])
    if order is not None:
        return order
    if str(first["constraint"]) == "memcg":
        # vmscan:mm_vmscan_memcg_reclaim_begin always has 0, for a request of any order.
        unknown["trigger.order"] = (
            "the order of a charge is known only if functions of the kernel can be hooked"
        )
        return None
    attempts = kill.subtree.reclaim
    begin, end = np.searchsorted(times_ns(attempts), [kill.window.begin, kill.window.end + 1])
    rows = attempts.iloc[begin:end]
    rows = rows[(integers(rows["pid"]) == int(first["trigger_pid"])) & is_one_of(rows["kind"], ["direct"])]
    order = None if rows.empty else optional(rows["order"].iloc[-1])
    if order is None:
        unknown["trigger.order"] = "the trace has no direct reclaim attempt of the trigger"
    return order


def _frames(trace: TraceTables, stack_id: Any, field: str, unknown: Unknown) -> tuple[str, ...] | None:
    number = optional(stack_id)
    frames = None if number is None else trace.functions.frames_for(number)
    if frames is None:
        unknown[field] = "no stack was taken" if number is None else f"stack {number} is not in the trace"
    return frames


def _title_at(trace: TraceTables, tgid: int, time_ns: int) -> str | None:
    return trace.processes.cmdline_at(tgid, time_ns, time_ns)
