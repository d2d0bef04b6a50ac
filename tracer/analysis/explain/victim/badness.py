"""Whom the OOM killer chooses: badness, as mm/oom_kill.c computes it.

**Held** is what a task has in pages: RSS, swap and page tables. **Total** is the memory that is short, in
pages: the limit that was hit with the swap that may be used on top of it, or the machine's memory and swap.
**Badness** is held + oom_score_adj * (total / 1000), the quotient in whole pages; the highest is killed. A
task is **not to be killed** with an oom_score_adj of -1000, as init, as a kernel thread, without memory, in
the middle of vfork, and once it was reaped.

Of the limits only the one that was hit counts for total, and none of an ancestor's (mm/memcontrol.c,
mem_cgroup_get_max). In what kernels differ: `Rules`. How exact held is differs, too: since "mm: fix OOM
killer inaccuracy on large many-core systems" (2026) the counters of all CPUs are summed up, before that what
a CPU has not handed over yet was left out; in the choice as in the table that the kernel prints.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tracer.analysis.results.tasks import Candidate, WhatIf

OOM_SCORE_ADJ_MIN: Final = -1000
OOM_SCORE_ADJ_MAX: Final = 1000
ADJ_SCALE: Final = 1000
_RELEASE: Final = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Rules:
    """In what kernels differ.

    `root_bonus`: what the superuser's tasks hold counts for 3 % less; until "mm, oom: remove 3% bonus for
    CAP_SYS_ADMIN processes" (4.17). `least`: badness is at least 1; until "mm, oom: make the calculation of
    oom badness more accurate" (5.9, and in later releases of 5.4), since then it can be negative.
    `first_of_equals`: of two equals the first that is met is killed, not the last; until "mm: memcontrol: use
    CSS_TASK_ITER_PROCS at mem_cgroup_scan_tasks()" (5.3) and what followed from it. Before 5.2 the kernel
    might kill a child of the one that it chose ("mm, oom: remove 'prefer children over parent' heuristic").
    """

    root_bonus: bool = False
    least: int | None = None
    first_of_equals: bool = False


TODAY: Final = Rules()
"""Those of every kernel that a trace can be recorded on (5.16 and later)."""


def rules_of(kernel_release: str | None) -> Rules:
    """For a kernel log, which shows nothing else that would tell; without a release, today's."""
    found = _RELEASE.match(kernel_release or "")
    if found is None:
        return TODAY
    release = (int(found[1]), int(found[2]))
    return Rules(
        root_bonus=release < (4, 17),
        least=1 if release < (5, 4) else None,
        first_of_equals=release < (5, 3),
    )


def held_pages(
    rss_pages: int, swap_pages: int, pgtables_pages: int | None, *, uid: int, rules: Rules
) -> int | None:
    """What badness counts of a task. The bonus went by a capability, and tables name but the user.

    Without page tables it is not known: a table has them in this form since "mm: consolidate page table
    accounting" (4.15).
    """
    if pgtables_pages is None:
        return None
    held = rss_pages + swap_pages + pgtables_pages
    return held - held * 3 // 100 if rules.root_bonus and uid == 0 else held


