"""The candidates of one kill, from a trace or from a kernel log, and how the kernel chose among them.

Badness is the kernel's own number if a hook saw it (`oom_candidates`). Else it is computed from the table in
the kernel log, which is printed a moment after the choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pandas as pd

from tracer.analysis.core.columns import integers, optional, records, times_ns
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.explain.victim import badness, badness_total, candidate_ranking
from tracer.analysis.explain.victim.badness import TODAY, Rules
from tracer.analysis.results.quality import Unknown
from tracer.analysis.results.tasks import Candidate, WhatIf
from tracer.kernel.kmsg.report.log_report import LogReport, TaskRow

_SIGNAL: Final = "OOM candidates"  # in meta.json
_NOT_SEEN: Final = (
    "which tasks the kernel weighed is known only if its functions can be hooked, or from its log"
)
_NOBODY: Final = "the kernel weighed no task: it let an exiting task go first, or killed the task that asked"
_ONE_RSS: Final = "the table of a kernel before 6.8 does not distinguish kinds of RSS"
_LOST: Final = "records of weighed tasks were lost"
_NO_TOTAL: Final = "it is not known how much memory was short, or how much swap counts with it"
_TOGETHER: Final = "memory.oom.group is set: the whole group is killed, regardless of the chosen task"
_ALLOCATING: Final = (
    "vm.oom_kill_allocating_task is set: the task that asks is killed, regardless of its badness"
)
_ALLOCATING_REASON: Final = "oom_kill_allocating_task"
_OF_A_CANDIDATE: Final = (
    *("pid", "tgid", "comm", "badness", "oom_score_adj", "chosen"),
    *("rss_bytes", "anon_rss_bytes", "shmem_rss_bytes"),
)


@dataclass(frozen=True, slots=True)
class Selection:
    """The candidates of a kill in the order in which the kernel would kill them, the first choice first.

    `total_pages`: the total that badness is measured against. `disagreement`: a sentence, if the kernel
    killed another task than the first one. `is_logged`: the candidates are from the kernel log. `tgids`:
    their processes; None if some may be missing.
    """

    candidates: tuple[Candidate, ...]
    total_pages: int | None
    what_if: tuple[WhatIf, ...] = ()
    disagreement: str | None = None
    is_logged: bool = False
    tgids: frozenset[int] | None = None


def from_trace(
    subtree: Subtree,
    time_ns: int,
    *,
    rows: Sequence[Mapping[str, Any]],
    weighed: pd.DataFrame,
    log: LogReport | None,
    unknown: Unknown,
) -> Selection:
    """Return the selection of a kill recorded at `time_ns`: from a hook's records, else from the kill's
    report in the log.

    `rows` of `oom` are the victims, `weighed` the rows of `oom_candidates`; `subtree` is that of the limit
    owner. Reasons for unknown values go to `unknown`.
    """
    trace, total = subtree.whole, badness_total.recorded_total_pages(subtree, time_ns, rows[0])
    is_whole = not weighed.empty and not trace.losses.near("candidate", int(times_ns(weighed)[0]), time_ns)
    if not is_whole and log is not None and log.tasks:
        size = page_size(trace)
        total = badness_total.logged_total_pages(log, size) if total is None else total
        logged = from_log(log, total, size, unknown)
        titled = tuple(_titled(trace, one, one.pid, time_ns) for one in logged.candidates)
        return replace(
            logged, candidates=titled, is_logged=True, tgids=frozenset(row.tgid for row in log.tasks)
        )
    if total is None:
        unknown["badness_total_pages"] = _NO_TOTAL
    recorded = [
        _titled(trace, _recorded(row, total), int(row["tgid"]), time_ns)
        for row in records(weighed, _OF_A_CANDIDATE)
    ]
    if is_whole:
        judged = _judged(recorded, total, TODAY, is_group=len(rows) > 1, unknown=unknown)
        return replace(judged, tgids=frozenset(integers(weighed["tgid"]).tolist()))
    if recorded:
        unknown["what_if"] = _LOST
    else:
        unknown["candidates"] = _why_none(trace, time_ns, rows[0])
    return Selection(candidate_ranking.ranked(recorded, TODAY), total)


def _why_none(trace: TraceTables, time_ns: int, first: Mapping[str, Any]) -> str:
    """Return why a kill has no candidates.

    If the kernel kills another task than the one that asks, it has weighed tasks (out_of_memory in
    mm/oom_kill.c).
    """
    if not _is_hooked(trace):
        return _NOT_SEEN
    asked = int(first["tgid"]) == int(first["trigger_tgid"])
    return _NOBODY if asked and not trace.losses.near("candidate", time_ns, time_ns) else _LOST


def _is_hooked(trace: TraceTables) -> bool:
    """Return True if the trace records the kernel's own results of `oom_badness`."""
    hook = trace.meta["probes"].get(_SIGNAL)
    return isinstance(hook, Mapping) and hook.get("hook") is not None


