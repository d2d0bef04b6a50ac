"""The post-mortem: one report for each decision of the OOM killer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
import pandas as pd

from tracer.analysis import (
    advice,
    choice,
    circumstances,
    composition,
    cushion,
    kernel_log,
    names,
    reclaim,
    sizing,
    stacks,
    swapping,
    verdict,
)
from tracer.analysis.composition import Unknown
from tracer.analysis.cushion import Window
from tracer.analysis.findings import Circumstances, Findings
from tracer.analysis.kernel_log import Told
from tracer.analysis.report import (
    Allocator,
    Composition,
    Constraint,
    Cushion,
    FurtherAllocators,
    LimitOwner,
    OomReport,
    Quality,
    Trigger,
    Victim,
)
from tracer.analysis.tables import (
    NO_ID,
    Int64s,
    TraceTables,
    column_times_ns,
    integers,
    is_one_of,
    iso_time,
    optional,
    page_size,
    times_ns,
)
from tracer.errors import UsageError
from tracer.schema import UNLIMITED_BYTES

_MOST_ALLOCATORS: Final = 10
_CHARGED: Final = ("anon", "file", "kernel", "sock")
"""Categories that do not contain each other and together are all that is charged."""

_NO_OWNER: Final = "no cgroup's limit was hit, or the trace does not say whose"


def explain(trace: TraceTables) -> list[OomReport]:
    """One report for each kill of the trace, in order of time; empty where nothing was killed.

    What the numbers mean: `analysis.composition` (what usage was made of), `analysis.cushion` (what the cache
    gave back, and the window), `analysis.verdict` (the cause), `analysis.kernel_log` (what it adds).
    """
    trace, told = kernel_log.complete(trace)
    return [_report(trace, _Kill.of(trace, kill_id), told[kill_id]) for kill_id in told]


def allocated_before(trace: TraceTables, kill_id: int) -> tuple[Int64s | None, int, int]:
    """What counts for the allocators of a kill: the cgroups (None: all) and the interval, in nanoseconds.

    UsageError where there is no such kill.
    """
    there = np.unique(integers(trace.oom["kill_id"])).tolist()
    if kill_id not in there:
        raise no_such_kill(kill_id, there)
    trace, _ = kernel_log.complete(trace)
    kill = _Kill.of(trace, kill_id)
    return None if kill.owner_id is None else kill.members, kill.window.begin, kill.time_ns


def no_such_kill(kill_id: int, numbers: Sequence[int], place: str = "this trace") -> UsageError:
    there = "no kill at all" if not numbers else f"kill {numbers[0]}"
    there += f" to {numbers[-1]}" if len(numbers) > 1 else ""
    return UsageError(f"there is no kill {kill_id} in {place}: it holds {there}")


@dataclass(frozen=True, slots=True)
class _Kill:
    """One decision: a row for each victim, the limit's owner, and the owner with all below it.

    Of a global OOM there is no owner: `members` is then empty and the window all since the previous one.
    """

    rows: pd.DataFrame
    time_ns: int
    owner_id: int | None
    members: Int64s
    window: Window
    sample: pd.Series | None

    @classmethod
    def of(cls, trace: TraceTables, kill_id: int) -> _Kill:
        rows = trace.oom[integers(trace.oom["kill_id"]) == kill_id]
        time_ns, first = int(times_ns(rows)[0]), rows.iloc[0]
        owner_id, limit = optional(first["limit_owner_cgroup_id"]), optional(first["limit_bytes"])
        earlier = _earlier_kills(trace.oom, owner_id, time_ns)
        if owner_id is None:
            start = cushion.after(trace, earlier)
            return cls(rows, time_ns, None, np.array([], dtype=np.int64), Window(start, start, time_ns), None)
        members = names.descendants(trace.cgroups, owner_id)
        limit = UNLIMITED_BYTES if limit is None else limit
        window = cushion.find_window(
            trace, owner_id, members, limit_bytes=limit, earlier=earlier, kill_ns=time_ns
        )
        return cls(rows, time_ns, owner_id, members, window, _sample_at(trace.samples, kill_id, owner_id))


def _report(trace: TraceTables, kill: _Kill, told: Told) -> OomReport:
    unknown: Unknown = {}
    first = kill.rows.iloc[0]
    sizes, made_of, working_set, used = _memory(trace, kill, unknown)
    targets = kill.members if kill.owner_id is not None else np.array([NO_ID])
    tried = reclaim.attempts(trace, targets, kill.window.at_limit, kill.time_ns)
    if tried.swap_writes is None:
        unknown["reclaim.swap_writes"] = swapping.NOT_KNOWN
    lost = lost_records(trace, kill.window.begin, kill.time_ns)
    allocators, further = _allocators(trace, kill)
    findings = Findings(
        time=iso_time(kill.time_ns),
        constraint=cast(Constraint, str(first["constraint"])),
        owner=_limit_owner(trace, kill, unknown),
        trigger=_trigger(trace, kill, told, unknown),
        victims=_victims(trace, kill.rows, unknown),
        victim_tgids=frozenset(integers(kill.rows["tgid"]).tolist()),
        composition=made_of,
        cushion=used,
        reclaim=tried,
        allocators=allocators,
        page_size=page_size(trace),
        window=kill.window,
        circumstances=_circumstances(trace, kill, sizes),
        steal=None
        if kill.owner_id is None
        else cushion.compare_with_kernel(trace, kill.owner_id, kill.members, kill.window),
        lost_records=lost,
        sampled_at_kill=kill.sample is not None and bool(pd.notna(kill.sample["anon_bytes"])),
        is_told=bool(first["is_told"]) if pd.notna(first["is_told"]) else False,
        kmsg=told.state,
        trigger_tgid=optional(first["trigger_tgid"]),
        further_allocators=further,
    )
    chosen = choice.of_trace(trace, kill.rows, told.report, unknown)
    findings = replace(findings, candidates=chosen.candidates)
    judged = verdict.judge(findings)
    sized, why_unsized = sizing.of_kill(trace, kill.rows, kill.members, findings)
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
        advice=(*advice.advise(findings, judged), *sizing.cures(findings, judged.cause)),
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


def _memory(
    trace: TraceTables, kill: _Kill, unknown: Unknown
) -> tuple[dict[str, int | None], Composition, int | None, Cushion]:
    """Counters, composition, working set and cushion of the limit owner; all null without one."""
    if kill.owner_id is None:
        unknown |= dict.fromkeys(("composition", "cushion", "working_set_bytes"), _NO_OWNER)
        return {}, Composition(*[None] * 15), None, Cushion(*[None] * 6)
    total = _usage_at_kill(trace, kill)
    sizes = composition.at_kill(trace, kill.owner_id, kill.members, kill.time_ns, kill.sample)
    made_of, why = composition.compose(sizes, total)
    unknown |= why
    working_set = composition.working_set(sizes, total, unknown)
    file, shmem = sizes["file"], sizes["shmem"]
    cache_end = None if file is None or shmem is None else file - shmem
    limit = optional(kill.rows["limit_bytes"].iloc[0])
    used = cushion.measure(
        trace,
        kill.owner_id,
        kill.members,
        limit_bytes=UNLIMITED_BYTES if limit is None else limit,
        window=kill.window,
        cache_end_bytes=cache_end,
        unknown=unknown,
    )
    return sizes, made_of, working_set, used


def _usage_at_kill(trace: TraceTables, kill: _Kill) -> int | None:
    """The page counter at the kill: of the sample taken with the composition, else of the oom row."""
    sampled = None if kill.sample is None else optional(kill.sample["usage_bytes"])
    return sampled if sampled is not None else optional(kill.rows["usage_bytes"].iloc[0])


def _limit_owner(trace: TraceTables, kill: _Kill, unknown: Unknown) -> LimitOwner:
    first = kill.rows.iloc[0]
    container, pod = names.container_of(trace.cgroups, kill.owner_id)
    owner = LimitOwner(
        cgroup=names.path_of(trace.cgroups, kill.owner_id),
        container=container,
        pod=pod,
        limit_bytes=optional(first["limit_bytes"]),
        usage_bytes=optional(first["usage_bytes"]),
        is_ancestor=None
        if kill.owner_id is None
        else int(first["trigger_cgroup_id"]) in set(kill.members.tolist()) - {kill.owner_id},
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
        order = _last_order(trace.reclaim, int(first["trigger_pid"]), kill.window)
        if order is None:
            unknown["trigger.order"] = "the trigger made no direct reclaim attempt that the trace knows"
    cgroup = names.path_of(trace.cgroups, int(first["trigger_cgroup_id"]))
    if cgroup is None:
        unknown["trigger.cgroup"] = f"the trace holds no path of cgroup {first['trigger_cgroup_id']}"
    return Trigger(
        pid=int(first["trigger_pid"]),
        comm=str(first["trigger_comm"]),
        cgroup=cgroup,
        gfp=gfp,
        order=order,
        stack=_frames(trace.stacks, first["kernel_stack_id"], "trigger.stack", unknown),
        user_stack=_frames(trace.stacks, first["user_stack_id"], "trigger.user_stack", unknown),
        gfp_names=told.gfp_names(gfp),
    )


def _last_order(attempted: pd.DataFrame, pid: int, window: Window) -> int | None:
    moments = times_ns(attempted)
    rows = attempted[
        (integers(attempted["pid"]) == pid)
        & is_one_of(attempted["kind"], ["direct"])
        & (moments >= window.begin)
        & (moments <= window.end)
    ]
    return None if rows.empty else optional(rows["order"].iloc[-1])


def _frames(stacks: pd.DataFrame, stack_id: Any, field: str, unknown: Unknown) -> tuple[str, ...] | None:
    number = optional(stack_id)
    rows = stacks[integers(stacks["stack_id"]) == (NO_ID if number is None else number)]
    if rows.empty:
        unknown[field] = "no stack was taken" if number is None else f"stack {number} is not in the trace"
        return None
    return tuple(str(frame) for frame in rows["frames"].iloc[-1])


def _victims(trace: TraceTables, rows: pd.DataFrame, unknown: Unknown) -> tuple[Victim, ...]:
    victims = tuple(
        Victim(
            pid=int(row["pid"]),
            comm=str(row["comm"]),
            cgroup=names.path_of(trace.cgroups, int(row["cgroup_id"])),
            anon_rss_bytes=optional(row["anon_rss_bytes"]),
            file_rss_bytes=optional(row["file_rss_bytes"]),
            shmem_rss_bytes=optional(row["shmem_rss_bytes"]),
            pgtables_bytes=optional(row["pgtables_bytes"]),
            swap_bytes=optional(row["swap_bytes"]),
            oom_score_adj=int(row["oom_score_adj"]),
            group_kill=len(rows) > 1,
        )
        for row in rows.to_dict("records")
    )
    if any(victim.anon_rss_bytes is None for victim in victims):
        unknown["victims.anon_rss_bytes"] = "a victim had no address space left when it was marked"
    if any(victim.cgroup is None for victim in victims):
        unknown["victims.cgroup"] = "the trace holds no path of a victim's cgroup"
    return victims


def _allocators(trace: TraceTables, kill: _Kill) -> tuple[tuple[Allocator, ...], FurtherAllocators]:
    """Who charged most from `window.begin` to the kill, and all others together.

    The sum of each category counts where it is positive, so that a process is not excused by the cache that
    reclaim took in its context while it allocated.
    """
    charge = trace.charge
    first, last = np.searchsorted(times_ns(charge), [kill.window.begin, kill.time_ns + 1])
    rows = charge.iloc[first:last]
    rows = rows[
        is_one_of(rows["category"], _CHARGED)
        & np.isin(integers(rows["cgroup_id"]), kill.members)
        & rows["tgid"].notna().to_numpy(dtype=bool)
    ]
    net = (
        pd.DataFrame(
            {
                "tgid": integers(rows["tgid"]),
                "category": rows["category"].astype(str).to_numpy(),
                "bytes": integers(rows["bytes"]),
            }
        )
        .groupby(["tgid", "category"])["bytes"]
        .sum()
        .clip(lower=0)
        .groupby("tgid")
        .sum()
        .sort_values(ascending=False, kind="stable")
    )
    net = net[net > 0]
    most, less = net.head(_MOST_ALLOCATORS), net.iloc[_MOST_ALLOCATORS:]
    sampled = stacks.of_interval(trace, kill.members, kill.window.begin, kill.time_ns)
    tgids = integers(sampled["tgid"])
    named = tuple(
        Allocator(
            tgid=int(tgid),
            comm=names.comm_at(trace.tasks, int(tgid), kill.window.begin, kill.time_ns),
            charged_bytes=int(charged),
            stack=stacks.heaviest(trace, sampled[tgids == int(tgid)]),
        )
        for tgid, charged in zip(most.index.tolist(), most.tolist(), strict=True)
    )
    return named, FurtherAllocators(len(less), int(less.sum()))


def _circumstances(trace: TraceTables, kill: _Kill, sizes: dict[str, int | None]) -> Circumstances:
    if kill.owner_id is None:
        return Circumstances()
    trigger_id = int(kill.rows["trigger_cgroup_id"].iloc[0])
    return circumstances.around(
        trace, kill.owner_id, kill.members, kill.window, trigger_id=trigger_id, sizes=sizes
    )


def _earlier_kills(oom: pd.DataFrame, owner_id: int | None, kill_ns: int) -> Int64s:
    """When there were kills for the same limit before, in order."""
    owners = integers(oom["limit_owner_cgroup_id"])
    moments = times_ns(oom)
    is_earlier = (owners == (NO_ID if owner_id is None else owner_id)) & (moments < kill_ns)
    earlier: Int64s = moments[is_earlier]
    return earlier


def _sample_at(samples: pd.DataFrame, kill_id: int, owner_id: int) -> pd.Series | None:
    rows = samples[
        is_one_of(samples["source"], ["oom"])
        & (integers(samples["kill_id"]) == kill_id)
        & (integers(samples["cgroup_id"]) == owner_id)
    ]
    return None if rows.empty else rows.iloc[0]


def lost_records(trace: TraceTables, begin_ns: int, end_ns: int) -> int:
    """Records lost in intervals that touch this one, other than what no number rests on: the kernel's own
    (`kernel_log`), and samples of stacks."""
    loss = trace.loss[~is_one_of(trace.loss["stream"], ["kernel_log", "stack_sample"])]
    touches = (times_ns(loss) >= begin_ns) & (column_times_ns(loss["begin"]) <= end_ns)
    return int(integers(loss["lost"])[touches].sum())
