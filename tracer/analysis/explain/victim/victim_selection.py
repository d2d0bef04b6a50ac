"""Whom the kernel could have chosen, and why it chose whom it killed: `analysis.explain.victim.badness` for
one kill.

Badness is the kernel's own where a hook told it (`oom_candidates`); else it is computed from the table in the
kernel log, which is printed a moment after the choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import pandas as pd

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import optional, records, times_ns
from tracer.analysis.core.limits import limit_of
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.explain.measure.composition import Unknown
from tracer.analysis.explain.victim import badness
from tracer.analysis.explain.victim.badness import TODAY, Rules
from tracer.analysis.results.tasks import Candidate, WhatIf
from tracer.kernel.kmsg.report.log_report import LogReport, TaskRow

_SIGNAL: Final = "OOM candidates"  # in meta.json
_NOT_TOLD: Final = (
    "whom the kernel weighed is told where functions of the kernel can be hooked, or by the kernel log"
)
_NOBODY: Final = "the kernel weighed nobody: who was exiting was let go first, or whoever asked was taken"
_NO_TOTAL: Final = "how much swap counts with the memory that was short, or how much that was, is not known"
_TOGETHER: Final = "memory.oom.group is set: whoever is chosen, they are killed together"
_ALLOCATING: Final = "vm.oom_kill_allocating_task is set: whoever asks is killed, whatever badness says"
_ALLOCATING_REASON: Final = "oom_kill_allocating_task"


@dataclass(frozen=True, slots=True)
class Choice:
    """`candidates` best first. `disagreement`: the kernel chose another than these numbers say. `is_logged`:
    the kernel log told who they are."""

    candidates: tuple[Candidate, ...]
    total_pages: int | None
    what_if: tuple[WhatIf, ...] = ()
    disagreement: str | None = None
    is_logged: bool = False


def of_trace(
    subtree: Subtree, rows: pd.DataFrame, weighed: pd.DataFrame, log: LogReport | None, unknown: Unknown
) -> Choice:
    """Of one kill, whose victims are `rows` of `oom`, and `weighed` those of `oom_candidates`: what a hook
    told, else its report in the kernel log. `subtree` is of the limit's owner."""
    trace, total = subtree.trace, total_pages(subtree, rows)
    is_whole = not weighed.empty and not trace.losses.near(
        "candidate", int(times_ns(weighed)[0]), int(times_ns(rows)[0])
    )
    if not is_whole and log is not None and log.tasks:
        size = page_size(trace)
        total = log_total_pages(log, size) if total is None else total
        logged = of_log(log, total, size, unknown)
        titled = tuple(_titled(trace, one, one.pid, int(times_ns(rows)[0])) for one in logged.candidates)
        return replace(logged, candidates=titled, is_logged=True)
    if total is None:
        unknown["badness_total_pages"] = _NO_TOTAL
    told = [
        _titled(trace, _told(row, total), int(row["tgid"]), int(times_ns(rows)[0]))
        for row in records(weighed)
    ]
    if is_whole:
        return _judged(told, total, TODAY, is_group=len(rows) > 1, unknown=unknown)
    if told:
        unknown["what_if"] = "records of tasks that were weighed are lost"
    else:
        unknown["candidates"] = _NOBODY if _is_hooked(trace) else _NOT_TOLD
    return Choice(badness.ranked(told, TODAY), total)


def _is_hooked(trace: TraceTables) -> bool:
    """Whether the kernel's own results are recorded."""
    hook = trace.meta["probes"].get(_SIGNAL)
    return isinstance(hook, Mapping) and hook.get("hook") is not None


def of_log(log: LogReport, total: int | None, size: int, unknown: Unknown) -> Choice:
    """Of one kill, from its report alone; `total` is that of `log_total_pages`, or better."""
    if total is None:
        unknown["badness_total_pages"] = _NO_TOTAL
    if not log.tasks:
        unknown["candidates"] = "the kernel log has no table of the tasks that could be chosen"
        return Choice((), total)
    rules = badness.rules_of(log.invoker.kernel_release)
    chosen = _chosen_pid(log)
    listed = [_listed(row, total, rules, size, is_chosen=chosen in (row.pid, row.tgid)) for row in log.tasks]
    if any(one.held_pages is None for one in listed):
        unknown["candidates.badness"] = "the table of a kernel before 4.15 is read without page tables"
    elif any(one.adj_pages is None for one in listed):
        unknown["candidates.badness"] = _NO_TOTAL
    if any(_ALLOCATING_REASON in (kill.reason or "") for kill in log.kills):
        unknown["what_if"] = _ALLOCATING
        return Choice(badness.ranked(listed, rules), total)
    if chosen is None:
        return Choice(badness.ranked(listed, rules), total)
    return _judged(listed, total, rules, is_group=log.group_memcg is not None, unknown=unknown)


