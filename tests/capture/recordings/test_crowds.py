"""The worst by our numbers is whom the kernel killed, in random crowds; and what is said to have led to
another choice does lead to it.

`MEMCG_TRACER_CROWDS=200 make test ARGS=tests/capture/recordings/test_crowds.py` presses that many (two a
second at most: the kernel does not report more), `MEMCG_TRACER_SEED` chooses which.
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
from tracer.analysis.results.kill import OomReport
from tracer.analysis.results.tasks import WhatIf
from tracer.kernel.cgroups.ephemeral import ephemeral_cgroup

CROWDS = int(os.environ.get("MEMCG_TRACER_CROWDS", "6"))
SEED = int(os.environ.get("MEMCG_TRACER_SEED", "1"))

pytestmark = [pytest.mark.kernel, pytest.mark.vm_once, pytest.mark.timeout(120 + 10 * CROWDS)]


@pytest.fixture
def memcg() -> Iterator[Path]:
    with ephemeral_cgroup("crowds", LIMIT_BYTES, 0) as directory:
        yield directory


@pytest.fixture(scope="module")
def reports() -> Iterator[Reports]:
    with closing(Reports()) as kernels:
        yield kernels


def test_the_worst_is_killed(memcg: Path, reports: Reports, start_recorder: Callable[..., Any]) -> None:
    random = Random(SEED)
    recorder = start_recorder("-c", str(memcg))
    pressed = sum(press_reported(memcg, random_crowd(random), reports) for _ in range(CROWDS))
    kills = tracer.open(recorder.stop()).explain()

    weighed = [kill for kill in kills if kill.candidates]
    wrong = [(kill.victims, kill.candidates[:3]) for kill in weighed if not is_explained(kill)]
    print(f"{len(weighed)} kills in {pressed} crowds, {len(wrong)} of them not of the worst (seed {SEED})")
    assert wrong == []
    assert CROWDS <= len(weighed) <= len(kills)
    assert any(kill.candidates[0].oom_score_adj > 0 for kill in weighed), "and not by size alone"
    assert any(kill.candidates[0].oom_score_adj < highest_adj(kill) for kill in weighed), "nor by adj alone"


def is_explained(kill: OomReport) -> bool:
    (victim,) = kill.victims
    worst = kill.candidates[0]
    most = max(one.badness for one in kill.candidates if one.badness is not None)
    return worst.chosen and worst.pid == victim.pid and worst.badness == most


def highest_adj(kill: OomReport) -> int:
    return max(one.oom_score_adj for one in kill.candidates)


CROWD = [Member(27 * MIB, 11), Member(13 * MIB, 293), Member(5 * MIB, 151)]
"""All differ in adj, and so can be told from each other."""
NEAR = 3 + (os.cpu_count() or 1) * 64 * 4096 * 1000 // LIMIT_BYTES
"""One of oom_score_adj is a thousandth of the limit, about 25 pages. So much differs from time to time: by
what CPUs hold in stock of the limit (MEMCG_CHARGE_BATCH), which is nobody's, and a little else."""


def test_what_would_have_led_to_another_choice(
    memcg: Path, reports: Reports, start_recorder: Callable[..., Any]
) -> None:
    def choices(*crowds: tuple[list[Member], int]) -> list[OomReport]:
        recorder = start_recorder("-c", str(memcg))
        for members, own_adj in crowds:
            press_reported(memcg, members, reports, own_adj)
        kills = [kill for kill in tracer.open(recorder.stop()).explain() if kill.candidates]
        # Where an end takes long, who presses may be killed itself before it sees that another one was.
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
