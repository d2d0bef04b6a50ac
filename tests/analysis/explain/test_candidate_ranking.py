"""The ranking of candidates, compared with the kernel's loop, and with a trial of every oom_score_adj."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.explain.victim_selection import (
    OOM_SCORE_ADJ_MAX,
    OOM_SCORE_ADJ_MIN,
    TODAY,
    Rules,
    adj_pages,
    badness,
    is_contradicted,
    ranked,
    rules_of,
    what_if,
)
from tracer.analysis.explain.words import sentence_parts
from tracer.analysis.results.kill import Candidate

TOTAL = 25600  # pages: 100 MiB, of which a thousandth is 25 whole pages


HELD = st.integers(0, 30000)


ADJ = st.integers(OOM_SCORE_ADJ_MIN, OOM_SCORE_ADJ_MAX)


def task(pid: int, held: int | None, adj: int = 0, *, total: int = TOTAL, rules: Rules = TODAY) -> Candidate:
    return Candidate(
        pid=pid,
        comm=f"task{pid}",
        badness=badness(held, adj, total, rules),
        oom_score_adj=adj,
        rss_bytes=None,
        chosen=False,
        held_pages=held,
        adj_pages=adj_pages(adj, total),
    )


def kernels_choice(tasks: list[Candidate], rules: Rules) -> Candidate | None:
    """Return the task that the loop of `oom_evaluate_task` (mm/oom_kill.c) would choose."""
    chosen = None
    for one in tasks:
        if one.badness is None or (chosen and one.badness < (chosen.badness or 0)):
            continue
        if chosen is None or one.badness != chosen.badness or not rules.first_of_equals:
            chosen = one
    return chosen


def ranked_as_killed(tasks: list[Candidate], pid: int, rules: Rules = TODAY) -> tuple[Candidate, ...]:
    """Return the tasks ranked, the one with `pid` marked as chosen."""
    return ranked([replace(one, chosen=one.pid == pid) for one in tasks], rules)


@pytest.mark.parametrize(("release", "leads"), [("5.2.21", 1), ("5.3.0", 2), (None, 2)])
def test_ranked_with_equal_badness_begins_as_the_release_does(release: str | None, leads: int) -> None:
    rules = rules_of(release)
    equals = [task(1, 700, rules=rules), task(2, 700, rules=rules), task(3, 699, rules=rules)]
    assert ranked(equals, rules)[0].pid == leads


def test_ranked_with_unkillable_tasks_puts_them_last() -> None:
    found = ranked([task(1, 9000, OOM_SCORE_ADJ_MIN), task(2, 5, -900), task(3, 6)], TODAY)
    assert [one.pid for one in found] == [3, 2, 1]


def test_ranked_without_a_total_goes_by_adj_and_held_pages() -> None:
    def unsure(pid: int, held: int, adj: int) -> Candidate:
        return replace(task(pid, held, adj), badness=None, adj_pages=None)

    met = [unsure(1, 10, 985), unsure(2, 700, 985), task(3, 5, OOM_SCORE_ADJ_MIN), unsure(4, 30, 985)]
    assert [one.pid for one in ranked(met, TODAY)] == [2, 4, 1, 3]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(-3, 3)), min_size=1), st.booleans())
def test_ranked_begins_with_the_kernels_choice(held_and_adj: list[tuple[int, int]], first: bool) -> None:
    rules = Rules(first_of_equals=first)
    tasks = [task(pid, held, adj, total=3000) for pid, (held, adj) in enumerate(held_and_adj)]
    assert ranked(tasks, rules)[0] == kernels_choice(tasks, rules)


def test_what_if_of_three_tasks_is_as_worked_out_by_hand() -> None:
    found = what_if(ranked_as_killed([task(1, 20000), task(2, 4000, 100), task(3, 900)], 1), TOTAL)
    lower, higher = found
    # 20000 + 25 * adj < 4000 + 100 * 25 from -541 on; 4000 + 25 * adj > 20000 from 641 on.
    assert (lower.pid, lower.oom_score_adj, lower.instead, lower.victim_pid) == (1, 0, -541, 2)
    assert (higher.pid, higher.oom_score_adj, higher.instead, higher.victim_pid) == (2, 100, 641, 2)


def test_what_if_with_a_much_larger_task_lowers_it_to_the_minimum() -> None:
    lower, *higher = what_if(ranked_as_killed([task(1, 90000), task(2, 4000)], 1), TOTAL)
    assert lower.instead == OOM_SCORE_ADJ_MIN
    assert higher == []


def test_what_if_without_a_choice_is_empty() -> None:
    assert what_if(ranked_as_killed([task(1, 20000)], 1), TOTAL) == (), "one task has no alternative"
    assert what_if(ranked_as_killed([task(1, 20000), task(2, 10)], 1), None) == ()
    assert what_if(ranked_as_killed([task(1, 20000), task(2, 10)], 2), TOTAL) == (), (
        "another task has a higher badness"
    )
    assert what_if(ranked_as_killed([task(1, 20000), task(2, 10, OOM_SCORE_ADJ_MIN)], 1), TOTAL) == ()


@given(
    st.lists(st.tuples(HELD, ADJ), min_size=2, max_size=5),
    st.sampled_from([TODAY, rules_of("4.19.0")]),
    st.sampled_from([500, 4000, TOTAL]),
)
def test_what_if_is_the_least_change_that_alters_the_choice(
    held_and_adj: list[tuple[int, int]], rules: Rules, total: int
) -> None:
    tasks = [task(pid, *both, total=total, rules=rules) for pid, both in enumerate(held_and_adj)]
    killed = kernels_choice(tasks, rules)
    if killed is None:
        return

    def tasks_with_adj(pid: int, adj: int) -> list[Candidate]:
        changed = task(pid, held_and_adj[pid][0], adj, total=total, rules=rules)
        return [changed if one.pid == pid else one for one in tasks]

    for change in what_if(ranked_as_killed(tasks, killed.pid, rules), total, rules):
        assert change.oom_score_adj == held_and_adj[change.pid][1]
        other = kernels_choice(tasks_with_adj(change.pid, change.instead), rules)
        assert other is not None
        assert other.pid == change.victim_pid != killed.pid
        towards = 1 if change.instead < change.oom_score_adj else -1
        nearly = {one.pid: one.badness for one in tasks_with_adj(change.pid, change.instead + towards)}
        most = max(bad for pid, bad in nearly.items() if bad is not None and pid != killed.pid)
        assert (nearly[killed.pid] or 0) >= most


def test_disagreement_with_the_ranking_names_both_tasks() -> None:
    tasks = [task(1, 20000), task(2, 10), task(3, 9000, OOM_SCORE_ADJ_MIN)]
    assert not is_contradicted(ranked_as_killed(tasks, 1))
    sentences = []
    for pid in (2, 3, 9):
        ranking = ranked_as_killed(tasks, pid)
        assert is_contradicted(ranking)
        sentences.append(sentence_parts.contradiction(ranking))
    assert sentences[0] == (
        "by these numbers task1 (pid 1) with a badness of 20000 pages would have been killed, and not "
        "task2 (pid 2), with 10"
    )
    assert sentences[1].endswith("task3 (pid 3), which cannot be killed")
    assert sentences[2] == "the task that was killed is not among those that were weighed"
