"""A kill as the kernel log reports it: time, limit owner and its memory, trigger and victims.

The report has the lines of memory.stat:

* on v2, those of v2;
* on v1, those of v1, with `total_` for the cgroup with all below it, since dddb44ffa0d5 ("memcg: dump
  memory.stat during cgroup OOM for v1"), v6.5;
* before that, those of v2 on v1 as well, since c8713d0b2312 ("mm: memcontrol: dump memory.stat during cgroup
  OOM"), v5.3;
* before that, a line for each cgroup, in KB, without the cgroups below it. Here they are added up.

Kernel memory is `kernel`; in logs of v1 it is one number, the counter `kmem`.

Functions with `unknown` add the reasons for unknown values to it, by dotted field name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pandas as pd

from tracer.analysis.results.kill import LimitOwner, Lowered, Trigger, Victim
from tracer.analysis.results.quality import Unknown
from tracer.categories import COUNTERS, V1_STAT
from tracer.kernel.cgroups.containers import ContainerNames, identify
from tracer.kernel.kmsg.report.log_report import PAGE_SIZES, Kill, LogReport, OwnerMemory, TaskRow
from tracer.kernel.kmsg.text.styles import Stamp
from tracer.schema import MEMORY_STAT_BYTES, UNLIMITED_BYTES

Sizes = dict[str, int | None]

DEFAULT_PAGE_SIZE: Final = 4096
_NEAR_BYTES: Final = 1 << 20  # more than the batches of charges that all CPUs hold back
_MOST_OF_USAGE: Final = 4
"""A size of more than this many times usage was misread from a broken line."""

_MOSTLY: Final = 0.8
"""The least share of usage that the parts in v1's memory.stat add up to if none is missing."""

_NOT_IN_USAGE: Final = frozenset({"swap", "zswapped", "swapcached"})
_V2: Final = {counter.name: counter.v2_line for counter in COUNTERS}
_V1: Final = {column.removesuffix("_bytes"): name for name, column in V1_STAT.items()}
_V1_HIERARCHICAL: Final = {column: f"total_{name}" for column, name in _V1.items()}


def sizes(log: LogReport | OwnerMemory) -> Sizes:
    """Return the sizes of memory.stat (`schema.MEMORY_STAT_BYTES`) of the limit owner, in bytes."""
    values, names = ({}, {}) if is_in_part(log) else _values(log)
    found: Sizes = {name: values.get(names.get(name, "")) for name in MEMORY_STAT_BYTES}
    memory = log.counters.get("memory")
    if memory is not None:
        most = _MOST_OF_USAGE * max(memory.usage_bytes, _NEAR_BYTES)
        found = {
            name: value if value is None or value <= most or name in _NOT_IN_USAGE else None
            for name, value in found.items()
        }
    for name in _without_line(log, names):
        found[name] = 0 if found[name] is None else found[name]
    kmem, swap = log.counters.get("kmem"), log.counters.get("swap")
    if found["kernel"] is None and kmem is not None:
        found["kernel"] = kmem.usage_bytes
    if found["swap"] is None and swap is not None:
        found["swap"] = swap.usage_bytes
    return found


def is_in_part(log: LogReport | OwnerMemory) -> bool:
    """Return whether memory.stat of cgroups below the limit owner is missing.

    Where each cgroup has a line of its own, usage of the limit owner is the anonymous memory, the cache and
    the kernel memory of all of them. Lines are missing if what was printed adds up to much less.
    """
    memory, kmem = log.counters.get("memory"), log.counters.get("kmem")
    if memory is None or kmem is None or not log.stats or log.stats[0].resolution_bytes == 1:
        return False
    charged = sum(stat.values.get(name, 0) for stat in log.stats for name in ("cache", "rss"))
    return charged + kmem.usage_bytes < _MOSTLY * memory.usage_bytes - _NEAR_BYTES


def why_not(log: LogReport) -> Callable[[str], str]:
    """Return the look-up of the reason why a size is not known, by its name."""
    if not any(stat.values for stat in log.stats):
        return lambda _: "the kernel log has no memory.stat of it"
    if log.stats[0].is_cut or is_in_part(log):
        return lambda _: "the kernel log has its memory.stat only in part"
    kmem, no_line = log.counters.get("kmem"), "the memory.stat in the kernel log has no line for it"
    if kmem is None:
        return lambda _: no_line
    in_one = f"the kernel log gives the kernel's memory as one number, {kmem.usage_bytes} bytes"
    return lambda name: no_line if name in _V1 else in_one


def swap(log: LogReport) -> tuple[int, int | None] | None:
    """Return (bytes in swap, the most that could be there; None: no known bound); None if the log has
    neither.

    On v1 the counter memory+swap bounds the two together.
    """
    memory, own, both = (log.counters.get(name) for name in ("memory", "swap", "memory+swap"))
    if own is not None:
        return own.usage_bytes, _bound(own.limit_bytes)
    if memory is None or both is None:
        return None
    used = max(both.usage_bytes - memory.usage_bytes, 0)
    room = max(both.limit_bytes - memory.limit_bytes, 0)
    return used, None if both.limit_bytes >= UNLIMITED_BYTES else room


def full_swap_limit(log: LogReport) -> int | None:
    """Return v1's limit of memory and swap together, in bytes, if it was the limit that was hit.

    Usage is then at this limit, and below the limit of memory alone.
    """
    memory, both = log.counters.get("memory"), log.counters.get("memory+swap")
    if memory is None or both is None or both.limit_bytes >= UNLIMITED_BYTES:
        return None
    is_full = both.limit_bytes - both.usage_bytes <= _NEAR_BYTES
    return both.limit_bytes if is_full and memory.limit_bytes - memory.usage_bytes > _NEAR_BYTES else None