def _judged(
    weighed: list[Candidate], total: int | None, rules: Rules, *, is_group: bool, unknown: Unknown
) -> Choice:
    candidates = badness.ranked(weighed, rules)
    if is_group:
        unknown["what_if"] = _TOGETHER
    elif total is None and len(candidates) > 1:
        unknown["what_if"] = _NO_TOTAL
    return Choice(
        candidates,
        total,
        () if is_group else badness.what_if(candidates, total, rules),
        badness.disagreement(candidates),
    )


def _told(row: dict[Any, Any], total: int | None) -> Candidate:
    """A row of `oom_candidates`: what is held follows from the kernel's own badness."""
    bad, adj = optional(row["badness"]), int(row["oom_score_adj"])
    added = badness.adj_pages(adj, total)
    return Candidate(
        pid=int(row["pid"]),
        comm=str(row["comm"]),
        badness=bad,
        oom_score_adj=adj,
        rss_bytes=optional(row["rss_bytes"]),
        chosen=bool(row["chosen"]),
        held_pages=None if bad is None or added is None else bad - added,
        adj_pages=added,
    )


def _titled(trace: TraceTables, one: Candidate, tgid: int, time_ns: int) -> Candidate:
    return replace(one, cmdline=trace.processes.cmdline_at(tgid, time_ns, time_ns))


def _listed(row: TaskRow, total: int | None, rules: Rules, size: int, *, is_chosen: bool) -> Candidate:
    """A row of the table in the kernel log. Those that are not to be killed for other reasons than their
    oom_score_adj cannot be told from the others."""
    pgtables = None if row.pgtables_bytes is None else row.pgtables_bytes // size
    held = badness.held_pages(row.rss_pages, row.swapents_pages, pgtables, uid=row.uid, rules=rules)
    return Candidate(
        pid=row.pid,
        comm=row.comm,
        badness=badness.badness(held, row.oom_score_adj, total, rules),
        oom_score_adj=row.oom_score_adj,
        rss_bytes=row.rss_pages * size,
        chosen=is_chosen,
        held_pages=held,
        adj_pages=badness.adj_pages(row.oom_score_adj, total),
    )


def _chosen_pid(log: LogReport) -> int | None:
    """Whom the kernel chose. Old kernels (`Rules`) may then have killed a child of it."""
    if log.chosen is not None:
        return log.chosen.pid
    return log.kills[0].pid if log.kills else None


# What badness is measured against


def total_pages(subtree: Subtree, rows: pd.DataFrame) -> int | None:
    """Of a decision, as the kernel told it; else from limits and the machine's memory. None: not known."""
    trace, first, time_ns = subtree.trace, rows.iloc[0], int(times_ns(rows)[0])
    size = page_size(trace)
    if (told := optional(first["total_bytes"])) is not None:
        return told // size
    machine = trace.meta.get("memory") or {}
    swap_total = _pages(machine.get("swap_total_bytes"), size)
    if first["constraint"] == "global":
        return _sum(_pages(machine.get("total_bytes"), size), swap_total)
    owner, limit = optional(first["limit_owner_cgroup_id"]), _pages(limit_of(first), size)
    if first["constraint"] != "memcg" or owner is None or limit is None:
        return None
    swap_limit = _pages(ledger.reading(subtree, "swap_limit_bytes").at(time_ns), size)
    if trace.meta.get("cgroup_version") == 2:
        return badness.memcg_total_pages(limit, swap_limit, swap_total, machine.get("swappiness"))
    swap_room = None if swap_limit is None else swap_limit - limit
    swappiness = ledger.reading(subtree, "swappiness").at(time_ns)
    return badness.memcg_total_pages(limit, swap_room, swap_total, swappiness)


def log_total_pages(log: LogReport, size: int) -> int | None:
    """The same from the kernel log alone, which says nothing of swappiness, and of the machine's swap only
    when the whole machine was short."""
    if log.constraint == "global":
        machine = log.mem_info
        if machine is None or machine.ram_pages is None or machine.reserved_pages is None:
            return None
        return _sum(machine.ram_pages - machine.reserved_pages, _pages(machine.total_swap_bytes, size))
    memory = log.counters.get("memory")
    if log.constraint != "memcg" or memory is None:
        return None
    limit = memory.limit_bytes // size
    if (swap := log.counters.get("swap")) is not None:
        return badness.memcg_total_pages(limit, swap.limit_bytes // size, None, None)
    together = log.counters.get("memory+swap")
    room = None if together is None else together.limit_bytes // size - limit
    return badness.memcg_total_pages(limit, room, None, None)


def _pages(size_bytes: int | None, size: int) -> int | None:
    return None if size_bytes is None else size_bytes // size


def _sum(memory_pages: int | None, swap_pages: int | None) -> int | None:
    return None if memory_pages is None or swap_pages is None else memory_pages + swap_pages
