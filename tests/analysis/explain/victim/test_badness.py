"""The arithmetic of mm/oom_kill.c, by numbers worked out by hand, and against trying every oom_score_adj."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.analysis.explain.victim.badness import (
    OOM_SCORE_ADJ_MAX,
    OOM_SCORE_ADJ_MIN,
    TODAY,
    Rules,
    adj_pages,
    badness,
    disagreement,
    held_pages,
    memcg_total_pages,
    ranked,
    rules_of,
    what_if,
)
from tracer.analysis.results.tasks import Candidate

TOTAL = 25600  # pages: 100 MiB, of which a thousandth is 25 whole pages


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
    """oom_evaluate_task(), task by task."""
    chosen = None
    for one in tasks:
        if one.badness is None or (chosen and one.badness < (chosen.badness or 0)):
            continue
        if chosen is None or one.badness != chosen.badness or not rules.first_of_equals:
            chosen = one
    return chosen


def test_held_and_a_share_of_total() -> None:
    assert held_pages(1000, 200, 30, uid=0, rules=TODAY) == 1230
    assert badness(1230, 0, TOTAL, TODAY) == 1230
    assert badness(1230, 500, TOTAL, TODAY) == 1230 + 500 * 25, "the quotient is cut before it is multiplied"
    assert badness(1230, -500, TOTAL, TODAY) == 1230 - 500 * 25, "and it can be negative"
    assert badness(1230, 1000, 999, TODAY) == 1230, "nothing is a thousandth of less than 1000 pages"
    assert badness(1230, OOM_SCORE_ADJ_MIN, TOTAL, TODAY) is None


def test_what_is_not_known() -> None:
    assert badness(1230, 0, None, TODAY) == 1230, "without an oom_score_adj no total is needed"
    assert badness(1230, 1, None, TODAY) is None
    assert held_pages(1000, 200, None, uid=0, rules=TODAY) is None
    assert badness(None, 0, TOTAL, TODAY) is None


@pytest.mark.parametrize(
    ("release", "held", "adj", "expected"),
    [
        ("3.10.0-1160.el7.x86_64", 1000, 0, 970),  # root's bonus
        ("4.16.7", 1000, -1, 970 - 25),
        ("4.17.0", 1000, 0, 1000),
        ("4.19.0-21-amd64", 1000, -500, 1),  # never less
        ("5.4.0-190-generic", 1000, -500, 1000 - 12500),
        ("6.18.44", 1000, -500, 1000 - 12500),
        (None, 1000, -500, 1000 - 12500),
    ],
)
def test_kernels_differ(release: str | None, held: int, adj: int, expected: int) -> None:
    rules = rules_of(release)
    assert badness(held_pages(held, 0, 0, uid=0, rules=rules), adj, TOTAL, rules) == expected


def test_the_bonus_is_for_root_alone() -> None:
    assert held_pages(1000, 0, 0, uid=1000, rules=rules_of("4.4.0")) == 1000


@pytest.mark.parametrize(("release", "leads"), [("5.2.21", 1), ("5.3.0", 2), (None, 2)])
def test_of_two_equals(release: str | None, leads: int) -> None:
    rules = rules_of(release)
    equals = [task(1, 700, rules=rules), task(2, 700, rules=rules), task(3, 699, rules=rules)]
    assert ranked(equals, rules)[0].pid == leads


def test_those_that_are_not_to_be_killed_come_last() -> None:
    found = ranked([task(1, 9000, OOM_SCORE_ADJ_MIN), task(2, 5, -900), task(3, 6)], TODAY)
    assert [one.pid for one in found] == [3, 2, 1]


def test_of_equal_adj_the_order_needs_no_total() -> None:
    def unsure(pid: int, held: int, adj: int) -> Candidate:
        return replace(task(pid, held, adj), badness=None, adj_pages=None)

    met = [unsure(1, 10, 985), unsure(2, 700, 985), task(3, 5, OOM_SCORE_ADJ_MIN), unsure(4, 30, 985)]
    assert [one.pid for one in ranked(met, TODAY)] == [2, 4, 1, 3]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(-3, 3)), min_size=1), st.booleans())
def test_the_ranking_is_led_by_the_kernels_choice(held_and_adj: list[tuple[int, int]], first: bool) -> None:
    rules = Rules(first_of_equals=first)
    tasks = [task(pid, held, adj, total=3000) for pid, (held, adj) in enumerate(held_and_adj)]
    assert ranked(tasks, rules)[0] == kernels_choice(tasks, rules)


@pytest.mark.parametrize(
    ("swap_room", "swap_total", "swappiness", "expected"),
    [
        (500, 900, 60, TOTAL + 500),
        (900, 500, 60, TOTAL + 500),
        (0, None, None, TOTAL),  # no swap is allowed, whatever there is
        (None, 0, None, TOTAL),  # there is none, whatever is allowed
        (None, None, 0, TOTAL),
        (None, 500, 60, None),
        (500, None, 60, None),
        (500, 500, None, None),
    ],
)
def test_the_total_of_a_cgroup(
    swap_room: int | None, swap_total: int | None, swappiness: int | None, expected: int | None
) -> None:
    assert memcg_total_pages(TOTAL, swap_room, swap_total, swappiness) == expected


def chosen_of(tasks: list[Candidate], pid: int, rules: Rules = TODAY) -> tuple[Candidate, ...]:
    """Ranked, when the kernel killed that one."""
    return ranked([replace(one, chosen=one.pid == pid) for one in tasks], rules)


def test_what_if_by_hand() -> None:
    found = what_if(chosen_of([task(1, 20000), task(2, 4000, 100), task(3, 900)], 1), TOTAL)
    lower, higher = found
    # 20000 + 25 * adj < 4000 + 100 * 25 from -541 on; 4000 + 25 * adj > 20000 from 641 on.
    assert (lower.pid, lower.oom_score_adj, lower.instead, lower.victim_pid) == (1, 0, -541, 2)
    assert (higher.pid, higher.oom_score_adj, higher.instead, higher.victim_pid) == (2, 100, 641, 2)


def test_what_if_only_never_helps() -> None:
    lower, *higher = what_if(chosen_of([task(1, 90000), task(2, 4000)], 1), TOTAL)
    assert lower.instead == OOM_SCORE_ADJ_MIN
    assert higher == []


def test_no_what_if() -> None:
    assert what_if(chosen_of([task(1, 20000)], 1), TOTAL) == (), "there was nobody else"
    assert what_if(chosen_of([task(1, 20000), task(2, 10)], 1), None) == ()
    assert what_if(chosen_of([task(1, 20000), task(2, 10)], 2), TOTAL) == (), "the choice is not explained"
    assert what_if(chosen_of([task(1, 20000), task(2, 10, OOM_SCORE_ADJ_MIN)], 1), TOTAL) == ()


HELD = st.integers(0, 30000)
ADJ = st.integers(OOM_SCORE_ADJ_MIN, OOM_SCORE_ADJ_MAX)


@given(
    st.lists(st.tuples(HELD, ADJ), min_size=2, max_size=5),
    st.sampled_from([TODAY, rules_of("4.19.0")]),
    st.sampled_from([500, 4000, TOTAL]),
)
def test_what_if_is_the_least_that_does_it(
    held_and_adj: list[tuple[int, int]], rules: Rules, total: int
) -> None:
    tasks = [task(pid, *both, total=total, rules=rules) for pid, both in enumerate(held_and_adj)]
    killed = kernels_choice(tasks, rules)
    if killed is None:
        return

    def had(pid: int, adj: int) -> list[Candidate]:
        changed = task(pid, held_and_adj[pid][0], adj, total=total, rules=rules)
        return [changed if one.pid == pid else one for one in tasks]

    for change in what_if(chosen_of(tasks, killed.pid, rules), total, rules):
        assert change.oom_score_adj == held_and_adj[change.pid][1]
        other = kernels_choice(had(change.pid, change.instead), rules)
        assert other is not None
        assert other.pid == change.victim_pid != killed.pid
        towards = 1 if change.instead < change.oom_score_adj else -1
        nearly = {one.pid: one.badness for one in had(change.pid, change.instead + towards)}
        most = max(bad for pid, bad in nearly.items() if bad is not None and pid != killed.pid)
        assert (nearly[killed.pid] or 0) >= most


def test_disagreement() -> None:
    tasks = [task(1, 20000), task(2, 10), task(3, 9000, OOM_SCORE_ADJ_MIN)]
    assert disagreement(chosen_of(tasks, 1)) is None
    assert disagreement(chosen_of(tasks, 2)) == (
        "by these numbers task1 (pid 1) with a badness of 20000 pages would have been killed, and not "
        "task2 (pid 2), with 10"
    )
    assert (disagreement(chosen_of(tasks, 3)) or "").endswith("task3 (pid 3), which was not to be killed")
    assert (
        disagreement(chosen_of(tasks, 9)) == "the task that was killed is not among those that were weighed"
    )