def from_log(log: LogReport, total: int | None, size: int, unknown: Unknown) -> Selection:
    """Return the selection of a kill from its report in a kernel log alone.

    `total`: that of `badness_total`, in pages. `size`: of a page, in bytes. Reasons for what is not known go
    to `unknown`.
    """
    if total is None:
        unknown["badness_total_pages"] = _NO_TOTAL
    if not log.tasks:
        unknown["candidates"] = "the kernel log has no table of the tasks that could be chosen"
        return Selection((), total)
    rules = badness.rules_of(log.invoker.kernel_release)
    chosen = _chosen_pid(log)
    listed = [_listed(row, total, rules, size, is_chosen=chosen in (row.pid, row.tgid)) for row in log.tasks]
    if any(row.rss_anon_pages is None for row in log.tasks):
        unknown |= dict.fromkeys(("candidates.anon_rss_bytes", "candidates.shmem_rss_bytes"), _ONE_RSS)
    if any(one.held_pages is None for one in listed):
        unknown["candidates.badness"] = "the table of a kernel before 4.15 is read without page tables"
    elif any(one.adj_pages is None for one in listed):
        unknown["candidates.badness"] = _NO_TOTAL
    if any(_ALLOCATING_REASON in (kill.reason or "") for kill in log.kills):
        unknown["what_if"] = _ALLOCATING
        return Selection(candidate_ranking.ranked(listed, rules), total)
    if chosen is None:
        return Selection(candidate_ranking.ranked(listed, rules), total)
    return _judged(listed, total, rules, is_group=log.group_memcg is not None, unknown=unknown)


def _judged(
    weighed: list[Candidate], total: int | None, rules: Rules, *, is_group: bool, unknown: Unknown
) -> Selection:
    candidates = candidate_ranking.ranked(weighed, rules)
    if is_group:
        unknown["what_if"] = _TOGETHER
    elif total is None and len(candidates) > 1:
        unknown["what_if"] = _NO_TOTAL
    return Selection(
        candidates,
        total,
        () if is_group else candidate_ranking.what_if(candidates, total, rules),
        candidate_ranking.disagreement(candidates),
    )


def _recorded(row: dict[Any, Any], total: int | None) -> Candidate:
    """Return the candidate of a row of `oom_candidates`; its `held_pages` follow from the badness."""
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
        anon_rss_bytes=optional(row["anon_rss_bytes"]),
        shmem_rss_bytes=optional(row["shmem_rss_bytes"]),
    )


def _titled(trace: TraceTables, one: Candidate, tgid: int, time_ns: int) -> Candidate:
    return replace(one, cmdline=trace.processes.cmdline_at(tgid, time_ns, time_ns))


def _listed(row: TaskRow, total: int | None, rules: Rules, size: int, *, is_chosen: bool) -> Candidate:
    """Return the candidate of a row of the table in the kernel log.

    The table does not show which tasks cannot be killed for a reason other than their oom_score_adj.
    """
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
        anon_rss_bytes=None if row.rss_anon_pages is None else row.rss_anon_pages * size,
        shmem_rss_bytes=None if row.rss_shmem_pages is None else row.rss_shmem_pages * size,
    )


def _chosen_pid(log: LogReport) -> int | None:
    """Return the pid of the task that the kernel chose; kernels before 5.2 may have killed a child of it."""
    if log.chosen is not None:
        return log.chosen.pid
    return log.kills[0].pid if log.kills else None
