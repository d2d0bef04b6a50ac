"""The time, the limit owner, the trigger and the victims of a kill that a kernel log reports.

Each function adds the reasons for unknown values to `unknown`, by dotted field name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pandas as pd

from tracer.analysis.results.kill import LimitOwner, Lowered
from tracer.analysis.results.quality import Unknown
from tracer.analysis.results.tasks import Trigger, Victim
from tracer.kernel.cgroups.containers import ContainerNames, identify
from tracer.kernel.kmsg.report.log_report import Kill, LogReport, TaskRow
from tracer.kernel.kmsg.text.log_record import Stamp
from tracer.schema import UNLIMITED_BYTES

OF_THE_PATH: Final = ("cgroup", "container", "pod", "namespace", "image")
"""What is not known of a limit owner without a path."""

OF_LIMIT_BEFORE: Final = tuple(
    f"limit_owner.lowered.{name}" for name in ("limit_bytes", "is_limited", "before_ns")
)
"""What is not known of a lowered limit if the limit before was not seen."""

_LIMIT_WRITER: Final = "memory_max_write"  # mm/memcontrol.c

NO_COUNTERS: Final = "the kernel log does not have its usage and limit"
NO_LIMIT: Final = "no cgroup's limit was hit"
_NO_HEADER: Final = "the kernel log has no beginning of this report"
_NO_OWNER: Final = "the kernel log does not name the cgroup whose limit was hit"
_UNLIMITED: Final = "no limit is set: the kernel printed the largest possible number"
_NO_KILL: Final = "the kernel log names the task that the kernel chose, and ends before its kill"
_NOBODY: Final = "the kernel found no process that it could kill"
_PANIC: Final = "the kernel panicked, and killed no process"
_SECONDS: Final = re.compile(r"\d+\.\d+")
_UTC_DATE: Final = re.compile(r"\S+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC")

_IN_KILL_LINE: Final = ("anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes", "pgtables_bytes")
"""The sizes of a victim that the line on its kill may have."""

Named = Callable[[str], ContainerNames]
"""Path of a cgroup -> names of its container and its pod."""


def time(stamp: Stamp, unknown: Unknown) -> pd.Timestamp | None:
    """Return the time in UTC if the log has a date with a time zone; else None."""
    wall = stamp.wall
    when = None if wall is None else _utc(wall)
    if when is not None:
        return pd.Timestamp(when)
    if wall is not None:
        unknown["time"] = f"the kernel log has {wall}, without a year or a time zone"
    elif stamp.since_boot_ns is not None:
        unknown["time"] = (
            f"the kernel log has only {stamp.since_boot_ns / 1e9:.6f} s since the machine started"
        )
    else:
        unknown["time"] = "the kernel log has no times"
    return None


def _utc(wall: str) -> datetime | None:
    utc = _UTC_DATE.fullmatch(wall)
    try:
        if _SECONDS.fullmatch(wall):
            return datetime.fromtimestamp(float(wall), UTC)
        found = datetime.fromisoformat(f"{utc[1]}+00:00" if utc is not None else wall.replace(",", "."))
        return None if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def limit_owner(log: LogReport, outline: LimitOwner, unknown: Unknown, named: Named) -> LimitOwner:
    """Return the cgroup whose limit was hit; `outline` has its path, limit and usage.

    `named` has the names of its container and its pod. If it does not know these, the container's id and the
    pod's uid, which are in the path, are used.
    """
    has_counters = "memory" in log.counters
    cgroup = _trigger_cgroup(log)
    if log.constraint not in ("memcg", "unknown"):
        unknown["limit_owner"] = NO_LIMIT
    elif log.oom_memcg is None and not has_counters:
        unknown["limit_owner"] = _NO_OWNER
    else:
        if log.oom_memcg is None:
            unknown |= {f"limit_owner.{name}": _NO_OWNER for name in OF_THE_PATH}
        if not has_counters:
            of_counters = ("limit_bytes", "usage_bytes", "is_limited")
            unknown |= {f"limit_owner.{name}": NO_COUNTERS for name in of_counters}
        if log.oom_memcg is None or cgroup is None:
            unknown["limit_owner.is_ancestor"] = (
                "the kernel log does not name the cgroup of the task that asked"
            )
    if (outline.limit_bytes or 0) >= UNLIMITED_BYTES:
        unknown["limit_owner.limit_bytes"] = _UNLIMITED
    owner = replace(outline, lowered=_lowered(log, outline.usage_bytes, unknown))
    if log.oom_memcg is None:
        return owner
    reference, names = identify(log.oom_memcg), named(log.oom_memcg)
    return replace(
        owner,
        container=names.container or (None if reference is None else reference.container_id),
        pod=names.pod or (None if reference is None else reference.pod_uid),
        is_ancestor=None if cgroup is None else cgroup != log.oom_memcg,
        namespace=names.namespace,
        image=names.image,
    )


def is_writing_limit(constraint: str, stack: Sequence[str] | None) -> bool:
    """Return whether the trigger of a kill was writing the limit that was hit, and asked for no memory.

    memory.max of cgroup v2 takes any value. If reclaim does not bring usage below it, the writer invokes the
    OOM killer. v1 refuses a limit below usage (mem_cgroup_resize_max in mm/memcontrol-v1.c).
    """
    return constraint == "memcg" and any(frame.partition("+")[0] == _LIMIT_WRITER for frame in stack or ())


def _lowered(log: LogReport, usage_bytes: int | None, unknown: Unknown) -> Lowered | None:
    """Return that the limit was lowered if the stack shows it; a log does not have the limit before."""
    if not is_writing_limit(log.constraint, log.stack):
        return None
    unknown |= dict.fromkeys(OF_LIMIT_BEFORE, "the kernel log does not have the limit before")
    return Lowered(None, usage_bytes, by_trigger=True)


def _trigger_cgroup(log: LogReport) -> str | None:
    """Return the trigger's cgroup if the trigger and the victim are one process; a log has only the
    victim's cgroup."""
    pid = log.invoker.pid
    if pid is None or log.task_memcg is None:
        return None
    if log.chosen is not None and pid == log.chosen.pid:
        return log.task_memcg
    tgids = {row.tgid for row in log.tasks if log.chosen is not None and row.pid == log.chosen.pid}
    return log.task_memcg if pid in tgids else None


