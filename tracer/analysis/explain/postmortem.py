"""The post-mortem: one report for each decision of the OOM killer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final

import numpy as np
import pandas as pd

from tracer.analysis.core.columns import (
    NO_ID,
    Int64s,
    integers,
    is_one_of,
    optional,
    records,
    times_ns,
    utc_time,
)
from tracer.analysis.core.index import Grouped
from tracer.analysis.core.limits import limit_of
from tracer.analysis.core.subtree import Subtree, Subtrees
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.explain import advice, log_kills, verdict
from tracer.analysis.explain.measure import allocators, circumstances, composition, cushion
from tracer.analysis.explain.measure.composition import Unknown
from tracer.analysis.explain.measure.cushion import Window
from tracer.analysis.explain.measure.findings import Circumstances, Findings
from tracer.analysis.explain.sizing import kill_range
from tracer.analysis.explain.victim import victim_selection
from tracer.analysis.kernel_log import comparison, decisions
from tracer.analysis.kernel_log.comparison import Completed, Told
from tracer.analysis.results.kill import LimitOwner, OomReport
from tracer.analysis.results.memory import Allocator, Composition, Cushion, FurtherAllocators
from tracer.analysis.results.quality import Quality
from tracer.analysis.results.tasks import Trigger, Victim
from tracer.analysis.views import reclaim, swapping
from tracer.errors import UsageError
from tracer.schema import UNLIMITED_BYTES

_NO_OWNER: Final = "no cgroup's limit was hit, or the trace does not say whose"


def explain(trace: TraceTables) -> list[OomReport]:
    """One report for each kill of the trace, in order of time, those that only its kernel log has included;
    empty where nothing was killed.

    What the numbers mean: `analysis.explain.measure.composition` (what usage was made of),
    `analysis.explain.measure.cushion` (what the cache gave back, and the window), `analysis.explain.verdict`
    (the cause), `analysis.kernel_log.comparison` (what it adds), `analysis.kernel_log.decisions` (what the
    probe missed).
    """
    missed = log_kills.reports(trace)
    completed = comparison.complete(trace)
    kills = _Kills(trace, completed)
    reports = {
        kill.kill_id: _report(trace, kill, completed.told[kill.kill_id])
        for owner_id, kill_ids in kills.by_owner().items()
        for kill in kills.of_owner(owner_id, kill_ids)
    }
    return sorted([*(reports[kill_id] for kill_id in completed.told), *missed], key=attrgetter("time"))


def allocated_before(trace: TraceTables, kill_id: int) -> tuple[Int64s | None, int, int]:
    """What counts for the allocators of a kill: the cgroups (None: all) and the interval, in nanoseconds.

    UsageError where there is no such kill.
    """
    there = np.unique(integers(trace.oom["kill_id"])).tolist()
    if kill_id in {kill.kill_id for kill in decisions.missed(trace)}:
        raise UsageError(f"kill {kill_id} is known from the kernel log alone: see memcg-tracer explain")
    if kill_id not in there:
        raise no_such_kill(kill_id, there)
    kills = _Kills(trace, comparison.complete(trace))
    (owner_id,) = (owner_id for owner_id, kill_ids in kills.by_owner().items() if kill_id in kill_ids)
    (kill,) = kills.of_owner(owner_id, [kill_id])
    return None if kill.owner_id is None else kill.subtree.members, kill.window.begin, kill.time_ns


def no_such_kill(kill_id: int, numbers: Sequence[int], place: str = "this trace") -> UsageError:
    there = "no kill at all" if not numbers else f"kill {numbers[0]}"
    there += f" to {numbers[-1]}" if len(numbers) > 1 else ""
    return UsageError(f"there is no kill {kill_id} in {place}: it holds {there}")


@dataclass(frozen=True, slots=True)
class _Kill:
    """One decision: a row for each victim, what was weighed, the limit's owner, and that with all below it.

    Of a global OOM there is no owner: `subtree` is of nobody, and the window all since the previous one.
    """

    kill_id: int
    rows: pd.DataFrame
    weighed: pd.DataFrame
    time_ns: int
    owner_id: int | None
    subtree: Subtree
    window: Window
    sample: pd.Series | None


class _Kills:
    """The kills of a trace, those for one limit together: what follows for its owner serves all of them."""

    def __init__(self, trace: TraceTables, completed: Completed) -> None:
        self._oom, samples = completed.oom, completed.samples
        self._candidates = trace.oom_candidates
        self._subtrees = Subtrees(trace, samples)
        self._rows = Grouped.by(integers(self._oom["kill_id"]))
        self._rows_of_owner = Grouped.by(integers(self._oom["limit_owner_cgroup_id"]))
        self._weighed = Grouped.by(integers(self._candidates["kill_id"]))
        self._at_kills = samples[is_one_of(samples["source"], ["oom"])]
        self._read = Grouped.by(integers(self._at_kills["kill_id"]))
        self._read_of = integers(self._at_kills["cgroup_id"])

    def by_owner(self) -> dict[int, list[int]]:
        """The owner (`NO_ID`: nobody) of the first row of each kill -> its kills, in order."""
        oom, found = self._oom, dict[int, list[int]]()
        kill_ids, firsts = np.unique(integers(oom["kill_id"]), return_index=True)
        for owner_id, kill_id in zip(
            integers(oom["limit_owner_cgroup_id"])[firsts].tolist(), kill_ids.tolist(), strict=True
        ):
            found.setdefault(owner_id, []).append(kill_id)
        return found

    def of_owner(self, owner_id: int, kill_ids: Sequence[int]) -> Iterator[_Kill]:
        """These kills, all for the limit of this owner."""
        moments = times_ns(self._oom)[self._rows_of_owner.of(owner_id)]
        subtree = self._subtrees.machine() if owner_id == NO_ID else self._subtrees.subtree_at(owner_id)
        for kill_id in kill_ids:
            rows = self._oom.iloc[self._rows.of(kill_id)]
            time_ns, limit = int(times_ns(rows)[0]), limit_of(rows.iloc[0])
            earlier = moments[: int(np.searchsorted(moments, time_ns))]
            if owner_id == NO_ID:
                start = cushion.after(subtree, earlier)
                window = Window(start, start, time_ns)
            else:
                limit = UNLIMITED_BYTES if limit is None else limit
                window = cushion.find_window(subtree, limit_bytes=limit, earlier=earlier, kill_ns=time_ns)
            yield _Kill(
                kill_id=kill_id,
                rows=rows,
                weighed=self._candidates.iloc[self._weighed.of(kill_id)],
                time_ns=time_ns,
                owner_id=None if owner_id == NO_ID else owner_id,
                subtree=subtree,
                window=window,
                sample=self._sample_at(kill_id, owner_id),
            )

    def _sample_at(self, kill_id: int, owner_id: int) -> pd.Series | None:
        """What the kernel program read of the owner at the kill."""
        rows = self._read.of(kill_id)
        rows = rows[self._read_of[rows] == owner_id]
        return self._at_kills.iloc[int(rows[0])] if owner_id != NO_ID and len(rows) else None


def _report(trace: TraceTables, kill: _Kill, told: Told) -> OomReport:
    unknown: Unknown = {}
    first = kill.rows.iloc[0]
    sizes, made_of, working_set, used = _memory(kill, unknown)
    tried = reclaim.attempts(kill.subtree, kill.window.at_limit, kill.time_ns)
    if tried.swap_writes is None:
        unknown |= swapping.NOT_KNOWN
    lost = trace.losses.of_numbers(kill.window.begin, kill.time_ns)
    most, further = _allocators(kill)
    findings = Findings(
        time=utc_time(kill.time_ns),
        constraint=str(first["constraint"]),
        owner=_limit_owner(trace, kill, unknown),
        trigger=_trigger(trace, kill, told, unknown),
        victims=_victims(trace, kill.rows, kill.time_ns, unknown),
        victim_tgids=frozenset(integers(kill.rows["tgid"]).tolist()),
        composition=made_of,
        cushion=used,
        reclaim=tried,
        allocators=most,
        page_size=page_size(trace),
        window=kill.window,
        circumstances=_circumstances(kill, sizes),
        steal=None if kill.owner_id is None else cushion.compare_with_kernel(kill.subtree, kill.window),
        lost_records=lost,
        sampled_at_kill=kill.sample is not None and bool(pd.notna(kill.sample["anon_bytes"])),
        is_told=bool(first["is_told"]) if pd.notna(first["is_told"]) else False,
        kmsg=told.state,
        trigger_tgid=optional(first["trigger_tgid"]),
        further_allocators=further,
    )
    chosen = victim_selection.from_trace(kill.subtree, kill.rows, kill.weighed, told.report, unknown)
    findings = replace(findings, candidates=chosen.candidates)
    judged = verdict.judge(findings)
    sized, why_unsized = kill_range.of_kill(kill.subtree, kill.rows, findings)
    if why_unsized is not None:
        unknown["sizing.min_limit_bytes"] = why_unsized
    return OomReport(
        kill_id=int(first["kill_id"]),
        time=findings.time,
        ktime_ns=int(first["ktime_ns"]),
        constraint=findings.constraint,
        limit_owner=findings.owner,
        trigger=findings.trigger,
        victims=tuple(findings.victims),
        candidates=chosen.candidates,
        composition=made_of,
        working_set_bytes=working_set,
        reclaim=tried,
        cushion=used,
        allocators=tuple(findings.allocators),
        verdict=judged,
        advice=(*advice.advise(findings, judged), *kill_range.cures(findings, judged.cause)),
        sizing=sized,
        quality=Quality(
            lost,
            told.state,
            dict(trace.meta["probes"]),
            unknown,
            (*told.disagreements, *filter(None, [chosen.disagreement])),
            told.missing,
            (*told.fields, *(["candidates"] if chosen.is_logged else [])),
        ),
        memory_stat_bytes={name: size for name, size in sizes.items() if size is not None},
        badness_total_pages=chosen.total_pages,
        what_if=chosen.what_if,
        further_allocators=further,
    )


def _memory(kill: _Kill, unknown: Unknown) -> tuple[dict[str, int | None], Composition, int | None, Cushion]:
    """Counters, composition, working set and cushion of the limit owner; all null without one."""
    if kill.owner_id is None:
        unknown |= dict.fromkeys(("composition", "cushion", "working_set_bytes"), _NO_OWNER)
        return {}, Composition(*[None] * 15), None, Cushion(*[None] * 6)
    total = _usage_at_kill(kill)
    sizes = composition.at_kill(kill.subtree, kill.time_ns, kill.sample)
    made_of, why = composition.compose(sizes, total)
    unknown |= why
    working_set = composition.working_set(sizes, total, unknown)
    file, shmem = sizes["file"], sizes["shmem"]
    cache_end = None if file is None or shmem is None else file - shmem
    limit = limit_of(kill.rows.iloc[0])
    used = cushion.measure(
        kill.subtree,
        limit_bytes=UNLIMITED_BYTES if limit is None else limit,
        window=kill.window,
        cache_end_bytes=cache_end,
        unknown=unknown,
    )
    return sizes, made_of, working_set, used


def _usage_at_kill(kill: _Kill) -> int | None:
    """The page counter at the kill: of the sample taken with the composition, else of the oom row."""
    sampled = None if kill.sample is None else optional(kill.sample["usage_bytes"])
    return sampled if sampled is not None else optional(kill.rows["usage_bytes"].iloc[0])


def _limit_owner(trace: TraceTables, kill: _Kill, unknown: Unknown) -> LimitOwner:
    first = kill.rows.iloc[0]
    container, pod = trace.places.container_of(kill.owner_id)
    life = None if kill.owner_id is None else trace.places.lives.of(kill.owner_id)
    owner = LimitOwner(
        cgroup=trace.places.path_of(kill.owner_id),
        container=container,
        pod=pod,
        limit_bytes=limit_of(first),
        usage_bytes=optional(first["usage_bytes"]),
        is_ancestor=None
        if kill.owner_id is None
        else bool(np.isin(first["trigger_cgroup_id"], kill.subtree.members))
        and int(first["trigger_cgroup_id"]) != kill.owner_id,
        cgroup_id=kill.owner_id,
        run=None if life is None else life.run,
        runs=None if life is None else life.runs,
    )
    if kill.owner_id is None:
        unknown["limit_owner"] = _NO_OWNER
    elif owner.cgroup is None:  # and so what a path tells: whose it is
        no_path = f"the trace holds no path of cgroup {kill.owner_id}"
        unknown |= {f"limit_owner.{name}": no_path for name in ("cgroup", "container", "pod")}
    return owner


def _trigger(trace: TraceTables, kill: _Kill, told: Told, unknown: Unknown) -> Trigger:
    first = kill.rows.iloc[0]
    gfp = optional(first["gfp"])
    if gfp is None:
        unknown["trigger.gfp"] = "the trigger made no reclaim attempt that the trace knows"
    order = optional(first["order"])
    if order is None and str(first["constraint"]) == "memcg":
        # vmscan:mm_vmscan_memcg_reclaim_begin always says 0, whatever was asked for.
        unknown["trigger.order"] = "the order of a charge is told where functions of the kernel can be hooked"
    elif order is None:
        order = _last_order(kill.subtree, int(first["trigger_pid"]), kill.window)
        if order is None:
            unknown["trigger.order"] = "the trigger made no direct reclaim attempt that the trace knows"
    cgroup = trace.places.path_of(int(first["trigger_cgroup_id"]))
    if cgroup is None:
        unknown["trigger.cgroup"] = f"the trace holds no path of cgroup {first['trigger_cgroup_id']}"
    return Trigger(
        pid=int(first["trigger_pid"]),
        comm=str(first["trigger_comm"]),
        cgroup=cgroup,
        gfp=gfp,
        order=order,
        stack=_frames(trace, first["kernel_stack_id"], "trigger.stack", unknown),
        user_stack=_frames(trace, first["user_stack_id"], "trigger.user_stack", unknown),
        gfp_names=told.gfp_names(gfp),
        tgid=int(first["trigger_tgid"]),
        cmdline=_title(trace, int(first["trigger_tgid"]), kill.time_ns),
    )


def _last_order(subtree: Subtree, pid: int, window: Window) -> int | None:
    attempted = subtree.reclaim
    first, last = np.searchsorted(times_ns(attempted), [window.begin, window.end + 1])
    rows = attempted.iloc[first:last]
    rows = rows[(integers(rows["pid"]) == pid) & is_one_of(rows["kind"], ["direct"])]
    return None if rows.empty else optional(rows["order"].iloc[-1])


def _frames(trace: TraceTables, stack_id: Any, field: str, unknown: Unknown) -> tuple[str, ...] | None:
    number = optional(stack_id)
    frames = None if number is None else trace.functions.frames(number)
    if frames is None:
        unknown[field] = "no stack was taken" if number is None else f"stack {number} is not in the trace"
    return frames


def _title(trace: TraceTables, tgid: int, time_ns: int) -> str | None:
    """Of a process that there was at that time."""
    return trace.processes.cmdline_at(tgid, time_ns, time_ns)


def _victims(trace: TraceTables, rows: pd.DataFrame, time_ns: int, unknown: Unknown) -> tuple[Victim, ...]:
    victims = tuple(
        Victim(
            pid=int(row["pid"]),
            comm=str(row["comm"]),
            cgroup=trace.places.path_of(int(row["cgroup_id"])),
            anon_rss_bytes=optional(row["anon_rss_bytes"]),
            file_rss_bytes=optional(row["file_rss_bytes"]),
            shmem_rss_bytes=optional(row["shmem_rss_bytes"]),
            pgtables_bytes=optional(row["pgtables_bytes"]),
            swap_bytes=optional(row["swap_bytes"]),
            oom_score_adj=int(row["oom_score_adj"]),
            group_kill=len(rows) > 1,
            cgroup_id=int(row["cgroup_id"]),
            cmdline=_title(trace, int(row["tgid"]), time_ns),
        )
        for row in records(rows)
    )
    if any(victim.anon_rss_bytes is None for victim in victims):
        unknown["victims.anon_rss_bytes"] = "a victim had no address space left when it was marked"
    if any(victim.cgroup is None for victim in victims):
        unknown["victims.cgroup"] = "the trace holds no path of a victim's cgroup"
    return victims


def _allocators(kill: _Kill) -> tuple[tuple[Allocator, ...], FurtherAllocators]:
    if kill.owner_id is None:
        return (), FurtherAllocators(0, 0)
    return allocators.between(kill.subtree, kill.window.begin, kill.time_ns)


def _circumstances(kill: _Kill, sizes: dict[str, int | None]) -> Circumstances:
    if kill.owner_id is None:
        return Circumstances()
    trigger_id = int(kill.rows["trigger_cgroup_id"].iloc[0])
    return circumstances.around(kill.subtree, kill.window, trigger_id=trigger_id, sizes=sizes)