def page_size(log: LogReport) -> int | None:
    """Return the size of a page in bytes, None if it is not known.

    It follows from the total_vm of a killed task, which is in pages in the table of tasks, and in kB in its
    kill line, or else from the memory of the whole machine.
    """
    rows: dict[int | None, int] = {row.pid: row.total_vm_pages for row in log.tasks}
    for kill in log.kills:
        pages = rows.get(kill.pid)
        if pages and kill.total_vm_bytes is not None and kill.total_vm_bytes % pages == 0:
            found = kill.total_vm_bytes // pages
            if found in PAGE_SIZES:
                return found
    return log.mem_info.page_size if log.mem_info is not None and log.constraint == "global" else None


def _without_line(log: LogReport | OwnerMemory, names: Mapping[str, str]) -> tuple[str, ...]:
    """Return the sizes that are 0 if memory.stat has no line for them.

    On v2 a missing line proves nothing for huge pages, which were charged before they had a line
    (`categories.COUNTERS`).
    """
    if not log.stats or log.stats[0].is_cut or not names:
        return ()
    return ("zswap",) if names is _V2 else ("zswap", "hugetlb")


def _values(log: LogReport | OwnerMemory) -> tuple[Mapping[str, int], Mapping[str, str]]:
    """Return (name -> bytes as printed, name of a size -> its name in the report)."""
    if not log.stats:
        return {}, {}
    first = log.stats[0]
    if first.resolution_bytes > 1:
        added: dict[str, int] = {}
        for stat in log.stats:
            for name, value in stat.values.items():
                added[name] = added.get(name, 0) + value
        return added, _V1
    is_v1 = "total_rss" in first.values or "cache" in first.values
    return first.values, _V1_HIERARCHICAL if is_v1 else _V2


def _bound(limit_bytes: int) -> int | None:
    return None if limit_bytes >= UNLIMITED_BYTES else limit_bytes


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
_YEAR: Final = re.compile(r"(?<![+\d-])(?:19|20)\d\d(?!\d)")
_SECONDS: Final = re.compile(r"\d+\.\d+")
_UTC_DATE: Final = re.compile(r"\S+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC")

_IN_KILL_LINE: Final = ("anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes", "pgtables_bytes")
"""The sizes of a victim that the line on its kill may have."""

Named = Callable[[str], ContainerNames]
"""Path of a cgroup -> names of its container and its pod."""


def kill_time(stamp: Stamp, unknown: Unknown) -> pd.Timestamp | None:
    """Return the time in UTC if the log has a date with a time zone; else None."""
    wall = stamp.wall
    when = None if wall is None else _utc(wall)
    if when is not None:
        return pd.Timestamp(when)
    if wall is not None:
        lacks = "a time zone" if _YEAR.search(wall) is not None else "a year or a time zone"
        unknown["time"] = f"the kernel log has {wall}, without {lacks}"
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


def outlined_owner(log: LogReport) -> LimitOwner:
    """Return the path, limit and usage of the cgroup whose limit was hit, and its container if the log names
    that beside the path."""
    memory = log.counters.get("memory")
    limit, usage = (None, None) if memory is None else (memory.limit_bytes, memory.usage_bytes)
    return LimitOwner(log.oom_memcg, log.container, limit_bytes=limit, usage_bytes=usage)


def limit_owner(log: LogReport, unknown: Unknown, named: Named) -> LimitOwner:
    """Return the cgroup whose limit was hit.

    `named` has the names of its container and its pod. If it does not know these, the container's id and the
    pod's uid, which are in the path, are used.
    """
    outline, has_counters = outlined_owner(log), "memory" in log.counters
    cgroup = _trigger_cgroup(log)
    if log.constraint not in ("memcg", "unknown"):
        unknown["limit_owner"] = NO_LIMIT
    elif log.oom_memcg is None and log.container is None and not has_counters:
        unknown["limit_owner"] = _NO_OWNER
    else:
        if log.oom_memcg is None:
            absent = (name for name in OF_THE_PATH if getattr(outline, name) is None)
            unknown |= {f"limit_owner.{name}": _NO_OWNER for name in absent}
        if not has_counters:
            of_counters = ("limit_bytes", "usage_bytes", "is_limited")
            unknown |= {f"limit_owner.{name}": NO_COUNTERS for name in of_counters}
        if log.oom_memcg is None or cgroup is None:
            unknown["limit_owner.is_ancestor"] = (
                "the kernel log does not name the cgroup of the task that asked"
            )
    if (outline.limit_bytes or 0) >= UNLIMITED_BYTES:
        unknown["limit_owner.limit_bytes"] = _UNLIMITED
    lowered = _lowered(log, outline.usage_bytes, unknown)
    if log.oom_memcg is None:
        return outline if lowered is None else replace(outline, lowered=lowered)
    reference, names = identify(log.oom_memcg), named(log.oom_memcg)
    return replace(
        outline,
        lowered=lowered,
        container=log.container or names.container or (reference.container_id if reference else None),
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
    named = [frame for frame in stack or () if frame.startswith(_LIMIT_WRITER)]
    return constraint == "memcg" and any(frame.partition("+")[0] == _LIMIT_WRITER for frame in named)


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
    if "header" in log.missing and invoker.pid is None:
        unknown["trigger"] = _NO_HEADER
    else:
        if "header" in log.missing:
            unknown |= dict.fromkeys(("trigger.gfp", "trigger.order"), _NO_HEADER)
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
    rows: dict[int | None, TaskRow] = {row.pid: row for row in log.tasks}
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
    if any(kill.pid is None for kill in kills):
        unknown["victims.pid"] = "the line about the kill in the kernel log has only the name"
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
