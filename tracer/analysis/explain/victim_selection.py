"""The choice of the victim, as mm/oom_kill.c makes it: badness, a ranking, and changes that would alter it.

**Held** is what a task has, in pages: RSS, swap and page tables. **Total** is the memory that is short, in
pages: for a cgroup the limit that was hit, and the swap that may be used beside it (mm/memcontrol.c,
`mem_cgroup_get_max`; limits of ancestors do not count); for the whole machine its memory and its swap.
**Badness** (`oom_badness`) is held + oom_score_adj * (total / 1000), the quotient in whole pages; the OOM
killer kills the highest. A task **cannot be killed** if its oom_score_adj is -1000, if it is init or a kernel
thread, if it has no memory, during vfork, and once it was reaped.

Badness is the kernel's own number if a hook saw it (`oom_candidates`). Else it is computed from the table in
the kernel log, which is printed a moment after the choice.

Kernels differ in details: `Rules`. They differ also in how exact held is: "mm: fix OOM killer inaccuracy on
large many-core systems" (2026) sums up the counters of all CPUs; before it, a CPU's share that is not yet
handed over is left out. Both the choice and the table that the kernel prints use the same sum.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tracer.analysis.core import ledger
from tracer.analysis.core.columns import limit_of, optional
from tracer.analysis.core.subtree import Subtree
from tracer.analysis.core.tables import TraceTables, page_size
from tracer.analysis.results.kill import Candidate, WhatIf
from tracer.analysis.results.quality import Unknown
from tracer.kernel.kmsg.report.log_report import LogReport, TaskRow

OOM_SCORE_ADJ_MIN: Final = -1000
OOM_SCORE_ADJ_MAX: Final = 1000
ADJ_SCALE: Final = 1000
_RELEASE: Final = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules in which kernels differ.

    `root_bonus`: memory of the superuser's tasks counts for 3 % less; until d46078b28889 ("mm, oom: remove 3%
    bonus for CAP_SYS_ADMIN processes"), v4.17. `least`: badness is at least 1; until 9066e5cfb73c ("mm, oom:
    make the calculation of oom badness more accurate"), v5.9 and later releases of 5.4; since then it can be
    negative. `first_of_equals`: of tasks with equal badness the kernel kills the first that it meets, not the
    last; until "mm: memcontrol: use CSS_TASK_ITER_PROCS at mem_cgroup_scan_tasks()" and its follow-ups, v5.3.

    Before bbbe48029720 ("mm, oom: remove 'prefer children over parent' heuristic"), v5.2, the kernel could
    kill a child of the task that it chose.
    """

    root_bonus: bool = False
    least: int | None = None
    first_of_equals: bool = False


TODAY: Final = Rules()
"""The rules of every kernel that a trace can be recorded on (5.16 and later)."""


def rules_of(kernel_release: str | None) -> Rules:
    """Return the rules of a kernel by its release, as a kernel log names it; without one, today's."""
    found = _RELEASE.match(kernel_release or "")
    if found is None:
        return TODAY
    release = (int(found[1]), int(found[2]))
    return Rules(
        root_bonus=release < (4, 17), least=1 if release < (5, 4) else None, first_of_equals=release < (5, 3)
    )


def held_pages(
    rss_pages: int, swap_pages: int, pgtables_pages: int | None, *, uid: int, rules: Rules
) -> int | None:
    """Return the pages of a task that badness counts; None without `pgtables_pages`.

    The kernel gives root's bonus by a capability; the table in a log has only the user, so `uid` decides. The
    table has page tables in bytes since af5b0f6a09e4 ("mm: consolidate page table accounting"), v4.15.
    """
    if pgtables_pages is None:
        return None
    held = rss_pages + swap_pages + pgtables_pages
    return held - held * 3 // 100 if rules.root_bonus and uid == 0 else held


