"""Turns snapshots of the recording into rows of the list: current levels, and rates since the one before."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Final

from tracer.categories import PARTS
from tracer.kernel.cgroups.containers import shown_name
from tracer.live.now import CgroupNow, Moment
from tracer.live.quantity_values import numbers_of
from tracer.live.sample_arrays import UNKNOWN
from tracer.top.live_row import AwaitedRow, LiveRow

_MOST_USAGES: Final = 30
"""The number of past usages of a cgroup that are kept for its sparkline."""


class NowRows:
    """Makes the rows of each moment, by comparing it with the moment before."""

    def __init__(self) -> None:
        self._before: Moment | None = None
        self._usages: dict[int, deque[float | None]] = {}

    def take(self, moment: Moment, elapsed_s: float) -> tuple[LiveRow, ...]:
        """Return the rows of a moment, `elapsed_s` after the last moment. Rates of new cgroups are None."""
        rows = []
        usages: dict[int, deque[float | None]] = {}
        for number, latest in zip(moment.ids, moment.latest("usage_bytes").tolist(), strict=True):
            usage = None if latest == UNKNOWN else latest
            past = self._usages.get(number) or deque(maxlen=_MOST_USAGES)
            past.append(usage)
            usages[number] = past
            names = moment.names(number)
            rows.append(
                AwaitedRow(
                    cgroup_id=number,
                    parent_id=names.parent_id,
                    path=names.path,
                    name=shown_name(names.path, names.container, names.pod),
                    usage_bytes=usage,
                    work_out=partial(_row_at, number, moment, self._before, elapsed_s, tuple(past)),
                )
            )
        self._before = moment
        self._usages = usages
        return tuple(rows)


def _row_at(
    cgroup_id: int,
    moment: Moment,
    before: Moment | None,
    elapsed_s: float,
    usages: tuple[float | None, ...],
) -> LiveRow:
    earlier = None if before is None else before.get(cgroup_id)
    return _row(moment.cgroup(cgroup_id), earlier, elapsed_s, usages)


def _row(
    now: CgroupNow, before: CgroupNow | None, elapsed_s: float, usages: tuple[float | None, ...]
) -> LiveRow:
    return LiveRow(
        cgroup_id=now.cgroup_id,
        parent_id=now.parent_id,
        path=now.path,
        name=shown_name(now.path, now.container, now.pod),
        usage_bytes=now.usage_bytes,
        numbers=numbers_of(now, before, elapsed_s),
        limit_owner=now.limit_owner,
        kills=now.kills,
        layers=_layers(now.parts),
        usages=usages,
    )


def _layers(parts: Mapping[str, int | None]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for part in PARTS:
        sums[part.layer] = sums.get(part.layer, 0) + (parts.get(part.name) or 0)
    return sums
