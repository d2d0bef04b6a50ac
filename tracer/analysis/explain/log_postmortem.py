"""The post-mortem from a kernel log alone: the same reports as `analysis.explain.postmortem` gives, as far
as a log goes.

A log tells the kernel's own word on a kill and the state at that moment. It does not tell what came before,
so what had grown, what the cache gave back and who allocated is not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pandas as pd

from tracer.analysis.explain import advice, shortage, verdict
from tracer.analysis.explain.measure import composition
from tracer.analysis.explain.measure.composition import Unknown
from tracer.analysis.explain.measure.findings import Circumstances, Findings, Swap
from tracer.analysis.explain.victim import badness_total, victim_selection
from tracer.analysis.explain.wording import owner_name, process
from tracer.analysis.kernel_log import logged_memory
from tracer.analysis.results.conclusions import Sizing, Verdict
from tracer.analysis.results.kill import LimitOwner, OomReport
from tracer.analysis.results.memory import Cushion
from tracer.analysis.results.quality import KernelLogPlace, Quality
from tracer.analysis.results.reclaim_attempts import Reclaim
from tracer.analysis.results.tasks import Trigger, Victim
from tracer.kernel.cgroups import containers
from tracer.kernel.kmsg.report.log_report import Kill, LogReport, Stamp, TaskRow
from tracer.schema import UNLIMITED_BYTES

LOG_ALONE: Final = "a kernel log alone does not show it"
_NO_HEADER: Final = "the kernel log has no beginning of this report"
_NO_OWNER: Final = "the kernel log does not name the cgroup whose limit was hit"
_NO_COUNTERS: Final = "the kernel log has no usage and limit of it"
_UNLIMITED: Final = "it has none: the kernel printed the largest number that there is"
_NO_LIMIT: Final = "no cgroup's limit was hit"
_NO_KILL: Final = "the kernel log says whom the kernel chose, and ends before it says that it was killed"
_NOBODY: Final = "the kernel found no process that it could have killed"
OF_LIVES: Final = ("limit_owner.cgroup_id", "limit_owner.run", "limit_owner.runs", "victims.cgroup_id")
_NOT_OF_LOG: Final = (
    "reclaim",
    "cushion.cache_start_bytes",
    "cushion.evicted_bytes",
    "cushion.absorbed_bytes",
    "cushion.exhausted_at",
    "cushion.refaulted_bytes",
    "allocators",
    "further_allocators",
    "trigger.user_stack",
    *OF_LIVES,
    "sizing.min_limit_bytes",
    "ktime_ns",
)
_SECONDS: Final = re.compile(r"\d+\.\d+")
_UTC_DATE: Final = re.compile(r"\S+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC")


Named = Callable[[str], tuple[str | None, str | None]]
"""The path of a cgroup -> the name of its container and that of its pod; None: not known."""


def explain(logs: Iterable[LogReport], named: Named = lambda _path: (None, None)) -> Iterator[OomReport]:
    """One report for each decision in a log, numbered from 1. Names are not in a log: `named` knows them."""
    for number, log in enumerate(logs, start=1):
        yield report(number, log, named=named)


def report(number: int, log: LogReport, *, named: Named, page_size: int | None = None) -> OomReport:
    """The report of one decision; `page_size` where it is known otherwise than by the log."""
    unknown: Unknown = dict.fromkeys(_NOT_OF_LOG, LOG_ALONE)
    told_size = page_size or logged_memory.page_size(log)
    page_size = told_size or logged_memory.DEFAULT_PAGE_SIZE
    if told_size is None:
        unknown["kernel_log.page_size"] = f"the kernel log does not say it; taken to be {page_size} bytes"
    findings = _findings(log, page_size, unknown, named)
    total = badness_total.logged_total_pages(log, page_size)
    chosen = victim_selection.from_log(log, total, page_size, unknown)
    findings = replace(findings, candidates=chosen.candidates)
    judged = _judge(log, findings)
    sizes = logged_memory.sizes(log)
    return OomReport(
        kill_id=number,
        time=findings.time,
        ktime_ns=None,
        constraint=log.constraint,
        limit_owner=findings.owner,
        trigger=findings.trigger,
        victims=tuple(findings.victims),
        candidates=chosen.candidates,
        composition=findings.composition,
        working_set_bytes=composition.working_set(sizes, findings.composition.total, unknown),
        reclaim=findings.reclaim,
        cushion=findings.cushion,
        allocators=(),
        verdict=judged,
        advice=advice.advise(findings, judged),
        sizing=Sizing(None),
        quality=Quality(log.dropped, "only", {}, unknown, tuple(filter(None, [chosen.disagreement]))),
        memory_stat_bytes={name: size for name, size in sizes.items() if size is not None},
        badness_total_pages=chosen.total_pages,
        what_if=chosen.what_if,
        kernel_log=KernelLogPlace(
            first_line=log.stamp.line,
            last_line=log.last_line,
            since_boot_ns=log.stamp.since_boot_ns,
            wall=log.stamp.wall,
            page_size=told_size,
            missing=log.missing,
            suppressed=log.suppressed,
        ),
    )


def _findings(log: LogReport, page_size: int, unknown: Unknown, named: Named) -> Findings:
    sizes = logged_memory.sizes(log)
    memory, in_swap = log.counters.get("memory"), logged_memory.swap(log)
    made_of, why = composition.compose(
        sizes,
        None if memory is None else memory.usage_bytes,
        absent=lambda name: logged_memory.why_not(log, name),
    )
    if log.constraint not in ("memcg", "unknown"):
        unknown["composition"] = unknown["working_set_bytes"] = _NO_LIMIT
    else:
        unknown |= why if log.stats or memory is not None else {"composition": _NO_COUNTERS}
    file, shmem = sizes["file"], sizes["shmem"]
    if file is None or shmem is None:
        unknown["cushion.cache_end_bytes"] = logged_memory.why_not(log, "file")
    victims = tuple(_victims(log, page_size, unknown))
    return Findings(
        time=_time(log.stamp, unknown),
        constraint=log.constraint,
        owner=_owner(log, unknown, named),
        trigger=_trigger(log, unknown),
        victims=victims,
        victim_tgids=frozenset(victim.pid for victim in victims),
        composition=made_of,
        cushion=Cushion(
            cache_start_bytes=None,
            cache_end_bytes=None if file is None or shmem is None else file - shmem,
            evicted_bytes=None,
            absorbed_bytes=None,
            exhausted_at=None,
            refaulted_bytes=None,
        ),
        reclaim=Reclaim(None, None, None, None, ()),
        allocators=(),
        page_size=page_size,
        circumstances=Circumstances(
            swap=None if in_swap is None else Swap(*in_swap, refused=False),
            protected_bytes=log.min_protection_bytes or 0,
            shortage=shortage.of_log(log, page_size),
            full_swap_limit_bytes=logged_memory.full_swap_limit(log),
            kmem_bytes=log.counters["kmem"].usage_bytes if "kmem" in log.counters else 0,
        ),
        is_told=True,
        kmsg="only",
    )


def _judge(log: LogReport, findings: Findings) -> Verdict:
    """Of a kill without its report there is nothing to weigh."""
    judged = verdict.judge(findings)
    judged = replace(judged, evidence=(*logged_memory.machine(log, findings.page_size), *judged.evidence))
    if "header" not in log.missing or log.counters or log.mem_info is not None:
        return judged
    killed = ", ".join(process(victim.comm, victim.pid) for victim in findings.victims) or "a process"
    owner = owner_name(findings.owner) if log.oom_memcg is not None else "a cgroup"
    where = f"{owner} was at its limit" if log.constraint == "memcg" else "memory was short"
    rest = "nothing but the kill itself" if "summary" in log.missing else "not the whole of its report"
    return replace(judged, summary=f"{killed} was killed since {where}; the kernel log has {rest}.")


def _time(stamp: Stamp, unknown: Unknown) -> pd.Timestamp | None:
    """The time in UTC where the log names a date with its zone."""
    wall = stamp.wall
    when = None if wall is None else _utc(wall)
    if when is not None:
        return pd.Timestamp(when)
    if wall is not None:
        unknown["time"] = f"the kernel log says {wall}, without a year or a time zone"
    elif stamp.since_boot_ns is not None:
        unknown["time"] = (
            f"the kernel log says only {stamp.since_boot_ns / 1e9:.6f} s since the machine started"
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


def _owner(log: LogReport, unknown: Unknown, named: Named) -> LimitOwner:
    """A container whose name is not known is named by its id, a pod by its uid: those are in the path."""
    memory = log.counters.get("memory")
    if log.constraint not in ("memcg", "unknown"):
        unknown["limit_owner"] = _NO_LIMIT
    elif log.oom_memcg is None and memory is None:
        unknown["limit_owner"] = _NO_OWNER
    else:
        if log.oom_memcg is None:
            unknown |= {f"limit_owner.{name}": _NO_OWNER for name in ("cgroup", "container", "pod")}
        if memory is None:
            unknown |= {f"limit_owner.{name}": _NO_COUNTERS for name in ("limit_bytes", "usage_bytes")}
            unknown["limit_owner.is_limited"] = _NO_COUNTERS
    cgroup = _trigger_cgroup(log)
    if "limit_owner" not in unknown and (log.oom_memcg is None or cgroup is None):
        unknown["limit_owner.is_ancestor"] = "the kernel log does not say in which cgroup who asked was"
    reference = None if log.oom_memcg is None else containers.identify(log.oom_memcg)
    container, pod = (None, None) if log.oom_memcg is None else named(log.oom_memcg)
    limit_bytes = None if memory is None else memory.limit_bytes
    if limit_bytes is not None and limit_bytes >= UNLIMITED_BYTES:
        unknown["limit_owner.limit_bytes"] = _UNLIMITED
    return LimitOwner(
        cgroup=log.oom_memcg,
        container=container or (None if reference is None else reference.container_id),
        pod=pod or (None if reference is None else reference.pod_uid),
        limit_bytes=limit_bytes,
        usage_bytes=None if memory is None else memory.usage_bytes,
        is_ancestor=None if cgroup is None or log.oom_memcg is None else cgroup != log.oom_memcg,
    )


def _trigger_cgroup(log: LogReport) -> str | None:
    """The log names the victim's cgroup, which is the trigger's where they are one process."""
    pid = log.invoker.pid
    if pid is None or log.task_memcg is None:
        return None
    if log.chosen is not None and pid == log.chosen.pid:
        return log.task_memcg
    tgids = {row.tgid for row in log.tasks if log.chosen is not None and row.pid == log.chosen.pid}
    return log.task_memcg if pid in tgids else None


def _trigger(log: LogReport, unknown: Unknown) -> Trigger:
    invoker, cgroup = log.invoker, _trigger_cgroup(log)
    if "header" in log.missing:
        unknown["trigger"] = _NO_HEADER
    else:
        if invoker.pid is None:
            unknown["trigger.pid"] = "the kernel log has no line with the pid of who asked"
        if cgroup is None:
            unknown["trigger.cgroup"] = "the kernel log names only the cgroup of who was killed"
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
        tgid=_process_of(invoker.pid, log),
    )


def _process_of(pid: int | None, log: LogReport) -> int | None:
    """The process of the thread whose number the header has (dump_header prints task_pid_nr), where another
    line tells: the table of tasks has both numbers, and a process is what is killed."""
    if any(kill.pid == pid for kill in log.kills):
        return pid
    return next((row.tgid for row in log.tasks if pid in (row.pid, row.tgid)), None)


def _victims(log: LogReport, page_size: int, unknown: Unknown) -> Iterator[Victim]:
    rows = {row.pid: row for row in log.tasks}
    kills = log.kills
    if log.is_no_task_killable:
        unknown["victims"] = _NOBODY
    elif not kills and log.chosen is not None:
        unknown["victims"] = _NO_KILL
        kills = (Kill(log.stamp, log.chosen.pid, log.chosen.comm, uid=log.chosen.uid),)
    elif not kills:
        unknown["victims"] = "the kernel log ends before it says who was killed"
    for number, kill in enumerate(kills):
        yield _victim(log, kill, rows.get(kill.pid), page_size, is_first=number == 0)
    if kills and not any(kill.pid in rows for kill in kills):
        unknown["victims.swap_bytes"] = "the kernel log has no table with a line for who was killed"
    if any(kill.anon_rss_bytes is None for kill in kills):
        unknown["victims.anon_rss_bytes"] = "the kernel log does not have it in the line on the kill"
    if len(kills) > 1 or (kills and log.task_memcg is None):
        unknown["victims.cgroup"] = "the kernel log names only the cgroup of the process that was chosen"


def _victim(log: LogReport, kill: Kill, row: TaskRow | None, page_size: int, *, is_first: bool) -> Victim:
    """The line on the kill; what it lacks, of the table."""
    pgtables, adj = kill.pgtables_bytes, kill.oom_score_adj
    if row is not None:
        pgtables = row.pgtables_bytes if pgtables is None else pgtables
        adj = row.oom_score_adj if adj is None else adj
    return Victim(
        pid=kill.pid,
        comm=kill.comm,
        cgroup=log.task_memcg if is_first else None,
        anon_rss_bytes=kill.anon_rss_bytes,
        file_rss_bytes=kill.file_rss_bytes,
        shmem_rss_bytes=kill.shmem_rss_bytes,
        pgtables_bytes=pgtables,
        swap_bytes=None if row is None else row.swapents_pages * page_size,
        oom_score_adj=adj,
        group_kill=log.group_memcg is not None and len(log.kills) > 1,
    )
