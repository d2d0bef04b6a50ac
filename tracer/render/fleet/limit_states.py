"""Which limits of workloads are too low and which are too high, by the suggestion or the least that is known.

Runs that were killed or held back show only the least of their need. So a limit below that is too low, and
none is called too high beside such runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tracer.fleet.reduction.fleet_answer import Workload

SPARE: Final = 0.1
"""How far a limit may be above the suggestion, as a share of it, without being too high."""


def better_limit_bytes(one: Workload) -> int | None:
    """Return the suggested limit, else the least that its runs need if the limit is not above it, else
    None."""
    said = one.suggestion
    if said.suggested_limit_bytes is not None:
        return said.suggested_limit_bytes
    least = said.least_limit_bytes
    if least is None or least > (one.limit_bytes or 0):
        return least
    return least if least == one.limit_bytes and is_exceeded(one) else None


def is_exceeded(one: Workload) -> bool:
    """Return whether only the least need is known, and runs needed more: they were killed at that limit."""
    said = one.suggestion
    return said.suggested_limit_bytes is None and said.trial_limit_bytes is not None


def is_judged(one: Workload) -> bool:
    """Return whether there is a limit, and another to compare it with."""
    if one.limit_bytes is None or better_limit_bytes(one) is None:
        return False
    return not one.suggestion.held_back_runs or _excess_bytes(one) <= 0


def is_too_low(one: Workload) -> bool:
    """Return whether the limit is below the suggestion, or below the least need or equal to one that killed
    runs exceeded."""
    better = better_limit_bytes(one)
    if one.limit_bytes is None or better is None:
        return False
    return one.limit_bytes < better or (one.limit_bytes == better and is_exceeded(one))


def is_too_high(one: Workload) -> bool:
    """Return whether the limit is above the suggestion by more than `SPARE`."""
    return is_judged(one) and _excess_bytes(one) > SPARE * (better_limit_bytes(one) or 0)


def is_only_least(one: Workload) -> bool:
    """Return whether nothing but the least that the runs need is known of a better limit."""
    said, better = one.suggestion, better_limit_bytes(one)
    return said.least_limit_bytes is not None and better in (None, said.least_limit_bytes)


def too_low(workloads: Iterable[Workload]) -> list[Workload]:
    """Return the workloads whose limit is too low, in the order given."""
    return list(filter(is_too_low, workloads))


def too_high(workloads: Iterable[Workload]) -> list[Workload]:
    """Return the workloads whose limit is too high, those furthest above the suggestion first."""
    return sorted(filter(is_too_high, workloads), key=lambda one: -_excess_bytes(one))


def worst_first(workloads: Iterable[Workload]) -> tuple[list[Workload], list[Workload]]:
    """Return the workloads that ask for a look and the others.

    The first are those with too low a limit, those that were killed for other reasons, those of which only
    the least need is known, and those with too high a limit, furthest above the suggestion first. Otherwise
    they stay in the order given.
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
    """Return by how much the limit is above the better one; 0 if that is not known."""
    better = better_limit_bytes(one)
    return 0 if one.limit_bytes is None or better is None else one.limit_bytes - better