def trigger(log: LogReport, unknown: Unknown) -> Trigger:
    """Return the task whose charge could not be met."""
    invoker, cgroup = log.invoker, _trigger_cgroup(log)
    if "header" in log.missing:
        unknown["trigger"] = _NO_HEADER
    else:
        if invoker.pid is None:
            unknown["trigger.pid"] = "the kernel log has no line with the pid of the task that asked"
        if cgroup is None:
            unknown["trigger.cgroup"] = "the kernel log names only the cgroup of the victim"
        if not log.stack:
            unknown["trigger.stack"] = "the kernel log has no call trace"
    return Trigger(
        pid=invoker.pid,
        comm=invoker.comm,
        cgroup=cgroup,
        gfp=invoker.gfp,
        order=invoker.order,
        stack=log.stack or None,
        user_stack=None,
        gfp_names=invoker.gfp_names or "",
        tgid=_tgid_of(invoker.pid, log),
    )


def _tgid_of(pid: int | None, log: LogReport) -> int | None:
    """Return the process of a thread if another line of the log has it.

    The header has the number of the thread (`dump_header` prints task_pid_nr). The table of tasks has both
    numbers, and the line on the kill has that of a process.
    """
    if any(kill.pid == pid for kill in log.kills):
        return pid
    return next((row.tgid for row in log.tasks if pid in (row.pid, row.tgid)), None)


def victims(log: LogReport, page_size: int, unknown: Unknown) -> Iterator[Victim]:
    """Yield the killed tasks; if the log ends before the kill, the task that the kernel chose."""
    rows = {row.pid: row for row in log.tasks}
    kills = log.kills
    if log.is_no_task_killable or (log.is_panic and not kills):
        unknown["victims"] = _PANIC if log.is_panic_on_oom else _NOBODY
        kills = ()
    elif not kills and log.chosen is not None:
        unknown["victims"] = _NO_KILL
        kills = (Kill(log.stamp, log.chosen.pid, log.chosen.comm, uid=log.chosen.uid),)
    elif not kills:
        unknown["victims"] = "the kernel log ends before it names the victim"
    found = [
        _victim(log, kill, rows.get(kill.pid), page_size, is_first=number == 0)
        for number, kill in enumerate(kills)
    ]
    yield from found
    if kills and not any(kill.pid in rows for kill in kills):
        unknown["victims.swap_bytes"] = "the kernel log has no table with a row for the victim"
    if any(one.anon_rss_bytes is None for one in found):
        unknown["victims.anon_rss_bytes"] = "the kernel log does not have it in the line about the kill"
    if len(kills) > 1 or (kills and log.task_memcg is None):
        unknown["victims.cgroup"] = "the kernel log names only the cgroup of the process that was chosen"


def _victim(log: LogReport, kill: Kill, row: TaskRow | None, page_size: int, *, is_first: bool) -> Victim:
    """Return a victim from the line on its kill, and from its row in the table for what that line lacks."""
    sizes = {} if row is None else row.sizes_bytes(page_size)
    told = {name: getattr(kill, name) for name in _IN_KILL_LINE}
    adj = kill.oom_score_adj
    return Victim(
        pid=kill.pid,
        comm=kill.comm,
        cgroup=log.task_memcg if is_first else None,
        oom_score_adj=row.oom_score_adj if adj is None and row is not None else adj,
        group_kill=log.group_memcg is not None,
        **sizes | {name: value for name, value in told.items() if value is not None},
    )
