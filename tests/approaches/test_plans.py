"""The plans: the same for a seed, and made of steps that the process knows."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from approaches.plans import Steps, plans
from workloads.approaching import Approach


def steps_in(steps: Steps) -> Iterator[list[Any]]:
    """Yield steps, and the steps in them."""
    for step in steps:
        yield step
        for given in step[1:]:
            if isinstance(given, list):
                yield from steps_in(given)


def test_plans_of_a_seed_are_always_the_same() -> None:
    assert list(plans(1)) == list(plans(1)) != list(plans(2))
    assert len({plan.seed for plan in plans(1)}) == len({plan.name for plan in plans(1)}) >= 40


def test_each_step_is_one_of_the_process_with_its_arguments() -> None:
    for plan in plans(1):
        for name, *given in steps_in(plan.steps):
            inspect.signature(getattr(Approach, name)).bind(None, *given)


def test_no_drawn_rate_is_higher_than_asked_for() -> None:
    rates = [
        step[1] for plan in plans(1, fastest=20) for step in steps_in(plan.steps) if step[0] == "accelerate"
    ]
    assert rates and max(rates) <= 20
