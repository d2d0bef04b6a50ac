"""The limit owner, the trigger and the victims of a kill that a trace recorded.

Each function adds the reasons for unknown values to `unknown`, by dotted field name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import integers, is_one_of, optional, times_ns
from tracer.analysis.core.limits import limit_of
from tracer.analysis.core.lookup.stacks import is_named
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.explain.measure.logged_parties import OF_LIMIT_BEFORE, OF_THE_PATH, is_writing_limit
from tracer.analysis.explain.measure.recorded_kills import RecordedKill
from tracer.analysis.kernel_log.comparison import Told
from tracer.analysis.results.kill import LimitOwner, Lowered
from tracer.analysis.results.quality import Unknown
from tracer.analysis.results.tasks import Trigger, Victim

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
        is_ancestor=bool(np.isin(trigger_id, kill.subtree.members)) and trigger_id != kill.owner_id,
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
        by_trigger = not np.isin(first["trigger_cgroup_id"], kill.subtree.members)
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
    return Trigger(
        pid=int(first["trigger_pid"]),
        comm=str(first["trigger_comm"]),
        cgroup=cgroup,
        gfp=gfp,
        order=order,
        stack=told.report.stack
        if told.report is not None and "trigger.stack" in told.fields
        else _frames(trace, first["kernel_stack_id"], "trigger.stack", unknown),
        user_stack=_frames(trace, first["user_stack_id"], "trigger.user_stack", unknown),
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