def adj_pages(oom_score_adj: int, total_pages: int | None) -> int | None:
    """Return the pages that oom_score_adj adds to badness; an adj of 0 needs no total."""
    if oom_score_adj == 0:
        return 0
    return None if total_pages is None else oom_score_adj * (total_pages // ADJ_SCALE)


def badness(held: int | None, oom_score_adj: int, total_pages: int | None, rules: Rules) -> int | None:
    """Return badness in pages; None if the task cannot be killed, or if an input is not known."""
    added = adj_pages(oom_score_adj, total_pages)
    if held is None or added is None or oom_score_adj == OOM_SCORE_ADJ_MIN:
        return None
    return held + added if rules.least is None else max(held + added, rules.least)


def recorded_total_pages(subtree: Subtree, time_ns: int, first: Mapping[str, Any]) -> int | None:
    """Return the total of a recorded kill, in pages; None if it is not known.

    `first` is the first row of the table `oom` for this kill at `time_ns`, `subtree` that of the limit owner.
    The kernel's own number is used if a hook saw it; else the limits and the machine's memory give it.
    """
    trace = subtree.whole
    size, machine = page_size(trace), trace.meta.get("memory") or {}
    if (seen := optional(first["total_bytes"])) is not None:
        return seen // size
    has_owner = optional(first["limit_owner_cgroup_id"]) is not None
    is_v2 = trace.meta.get("cgroup_version") == 2

    def read(column: str) -> int | None:
        return ledger.reading(subtree, column).at(time_ns) if has_owner else None

    return total_pages(
        str(first["constraint"]),
        ram=_pages(machine.get("total_bytes"), size),
        swap=_pages(machine.get("swap_total_bytes"), size),
        limit=_pages(limit_of(first), size) if has_owner else None,
        swap_limit=_pages(read("swap_limit_bytes"), size),
        is_of_both=not is_v2,
        swappiness=machine.get("swappiness") if is_v2 else read("swappiness"),
    )


def logged_total_pages(log: LogReport, page_size_bytes: int) -> int | None:
    """Return the total of a kill in a kernel log, in pages; None if it is not known.

    A log does not have the swappiness, and has the machine's swap only if the whole machine was short.
    """
    machine = log.mem_info if log.constraint == "global" else None
    ram, reserved = (None, None) if machine is None else (machine.ram_pages, machine.reserved_pages)
    memory, own, both = (log.counters.get(name) for name in ("memory", "swap", "memory+swap"))
    swap = both if own is None else own
    return total_pages(
        log.constraint,
        ram=None if ram is None or reserved is None else ram - reserved,
        swap=None if machine is None else _pages(machine.total_swap_bytes, page_size_bytes),
        limit=None if memory is None else _pages(memory.limit_bytes, page_size_bytes),
        swap_limit=None if swap is None else _pages(swap.limit_bytes, page_size_bytes),
        is_of_both=own is None,
        swappiness=None,
    )


def total_pages(
    constraint: str,
    *,
    ram: int | None,
    swap: int | None,
    limit: int | None,
    swap_limit: int | None,
    is_of_both: bool,
    swappiness: int | None,
) -> int | None:
    """Return the total in pages: of the machine its memory and swap; of a cgroup its limit, and the part of
    the machine's swap that it may use. None if it is not known.

    `swap_limit` is memory.swap.max; with `is_of_both` memory.memsw.limit_in_bytes, which bounds memory and
    swap together. With a swappiness of 0 (vm.swappiness; on v1 the cgroup's own memory.swappiness) swap does
    not count.
    """
    if constraint == "global":
        return None if ram is None or swap is None else ram + swap
    if constraint != "memcg" or limit is None:
        return None
    room = swap_limit - limit if is_of_both and swap_limit is not None else swap_limit
    if 0 in (room, swap, swappiness):
        return limit
    return None if room is None or swap is None or swappiness is None else limit + min(room, swap)


def _pages(size_bytes: int | None, page_size_bytes: int) -> int | None:
    return None if size_bytes is None else size_bytes // page_size_bytes


def ranked(weighed: Sequence[Candidate], rules: Rules) -> tuple[Candidate, ...]:
    """Return the candidates in the order in which the kernel would kill them, the first choice first.

    `weighed` are in the order in which the kernel met them. Candidates without badness come last, by
    oom_score_adj and then by held pages, which is the kernel's order if only the total is not known.
    """
    met = weighed if rules.first_of_equals else tuple(reversed(weighed))
    return tuple(sorted(met, key=_rank))


def _rank(candidate: Candidate) -> tuple[bool, int, int]:
    if candidate.badness is None:
        return True, -candidate.oom_score_adj, -(candidate.held_pages or 0)
    return False, -candidate.badness, 0


def is_contradicted(candidates: Sequence[Candidate]) -> bool:
    """Return whether the chosen candidate is missing, or does not lead the ranking."""
    chosen = next((one for one in candidates if one.chosen), None)
    if chosen is None:
        return True
    first = candidates[0]
    if chosen is first or first.badness is None or any(one.adj_pages is None for one in candidates):
        return False
    # One address space: the kernel passes over a child of vfork (in_vfork in oom_badness).
    return replace(first, pid=chosen.pid, comm=chosen.comm, cmdline=chosen.cmdline, chosen=True) != chosen


def what_if(
    candidates: Sequence[Candidate], total_pages: int | None, rules: Rules = TODAY
) -> tuple[WhatIf, ...]:
    """Return the least changes of oom_score_adj that would have had another candidate killed.

    These are the chosen candidate's adj lowered, and the adj of one other raised, all else being equal.
    `candidates` are ranked. After each change, the badness of the two differs by at least a page, so their
    order in the kernel's scan does not matter. Empty if the numbers do not explain the choice, or if there
    was no choice.
    """
    killable = [one for one in candidates if one.badness is not None]
    if total_pages is None or len(killable) < 2 or not killable[0].chosen:
        return ()
    chosen, *others = killable
    lowered = WhatIf(
        chosen.pid,
        chosen.comm,
        chosen.oom_score_adj,
        _highest_adj_below(chosen, others[0], total_pages // ADJ_SCALE, rules),
        others[0].pid,
        others[0].comm,
    )
    raised = [
        WhatIf(one.pid, one.comm, one.oom_score_adj, adj, one.pid, one.comm)
        for one in others
        if (adj := _lowest_adj_above(one, chosen, total_pages // ADJ_SCALE)) is not None
    ]
    least = min(raised, key=lambda change: change.instead - change.oom_score_adj, default=None)
    return (lowered,) if least is None else (lowered, least)


def _highest_adj_below(chosen: Candidate, other: Candidate, pages_per_adj: int, rules: Rules) -> int:
    """Return the highest oom_score_adj at which `chosen` has less badness than `other`; -1000 always does."""
    held, enough = chosen.held_pages or 0, other.badness or 0
    if not pages_per_adj or enough == rules.least:
        return OOM_SCORE_ADJ_MIN
    return max((enough - held - 1) // pages_per_adj, OOM_SCORE_ADJ_MIN)


def _lowest_adj_above(other: Candidate, chosen: Candidate, pages_per_adj: int) -> int | None:
    """Return the lowest oom_score_adj at which `other` has more badness than `chosen`; None if none does."""
    if not pages_per_adj:
        return None
    adj = ((chosen.badness or 0) - (other.held_pages or 0)) // pages_per_adj + 1
    return adj if adj <= OOM_SCORE_ADJ_MAX else None


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


@dataclass(frozen=True, slots=True)
class Selection:
    """The candidates of a kill in the order in which the kernel would kill them, the first choice first.

    `total_pages`: the total that badness is measured against. `is_contradicted`: the kernel killed
    another task than the first one. `is_logged`: the candidates are from the kernel log. `tgids`:
    their processes; None if some may be missing.
    """

    candidates: tuple[Candidate, ...]
    total_pages: int | None
    what_if: tuple[WhatIf, ...] = ()
    is_contradicted: bool = False
    is_logged: bool = False
    tgids: frozenset[int] | None = None


def from_trace(
    subtree: Subtree,
    time_ns: int,
    *,
    rows: Sequence[Mapping[str, Any]],
    weighed: Sequence[Mapping[str, Any]],
    read_log: Callable[[], LogReport | None],
    unknown: Unknown,
) -> Selection:
    """Return the selection of a kill recorded at `time_ns`: from a hook's records, else from the kill's
    report in the log, which is read only then.

    `rows` of `oom` are the victims, `weighed` those of `oom_candidates` with `time_ns`; `subtree` is that of
    the limit owner. Reasons for unknown values go to `unknown`.
    """
    trace, total = subtree.whole, recorded_total_pages(subtree, time_ns, rows[0])
    is_whole = bool(weighed) and not trace.losses.near("candidate", weighed[0]["time_ns"], time_ns)
    log = None if is_whole else read_log()
    if log is not None and log.tasks:
        size = page_size(trace)
        total = logged_total_pages(log, size) if total is None else total
        logged = from_log(log, total, size, unknown)
        titled = tuple(_titled(trace, one, one.pid, time_ns) for one in logged.candidates)
        return replace(
            logged, candidates=titled, is_logged=True, tgids=frozenset(row.tgid for row in log.tasks)
        )
    if total is None:
        unknown["badness_total_pages"] = _NO_TOTAL
    recorded = [_titled(trace, _candidate(row, total), int(row["tgid"]), time_ns) for row in weighed]
    if is_whole:
        judged = _judged(recorded, total, TODAY, is_group=len(rows) > 1, unknown=unknown)
        return replace(judged, tgids=frozenset(int(row["tgid"]) for row in weighed))
    if recorded:
        unknown["what_if"] = _LOST
    else:
        unknown["candidates"] = _why_none(trace, time_ns, rows[0])
    return Selection(ranked(recorded, TODAY), total)


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

    `total`: that of `logged_total_pages`. `size`: of a page, in bytes. Reasons for what is not known go
    to `unknown`.
    """
    if total is None:
        unknown["badness_total_pages"] = _NO_TOTAL
    if not log.tasks:
        unknown["candidates"] = "the kernel log has no table of the tasks that could be chosen"
        return Selection((), total)
    rules = rules_of(log.invoker.kernel_release)
    chosen = _chosen_pid(log)
    rows = (_listed(row, total, rules, size, is_chosen=chosen in (row.pid, row.tgid)) for row in log.tasks)
    listed = [_candidate(row, total) for row in rows]
    if any(row.rss_anon_pages is None for row in log.tasks):
        unknown |= dict.fromkeys(("candidates.anon_rss_bytes", "candidates.shmem_rss_bytes"), _ONE_RSS)
    if any(one.held_pages is None for one in listed):
        unknown["candidates.badness"] = "the table of a kernel before 4.15 is read without page tables"
    elif any(one.adj_pages is None for one in listed):
        unknown["candidates.badness"] = _NO_TOTAL
    if is_of_asker(log):
        unknown["what_if"] = _ALLOCATING
        return Selection(ranked(listed, rules), total)
    if chosen is None:
        return Selection(ranked(listed, rules), total)
    return _judged(listed, total, rules, is_group=log.group_memcg is not None, unknown=unknown)


def is_of_asker(log: LogReport) -> bool:
    """Return whether the task that asked was killed because vm.oom_kill_allocating_task is set."""
    return any(_ALLOCATING_REASON in (kill.reason or "") for kill in log.kills)


def _judged(
    weighed: list[Candidate], total: int | None, rules: Rules, *, is_group: bool, unknown: Unknown
) -> Selection:
    candidates = ranked(weighed, rules)
    if is_group:
        unknown["what_if"] = _TOGETHER
    elif total is None and len(candidates) > 1:
        unknown["what_if"] = _NO_TOTAL
    return Selection(
        candidates,
        total,
        () if is_group else what_if(candidates, total, rules),
        is_contradicted(candidates),
    )


def _candidate(row: Mapping[str, Any], total: int | None) -> Candidate:
    """Return the candidate of a row of `oom_candidates`. Without `held_pages`, these follow from the
    badness."""
    bad, adj = optional(row["badness"]), int(row["oom_score_adj"])
    added = adj_pages(adj, total)
    held = None if bad is None or added is None else bad - added
    return Candidate(
        pid=int(row["pid"]),
        comm=str(row["comm"]),
        badness=bad,
        oom_score_adj=adj,
        rss_bytes=optional(row["rss_bytes"]),
        chosen=bool(row["chosen"]),
        held_pages=row.get("held_pages", held),
        adj_pages=added,
        anon_rss_bytes=optional(row["anon_rss_bytes"]),
        shmem_rss_bytes=optional(row["shmem_rss_bytes"]),
    )


def _titled(trace: TraceTables, one: Candidate, tgid: int, time_ns: int) -> Candidate:
    return replace(one, cmdline=trace.processes.cmdline_at(tgid, time_ns, time_ns))


def _listed(task: TaskRow, total: int | None, rules: Rules, size: int, *, is_chosen: bool) -> dict[str, Any]:
    """Return a row of the table in the kernel log as a row of `oom_candidates`, with `held_pages`.

    The table does not show which tasks cannot be killed for a reason other than their oom_score_adj.
    """
    pgtables = None if task.pgtables_bytes is None else task.pgtables_bytes // size
    held = held_pages(task.rss_pages, task.swapents_pages, pgtables, uid=task.uid, rules=rules)
    return task.sizes_bytes(size) | {
        "pid": task.pid,
        "comm": task.comm,
        "badness": badness(held, task.oom_score_adj, total, rules),
        "oom_score_adj": task.oom_score_adj,
        "rss_bytes": task.rss_pages * size,
        "chosen": is_chosen,
        "held_pages": held,
    }


def _chosen_pid(log: LogReport) -> int | None:
    """Return the pid of the task that the kernel chose; kernels before 5.2 may have killed a child of it."""
    if log.chosen is not None:
        return log.chosen.pid
    return log.kills[0].pid if log.kills else None
