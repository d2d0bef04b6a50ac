"""The kills of all hosts together, by cause and workload, and other SIGKILLs by sender and workload."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from tracer.fleet.reduction.fleet_answer import KillCount, SigkillCount


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


@dataclass(frozen=True, slots=True)
class SigkillGroup:
    """The processes of one workload that one sender ended by SIGKILL. A sender of None is the kernel."""

    sender: str | None
    workload: str
    hosts: int
    count: int
    last: pd.Timestamp


def by_sender_and_workload(sigkills: Iterable[SigkillCount]) -> list[SigkillGroup]:
    """Return the groups, the most processes first."""
    groups: dict[tuple[str | None, str], list[SigkillCount]] = {}
    for one in sigkills:
        groups.setdefault((one.sender, one.workload), []).append(one)
    found = [
        SigkillGroup(
            sender, name, len(group), sum(one.count for one in group), max(one.last for one in group)
        )
        for (sender, name), group in groups.items()
    ]
    return sorted(found, key=lambda one: (-one.count, one.sender or "", one.workload))
