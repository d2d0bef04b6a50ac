"""The ranking of a kill's candidates by badness, and the changes of oom_score_adj that would alter it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tracer.analysis.explain.victim.badness import (
    ADJ_SCALE,
    OOM_SCORE_ADJ_MAX,
    OOM_SCORE_ADJ_MIN,
    TODAY,
    Rules,
)
from tracer.analysis.results.tasks import Candidate, WhatIf


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


def disagreement(candidates: Sequence[Candidate]) -> str | None:
    """Return a sentence on the difference if the chosen candidate does not lead the ranking; else None."""
    chosen = next((one for one in candidates if one.chosen), None)
    if chosen is None:
        return "the task that was killed is not among those that were weighed"
    first = candidates[0]
    if chosen is first or first.badness is None or any(one.adj_pages is None for one in candidates):
        return None
    if replace(first, pid=chosen.pid, comm=chosen.comm, cmdline=chosen.cmdline, chosen=True) == chosen:
        return None  # one address space: the kernel passes over a child of vfork (in_vfork in oom_badness)
    its = "which cannot be killed" if chosen.badness is None else f"with {chosen.badness}"
    return (
        f"by these numbers {first.comm} (pid {first.pid}) with a badness of {first.badness} pages would have "
        f"been killed, and not {chosen.comm} (pid {chosen.pid}), {its}"
    )


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
