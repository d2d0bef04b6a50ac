"""Judges which limits of workloads are too low or too high, by the suggestion or the known least need.

Runs that were killed or held back show only a lower bound of their need. A limit below this bound is too low.
With such runs, no limit is called too high.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tracer.fleet.reduction.fleet_answer import Workload

SPARE: Final = 0.1
"""A limit is too high if it exceeds the suggestion by more than this share of the suggestion."""


def better_limit_bytes(one: Workload) -> int | None:
    """Return the suggested limit, else the least need of the runs if the limit is not above it, else None."""
    said = one.suggestion
    if said.suggested_limit_bytes is not None:
        return said.suggested_limit_bytes
    least = said.least_limit_bytes
    if least is None or least > (one.limit_bytes or 0):
        return least
    return least if least == one.limit_bytes and is_exceeded(one) else None


def is_exceeded(one: Workload) -> bool:
    """Return whether only the least need is known, and runs that were killed at this limit needed more."""
    said = one.suggestion
    return said.suggested_limit_bytes is None and said.trial_limit_bytes is not None


def is_judged(one: Workload) -> bool:
    """Return whether the workload has a limit, and a better limit to compare it with."""
    if one.limit_bytes is None or better_limit_bytes(one) is None:
        return False
    return not one.suggestion.held_back_runs or _excess_bytes(one) <= 0


def is_too_low(one: Workload) -> bool:
    """Return whether the limit is below the suggestion or the least need, or equal to a least need that
    killed runs exceeded."""
    better = better_limit_bytes(one)
    if one.limit_bytes is None or better is None:
        return False
    return one.limit_bytes < better or (one.limit_bytes == better and is_exceeded(one))


def is_too_high(one: Workload) -> bool:
    """Return whether the limit is above the suggestion by more than `SPARE`."""
    return is_judged(one) and _excess_bytes(one) > SPARE * (better_limit_bytes(one) or 0)


def is_only_least(one: Workload) -> bool:
    """Return whether only the least need of the runs is known, and no suggested limit."""
    said, better = one.suggestion, better_limit_bytes(one)
    return said.least_limit_bytes is not None and better in (None, said.least_limit_bytes)


def too_low(workloads: Iterable[Workload]) -> list[Workload]:
    """Return the workloads whose limit is too low, in the given order."""
    return list(filter(is_too_low, workloads))


def too_high(workloads: Iterable[Workload]) -> list[Workload]:
    """Return the workloads whose limit is too high, the one furthest above the suggestion first."""
    return sorted(filter(is_too_high, workloads), key=lambda one: -_excess_bytes(one))


def worst_first(workloads: Iterable[Workload]) -> tuple[list[Workload], list[Workload]]:
    """Return (workloads that need attention, other workloads).

    Workloads that need attention come in this order: the limit is too low; there were kills for other
    reasons; only the least need is known; the limit is too high, the one furthest above the suggestion first.
    Otherwise, the given order is kept.
    """
    listed = list(workloads)
    low, high = too_low(listed), too_high(listed)
    judged_wrong = {one.workload for one in (*low, *high)}
    rest = [one for one in listed if one.workload not in judged_wrong]
    killed = [one for one in rest if one.kills]
    others = [one for one in rest if not one.kills]
    held_back = list(filter(is_only_least, others))
    return [*low, *killed, *held_back, *high], [one for one in others if not is_only_least(one)]


def _excess_bytes(one: Workload) -> int:
    """Return the bytes by which the limit exceeds the better limit; 0 if one of them is not known."""
    better = better_limit_bytes(one)
    return 0 if one.limit_bytes is None or better is None else one.limit_bytes - better
