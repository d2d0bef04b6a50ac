"""Random crowds: the kernel kills the process with the highest badness in the trace, and a reported
alternative changes the kernel's choice.

To run 200 crowds, at most two a second, because the kernel reports no more kills:
`MEMCG_TRACER_CROWDS=200 make test ARGS=tests/capture/recordings/kills/test_crowds.py`.
`MEMCG_TRACER_SEED` selects the crowds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from workloads.crowd import LIMIT_BYTES, MIB, Member, Reports, may_lower_adj, press_reported, random_crowd

import tracer
from tracer.analysis.results.kill import OomReport, WhatIf
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

CROWDS = int(os.environ.get("MEMCG_TRACER_CROWDS", "6"))
SEED = int(os.environ.get("MEMCG_TRACER_SEED", "1"))

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120 + 10 * CROWDS)]


@pytest.fixture
def memcg() -> Iterator[Path]:
    with ephemeral_cgroup("crowds", LIMIT_BYTES, 0) as directory:
        yield directory


@pytest.fixture(scope="module")
def reports() -> Iterator[Reports]:
    with closing(Reports()) as kernels:
        yield kernels


@pytest.mark.vm_once
def test_worst_by_badness_is_killed(
    memcg: Path, reports: Reports, start_recorder: Callable[..., Any]
) -> None:
    random = Random(SEED)
    recorder = start_recorder("-c", str(memcg))
    pressed = sum(press_reported(memcg, random_crowd(random), reports) for _ in range(CROWDS))
    kills = tracer.open(recorder.stop()).explain()

    weighed = [kill for kill in kills if kill.candidates]
    wrong = [(kill.victims, kill.candidates[:3]) for kill in weighed if not is_explained(kill)]
    print(f"{len(weighed)} kills in {pressed} crowds, {len(wrong)} of them not of the worst (seed {SEED})")
    assert wrong == []
    assert CROWDS <= len(weighed) <= len(kills)
    assert any(kill.candidates[0].oom_score_adj > 0 for kill in weighed), "badness is not size alone"
    assert any(kill.candidates[0].oom_score_adj < highest_adj(kill) for kill in weighed), (
        "badness is not adj alone"
    )


def is_explained(kill: OomReport) -> bool:
    (victim,) = kill.victims
    worst = kill.candidates[0]
    most = max(one.badness for one in kill.candidates if one.badness is not None)
    return worst.chosen and worst.pid == victim.pid and worst.badness == most


def highest_adj(kill: OomReport) -> int:
    return max(one.oom_score_adj for one in kill.candidates)


CROWD = [Member(27 * MIB, 11), Member(13 * MIB, 293), Member(5 * MIB, 151)]
"""All differ in adj, which identifies them."""
NEAR = 3 + (os.cpu_count() or 1) * 64 * 4096 * 1000 // LIMIT_BYTES
"""One point of oom_score_adj is a thousandth of the limit, about 25 pages. The sizes differ by about that
between runs: each CPU holds a stock of charges (MEMCG_CHARGE_BATCH) that belongs to no process."""


def test_other_adj_that_is_reported_to_change_the_choice_does(
    memcg: Path, reports: Reports, start_recorder: Callable[..., Any]
) -> None:
    def choices(*crowds: tuple[list[Member], int]) -> list[OomReport]:
        recorder = start_recorder("-c", str(memcg))
        for members, own_adj in crowds:
            press_reported(memcg, members, reports, own_adj)
        kills = [kill for kill in tracer.open(recorder.stop()).explain() if kill.candidates]
        # If a victim exits slowly, the growing process may be killed before it notices the first kill.
        return list({kill.trigger.pid: kill for kill in reversed(kills)}.values())[::-1]

    def with_adj(change: WhatIf, adj: int) -> tuple[list[Member], int]:
        members = [
            Member(one.size_bytes, adj if one.adj == change.oom_score_adj else one.adj) for one in CROWD
        ]
        return members, adj if change.oom_score_adj == 0 else 0

    (as_it_is,) = choices((CROWD, 0))
    lower, higher = as_it_is.what_if
    assert (as_it_is.victims[0].oom_score_adj, lower.oom_score_adj, higher.oom_score_adj) == (0, 0, 293)
    tried = [with_adj(higher, higher.instead + NEAR), with_adj(higher, higher.instead - NEAR)]
    killed = [higher.instead + NEAR, 0]
    if may_lower_adj():
        tried += [with_adj(lower, lower.instead - NEAR), with_adj(lower, lower.instead + NEAR)]
        killed += [293, lower.instead + NEAR]
    assert [kill.victims[0].oom_score_adj for kill in choices(*tried)] == killed