def adj_pages(oom_score_adj: int, total_pages: int | None) -> int | None:
    """What oom_score_adj adds to badness; 0 needs no total."""
    if oom_score_adj == 0:
        return 0
    return None if total_pages is None else oom_score_adj * (total_pages // ADJ_SCALE)


def badness(held: int | None, oom_score_adj: int, total_pages: int | None, rules: Rules) -> int | None:
    """None: not to be killed, or what it takes to compute it is not known."""
    added = adj_pages(oom_score_adj, total_pages)
    if held is None or added is None or oom_score_adj == OOM_SCORE_ADJ_MIN:
        return None
    return held + added if rules.least is None else max(held + added, rules.least)


def memcg_total_pages(
    limit_pages: int,
    swap_room_pages: int | None,
    swap_total_pages: int | None,
    swappiness: int | None,
) -> int | None:
    """Total of a cgroup: its limit, and what of the machine's swap it may use (mem_cgroup_get_max).

    `swap_room_pages` is memory.swap.max; on v1 memory.memsw.limit_in_bytes less the limit. With a swappiness
    of 0 swap does not count (vm.swappiness; on v1 the cgroup's own memory.swappiness). None: not known, since
    a swap that may count is not known.
    """
    if 0 in (swap_room_pages, swap_total_pages, swappiness):
        return limit_pages
    if swap_room_pages is None or swap_total_pages is None or swappiness is None:
        return None
    return limit_pages + min(swap_room_pages, swap_total_pages)


def ranked(weighed: Sequence[Candidate], rules: Rules) -> tuple[Candidate, ...]:
    """Best first, as the kernel would kill them, from the order in which it came by.

    Those without badness are last: by oom_score_adj, and where that is the same by what they hold, as the
    kernel would if only its total is not known.
    """
    met = weighed if rules.first_of_equals else tuple(reversed(weighed))
    return tuple(sorted(met, key=_place))


def _place(one: Candidate) -> tuple[bool, int, int]:
    if one.badness is None:
        return True, -one.oom_score_adj, -(one.held_pages or 0)
    return False, -one.badness, 0


def disagreement(candidates: Sequence[Candidate]) -> str | None:
    """What is wrong with the numbers, if the one that the kernel chose does not lead the ranking."""
    chosen = next((one for one in candidates if one.chosen), None)
    if chosen is None:
        return "the task that was killed is not among those that were weighed"
    first = candidates[0]
    if chosen is first or first.badness is None or any(one.adj_pages is None for one in candidates):
        return None
    its = "which was not to be killed" if chosen.badness is None else f"with {chosen.badness}"
    return (
        f"by these numbers {first.comm} (pid {first.pid}) with a badness of {first.badness} pages would have "
        f"been killed, and not {chosen.comm} (pid {chosen.pid}), {its}"
    )


def what_if(
    candidates: Sequence[Candidate], total_pages: int | None, rules: Rules = TODAY
) -> tuple[WhatIf, ...]:
    """The least changes of oom_score_adj with which the kernel would have chosen another, all else being
    equal: lower the chosen one's, or raise another's.

    `candidates` are ranked. A change decides by a page at least, not by who comes first. Nothing where the
    numbers do not explain the choice, or there was none.
    """
    able = [one for one in candidates if one.badness is not None]
    if total_pages is None or len(able) < 2 or not able[0].chosen:
        return ()
    chosen, *others = able
    lowered = WhatIf(
        chosen.pid,
        chosen.comm,
        chosen.oom_score_adj,
        _below(chosen, others[0], total_pages // ADJ_SCALE, rules),
        others[0].pid,
        others[0].comm,
    )
    raised = [
        WhatIf(one.pid, one.comm, one.oom_score_adj, above, one.pid, one.comm)
        for one in others
        if (above := _above(one, chosen, total_pages // ADJ_SCALE)) is not None
    ]
    least = min(raised, key=lambda change: change.instead - change.oom_score_adj, default=None)
    return (lowered,) if least is None else (lowered, least)


def _below(chosen: Candidate, other: Candidate, pages_per_adj: int, rules: Rules) -> int:
    """The highest oom_score_adj with which it is less bad than the other; -1000 always is."""
    held, enough = chosen.held_pages or 0, other.badness or 0
    if not pages_per_adj or enough == rules.least:
        return OOM_SCORE_ADJ_MIN
    return max((enough - held - 1) // pages_per_adj, OOM_SCORE_ADJ_MIN)


def _above(one: Candidate, chosen: Candidate, pages_per_adj: int) -> int | None:
    """The lowest oom_score_adj with which it is worse than the chosen one; None: there is none."""
    if not pages_per_adj:
        return None
    adj = ((chosen.badness or 0) - (one.held_pages or 0)) // pages_per_adj + 1
    return adj if adj <= OOM_SCORE_ADJ_MAX else None
