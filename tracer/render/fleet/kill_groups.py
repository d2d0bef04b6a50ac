"""The kills of all hosts together, by cause and workload."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from tracer.fleet.reduction.fleet_answer import KillCount


@dataclass(frozen=True, slots=True)
class KillGroup:
    """The kills of one workload for one cause."""

    cause: str
    workload: str
    hosts: int
    count: int
    last: pd.Timestamp


def by_cause_and_workload(kills: Iterable[KillCount]) -> list[KillGroup]:
    """Return the groups, the most kills first."""
    groups: dict[tuple[str, str], list[KillCount]] = {}
    for one in kills:
        groups.setdefault((one.cause, one.workload), []).append(one)
    found = [
        KillGroup(cause, name, len(group), sum(one.count for one in group), max(one.last for one in group))
        for (cause, name), group in groups.items()
    ]
    return sorted(found, key=lambda one: (-one.count, one.cause, one.workload))
