"""The badness of a task, as mm/oom_kill.c (`oom_badness`) computes it: the OOM killer kills the highest.

**Held** is what a task has, in pages: RSS, swap and page tables. **Total** is the memory that is short, in
pages (`badness_total`). **Badness** is held + oom_score_adj * (total / 1000), the quotient in whole pages.
A task **cannot be killed** if its oom_score_adj is -1000, if it is init or a kernel thread, if it has no
memory, during vfork, and once it was reaped.

Kernels differ in details: `Rules`. They differ also in how exact held is: "mm: fix OOM killer inaccuracy on
large many-core systems" (2026) sums up the counters of all CPUs; before it, a CPU's share that is not yet
handed over is left out. Both the choice and the table that the kernel prints use the same sum.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

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
